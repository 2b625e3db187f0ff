"""Reads public keys strictly from a JWK Set (RFC 7517), and writes them as one.

Takes and returns bytes, text and ``VerificationKey`` objects; it neither fetches a set nor opens a file.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from watchword.algorithms import SCHEMES
from watchword.errors import ConfigurationError
from watchword.keys import VerificationKey, public_members, thumbprint_id
from watchword.strict import json_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from watchword.algorithms import PublicKey, Scheme

MAX_SET_BYTES: Final = 4 * 1024 * 1024
MAX_SET_KEYS: Final = 20_000
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})  # RFC 7518 section 6, RFC 9964
_TIME_LIMIT: Final = 1 << 33
_NO_SIGNATURES: Final = ("ECDH-", "HPKE-")
"""How the algorithms begin that the same curves have for encryption (RFC 7518 section 4.6)."""

_PUBLISHED: Final = frozenset(
    {
        "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",  # RFC 8032 section 7.1, RFC 8037 appendix A
        "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs",  # RFC 9421 appendix B.1.4
        "qIVYZVLCrPZHGHjP17CTW0_-D9Lfw0EkjqF7xB4FivA",  # RFC 9421 appendix B.1.3
        "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",  # RFC 7515 appendix A.3
        "unH59k4RuutY-pxvu24U5h8YZD2rSVtHU5qRZsoBmBM",  # RFC 9964, ML-DSA-44
        "QksvJn5Y1bO0TXGs_Gpla7JpUNV8YdsciAvPof6rRD8",  # RFC 9964, ML-DSA-65
    }
)
"""The ``x``, or the start of the ``pub``, of keys whose private halves are printed in RFCs.

People copy examples, and with a copied key anyone can sign.
"""


def to_jwk(key: VerificationKey) -> dict[str, object]:
    """Return a key as a JWK with ``kid``, ``principal``, and its validity if it is limited."""
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
    """Read a JWK Set; ConfigurationError names the first invalid key and what to write instead."""
    return [parse_jwk(entry, f"key {number}") for number, entry in enumerate(_entries(data), 1)]


class SharedSet(NamedTuple):
    """The usable keys of a shared set, the number of others that were skipped, and the owners of foreign keys."""

    keys: list[VerificationKey]
    passed_over: int
    foreign: list[str]


def parse_shared_jwks(
    data: bytes,
    *,
    owner: str | None = None,
    most: int = MAX_SET_KEYS,
    speaks_for: Callable[[str], bool] = lambda _: True,
) -> SharedSet:
    """Read a JWK Set that other software uses too; ConfigurationError as for ``parse_jwks``.

    Keys of another type or use are skipped (RFC 7517 section 5). A key without "principal" belongs to ``owner``. A key
    of a principal that the set does not speak for is not looked at: otherwise its owner could have the set refused. A
    set with any other secret is refused, and so is one with a key whose private half is published.
    """
    keys, passed_over, foreign = list[VerificationKey](), 0, list[str]()
    for number, entry in enumerate(_entries(data, most), 1):
        where = f"key {number}"
        named = entry.get("principal") if isinstance(entry, dict) else None
        if isinstance(named, str) and not speaks_for(named):
            foreign.append(named)
            continue
        members = _checked(entry, where)
        if members.get("kty") == "oct":
            raise ConfigurationError(f"{where}: a symmetric key in a public set: anyone who can verify could sign")
        if {str(members.get("x")), str(members.get("pub"))[:43]} & _PUBLISHED:
            raise ConfigurationError(f"{where}: an example from an RFC, whose private half is published: replace it")
        if _is_of_use(members, where):
            keys.append(parse_jwk(members if owner is None else {"principal": owner} | members, where))
        else:
            passed_over += 1
    return SharedSet(keys, passed_over, foreign)


def _is_of_use(members: Mapping[str, object], where: str) -> bool:
    """Return True for a key of our kinds for signatures; ConfigurationError for one whose "alg" contradicts it."""
    if not _is_for_signatures(members) or str(members.get("alg")).startswith(_NO_SIGNATURES):
        return False
    scheme = _scheme(members)
    if scheme is None and _scheme({name: value for name, value in members.items() if name != "alg"}) is not None:
        raise ConfigurationError(
            f'{where}: "alg" is not of this key: write "EdDSA" for Ed25519, "ES256" for P-256, or leave it out'
        )
    return scheme is not None and scheme.is_available


def _entries(data: bytes, most: int = MAX_SET_KEYS) -> list[object]:
    if len(data) > MAX_SET_BYTES:
        raise ConfigurationError(f"key set of {len(data)} bytes: at most {MAX_SET_BYTES}")
    try:
        entries = json_object(data).get("keys")
    except ValueError:
        raise ConfigurationError(
            'not JSON, not an object, or a duplicate name: write a JWK Set, {"keys": [...]}'
        ) from None
    if not isinstance(entries, list):
        raise ConfigurationError('no list "keys": write a JWK Set, {"keys": [...]}')
    if len(entries) > most:
        raise ConfigurationError(f"key set of {len(entries)} keys: at most {most}")
    return entries


def parse_jwk(entry: object, where: str) -> VerificationKey:
    """Return the key in a JWK's members; the text of a ConfigurationError begins with ``where``."""
    members = _checked(entry, where)
    principal = members.get("principal")
    if not isinstance(principal, str):
        raise ConfigurationError(f'{where}: no "principal"; name the agent that owns the key')
    if not _is_for_signatures(members):
        raise ConfigurationError(f'{where}: not for signatures; set "use": "sig"')
    kid = members.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise ConfigurationError(f'{where}: "kid" is not text')
    try:
        public = _public(members)
        return VerificationKey.from_public_key(
            public,
            principal=principal,
            key_id=thumbprint_id(public) if kid is None else kid.encode(),
            not_before=_time(members, "nbf"),
            not_after=_time(members, "exp"),
            revoked_at=_time(members, "revoked"),
        )
    except UnicodeEncodeError:
        raise ConfigurationError(f"{where}: text that is not Unicode") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _checked(entry: object, where: str) -> dict[str, object]:
    """Return the members of a JWK; ConfigurationError if it contains a secret."""
    if not isinstance(entry, dict):
        raise ConfigurationError(f"{where}: not an object")
    if _PRIVATE & entry.keys():
        raise ConfigurationError(
            f"{where}: private key material in a public set; publish the public half, replace the key"
        )
    return entry


def _is_for_signatures(members: Mapping[str, object]) -> bool:
    operations = members.get("key_ops", ["verify"])
    return members.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations


def _scheme(members: Mapping[str, object]) -> Scheme | None:
    return next((scheme for scheme in SCHEMES.values() if scheme.fits(members)), None)


def _public(members: Mapping[str, object]) -> PublicKey:
    scheme = _scheme(members)
    if scheme is None:
        raise ConfigurationError(
            'use "kty": "OKP", "crv": "Ed25519", or "kty": "EC", "crv": "P-256", or "kty": "AKP", "alg": "ML-DSA-44" or'
            ' "ML-DSA-65"'
        )
    public: PublicKey = scheme.read(members)
    return public


def _time(entry: Mapping[str, object], name: str) -> int | None:
    value = entry.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _TIME_LIMIT:
        raise ConfigurationError(f'"{name}" is not a time in whole seconds')
    return value
