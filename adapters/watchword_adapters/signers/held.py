"""Signs with a private key that a device or service holds: what all such back-ends have in common."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, Protocol, TypeVar, final

from pydantic import AfterValidator

from watchword import Algorithm, ConfigurationError, Unavailable, VerificationKey, WatchwordError
from watchword.algorithms import SCHEMES
from watchword.keys import check_key_id, thumbprint_id
from watchword.settings import Duration, Section
from watchword_adapters.keys.public_files import read_keys
from watchword_adapters.signers.worker import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword.algorithms import PublicKey
    from watchword.spi import Context

T = TypeVar("T")

PROBE: Final = b"watchword key check, no message\0"
"""The start of a probe, which shows which key signs. What is signed for a message begins with the byte 0x84 (A11)."""

HELD: Final = (Algorithm.ED25519, Algorithm.ESP256)
"""Algorithms of keys that are held elsewhere; ML-DSA keys are only in memory."""

LEAST_TIMEOUT: Final = 0.1
MOST_TIMEOUT: Final = 60.0
_OTHER_KIND: Final = 'use an Ed25519 or P-256 key; an ML-DSA key may be in an encrypted PEM, source = "file"'
_NOBODY: Final = "-"
"""The owner of a key that only checks signatures."""


def _bounded(seconds: float) -> float:
    if not LEAST_TIMEOUT <= seconds <= MOST_TIMEOUT:
        raise ValueError(f'write {LEAST_TIMEOUT:g} s to {MOST_TIMEOUT:g} s, as "5s"')
    return seconds


class HeldOptions(Section):
    """Options of ``[signer]`` for every key that is held elsewhere.

    ``public`` is a file with the public half; if it is left out, the back-end is asked. ``key_id`` is needed if the key
    is published under another id than the default. ``timeout`` limits each call.
    """

    key_id: str | None = None
    public: str | None = None
    timeout: Annotated[Duration, AfterValidator(_bounded)] = 5.0


class Custodian(Protocol):
    """The holder of a private key. Its methods are called on separate threads, and may block.

    They raise ConfigurationError for a fault that only a person can fix, and Unavailable for one that may pass; neither
    shows a secret.
    """

    def public(self) -> PublicKey:
        """Return the public half."""
        ...

    def sign(self, data: bytes, algorithm: Algorithm) -> bytes:
        """Return the signature of ``data`` with an algorithm of HELD: 64 bytes; for ESP256 r || s, with any s."""
        ...


@final
class HeldKey:
    """A private key that a custodian holds; it is a ``ShownBackend``.

    Each signature is verified before it is returned, so no message leaves with an invalid one. Unavailable if a call
    takes longer than ``timeout`` seconds.
    """

    def __init__(self, custodian: Custodian, workers: Workers, key: VerificationKey, timeout: float) -> None:
        self._custodian = custodian
        self._workers = workers
        self._key = key
        self._timeout = timeout

    @classmethod
    def of(
        cls, custodian: Custodian, options: HeldOptions, context: Context, *, workers: Workers | None = None
    ) -> HeldKey:
        """Return the key that a custodian holds, once a probe has shown that it signs.

        ConfigurationError says what is wrong; Unavailable if the custodian does not answer.
        """
        workers, timeout = workers or Workers(), options.timeout
        if options.public is None:
            key = _told(partial(_default, asked(workers, custodian.public, custodian, timeout)), custodian)
        else:
            key = _key_in(options.public, context)
        if key.algorithm not in HELD:
            raise ConfigurationError(f"{custodian}: {key.algorithm.label}: {_OTHER_KIND}")
        if options.key_id is not None:
            check_key_id(options.key_id.encode())
            key = replace(key, key_id=options.key_id.encode())
        held = cls(custodian, workers, key, timeout)
        probe = PROBE + os.urandom(32)
        signature = asked(workers, partial(custodian.sign, probe, key.algorithm), custodian, timeout)
        if not key.verifies(held._low(signature), probe):
            which = f"the key in {options.public}" if options.public else f"key {key.key_id.decode()}"
            raise ConfigurationError(
                f"{custodian}: does not sign with {which}: name the key whose public half is published, and its version"
            )
        return held

    @property
    def key_id(self) -> bytes:
        """The key id."""
        return self._key.key_id

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm."""
        return self._key.algorithm

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return self._key.public

    async def sign(self, data: bytes) -> bytes:
        """Return the 64-byte signature of ``data``; Unavailable if the back-end does not make it in time."""
        try:
            return await self._workers.run(partial(self._signed, data), timeout=self._timeout)
        except TimeoutError:
            raise _late(self._custodian, self._timeout) from None

    def _signed(self, data: bytes) -> bytes:
        try:
            signature = self._low(_told(partial(self._custodian.sign, data, self.algorithm), self._custodian))
        except ConfigurationError as error:  # for example, the key was removed: the sender can only try again
            raise Unavailable("signing", str(error)) from None
        if not self._key.verifies(signature, data):
            raise Unavailable("signing", f"{self._custodian}: the answer is not a signature by its key")
        return signature

    def _low(self, signature: bytes) -> bytes:
        return SCHEMES[self.algorithm].canonical(signature)

    def __repr__(self) -> str:
        return f"HeldKey({self._custodian}, algorithm={self.algorithm.name}, key_id={self.key_id!r})"

    def __reduce__(self) -> str:
        raise TypeError("a HeldKey cannot be pickled: its connection belongs to this process")


def asked(workers: Workers, call: Callable[[], T], custodian: Custodian, timeout: float) -> T:
    """Return what a custodian answers at the start, outside of an event loop."""
    try:
        return workers.run_now(partial(_told, call, custodian), timeout=timeout)
    except TimeoutError:
        raise _late(custodian, timeout) from None


def _told(call: Callable[[], T], custodian: Custodian) -> T:
    """Return what the call returns; errors name the custodian, and contain nothing of a library's own errors."""
    failure: WatchwordError
    try:
        return call()
    except ConfigurationError as error:
        failure = ConfigurationError(f"{custodian}: {error}")
    except Unavailable as error:
        failure = Unavailable("signing", f"{custodian}: {error.detail}")
    except Exception as error:  # noqa: BLE001 - a library may raise anything
        failure = Unavailable("signing", f"{custodian}: {type(error).__name__}")
    raise failure  # out here it has no context, which might show a request with its token


def _late(custodian: Custodian, timeout: float) -> Unavailable:
    return Unavailable("signing", f"{custodian}: no answer within {timeout:g} s")


def _default(public: PublicKey) -> VerificationKey:
    """Return a public key with its default id; ConfigurationError if a held key cannot be of this kind."""
    if not any(SCHEMES[algorithm].has(public, private=False) for algorithm in HELD):
        raise ConfigurationError(f"{type(public).__name__}: {_OTHER_KIND}")
    key = VerificationKey.from_public_key(public, principal=_NOBODY, key_id=b"-")
    return replace(key, key_id=thumbprint_id(key.public))


def _key_in(name: str, context: Context) -> VerificationKey:
    """Return the one public key in a file."""
    path = context.directory / name
    try:
        keys, _ = read_keys([path])
    except OSError as error:
        raise ConfigurationError(f"public: {path}: {error.strerror}") from None
    if len(keys) != 1:
        raise ConfigurationError(f"public: {path}: {len(keys)} keys in it; name a file with one")
    if context.principal not in {None, keys[0].principal}:
        owner, ours = keys[0].principal, context.principal
        raise ConfigurationError(f"public: {path}: a key of {owner!r}, but this agent is {ours!r}: name its file")
    return keys[0]
