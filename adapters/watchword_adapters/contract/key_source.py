"""The contract of a key source: subclass ``KeySourceContract``, make a source, and run it under pytest.

``ChangingKeySourceContract`` is for sources whose keys can change while they are in use, ``FailingKeySourceContract``
for those that read what may be down or wrong, and ``LimitedKeySourceContract`` for those that read what others write,
who may speak for some principals only.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import pytest

from watchword import Algorithm, SigningKey, VerificationKey
from watchword.jwk import MAX_SET_BYTES, to_jwks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchword.spi import KeySource

ALICE = "agent://contract/alice"
BOB = "agent://contract/bob"
MALLORY = "agent://elsewhere/mallory"
"""Of another organisation."""

KeyFault: TypeAlias = Literal["outage", "garbage", "oversize", "duplicate id", "two owners"]
"""What can be wrong with what a source reads; the last is one public key that two principals call theirs."""

KEY_FAULTS: Final[tuple[KeyFault, ...]] = get_args(KeyFault)


def _owned(key: SigningKey, principal: str, key_id: bytes, **validity: int) -> VerificationKey:
    return VerificationKey.from_public_key(key.public, principal=principal, key_id=key_id, **validity)


class KeySourceContract(ABC):
    """What every ``KeySource`` does; the tests are coroutines for pytest-asyncio."""

    @abstractmethod
    async def make_source(self, keys: Sequence[VerificationKey]) -> KeySource:
        """Return a source that holds exactly ``keys``."""

    async def test_a_known_key_is_found_whole(self) -> None:
        """The answer bears what was asked for, the same public key, its algorithm and its validity."""
        keys = [
            _owned(SigningKey.generate(), ALICE, b"one", not_before=5, not_after=10, revoked_at=7),
            _owned(SigningKey.generate(Algorithm.ESP256), BOB, b"two"),
        ]
        source = await self.make_source(keys)
        for key in keys:
            assert await source.find(key.principal, key.key_id) == key

    async def test_a_found_key_verifies_what_its_owner_signed(self) -> None:
        """The key that comes back checks signatures, and only its own."""
        key = SigningKey.generate()
        found = await (await self.make_source([_owned(key, ALICE, b"one")])).find(ALICE, b"one")
        assert found is not None
        assert found.verifies(await key.sign(b"data"), b"data")
        assert not found.verifies(await SigningKey.generate().sign(b"data"), b"data")

    async def test_an_unknown_key_is_none(self) -> None:
        """No key of that id is no key, and no error."""
        source = await self.make_source([_owned(SigningKey.generate(), ALICE, b"one")])
        assert await source.find(ALICE, b"two") is None
        assert await source.find(BOB, b"ONE") is None

    async def test_one_who_has_no_keys_is_none(self) -> None:
        """A source without any key answers like one that does not know this key."""
        assert await (await self.make_source([])).find(ALICE, b"one") is None

    async def test_a_key_of_another_is_never_passed_off(self) -> None:
        """Asked for Bob under the id of Alice's key, a source answers with Alice's key as hers, or not at all."""
        key = _owned(SigningKey.generate(), ALICE, b"one")
        assert await (await self.make_source([key])).find(BOB, b"one") in {None, key}

    async def test_one_id_may_be_used_by_two_principals(self) -> None:
        """A key id is unique per principal only, so each gets his own."""
        keys = [_owned(SigningKey.generate(), principal, b"one") for principal in (ALICE, BOB)]
        source = await self.make_source(keys)
        assert [await source.find(principal, b"one") for principal in (ALICE, BOB)] == keys

    async def test_many_may_ask_at_once(self) -> None:
        """Questions that overlap get the answers that they would get alone."""
        keys = [_owned(SigningKey.generate(), ALICE, b"%d" % number) for number in range(8)]
        source = await self.make_source(keys)
        assert await asyncio.gather(*(source.find(ALICE, key.key_id) for key in keys)) == keys

    async def test_odd_names_are_only_unknown(self) -> None:
        """Whatever a message claims to be, a source answers; names of an attacker's choice break nothing."""
        source = await self.make_source([_owned(SigningKey.generate(), ALICE, b"one")])
        for principal in ("../../etc/passwd", "a" * 255, "agent://contract/*", "' or 1=1 --", "\u202eecila"):
            for key_id in (b"one", b"\xff\xfe", b"x" * 128, b"../one", b"*"):
                found = await source.find(principal, key_id)
                assert found is None or found.principal == ALICE


