"""NATS JWTs, version 2: what an operator says of accounts, and an account of its users (github.com/nats-io/jwt)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from watchword import ConfigurationError
from watchword.strict import from_base64url, json_object
from watchword_adapters.nkeys.encoding import Kind, decode_public

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TOKEN_BYTES: Final = 1 << 20
"""An account's token names all that it has revoked."""

MAX_NAME: Final = 255
EVERYBODY: Final = "*"
"""Stands among the revocations of an account for all its users."""

_SUBJECTS: Final = {"operator": Kind.OPERATOR, "account": Kind.ACCOUNT, "user": Kind.USER}
_ISSUERS: Final = {
    "operator": (Kind.OPERATOR,),
    "account": (Kind.OPERATOR, Kind.ACCOUNT),
    "user": (Kind.ACCOUNT,),
}
_TIME_LIMIT: Final = 1 << 33
_PART: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What an issuer has signed of a subject, both public NKeys; times are in seconds, None where there is no bound.

    ``kind`` is ``operator``, ``account`` or ``user``. ``account`` is whose user it is. ``signing_keys`` may sign beside
    the subject, and where ``strict`` only they may. ``revocations`` are, by user, the times up to which what was issued
    for it is revoked.
    """

    kind: str
    subject: str
    issuer: str
    name: str
    issued_at: int
    not_before: int | None = None
    expires_at: int | None = None
    account: str = ""
    signing_keys: frozenset[str] = frozenset()
    strict: bool = False
    revocations: Mapping[str, int] = field(default_factory=dict)

    def revoked_up_to(self, user: str) -> int | None:
        """Return the time up to which an account has revoked what was issued for a user; None where it has not."""
        found = [self.revocations[name] for name in (user, EVERYBODY) if name in self.revocations]
        return max(found, default=None)


def parse_token(text: str) -> Token:
    """Read a token, of which the signature is its issuer's; ConfigurationError says what is wrong with it.

    Whether the issuer may say that is not looked at here.
    """
    parts = text.split(".")
    if len(text) > MAX_TOKEN_BYTES or len(parts) != 3 or not all(map(_PART.fullmatch, parts)):  # noqa: PLR2004 - RFC 7519
        raise ConfigurationError("not a JWT of NATS: three parts of base64url, as 'nsc' writes them")
    header, claims = (_members(part) for part in parts[:2])
    if header.get("alg") == "ed25519":
        raise ConfigurationError("a JWT of version 1: let nsc issue it anew")
    if (header.get("alg"), str(header.get("typ")).upper()) != ("ed25519-nkey", "JWT"):
        raise ConfigurationError('not a JWT of NATS: "alg" is not "ed25519-nkey"')
    about = claims.get("nats")
    kind = about.get("type") if isinstance(about, dict) else None
    if not isinstance(about, dict) or not isinstance(kind, str) or kind not in _SUBJECTS:
        raise ConfigurationError(f"a JWT of type {str(kind)[:32]!r}: give those of users, accounts and operators")
    if about.get("version") != 2:  # noqa: PLR2004 - the one that there is
        raise ConfigurationError("a JWT of another version than 2")
    issuer, subject = _text(claims, "iss"), _text(claims, "sub")
    decode_public(subject, _SUBJECTS[kind])
    key = Ed25519PublicKey.from_public_bytes(decode_public(issuer, *_ISSUERS[kind]))
    try:
        key.verify(_bytes(parts[2]), f"{parts[0]}.{parts[1]}".encode())
    except InvalidSignature:
        raise ConfigurationError(f"the signature is not that of its issuer {issuer}") from None
    return Token(
        kind=kind,
        subject=subject,
        issuer=issuer,
        name=_text(claims, "name", default=subject),
        issued_at=_time(claims, "iat") or 0,
        not_before=_time(claims, "nbf"),
        expires_at=_time(claims, "exp"),
        account=(_text(about, "issuer_account", default="") or issuer) if kind == "user" else "",
        signing_keys=_signing_keys(about, _SUBJECTS[kind]),
        strict=about.get("strict_signing_key_usage", False) is not False,
        revocations=_revocations(about),
    )


def _members(part: str) -> dict[str, object]:
    try:
        return json_object(_bytes(part))
    except ValueError:
        raise ConfigurationError("not a JWT of NATS: a part is not a JSON object, or has a name twice") from None


def _bytes(part: str) -> bytes:
    try:
        return from_base64url(part)
    except ValueError:
        raise ConfigurationError("not a JWT of NATS: a part is not base64url") from None


def _text(members: Mapping[str, object], name: str, *, default: str | None = None) -> str:
    value = members.get(name, default)
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise ConfigurationError(f'a JWT without "{name}", or with a wrong one')
    return value


def _time(members: Mapping[str, object], name: str) -> int | None:
    """Return a time in seconds; None where there is none: zero is how the reference implementation leaves one out."""
    value = members.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _TIME_LIMIT:
        raise ConfigurationError(f'a JWT whose "{name}" is not a time in whole seconds')
    return value or None


def _signing_keys(about: Mapping[str, object], kind: Kind) -> frozenset[str]:
    """Return the signing keys; one may stand in an object, beside what it lets users do."""
    entries = about.get("signing_keys") or []
    keys = [one.get("key") if isinstance(one, dict) else one for one in entries] if isinstance(entries, list) else [0]
    for key in keys:
        if not isinstance(key, str):
            raise ConfigurationError('a JWT whose "signing_keys" are no list of NKeys')
        decode_public(key, kind)
    return frozenset(key for key in keys if isinstance(key, str))


def _revocations(about: Mapping[str, object]) -> dict[str, int]:
    entries = about.get("revocations") or {}
    if not isinstance(entries, dict):
        raise ConfigurationError('a JWT whose "revocations" are no object')
    return {name: _time(entries, name) or 0 for name in entries}
