"""Commands on a NATS server with TLS, certificates on both sides and a login: all of it from the settings."""

import ipaddress
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.brokers.broker import Broker
from tests.brokers.nats import wheel
from tests.support.patience import PATIENCE
from watchword_adapters.cli import main


def certificate(directory: Path) -> None:
    """Write a certificate of this machine, which signed itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    for extension in (address, x509.BasicConstraints(ca=True, path_length=None)):
        builder = builder.add_extension(extension, critical=False)
    pem = serialization.Encoding.PEM
    (directory / "a.crt").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    (directory / "a.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """Give such a server, in whose directory an agent was made."""
    for name in [name for name in os.environ if name.upper().startswith("WATCHWORD_") and "TEST" not in name]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    assert main(["init", "-r", "prod", "-p", "agent://acme/planner"]) == 0
    certificate(tmp_path)
    path = tmp_path / "server.conf"
    files = f'cert_file: "{tmp_path}/a.crt", key_file: "{tmp_path}/a.key", ca_file: "{tmp_path}/a.crt"'
    path.write_text(f"tls {{ {files}, verify: true }}\nauthorization {{ user: u, password: hunter2 }}\n")
    broker = wheel(tmp_path, "-c", str(path))
    yield broker
    broker.stop()


TLS = '[nats.tls]\nca = "a.crt"\ncert = "a.crt"\nkey = "a.key"\n'


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        (TLS, 141, ""),
        (TLS.replace('ca = "a.crt"\n', ""), 3, "broker unavailable: SSLCertVerificationError"),
        (TLS.replace('cert = "a.crt"\nkey = "a.key"\n', ""), 3, "broker unavailable: "),
        ("", 3, "broker unavailable: "),
    ],
)
def test_tls_and_login_of_the_settings_are_used(server: Broker, more: str, code: int, told: str) -> None:
    """With all of it the command reads; without whom to trust, or without its own certificate, it does not."""
    settings = Path("watchword.toml")
    login = f'[nats]\nservers = ["{server.address}"]\nuser = "u"\n'
    settings.write_text(settings.read_text() + login + more)
    read, write = os.pipe()
    if code == 141:  # nobody reads, so it ends as soon as it has begun
        os.close(read)
    ended = subprocess.run(
        [sys.executable, "-m", "watchword_adapters.cli", "tail", "nats://prod/tasks"],
        env={**os.environ, "WATCHWORD_NATS__PASSWORD": "hunter2"},
        stdout=write, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    os.close(write)
    if code != 141:
        os.close(read)
    assert ended.returncode == code
    assert told in ended.stderr
    assert ("reading nats://prod/tasks" in ended.stderr) is (code == 141)
    assert "hunter2" not in ended.stderr
