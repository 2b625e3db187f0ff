"""The contract of a key source: subclass ``KeySourceContract``, create a source, and run it under pytest.

``ChangingKeySourceContract`` is for sources whose keys can change while in use, ``FailingKeySourceContract`` for those
whose keys can become unreadable or out of reach, and ``LimitedKeySourceContract`` for those that read what others
write, and that may list keys of some principals only.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

import pytest

from watchword import Algorithm, SigningKey, VerificationKey
from watchword.jwk import MAX_SET_BYTES, to_jwks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchword.spi import KeySource

ALICE = "agent://contract/alice"
BOB = "agent://contract/bob"
MALLORY = "agent://elsewhere/mallory"
"""A principal of another organisation."""


class KeyFault(StrEnum):
    """Faults of the place where keys are stored; ``WRONG_OWNER`` is a key that belongs to another principal."""

    OUTAGE = "outage"
    GARBAGE = "garbage"
    OVERSIZE = "oversize"
    WRONG_OWNER = "wrong owner"
    DUPLICATE_ID = "duplicate id"


class KeySourceContract(ABC):
    """What every ``KeySource`` must do; the tests are coroutines for pytest-asyncio.

    ``alice`` and ``bob`` are two principals whose keys the source may have.
    """

    alice: ClassVar[str] = ALICE
    bob: ClassVar[str] = BOB

    def own(
        self, principal: str, key_id: bytes, algorithm: Algorithm = Algorithm.ED25519, **validity: int
    ) -> tuple[SigningKey, VerificationKey]:
        """Return a new key for the source; override this if its ids, kinds or validity differ."""
        key = SigningKey.generate(algorithm)
        found = VerificationKey.from_public_key(key.public, principal=principal, key_id=key_id, **validity)
        return key, found

    def _public(
        self, principal: str, key_id: bytes, algorithm: Algorithm = Algorithm.ED25519, **validity: int
    ) -> VerificationKey:
        return self.own(principal, key_id, algorithm, **validity)[1]

    @abstractmethod
    async def make_source(self, keys: Sequence[VerificationKey]) -> KeySource:
        """Return a source with exactly ``keys``."""

    async def test_a_known_key_is_found_whole(self) -> None:
        """The returned key has the requested principal and id, the public key, its algorithm and its validity."""
        keys = [
            self._public(self.alice, b"one", not_before=5, not_after=10, revoked_at=7),
            self._public(self.bob, b"two", Algorithm.ESP256),
        ]
        source = await self.make_source(keys)
        for key in keys:
            assert await source.find(key.principal, key.key_id) == key

    async def test_a_found_key_verifies_what_its_owner_signed(self) -> None:
        """The returned key verifies its own signatures, and no others."""
        key, public = self.own(self.alice, b"one")
        found = await (await self.make_source([public])).find(self.alice, public.key_id)
        assert found is not None
        assert found.verifies(await key.sign(b"data"), b"data")
        assert not found.verifies(await SigningKey.generate().sign(b"data"), b"data")

    async def test_an_unknown_key_is_none(self) -> None:
        """For an unknown key id it returns None, without an error."""
        source = await self.make_source([self._public(self.alice, b"one")])
        assert await source.find(self.alice, b"two") is None
        assert await source.find(self.bob, b"ONE") is None

    async def test_one_who_has_no_keys_is_none(self) -> None:
        """An empty source answers like one that does not know the key."""
        assert await (await self.make_source([])).find(self.alice, b"one") is None

    async def test_a_key_of_another_is_never_passed_off(self) -> None:
        """Asked for Bob with the id of Alice's key, it returns Alice's key as hers, or None."""
        key = self._public(self.alice, b"one")
        assert await (await self.make_source([key])).find(self.bob, key.key_id) in {None, key}

    async def test_one_id_may_be_used_by_two_principals(self) -> None:
        """A key id is unique only per principal, so each gets its own key; also if ids are derived from keys."""
        keys = [self._public(principal, b"one") for principal in (self.alice, self.bob)]
        source = await self.make_source(keys)
        assert [await source.find(key.principal, key.key_id) for key in keys] == keys

    async def test_many_may_ask_at_once(self) -> None:
        """Concurrent look-ups return what they would return one by one."""
        keys = [self._public(self.alice, b"%d" % number) for number in range(8)]
        source = await self.make_source(keys)
        assert await asyncio.gather(*(source.find(self.alice, key.key_id) for key in keys)) == keys

    async def test_odd_names_are_only_unknown(self) -> None:
        """Any principal and key id that a message claims gets an answer; hostile names break nothing."""
        source = await self.make_source([self._public(self.alice, b"one")])
        for principal in ("../../etc/passwd", "a" * 255, "agent://contract/*", "' or 1=1 --", "\u202eecila"):
            for key_id in (b"one", b"\xff\xfe", b"x" * 128, b"../one", b"*"):
                found = await source.find(principal, key_id)
                assert found is None or found.principal == self.alice


class ChangingKeySourceContract(KeySourceContract):
    """What a ``KeySource`` must do in addition when its keys change."""

    @abstractmethod
    async def set_keys(self, source: KeySource, keys: Sequence[VerificationKey]) -> None:
        """Change an existing source to exactly ``keys``, and wait until it must have noticed."""

    async def test_a_removed_key_is_gone_and_a_new_one_known(self) -> None:
        """A removed key is no longer returned, and an added one is."""
        old, new = (self._public(self.alice, name) for name in (b"old", b"new"))
        source = await self.make_source([old])
        assert await source.find(self.alice, old.key_id) == old
        await self.set_keys(source, [new])
        assert await source.find(self.alice, new.key_id) == new
        assert await source.find(self.alice, old.key_id) is None


class FailingKeySourceContract(ChangingKeySourceContract):
    """What a ``KeySource`` must do in addition when the place of its keys fails, or is spoiled.

    A fault that it ``passes_over`` changes nothing in its answers. After any other, it does not know which keys it does
    not have.
    """

    passes_over: ClassVar[frozenset[KeyFault]] = frozenset()

    @abstractmethod
    async def spoil(self, source: KeySource, fault: KeyFault, known: VerificationKey) -> None:
        """Apply a fault to the place that holds only ``known``, Alice's key, and wait until it must have an effect.

        ``faulty_set`` returns the text for sources that read JWK Sets.
        """

    @abstractmethod
    async def wait_in_vain(self, source: KeySource) -> None:
        """Let the time pass for which the last good keys stay in use, with the test's own clock."""

    @pytest.mark.parametrize("fault", KeyFault)
    async def test_a_known_key_stays_known_for_a_time(self, fault: KeyFault) -> None:
        """Good keys stay in use after a fault, for the documented time; then no key is known: fail closed."""
        known, source = await self._spoiled(fault)
        assert await source.find(self.alice, known.key_id) == known
        await self.wait_in_vain(source)
        if fault in self.passes_over:
            assert await source.find(self.alice, known.key_id) == known
        else:
            assert await _cannot_tell(source, self.alice, known.key_id)

    @pytest.mark.parametrize("fault", KeyFault)
    async def test_what_cannot_be_told_is_not_called_unknown(self, fault: KeyFault) -> None:
        """A key that may have been added meanwhile is not rejected for good, and no fault assigns a key to anyone."""
        known, source = await self._spoiled(fault)
        for principal, key_id in ((self.alice, b"unknown"), (self.bob, b"unknown"), (self.bob, known.key_id)):
            if fault in self.passes_over:
                found = await source.find(principal, key_id)
                assert found is None or (found, key_id) == (known, known.key_id)
            else:
                assert await _cannot_tell(source, principal, key_id)

    @pytest.mark.parametrize("fault", KeyFault)
    async def test_what_is_mended_is_taken(self, fault: KeyFault) -> None:
        """A source recovers by itself: new keys become known, removed ones are gone."""
        old, source = await self._spoiled(fault)
        new = self._public(self.alice, b"new")
        if fault not in self.passes_over:
            assert await _cannot_tell(source, self.alice, new.key_id)
        await self.set_keys(source, [new])
        assert await source.find(self.alice, new.key_id) == new
        assert await source.find(self.alice, old.key_id) is None

    async def _spoiled(self, fault: KeyFault) -> tuple[VerificationKey, KeySource]:
        known = self._public(self.alice, b"known")
        source = await self.make_source([known])
        assert await source.find(self.alice, known.key_id) == known
        await self.spoil(source, fault, known)
        return known, source


