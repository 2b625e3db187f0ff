"""Verification keys, private keys in memory, and the ports that key sources and signing back-ends implement.

It also combines key sources (``MemoryKeys``, ``KeyChain``) and computes RFC 7638 thumbprints. It does no I/O.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol, final, runtime_checkable

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from watchword.algorithms import (
    SCHEMES,
    Algorithm,
    scheme_of,
    what_is_missing,
)
from watchword.envelope import MAX_KEY_ID_BYTES
from watchword.errors import ConfigurationError
from watchword.message import is_principal
from watchword.plugged import answer
from watchword.strict import base64url

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from watchword.algorithms import PublicKey

_PRIVATE_BLOCK: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")
_ENCRYPTED: Final = "private key is encrypted: set passphrase_env or passphrase_file in [signer]"
_NOT_ENCRYPTED: Final = "private key is not encrypted: leave its passphrase out, or encrypt it (openssl pkcs8 -topk8)"


@runtime_checkable
class KeySource(Protocol):
    """Port: looks up the verification key that a message names."""

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """Return the principal's key with this id, else another principal's key with this id, else None.

        Any exception makes the message ``Unavailable``, so limit the time that an answer may take.
        """
        ...


@runtime_checkable
class SigningBackend(Protocol):
    """Port: a private key, which may live in a KMS or HSM."""

    async def sign(self, data: bytes) -> bytes:
        """Return the signature of ``data``, of the algorithm's length (ESP256: r || s with low s)."""
        ...


@runtime_checkable
class NamedBackend(SigningBackend, Protocol):
    """Port: a private key that knows the id and the algorithm of its public half, as a SigningKey does."""

    @property
    def key_id(self) -> bytes:
        """The key id, UTF-8."""
        ...

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm."""
        ...


class KeySwitch(Protocol):
    """What a rotating key may do to the signer that uses it, from any thread."""

    def switch(self, key: NamedBackend) -> None:
        """Sign with another key from now on."""
        ...

    def hold(self, why: str | None, *, by: str) -> None:
        """Stop signing, for the reason ``why``; None lets it sign again."""
        ...


@runtime_checkable
class RotatingBackend(NamedBackend, Protocol):
    """Port: a private key that replaces itself by new ones."""

    def serve(self, signer: KeySwitch) -> None:
        """Switch this signer to each new key; the ids of all keys have the same length."""
        ...


@runtime_checkable
class ShownBackend(NamedBackend, Protocol):
    """Port: a private key whose public half can be read, for publishing and comparing."""

    @property
    def public(self) -> PublicKey:
        """The public half."""
        ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """A public key, its owner and its validity (seconds since the epoch); create it with ``from_public_key``."""

    principal: str
    key_id: bytes
    algorithm: Algorithm
    public: PublicKey = field(repr=False, compare=False)
    public_bytes: bytes = field(repr=False)
    not_before: int | None = None
    not_after: int | None = None
    revoked_at: int | None = None

    @classmethod
    def from_public_key(
        cls,
        public: object,
        *,
        principal: str,
        key_id: bytes,
        not_before: int | None = None,
        not_after: int | None = None,
        revoked_at: int | None = None,
    ) -> VerificationKey:
        """Wrap a public key; ConfigurationError for an unsupported algorithm, a weak key or an invalid name."""
        if not is_principal(principal):
            raise ConfigurationError(f"principal {principal[:128]!r}: 1 to 255 bytes of UTF-8, no control characters")
        check_key_id(key_id)
        scheme = scheme_of(public)
        return cls(
            principal=principal,
            key_id=key_id,
            algorithm=scheme.algorithm,
            public=public,  # type: ignore[arg-type]  # scheme_of has checked it
            public_bytes=scheme.raw(public),
            not_before=not_before,
            not_after=not_after,
            revoked_at=revoked_at,
        )

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Return True if ``signature`` is this key's signature of ``data``; False for any malformed signature."""
        scheme = SCHEMES[self.algorithm]
        if len(signature) != scheme.signature_bytes:
            return False
        return scheme.verifies(self.public, signature, data)


def check_key_id(key_id: bytes) -> None:
    """Raise ConfigurationError unless ``key_id`` is 1 to 128 bytes of UTF-8."""
    if not 1 <= len(key_id) <= MAX_KEY_ID_BYTES:
        raise ConfigurationError(f"key id of {len(key_id)} bytes: use 1 to {MAX_KEY_ID_BYTES}")
    try:
        key_id.decode()
    except UnicodeDecodeError:
        raise ConfigurationError("key id: use UTF-8 text") from None


