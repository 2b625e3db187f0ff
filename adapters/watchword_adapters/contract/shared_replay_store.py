"""The contract of a replay store that several processes share; it includes that of every replay store."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final

import pytest

from watchword import Admission, Policy
from watchword.replay import BulkStore
from watchword_adapters.contract.replay_store import HORIZON, ReplayStoreContract, make_claim

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from watchword import Claim, ReplayStore

POLICY: Final = Policy(max_age=HORIZON, max_skew=0.0, max_lag=3600.0)
"""The policy for which the stores must be set up."""
PER_PRINCIPAL: Final = 5000
"""The bound that the stores must set to one principal's ids."""
PATIENCE: Final = 20.0
"""Seconds within which a store that is there again must serve."""


class SharedReplayStoreContract(ReplayStoreContract):
    """What every shared ``ReplayStore`` does; ``make_store`` makes its backing store, which is empty, too."""

    more_than_a_batch: ClassVar[int] = 2400
    """Claims that the store asks for in several batches; even."""

    @abstractmethod
    async def make_another(self) -> ReplayStore:
        """Return one more store on the backing store that the last ``make_store`` made, as another process would."""

    @abstractmethod
    async def make_forgetful(self) -> None:
        """Let the backing store lose all that it holds, as an accident would."""

    @abstractmethod
    def make_stall(self) -> AbstractAsyncContextManager[None]:
        """Return what keeps the backing store from answering meanwhile."""

    async def test_it_says_that_it_is_shared(self) -> None:
        """The configuration can tell that Kafka messages need no signed partition here."""
        assert getattr(await self.make_store(), "shared", False) is True

    async def test_of_many_in_several_processes_exactly_one_is_first(self) -> None:
        """Put-if-absent is atomic among all who share the store (A15)."""
        stores = [await self.make_store(), await self.make_another(), await self.make_another()]
        claims = [make_claim(number) for number in range(300)]
        answers = await asyncio.gather(*(store.claim(claim) for claim in claims for store in stores))
        for at in range(0, len(answers), len(stores)):
            assert sorted(answers[at : at + 3]) == [Admission.FIRST, Admission.REPLAYED, Admission.REPLAYED]

    async def test_another_process_sees_an_honest_redelivery(self) -> None:
        """What one worker left unfinished another may finish, and nobody may do again elsewhere (A17)."""
        one, other = await self.make_store(), await self.make_another()
        assert await one.claim(make_claim(offset=5)) is Admission.FIRST
        assert await other.claim(make_claim(offset=5)) is Admission.REDELIVERED
        assert await other.claim(make_claim(offset=6)) is Admission.REPLAYED

    async def test_more_than_a_batch_at_once(self) -> None:
        """However many claims wait, each gets its own answer."""
        store = await self.make_store()
        claims = [make_claim(number, offset=number) for number in range(self.more_than_a_batch)]
        assert set(await asyncio.gather(*map(store.claim, claims))) == {Admission.FIRST}
        again = [replace(claim, place=None) if number % 2 else claim for number, claim in enumerate(claims)]
        answers = await asyncio.gather(*map(store.claim, again))
        assert answers == [Admission.REDELIVERED, Admission.REPLAYED] * (self.more_than_a_batch // 2)

    async def test_many_claims_are_answered_together_and_in_order(self) -> None:
        """A bulk is judged as its claims would be, by two processes at once too; each is atomic by itself."""
        store, other = await self.make_store(), await self.make_another()
        assert isinstance(store, BulkStore)
        assert isinstance(other, BulkStore)
        claims = [make_claim(number, offset=number) for number in range(700)]
        late = replace(make_claim(900), reference=time.time() - POLICY.max_lag - 1)
        assert [*await store.claim_many([claims[0], *claims, late])] == [
            Admission.FIRST,
            Admission.REDELIVERED,
            *[Admission.FIRST] * 699,
            Admission.TOO_OLD,
        ]
        again = [replace(claim, place=None) if number % 3 else claim for number, claim in enumerate(claims)]
        expected = [Admission.REPLAYED if number % 3 else Admission.REDELIVERED for number in range(700)]
        assert [*await other.claim_many(again)] == expected
        assert [*await store.claim_many([])] == []
        fresh = [make_claim(number) for number in range(1000, 1300)]
        one, two = await asyncio.gather(store.claim_many(fresh), other.claim_many(fresh))
        for pair in zip(one, two, strict=True):
            assert sorted(pair) == [Admission.FIRST, Admission.REPLAYED]

    async def test_a_bulk_that_a_stalled_store_does_not_answer_is_judged_later(self) -> None:
        """A bulk fails as a whole in bounded time, and what had been remembered of it is an honest redelivery (A35)."""
        store = await self.make_store()
        assert isinstance(store, BulkStore)
        claims = [make_claim(number, offset=number) for number in range(20)]
        await store.claim_many(claims[:5])
        async with self.make_stall():
            begun = time.monotonic()
            with pytest.raises(Exception):  # noqa: B017, PT011 - any; it is the verifier that tells them apart
                await store.claim_many(claims)
            assert time.monotonic() - begun < PATIENCE
        await _in_time(store, claims[0])
        answers = await store.claim_many(claims)
        assert set(answers[:5]) == {Admission.REDELIVERED}
        assert set(answers) <= {Admission.FIRST, Admission.REDELIVERED}

    async def test_what_lags_too_far_is_too_old(self) -> None:
        """An entry outlives every message that may still come with it: what is older than the allowed lag is stale."""
        store = await self.make_store()
        claim = make_claim(offset=1)
        assert await store.claim(claim) is Admission.FIRST
        late = time.time() - POLICY.max_lag
        assert await store.claim(replace(claim, reference=late - 1)) is Admission.TOO_OLD
        assert await store.claim(replace(claim, reference=late + 60)) is Admission.REDELIVERED

    async def test_what_was_issued_before_its_birth_is_too_old(self) -> None:
        """A new store may stand where another was, so it vouches for nothing that this one may have known."""
        store = await self.make_store()
        assert await store.claim(make_claim(1, at=int(time.time()) - 10)) is Admission.TOO_OLD
        assert await store.claim(make_claim(2)) is Admission.FIRST

    async def test_a_store_that_forgot_is_born_anew(self) -> None:
        """What was forgotten is too old then, in every process and for good; what is issued later is served (A39)."""
        store, other = await self.make_store(), await self.make_another()
        await store.claim(make_claim())
        await other.claim(make_claim())
        issued = int(time.time()) + 1
        claims = [make_claim(number, offset=number, at=issued) for number in range(1, 5)]
        await _until(issued)  # or its birth would lie above them, too
        assert await store.claim(claims[0]) is Admission.FIRST
        await _until(issued + 1)
        await self.make_forgetful()
        for each in (other, store, await self.make_another()):
            for claim in claims:
                assert await _in_time(each, claim) is Admission.TOO_OLD
            assert await each.claim(claims[0]) is Admission.TOO_OLD
        assert await store.claim(make_claim(9)) is Admission.FIRST
        assert await other.claim(make_claim(9)) is Admission.REPLAYED

    async def test_who_holds_too_much_is_limited_and_nobody_else(self) -> None:
        """A principal that floods the store is refused in the end; nothing is forgotten, others are served (A20)."""
        store, other = await self.make_store(), await self.make_another()
        flood = [make_claim(number, offset=number) for number in range(PER_PRINCIPAL + 1000)]
        answers: list[Admission] = []
        for at in range(0, len(flood), 1000):
            answers += await asyncio.gather(*(store.claim(claim) for claim in flood[at : at + 1000]))
        held = answers.count(Admission.FIRST)
        while await store.claim(make_claim(10_000 + held)) is Admission.FIRST:
            held += 1
        assert 0.9 * PER_PRINCIPAL <= held <= PER_PRINCIPAL
        assert await other.claim(make_claim(9000)) is Admission.OVER_QUOTA
        known = flood[answers.index(Admission.FIRST)]
        assert await other.claim(known) is Admission.REDELIVERED
        assert await other.claim(replace(make_claim(1), principal="agent://contract/bob")) is Admission.FIRST

    async def test_a_store_that_stalls_gives_no_answer(self) -> None:
        """A claim fails in bounded time, and is served again when the store is (A35)."""
        store = await self.make_store()
        assert await store.claim(make_claim(1, offset=1)) is Admission.FIRST
        async with self.make_stall():
            begun = time.monotonic()
            with pytest.raises(Exception):  # noqa: B017, PT011 - any; it is the verifier that tells them apart
                await store.claim(make_claim(2, offset=2))
            assert time.monotonic() - begun < PATIENCE
        assert await _in_time(store, make_claim(1, offset=1)) is Admission.REDELIVERED
        assert await _in_time(store, make_claim(2, offset=2)) in {Admission.FIRST, Admission.REDELIVERED}
        assert await store.claim(make_claim(2, offset=3)) is Admission.REPLAYED


async def _until(moment: float) -> None:
    while (left := moment - time.time()) >= 0:  # noqa: ASYNC110 - nobody signals the time
        await asyncio.sleep(left + 0.01)


async def _in_time(store: ReplayStore, claim: Claim) -> Admission:
    """Claim until the store, which may have to notice what happened to it, answers."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await store.claim(claim)
        except Exception:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
