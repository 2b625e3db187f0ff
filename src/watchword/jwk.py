"""Public keys as a JWK Set (RFC 7517): strict reading and plain writing."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from watchword.errors import ConfigurationError
from watchword.keys import VerificationKey, base64url, public_members, thumbprint_id
from watchword.wire_json import members_from_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from watchword.keys import PublicKey

MAX_SET_BYTES: Final = 4 * 1024 * 1024
MAX_SET_KEYS: Final = 20_000
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})  # RFC 7518 section 6
_TIME_LIMIT: Final = 1 << 33


def to_jwk(key: VerificationKey) -> dict[str, object]:
    """Return a key as a JWK with ``kid`` and ``principal``, and its validity where it has one."""
    times = {"nbf": key.not_before, "exp": key.not_after, "revoked": key.revoked_at}
    return {
        **public_members(key.public),
        "kid": key.key_id.decode(),
        "principal": key.principal,
        "use": "sig",
        **{name: value for name, value in times.items() if value is not None},
    }


def to_jwks(keys: Iterable[VerificationKey]) -> str:
    """Return keys as the text of a JWK Set."""
    return json.dumps({"keys": [to_jwk(key) for key in keys]}, indent=2) + "\n"


def parse_jwks(data: bytes) -> list[VerificationKey]:
    """Read a JWK Set; ConfigurationError names the first key at fault and what to write instead."""
    if len(data) > MAX_SET_BYTES:
        raise ConfigurationError(f"key set of {len(data)} bytes: at most {MAX_SET_BYTES}")
    try:
        entries = members_from_json(data).get("keys")
    except ValueError:
        raise ConfigurationError('not JSON, or no object, or a name twice: write a JWK Set, {"keys": [...]}') from None
    if not isinstance(entries, list):
        raise ConfigurationError('no list "keys": write a JWK Set, {"keys": [...]}')
    if len(entries) > MAX_SET_KEYS:
        raise ConfigurationError(f"key set of {len(entries)} keys: at most {MAX_SET_KEYS}")
    return [parse_jwk(entry, f"key {number}") for number, entry in enumerate(entries, 1)]


def parse_jwk(entry: object, where: str) -> VerificationKey:
    """Make a key of the members of a JWK; ConfigurationError begins with ``where``."""
    if not isinstance(entry, dict):
        raise ConfigurationError(f"{where}: not an object")
    if _PRIVATE & entry.keys():
        raise ConfigurationError(
            f"{where}: private key material in a public set; publish the public half, replace the key"
        )
    principal = entry.get("principal")
    if not isinstance(principal, str):
        raise ConfigurationError(f'{where}: no "principal"; name the agent that owns the key')
    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not (isinstance(operations, list) and "verify" in operations):
        raise ConfigurationError(f'{where}: not for signatures; set "use": "sig"')
    kid = entry.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise ConfigurationError(f'{where}: "kid" is not text')
    try:
        public = _public(entry)
        return VerificationKey.from_public_key(
            public,
            principal=principal,
            key_id=thumbprint_id(public) if kid is None else kid.encode(),
            not_before=_time(entry, "nbf"),
            not_after=_time(entry, "exp"),
            revoked_at=_time(entry, "revoked"),
        )
    except UnicodeEncodeError:
        raise ConfigurationError(f"{where}: text that is not Unicode") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _public(entry: Mapping[str, object]) -> PublicKey:
    match entry.get("kty"), entry.get("crv"), entry.get("alg"):
        case "OKP", "Ed25519", None | "Ed25519" | "EdDSA":
            return ed25519.Ed25519PublicKey.from_public_bytes(_raw(entry, "x"))
        case "EC", "P-256", None | "ES256" | "ESP256":
            point = b"\x04" + _raw(entry, "x") + _raw(entry, "y")
            try:
                return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
            except ValueError:
                raise ConfigurationError("x and y are no point of P-256") from None
        case _:
            raise ConfigurationError('use "kty": "OKP", "crv": "Ed25519", or "kty": "EC", "crv": "P-256"')


def _raw(entry: Mapping[str, object], name: str) -> bytes:
    text = entry.get(name)
    try:
        raw = base64.urlsafe_b64decode(f"{text}=") if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        raw = b""
    if base64url(raw) != text or len(raw) != 32:  # noqa: PLR2004 - both curves have 32-byte coordinates
        raise ConfigurationError(f'"{name}" is not 32 bytes of base64url')
    return raw


def _time(entry: Mapping[str, object], name: str) -> int | None:
    value = entry.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _TIME_LIMIT:
        raise ConfigurationError(f'"{name}" is not a time in whole seconds')
    return value