@final
class SigningKey:
    """A private key in memory; it is a ``SigningBackend``, and its ``repr`` does not reveal the secret."""

    def __init__(self, private: Any, *, key_id: bytes | None = None, not_after: float | None = None) -> None:
        """Wrap a private key; ConfigurationError for an unsupported algorithm.

        ``key_id`` defaults to the first 16 characters of the RFC 7638 thumbprint. From ``not_after`` (seconds since the
        epoch) an agent's signer signs nothing by it.
        """
        self._scheme = scheme_of(private, private=True)
        self.algorithm = self._scheme.algorithm
        self._private = private
        self.public: PublicKey = private.public_key()
        self.key_id = thumbprint_id(self.public) if key_id is None else key_id
        self.not_after = inf if not_after is None else not_after

    @classmethod
    def generate(cls, algorithm: Algorithm = Algorithm.ED25519) -> SigningKey:
        """Return a new key; ConfigurationError if ``cryptography`` does not support the algorithm."""
        return cls(SCHEMES[algorithm].generate())

    @classmethod
    def from_pem(cls, pem: bytes, *, key_id: bytes | None = None, passphrase: bytes | None = None) -> SigningKey:
        """Read a PKCS#8 PEM, encrypted if ``passphrase`` is given; ConfigurationError says why it cannot be read."""
        if (count := len(_PRIVATE_BLOCK.findall(pem))) > 1:  # the library would take the first
            raise ConfigurationError(f"{count} private keys in it: leave one")
        try:
            private = serialization.load_pem_private_key(pem, password=passphrase)
        except TypeError:  # raised only where a passphrase is missing, or not needed
            raise ConfigurationError(_ENCRYPTED if passphrase is None else _NOT_ENCRYPTED) from None
        except (ValueError, UnsupportedAlgorithm) as error:
            if missing := what_is_missing(error):
                raise ConfigurationError(missing) from None
            if passphrase is not None and b"ENCRYPTED" in pem:
                raise ConfigurationError("the passphrase is wrong, or the file is damaged") from None
            raise ConfigurationError("not a PKCS#8 private key in PEM: make one with 'watchword keygen'") from None
        return cls(private, key_id=key_id)

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """Return the key as PKCS#8 PEM, encrypted if ``passphrase`` is given; let only its owner read it."""
        pem: bytes = self._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption() if passphrase is None else serialization.BestAvailableEncryption(passphrase),
        )
        return pem

    async def sign(self, data: bytes) -> bytes:
        """Return the signature of ``data``."""
        return self.sign_now(data)

    def sign_now(self, data: bytes) -> bytes:
        """Return the signature of ``data``; takes microseconds, with ML-DSA milliseconds, and never waits."""
        return self._scheme.sign(self._private, data)

    def verification_key(self, principal: str) -> VerificationKey:
        """Return the public half, owned by ``principal``."""
        return public_half(self, principal)

    def __repr__(self) -> str:
        return f"SigningKey(algorithm={self.algorithm.name}, key_id={self.key_id!r})"

    def __reduce__(self) -> str:
        raise TypeError("a SigningKey cannot be pickled: its secret would leak into queues and caches")


def public_half(backend: ShownBackend, principal: str) -> VerificationKey:
    """Return the public half of a back-end's key, owned by ``principal``."""
    return VerificationKey.from_public_key(backend.public, principal=principal, key_id=backend.key_id)


class MemoryKeys:
    """Key source with a fixed set of keys.

    ConfigurationError if a public key belongs to two principals, or a principal has two keys with one id.
    """

    def __init__(self, keys: Iterable[VerificationKey] = ()) -> None:
        self._keys: dict[tuple[str, bytes], VerificationKey] = {}
        self._owners: dict[bytes, VerificationKey] = {}
        by_public: dict[bytes, str] = {}
        for key in keys:
            given: object = key
            if not isinstance(given, VerificationKey):
                raise ConfigurationError(f"keys: {type(given).__name__} given: give VerificationKeys only")
            if (key.principal, key.key_id) in self._keys:
                raise ConfigurationError(f"two keys with id {key.key_id.decode()!r} for {key.principal!r}: rename one")
            owner = by_public.setdefault(key.public_bytes, key.principal)
            if owner != key.principal:
                raise ConfigurationError(f"one public key for {owner!r} and {key.principal!r}: give each its own")
            self._keys[key.principal, key.key_id] = key
            self._owners.setdefault(key.key_id, key)

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        return self._keys.get((principal, key_id)) or self._owners.get(key_id)

    @property
    def keys(self) -> tuple[VerificationKey, ...]:
        """All keys."""
        return tuple(self._keys.values())

    def __len__(self) -> int:
        return len(self._keys)