class ChangingKeySourceContract(KeySourceContract):
    """What a ``KeySource`` does beyond that when its keys change."""

    @abstractmethod
    async def set_keys(self, source: KeySource, keys: Sequence[VerificationKey]) -> None:
        """Have an existing source hold exactly ``keys``, and be asked when it must know that."""

    async def test_a_removed_key_is_gone_and_a_new_one_known(self) -> None:
        """What was taken out is no longer trusted, and what was put in is."""
        old, new = (_owned(SigningKey.generate(), ALICE, name) for name in (b"old", b"new"))
        source = await self.make_source([old])
        assert await source.find(ALICE, b"old") == old
        await self.set_keys(source, [new])
        assert await source.find(ALICE, b"new") == new
        assert await source.find(ALICE, b"old") is None


class FailingKeySourceContract(ChangingKeySourceContract):
    """What a ``KeySource`` does beyond that when what it reads is down, or wrong."""

    @abstractmethod
    async def break_source(self, source: KeySource, fault: KeyFault, keys: Sequence[VerificationKey]) -> None:
        """Have what the source reads be down or wrong, and be asked when it notices.

        ``keys`` are those that stood there; ``faulty_set`` has the text for sources that read JWK Sets.
        """

    @abstractmethod
    async def wait_in_vain(self, source: KeySource) -> None:
        """Have the time pass for which the last good set answers, by a clock of the test's."""

    @pytest.mark.parametrize("fault", KEY_FAULTS)
    async def test_what_is_broken_leaves_the_last_good_set(self, fault: KeyFault) -> None:
        """Known keys are known for a stated time, nobody is called unknown, and then nobody is known: fail closed."""
        key = _owned(SigningKey.generate(), ALICE, b"one")
        source = await self.make_source([key])
        assert await source.find(ALICE, b"one") == key
        await self.break_source(source, fault, [key])
        assert await source.find(ALICE, b"one") == key
        assert await _cannot_tell(source, ALICE, b"two")
        assert await _cannot_tell(source, BOB, b"one")
        await self.wait_in_vain(source)
        assert await _cannot_tell(source, ALICE, b"one")

    @pytest.mark.parametrize("fault", KEY_FAULTS)
    async def test_what_is_mended_is_read_again(self, fault: KeyFault) -> None:
        """A source finds back by itself, and what was wrong has left nothing behind."""
        old, new = (_owned(SigningKey.generate(), ALICE, name) for name in (b"old", b"new"))
        source = await self.make_source([old])
        assert await source.find(ALICE, b"old") == old
        await self.break_source(source, fault, [old])
        assert await _cannot_tell(source, ALICE, b"new")
        await self.set_keys(source, [new])
        assert await source.find(ALICE, b"new") == new
        assert await source.find(ALICE, b"old") is None


class LimitedKeySourceContract(FailingKeySourceContract):
    """What a ``KeySource`` does beyond that which may speak for ``agent://contract/**`` only."""

    async def test_the_keys_of_others_count_for_nothing(self) -> None:
        """An origin that names agents of another organisation does not speak for them, and ours are found as before."""
        ours = _owned(SigningKey.generate(), ALICE, b"one")
        theirs = _owned(SigningKey.generate(), MALLORY, b"two")
        source = await self.make_source([ours, theirs])
        assert await source.find(ALICE, b"one") == ours
        assert await source.find(MALLORY, b"two") is None
        assert await source.find(ALICE, b"two") is None

    async def test_others_do_not_depend_on_it(self) -> None:
        """Down or not, it knows nothing of others: their keys are for other sources to tell."""
        key = _owned(SigningKey.generate(), ALICE, b"one")
        source = await self.make_source([key])
        assert await source.find(ALICE, b"one") == key
        await self.break_source(source, "outage", [key])
        assert await source.find(MALLORY, b"one") is None
        await self.wait_in_vain(source)
        assert await source.find(MALLORY, b"one") is None


async def _cannot_tell(source: KeySource, principal: str, key_id: bytes) -> bool:
    """Return True if a source says that it does not know whether there is such a key."""
    try:
        await source.find(principal, key_id)
    except Exception:  # noqa: BLE001 - a source may say so by any
        return True
    return False


def faulty_set(fault: KeyFault, keys: Sequence[VerificationKey]) -> bytes | None:
    """Return a JWK Set with a fault, beside these keys; None for no set at all."""
    first, other = keys[0], SigningKey.generate().public
    text = to_jwks(keys).encode()
    match fault:
        case "outage":
            return None
        case "garbage":
            return text[:-5]
        case "oversize":
            return text + b" " * MAX_SET_BYTES
        case "duplicate id":
            again = VerificationKey.from_public_key(other, principal=first.principal, key_id=first.key_id)
            return to_jwks([*keys, again]).encode()
        case "two owners":
            same = VerificationKey.from_public_key(first.public, principal=BOB, key_id=b"same")
            return to_jwks([*keys, same]).encode()
