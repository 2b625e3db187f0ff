"""Parses NATS JWTs, version 2: an operator's statements on accounts, and an account's on users (nats-io/jwt)."""

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
"""An account's JWT lists all its revocations."""

MAX_NAME: Final = 255
EVERYBODY: Final = "*"
"""Means all users of an account in its revocations."""

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
    """A statement that an issuer has signed on a subject, both public NKeys; times are in seconds, None for no bound.

    ``kind`` is ``operator``, ``account`` or ``user``. ``account`` is the user's account. ``signing_keys`` may sign as
    well as the subject, or instead of it if ``strict``. ``revocations`` maps users to the times up to which JWTs issued
    for them are revoked.
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
        """Return the time up to which an account has revoked a user's JWTs; None if it has not."""
        found = [self.revocations[name] for name in (user, EVERYBODY) if name in self.revocations]
        return max(found, default=None)


def parse_token(text: str) -> Token:
    """Parse a JWT and verify its issuer's signature; ConfigurationError says what is wrong with it.

    It does not check whether the issuer may make the statement.
    """
    parts = text.split(".")
    if len(text) > MAX_TOKEN_BYTES or len(parts) != 3 or not all(map(_PART.fullmatch, parts)):  # noqa: PLR2004 - RFC 7519
        raise ConfigurationError("not a NATS JWT: it has three parts of base64url, as 'nsc' writes them")
    header, claims = (_members(part) for part in parts[:2])
    if header.get("alg") == "ed25519":
        raise ConfigurationError("a JWT of version 1: let nsc reissue it")
    if (header.get("alg"), str(header.get("typ")).upper()) != ("ed25519-nkey", "JWT"):
        raise ConfigurationError('not a NATS JWT: "alg" is not "ed25519-nkey"')
    about = claims.get("nats")
    kind = about.get("type") if isinstance(about, dict) else None
    if not isinstance(about, dict) or not isinstance(kind, str) or kind not in _SUBJECTS:
        raise ConfigurationError(f"a JWT of type {str(kind)[:32]!r}: use those of users, accounts and operators")
    if about.get("version") != 2:  # noqa: PLR2004 - the only one
        raise ConfigurationError("a JWT of a version other than 2")
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
        raise ConfigurationError("not a NATS JWT: a part is not a JSON object, or has a duplicate name") from None


def _bytes(part: str) -> bytes:
    try:
        return from_base64url(part)
    except ValueError:
        raise ConfigurationError("not a NATS JWT: a part is not base64url") from None


def _text(members: Mapping[str, object], name: str, *, default: str | None = None) -> str:
    value = members.get(name, default)
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise ConfigurationError(f'a JWT without "{name}", or with an invalid one')
    return value


def _time(members: Mapping[str, object], name: str) -> int | None:
    """Return a time in seconds; None if absent, which the reference implementation also writes as zero."""
    value = members.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _TIME_LIMIT:
        raise ConfigurationError(f'a JWT whose "{name}" is not a time in whole seconds')
    return value or None


def _signing_keys(about: Mapping[str, object], kind: Kind) -> frozenset[str]:
    """Return the signing keys; an entry may be an object with further permissions."""
    entries = about.get("signing_keys") or []
    keys = [one.get("key") if isinstance(one, dict) else one for one in entries] if isinstance(entries, list) else [0]
    for key in keys:
        if not isinstance(key, str):
            raise ConfigurationError('a JWT whose "signing_keys" are not a list of NKeys')
        decode_public(key, kind)
    return frozenset(key for key in keys if isinstance(key, str))


def _revocations(about: Mapping[str, object]) -> dict[str, int]:
    entries = about.get("revocations") or {}
    if not isinstance(entries, dict):
        raise ConfigurationError('a JWT whose "revocations" are not an object')
    return {name: _time(entries, name) or 0 for name in entries}
