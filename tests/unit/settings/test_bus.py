"""``[nats]`` and ``[kafka]``: how commands connect."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from watchword import ConfigurationError
from watchword.mistakes import explain
from watchword.settings import KafkaSettings, NatsSettings, Settings
from watchword_adapters.bus_options import kafka_options, nats_options


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a directory with a certificate that signed itself, its key, the key encrypted, and credentials."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "planner")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    (tmp_path / "a.crt").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    for file, encryption in (
        ("a.key", serialization.NoEncryption()),
        ("locked.key", serialization.BestAvailableEncryption(b"x")),
    ):
        (tmp_path / file).write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
    (tmp_path / "a.creds").write_text("-----BEGIN NATS USER JWT-----")
    return tmp_path


def settings(**tables: Any) -> Settings:
    """Return settings with these tables."""
    return Settings.model_validate({"realm": "prod", **tables})


def test_without_more_a_connection_is_plain(tmp_path: Path) -> None:
    """The default is the broker of this machine."""
    assert nats_options(NatsSettings(), tmp_path) == {"servers": ["nats://localhost:4222"]}
    assert kafka_options(KafkaSettings(), tmp_path) == {
        "bootstrap_servers": ["localhost:9092"],
        "security_protocol": "PLAINTEXT",
    }


def test_tls_and_login_reach_the_clients(files: Path) -> None:
    """What is written is what nats-py and aiokafka connect with; paths start from the settings file."""
    tls = {"ca": "a.crt", "cert": "a.crt", "key": "a.key"}
    chosen = settings(
        nats={"servers": ["tls://nats:4222"], "tls": tls, "credentials": "a.creds", "inbox_prefix": "_INBOX.ops"},
        kafka={"servers": ["k:9093"], "tls": tls, "mechanism": "PLAIN", "user": "u", "password": "hunter2"},
    )
    assert chosen.nats is not None
    nats = nats_options(chosen.nats, files)
    assert nats["user_credentials"] == str(files / "a.creds")
    assert nats["inbox_prefix"] == "_INBOX.ops"
    assert isinstance(nats["tls"], ssl.SSLContext)
    assert nats["tls"].check_hostname
    assert nats["tls"].cert_store_stats()["x509"] == 1
    assert chosen.kafka is not None
    kafka = kafka_options(chosen.kafka, files)
    assert isinstance(kafka.pop("ssl_context"), ssl.SSLContext)
    assert kafka == {
        "bootstrap_servers": ["k:9093"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "u",
        "sasl_plain_password": "hunter2",
    }


@pytest.mark.parametrize(
    ("table", "options"),
    [
        ({"user": "u", "password": "hunter2"}, {"user": "u", "password": "hunter2"}),
        ({"token": "hunter2"}, {"token": "hunter2"}),
    ],
)
def test_secrets_are_shown_to_nobody_else(tmp_path: Path, table: dict[str, Any], options: dict[str, Any]) -> None:
    """A password reaches the client, and neither a repr nor an error."""
    chosen = settings(nats=table)
    assert chosen.nats is not None
    assert nats_options(chosen.nats, tmp_path) == {"servers": ["nats://localhost:4222"], **options}
    assert "hunter2" not in f"{chosen!r} {chosen}"
    with pytest.raises(ValidationError) as caught:
        settings(nats={**table, "credentials": "a.creds"})
    assert "hunter2" not in explain(caught.value, Settings)
    assert "write one login: credentials, or user and password, or token" in explain(caught.value, Settings)


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        ({"nats": {"user": "u"}}, "nats: a login needs both user and password: write the missing one too"),
        ({"kafka": {"user": "u", "password": "p"}}, "kafka: a login needs mechanism, user and password"),
        ({"kafka": {"tls": {"cert": "a"}}}, "kafka.tls: a certificate goes with its key"),
        ({"nats": {"servers": []}}, "nats.servers: write the addresses"),
        ({"nats": {"servers": "nats://a"}}, "nats.servers: write a list"),
        ({"kafka": {"servers": ["a b"]}}, "kafka.servers: write the addresses"),
        *(
            ({bus: {"servers": [one]}}, f"{bus}.servers: write the addresses of one or more servers, as ")
            for bus in ("nats", "kafka")
            for one in ("", "a:b", "a:99999", "a:0", "a:1:2", ":1", "http://a:1", "[::1", "::1", "a/b", "größe:1")
        ),
        (
            {"kafka": {"servers": ["nats://a:1"]}},
            'kafka.servers: write the addresses of one or more servers, as ["local',
        ),
        ({"nats": {"servers": ["nats://u:hunter2@a"]}}, "nats.servers: write no login into an address"),
        ({"nats": {"pasword": "hunter2"}}, 'nats.pasword: unknown; did you mean "password"?'),
    ],
)
def test_mistakes_are_told(tables: dict[str, Any], complaint: str) -> None:
    """What does not fit together is one line that says what to write, and shows no secret."""
    with pytest.raises(ValidationError) as caught:
        settings(**tables)
    line = explain(caught.value, Settings)
    assert line.startswith(complaint)
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("nats", "complaint"),
    [
        ({"tls": {"ca": "none.crt"}}, "nats.tls: ca: No such file or directory"),
        ({"tls": {"ca": "a.key"}}, "nats.tls: ca: not in PEM, or not a pair"),
        ({"tls": {"cert": "a.crt", "key": "locked.key"}}, "nats.tls: cert and key: not in PEM, or not a pair"),
        ({"tls": {"ca": "a\0b"}}, "nats.tls: ca: "),
        ({"credentials": "none.creds"}, "none.creds is not a file"),
    ],
)
def test_files_that_do_not_fit_are_told(files: Path, nats: dict[str, Any], complaint: str) -> None:
    """A file that is missing, of another kind or locked is one line; nobody is asked for a passphrase."""
    chosen = settings(nats=nats).nats
    assert chosen is not None
    with pytest.raises(ConfigurationError) as caught:
        nats_options(chosen, files)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    "server", ["a", "a:1", "nats://a", "tls://a-b.c:4222", "nats://10.0.0.1:1/", "[::1]:4222", "ws://a:1"]
)
def test_what_nats_may_be_reached_by(server: str) -> None:
    """With a scheme of its or without, by name or number, with a port or the usual one."""
    assert NatsSettings(servers=[server]).servers == [server]
