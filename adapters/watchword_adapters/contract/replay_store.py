"""The contract of a replay store: subclass ``ReplayStoreContract``, create a store, and run it under pytest."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from watchword.spi import Admission, Claim, Position

if TYPE_CHECKING:
    from watchword.spi import ReplayStore

NOW: Final = int(time.time()) + 3600
"""Seconds since the epoch; far enough ahead to be above the floor of any store that is created meanwhile."""
HORIZON: Final = 330.0
"""Seconds (max_age + max_skew) for which the store must be configured."""


def make_claim(
    number: int = 0,
    *,
    offset: int | None = None,
    reader: str = "group",
    at: float = NOW,
    appended: float | None = None,
) -> Claim:
    """Return the claim of a message, read by ``reader`` at ``offset``, issued at ``at``, appended then or later."""
    appended = at if appended is None else appended
    return Claim(
        scope=f"kafka://contract/tasks#{reader}",
        log=f"{reader}#{'' if offset is None else 'tasks/0'}",
        principal="agent://contract/alice",
        key_id=b"alice-1",
        id=number.to_bytes(16),
        digest=sha256(number.to_bytes(16)).digest(),
        place=None if offset is None else (Position("tasks/0", offset), appended),
        issued_at=int(at),
        reference=appended,
        keep_until=at + 2 * HORIZON,
        reader=reader,
    )


class ReplayStoreContract(ABC):
    """What every ``ReplayStore`` must do; the tests are coroutines for pytest-asyncio."""

    @abstractmethod
    async def make_store(self) -> ReplayStore:
        """Return an empty store for messages fresh within ``HORIZON``, whose own floor, if any, is below ``NOW``."""

    async def test_a_first_use_is_first_and_the_next_is_a_replay(self) -> None:
        """Without a position every repetition is a replay."""
        store = await self.make_store()
        claims = [await store.claim(make_claim()) for _ in range(3)]
        assert claims == [Admission.FIRST, Admission.REPLAYED, Admission.REPLAYED]

    async def test_the_same_place_is_an_honest_redelivery(self) -> None:
        """A message read again at its first position is a redelivery, however often."""
        store = await self.make_store()
        claims = [await store.claim(make_claim(offset=5)) for _ in range(3)]
        assert claims == [Admission.FIRST, Admission.REDELIVERED, Admission.REDELIVERED]

    async def test_another_offset_is_a_replay(self) -> None:
        """The same message at a later position in the log is a replay."""
        store = await self.make_store()
        assert await store.claim(make_claim(offset=5)) is Admission.FIRST
        assert await store.claim(make_claim(offset=6)) is Admission.REPLAYED
        assert await store.claim(make_claim(offset=5)) is Admission.REDELIVERED

    async def test_the_same_offset_with_another_stamp_is_a_replay(self) -> None:
        """Offsets are reused when a topic is recreated; the broker's timestamp shows the difference."""
        store = await self.make_store()
        claim = make_claim(offset=5)
        assert await store.claim(claim) is Admission.FIRST
        recreated = replace(claim, place=(Position("tasks/0", 5), NOW + 1.0))
        assert await store.claim(recreated) is Admission.REPLAYED

    async def test_other_claims_under_a_used_id_are_a_replay(self) -> None:
        """A principal cannot use an id for two messages, not even at one position."""
        store = await self.make_store()
        claim = make_claim(offset=5)
        assert await store.claim(claim) is Admission.FIRST
        assert await store.claim(replace(claim, digest=bytes(32))) is Admission.REPLAYED

    async def test_a_message_without_a_place_is_never_a_redelivery(self) -> None:
        """Two claims without a position are not at the same position."""
        store = await self.make_store()
        claim = replace(make_claim(offset=5), place=None)
        assert await store.claim(claim) is Admission.FIRST
        assert await store.claim(claim) is Admission.REPLAYED

    async def test_readers_do_not_steal_each_others_first_use(self) -> None:
        """Two consumer groups each see a message once."""
        store = await self.make_store()
        for reader in ("one", "two"):
            assert await store.claim(make_claim(reader=reader)) is Admission.FIRST
        for reader in ("one", "two"):
            assert await store.claim(make_claim(reader=reader)) is Admission.REPLAYED

    async def test_principals_spend_only_their_own_ids(self) -> None:
        """Using an id under another principal's name does not keep its owner from using it."""
        store = await self.make_store()
        claim = make_claim()
        assert await store.claim(replace(claim, principal="agent://contract/mallory")) is Admission.FIRST
        assert await store.claim(claim) is Admission.FIRST

    async def test_of_many_at_once_exactly_one_is_first(self) -> None:
        """Put-if-absent is atomic: a race does not deliver twice."""
        store = await self.make_store()
        for number in range(8):
            admissions = await asyncio.gather(*(store.claim(make_claim(number)) for _ in range(16)))
            assert sorted(admissions) == [Admission.FIRST] + [Admission.REPLAYED] * 15

    async def test_nothing_fresh_is_forgotten(self) -> None:
        """An id is remembered, or its message too old, for as long as the message may be fresh and afterwards."""
        store = await self.make_store()
        assert await store.claim(make_claim()) is Admission.FIRST
        for age in (1.0, HORIZON, HORIZON + 1, 2 * HORIZON, 10 * HORIZON):
            assert await store.claim(make_claim(int(age), at=NOW + age)) is Admission.FIRST
            again = await store.claim(replace(make_claim(), reference=NOW + age))
            assert again is Admission.REPLAYED or (age > HORIZON and again is Admission.TOO_OLD)

    async def test_ids_that_look_alike_are_told_apart(self) -> None:
        """Ids that differ only in zero bytes or text bytes are different."""
        store = await self.make_store()
        for raw in (bytes(16), bytes(15) + b"\x01", b"\x00'; drop --\x00\x00\x00\x00", b"\xff" * 16):
            assert await store.claim(replace(make_claim(), id=raw)) is Admission.FIRST
