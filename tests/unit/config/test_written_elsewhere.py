"""Files as editors of other systems save them, and variables as orchestrators set them."""

import codecs
import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from watchword import Algorithm, ConfigurationError, SigningKey
from watchword.jwk import to_jwk, to_jwks
from watchword.settings import Settings
from watchword_adapters.config import load
from watchword_adapters.keys.public_files import parse_public
from watchword_adapters.settings_file import SERVICE_VARIABLE, read_settings

PLANNER = "agent://acme/planner"
MARK = codecs.BOM_UTF8


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("WATCHWORD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return settings, key and key set, each of which begins with a byte-order mark."""
    key = SigningKey.generate(Algorithm.ED25519)
    private = tmp_path / "planner.pem"
    private.write_bytes(MARK + key.to_pem())
    private.chmod(0o600)
    (tmp_path / "agents.jwks").write_bytes(MARK + to_jwks([key.verification_key(PLANNER)]).encode())
    path = tmp_path / "watchword.toml"
    text = f'realm = "prod"\nprincipal = "{PLANNER}"\n[signer]\nkey = "planner.pem"\n'
    path.write_bytes(MARK + f'{text}[[keys]]\nsource = "files"\npaths = ["agents.jwks"]\n'.encode())
    return path


def test_a_mark_at_the_head_of_settings_and_keys_is_no_mistake(path: Path) -> None:
    """What Windows' editors put before a text does not stop the start."""
    agent = load(path)
    assert (agent.realm, agent.signer.principal) == ("prod", PLANNER)
    agent.reload()


def test_a_mark_before_a_single_key() -> None:
    """A JWK of its own and a PEM with its owner's name are read, too; elsewhere in a file the mark is a mistake."""
    key = SigningKey.generate()
    owned = key.verification_key(PLANNER)
    assert parse_public(MARK + json.dumps(to_jwk(owned)).encode()) == [owned]
    pem = key.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert parse_public(MARK + f"Principal: {PLANNER}\n".encode() + pem) == [owned]
    with pytest.raises(ConfigurationError):
        parse_public(MARK + MARK + json.dumps(to_jwk(owned)).encode())


SERVICES = (
    "QUARANTINE",
    "KEYS",
    "REALM",
    "PRINCIPAL",
    "SIGNER",
    "POLICY",
    "NATS",
    "POLICY__MAX_AGE",
    "A__B",
    "KEYS__0",
)


@pytest.mark.parametrize("service", SERVICES)
def test_service_variables_of_kubernetes_are_left_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    """A service that is named watchword-quarantine, or after any other setting, does not stop the start."""
    for name, value in (
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_PORT", "80"),
        ("SERVICE_PORT_HTTP_METRICS", "80"),
        ("PORT", "tcp://10.0.0.1:80"),
        ("PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("PORT_80_TCP_PROTO", "tcp"),
        ("PORT_80_TCP_PORT", "80"),
        ("PORT_80_TCP_ADDR", "10.0.0.1"),
        ("PORT_4222_UDP", "udp://[fd00::1]:4222"),
    ):
        monkeypatch.setenv(f"WATCHWORD_{service}_{name}", value)
    assert read_settings(path).realm == "prod"


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("WATCHWORD_REALMS", "prod", "did you mean WATCHWORD_REALM?"),
        ("WATCHWORD_QUARANTIN__KAFKA", "copies", "no such table"),
        ("WATCHWORD_QUARANTINE_KAFKA", "copies", "did you mean WATCHWORD_QUARANTINE__KAFKA?"),
        ("WATCHWORD_QUARANTINE_PORT", "copies", "did you mean WATCHWORD_QUARANTINE?"),
        ("WATCHWORD_POLICY_MAX_AGE", "1m", "did you mean WATCHWORD_POLICY__MAX_AGE?"),
        ("WATCHWORD_POLICY__MAX_AGE_PORT", "1m", "unknown"),
    ],
)
def test_a_slip_still_stops_the_start(
    path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, complaint: str
) -> None:
    """What only looks like a setting, and is no service's, may have been meant as a protection."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as caught:
        read_settings(path)
    assert complaint in str(caught.value)
    assert variable in str(caught.value)


def test_no_setting_is_named_like_a_services_variable() -> None:
    """None is passed over for its name."""
    names: list[str] = []
    models: list[tuple[str, Any]] = [("", Settings)]
    for prefix, model in models:
        for name, field in model.model_fields.items():
            names.append(f"{prefix}{name}".upper())
            inside = getattr(field.annotation, "__args__", (field.annotation,))
            models += [(f"{prefix}{name}__", one) for one in inside if hasattr(one, "model_fields")]
    assert "NATS__PASSWORD" in names
    assert "POLICY__MAX_AGE" in names
    assert not [name for name in names if SERVICE_VARIABLE.search(f"WATCHWORD_{name}")]