@runtime_checkable
class ListedKeys(Protocol):
    """A key source that can list its keys, as files can but a directory service may not."""

    @property
    def keys(self) -> tuple[VerificationKey, ...]:
        """The keys that it answers with now; reading this has no side effects, and any thread may do it."""
        ...


@runtime_checkable
class RenewableKeys(Protocol):
    """A key source that caches what it fetched: a reload asks it to fetch again, but recreates other sources."""

    def renew(self) -> None:
        """Treat the cached keys as out of date, but use them until new ones arrive; called from any thread."""
        ...


def listed(source: object) -> tuple[VerificationKey, ...]:
    """Return the keys of a source that can list them; an empty tuple for any other source."""
    return source.keys if isinstance(source, ListedKeys) else ()


class KeyChain:
    """Key source that asks others in order, and returns the principal's key from the first that has it.

    After a source has failed, the others are still asked; but a key is unknown only if all of them answered so. The
    times and the revocation of a key that a failed source lists still apply: otherwise an outage would undo a
    revocation.
    """

    def __init__(self, sources: Sequence[KeySource]) -> None:
        if not sources:
            raise ConfigurationError("KeyChain: give at least one key source")
        self._sources = tuple(sources)
        self._in_time: dict[int, tuple[tuple[VerificationKey, ...], dict[tuple[str, bytes], VerificationKey]]] = {}

    @property
    def keys(self) -> tuple[VerificationKey, ...]:
        """The keys that its sources can list."""
        return tuple(key for source in self._sources for key in listed(source))

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``; raises a failed source's exception if no other source has the key."""
        other: VerificationKey | None = None
        failure: Exception | None = None
        limits = list[VerificationKey]()
        for number, source in enumerate(self._sources):
            try:
                key = await answer(source.find(principal, key_id))
            except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
                failure = error
                said = self._limits(number).get((principal, key_id))
                limits += [] if said is None else [said]
                continue
            if key is not None and key.principal == principal:
                return _limited(key, limits) if limits else key
            other = other or key
        if failure is not None:
            raise failure
        return other

    def _limits(self, number: int) -> dict[tuple[str, bytes], VerificationKey]:
        """Return those keys that a source lists which are limited in time."""
        keys = listed(self._sources[number])
        known = self._in_time.get(number)
        if known is None or known[0] is not keys:
            limited = {
                (key.principal, key.key_id): key for key in keys if any(time is not None for time in _times(key))
            }
            known = self._in_time[number] = keys, limited
        return known[1]


def _times(key: VerificationKey) -> tuple[int | None, int | None, int | None]:
    return key.not_before, key.not_after, key.revoked_at


def _limited(key: VerificationKey, limits: Sequence[VerificationKey]) -> VerificationKey:
    """Return a key with the latest begin, the earliest end and the earliest revocation."""
    begins, ends, revocations = (
        [time for time in times if time is not None] for times in zip(*map(_times, [key, *limits]), strict=True)
    )
    return replace(
        key,
        not_before=max(begins, default=None),
        not_after=min(ends, default=None),
        revoked_at=min(revocations, default=None),
    )


def thumbprint(public: PublicKey) -> str:
    """Return the RFC 7638 thumbprint of a public key with SHA-256, in base64url: 43 characters."""
    members = json.dumps(public_members(public), sort_keys=True, separators=(",", ":"))
    return base64url(sha256(members.encode()).digest())


def thumbprint_id(public: PublicKey) -> bytes:
    """Return the default key id: the first 16 characters of the thumbprint, as UTF-8 bytes."""
    return thumbprint(public)[:16].encode()


def public_members(public: PublicKey) -> dict[str, str]:
    """Return a public key as the JWK members that a thumbprint covers (RFC 7638, RFC 8037 and RFC 9964)."""
    return scheme_of(public).members(public)