class LimitedKeySourceContract(FailingKeySourceContract):
    """What a ``KeySource`` must do in addition if it may list keys of ``agent://contract/**`` only."""

    async def test_the_keys_of_others_count_for_nothing(self) -> None:
        """An origin that lists agents of another organisation has no effect on them, and ours are found as before."""
        ours, theirs = self._public(self.alice, b"one"), self._public(MALLORY, b"two")
        source = await self.make_source([ours, theirs])
        assert await source.find(self.alice, ours.key_id) == ours
        assert await source.find(MALLORY, theirs.key_id) is None
        assert await source.find(self.alice, theirs.key_id) is None

    async def test_others_do_not_depend_on_it(self) -> None:
        """Down or not, it returns None for others, whose keys are up to other sources."""
        known, source = await self._spoiled(KeyFault.OUTAGE)
        assert await source.find(MALLORY, known.key_id) is None
        await self.wait_in_vain(source)
        assert await source.find(MALLORY, known.key_id) is None


async def _cannot_tell(source: KeySource, principal: str, key_id: bytes) -> bool:
    """Return True if a source raises because it does not know whether there is such a key."""
    try:
        await source.find(principal, key_id)
    except Exception:  # noqa: BLE001 - a source may raise any
        return True
    return False


def faulty_set(fault: KeyFault, known: VerificationKey) -> bytes | None:
    """Return a JWK Set with this key and a fault; None for a missing set."""
    text = to_jwks([known]).encode()
    match fault:
        case KeyFault.OUTAGE:
            return None
        case KeyFault.GARBAGE:
            return text[:-5]
        case KeyFault.OVERSIZE:
            return text + b" " * MAX_SET_BYTES
        case KeyFault.WRONG_OWNER:
            same = VerificationKey.from_public_key(known.public, principal=BOB, key_id=b"same")
            return to_jwks([known, same]).encode()
        case KeyFault.DUPLICATE_ID:
            other = SigningKey.generate().public
            again = VerificationKey.from_public_key(other, principal=known.principal, key_id=known.key_id)
            return to_jwks([known, again]).encode()
