"""The contract of a replay store that several processes share; includes that of every replay store."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections import Counter
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, ClassVar, Final

import pytest

from watchword import Policy
from watchword.replay import BulkStore, ReaderBirth, ReaderForgottenError, SharedReplayStore, StoreError
from watchword.spi import Admission, Position
from watchword_adapters.contract.replay_store import HORIZON, NOW, ReplayStoreContract, make_claim

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from watchword.spi import Claim, ReplayStore

POLICY: Final = Policy(max_age=HORIZON, max_skew=0.0, max_lag=3600.0)
"""The policy for which the stores must be configured."""
PER_PRINCIPAL: Final = 5000
"""The quota of ids that the stores must have per principal."""
PATIENCE: Final = 20.0
"""Seconds within which a store that is back must serve again."""


class SharedReplayStoreContract(ReplayStoreContract):
    """What every shared ``ReplayStore`` must do; ``make_store`` also creates its backing store, empty."""

    more_than_a_batch: ClassVar[int] = 2400
    """A number of claims that takes several batches; even."""

    @abstractmethod
    async def make_store(self) -> SharedReplayStore:
        """Return an empty store on a new backing store."""

    async def make_hasty(self) -> SharedReplayStore:
        """Return what ``make_store`` returns, but giving up after few seconds; override it if yours waits longer.

        A long timeout in ``make_store`` makes these tests independent of how busy the machine is.
        """
        return await self.make_store()

    @abstractmethod
    async def make_another(self) -> SharedReplayStore:
        """Return another store on the backing store of the last ``make_store``, as another process would."""

    @abstractmethod
    async def make_forgetful(self) -> None:
        """Let the backing store lose all its data, as in an accident."""

    @abstractmethod
    def make_stall(self) -> AbstractAsyncContextManager[None]:
        """Return a context during which the backing store does not respond."""

    async def test_it_is_a_shared_store_by_its_type(self) -> None:
        """The verifier can tell that Kafka messages need no signed partition here."""
        assert isinstance(await self.make_store(), SharedReplayStore)

    async def test_of_many_in_several_processes_exactly_one_is_first(self) -> None:
        """Put-if-absent is atomic among all processes that share the store (A15)."""
        stores = [await self.make_store(), await self.make_another(), await self.make_another()]
        claims = [make_claim(number) for number in range(300)]
        answers = await asyncio.gather(*(store.claim(claim) for claim in claims for store in stores))
        for at in range(0, len(answers), len(stores)):
            assert sorted(answers[at : at + 3]) == [Admission.FIRST, Admission.REPLAYED, Admission.REPLAYED]

    async def test_another_process_sees_an_honest_redelivery(self) -> None:
        """Another worker may finish what one left unfinished, but no copy elsewhere is accepted (A17)."""
        one, other = await self.make_store(), await self.make_another()
        assert await one.claim(make_claim(offset=5)) is Admission.FIRST
        assert await other.claim(make_claim(offset=5)) is Admission.REDELIVERED
        assert await other.claim(make_claim(offset=6)) is Admission.REPLAYED

    async def test_a_copy_that_is_claimed_again_is_the_same_and_no_other_is(self) -> None:
        """Without a position, the arrival tells a claim whose answer was lost from that of a replay (A35)."""
        store, other = await self.make_store(), await self.make_another()
        claim = replace(make_claim(), arrival=b"one")
        assert await store.claim(claim) is Admission.FIRST
        for each in (store, other):
            assert await each.claim(claim) is Admission.REDELIVERED
            for another in (b"two", b"", None):
                assert await each.claim(replace(claim, arrival=another)) is Admission.REPLAYED
            assert await each.claim(replace(claim, digest=bytes(32))) is Admission.REPLAYED
            assert await each.claim(replace(make_claim(offset=5), arrival=b"one")) is Admission.REPLAYED

    async def test_an_answer_that_was_lost_is_given_again(self) -> None:
        """Of one copy and its replays, claimed alone and in bulk while the store stalls, one is admitted (A35)."""
        store = await self.make_hasty()
        copies = [replace(make_claim(number % 20), arrival=number.to_bytes(2)) for number in range(60)]
        async with self.make_stall():
            with pytest.raises(Exception):  # noqa: B017, PT011 - any
                await store.claim(copies[0])
            lost = await _claim_many(store, copies[:40])
            assert all(isinstance(answer, Exception) for answer in lost)
        for _ in range(2):
            answers = [await _in_time(store, copy) for copy in copies]
            accepted = {Admission.FIRST, Admission.REDELIVERED}
            admitted = Counter(copy.id for copy, answer in zip(copies, answers, strict=True) if answer in accepted)
            assert admitted == {copy.id: 1 for copy in copies[:20]}

    async def test_more_than_a_batch_at_once(self) -> None:
        """However many claims wait, each gets its own answer, if need be late."""
        store = await self.make_store()
        claims = [make_claim(number, offset=number) for number in range(self.more_than_a_batch)]
        first = await asyncio.gather(*map(store.claim, claims), return_exceptions=True)
        late = [claim for claim, answer in zip(claims, first, strict=True) if isinstance(answer, Exception)]
        assert {answer for answer in first if not isinstance(answer, Exception)} <= {Admission.FIRST}
        for claim in late:  # it may have been stored all the same
            assert await _in_time(store, claim) in {Admission.FIRST, Admission.REDELIVERED}
        again = [replace(claim, place=None) if number % 2 else claim for number, claim in enumerate(claims)]
        answers = await asyncio.gather(*map(store.claim, again), return_exceptions=True)
        for number, answer in enumerate(answers):
            told = await _in_time(store, again[number]) if isinstance(answer, Exception) else answer
            assert told is (Admission.REPLAYED if number % 2 else Admission.REDELIVERED)

    async def test_many_claims_are_answered_together_and_in_order(self) -> None:
        """A bulk is judged like single claims, also by two processes at once; each claim is atomic by itself."""
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
            assert set(pair) == {Admission.FIRST, Admission.REPLAYED}

    async def test_a_bulk_that_a_stalled_store_does_not_answer_is_judged_later(self) -> None:
        """A bulk fails as a whole in bounded time, and claims of it that were stored are honest redeliveries (A35)."""
        store = await self.make_hasty()
        assert isinstance(store, BulkStore)
        claims = [make_claim(number, offset=number) for number in range(20)]
        for claim in claims[:5]:
            await _in_time(store, claim)
        async with self.make_stall():
            begun = time.monotonic()
            with pytest.raises(Exception):  # noqa: B017, PT011 - any; it is the verifier that tells them apart
                _raise_first(await store.claim_many(claims))
            assert time.monotonic() - begun < PATIENCE
        await _in_time(store, claims[0])
        answers = await store.claim_many(claims)
        assert set(answers[:5]) == {Admission.REDELIVERED}
        assert set(answers) <= {Admission.FIRST, Admission.REDELIVERED}

    async def test_what_lags_too_far_is_too_old(self) -> None:
        """An entry outlives every message that may still arrive with its id: beyond the allowed lag they are stale."""
        store = await self.make_store()
        claim = make_claim(offset=1)
        assert await store.claim(claim) is Admission.FIRST
        late = time.time() - POLICY.max_lag
        assert await store.claim(replace(claim, reference=late - 1)) is Admission.TOO_OLD
        assert await store.claim(replace(claim, reference=late + 60)) is Admission.REDELIVERED

    async def test_a_reader_has_the_birth_that_it_was_given_first(self) -> None:
        """Two workers that admit one reader concurrently agree, and every process reads the same entry (N3)."""
        one, other = await self.make_store(), await self.make_another()
        assert await one.birth("group") is None
        births = [ReaderBirth(floor=float(NOW + n), accepted={"tasks/0": (n, NOW + 0.5)}) for n in range(8)]
        given = await asyncio.gather(
            *((one, other)[n % 2].admit_reader("group", birth) for n, birth in enumerate(births))
        )
        assert len({birth.floor for birth in given}) == 1
        assert given[0] in births
        for store in (one, other, await self.make_another()):
            assert await store.birth("group") == given[0]
            assert await store.admit_reader("group", births[-1]) == given[0]
        never = await one.admit_reader("another", ReaderBirth(floor=-inf))
        assert (never.floor, dict(never.accepted)) == (-inf, {})
        assert await other.birth("another") == never

    async def test_what_was_issued_up_to_a_readers_floor_is_too_old(self) -> None:
        """Up to the floor itself, and for that reader only: a later reader has its own birth (N4)."""
        store, other = await self.make_store(), await self.make_another()
        await store.admit_reader("group", ReaderBirth(floor=float(NOW)))
        await store.admit_reader("new", ReaderBirth(floor=-inf))
        assert await store.claim(make_claim(1, at=NOW)) is Admission.TOO_OLD
        assert await other.claim(make_claim(1, offset=1, at=NOW)) is Admission.TOO_OLD
        assert await other.claim(make_claim(2, at=NOW + 1)) is Admission.FIRST
        assert await store.claim(make_claim(1, at=NOW, reader="new")) is Admission.FIRST
        await store.admit_reader("late", ReaderBirth(floor=NOW + 10.0))
        assert await store.claim(make_claim(2, at=NOW + 1, reader="late")) is Admission.TOO_OLD
        assert await other.claim(make_claim(3, at=NOW + 1)) is Admission.FIRST

    async def test_a_reader_that_never_read_before_loses_nothing(self) -> None:
        """A message issued before the store was created is judged like any other, and remembered (A46)."""
        store, other = await self.make_store(), await self.make_another()
        await store.admit_reader("group", ReaderBirth(floor=-inf))
        claim = make_claim(1, offset=1, at=int(time.time()) - 60)
        assert await other.claim(claim) is Admission.FIRST
        assert await store.claim(claim) is Admission.REDELIVERED
        assert await store.claim(replace(claim, place=None)) is Admission.REPLAYED

    async def test_an_accepted_backlog_is_judged_and_nothing_behind_it(self) -> None:
        """It ends at an offset, so a copy that is published later does not benefit from it, whatever its time (N5)."""
        store, other = await self.make_store(), await self.make_another()
        stood = NOW - 50.0
        await store.admit_reader("group", ReaderBirth(floor=float(NOW), accepted={"tasks/0": (7, stood)}))
        backlog = [make_claim(number, offset=number, at=NOW - 100, appended=stood) for number in range(5, 10)]
        answers = [await (store, other)[n % 2].claim(claim) for n, claim in enumerate(backlog)]
        assert answers == [Admission.FIRST] * 3 + [Admission.TOO_OLD] * 2
        recreated = make_claim(20, offset=3, at=NOW - 100, appended=stood + 1)
        assert await store.claim(recreated) is Admission.TOO_OLD  # offsets are reused when a log is recreated
        position = Position("tasks/1", 3)
        assert await store.claim(replace(make_claim(21, at=NOW - 100), place=(position, stood))) is Admission.TOO_OLD
        assert await store.claim(make_claim(22, at=NOW - 100)) is Admission.TOO_OLD
        assert await store.claim(replace(backlog[0], place=(Position("tasks/0", 6), stood))) is Admission.REPLAYED
        assert await store.claim(make_claim(23, offset=99, at=NOW + 1)) is Admission.FIRST
        unstamped = replace(make_claim(24, offset=4, at=NOW - 100), place=(Position("tasks/0", 4), None))
        assert await store.claim(replace(unstamped, appended_after=stood + 1)) is Admission.TOO_OLD
        assert await store.claim(unstamped) is Admission.FIRST

    async def test_a_store_that_forgot_judges_what_nobody_can_have_seen(self) -> None:
        """After a loss under running readers nothing is delivered twice, and no message is blamed for it (A39, A46).

        New messages are delivered. A copy that is published after the loss is too old. Messages that were in the log
        cannot be judged, in any process, until the operator has decided.
        """
        store, other = await self.make_store(), await self.make_another()
        for each in (store, other):
            await each.admit_reader("group", ReaderBirth(floor=-inf))
            await each.claim(make_claim())
        issued = int(time.time())
        backlog = [make_claim(number, offset=number, at=issued) for number in range(1, 5)]
        core = make_claim(5, at=issued)
        for claim in (backlog[0], core):
            assert await store.claim(claim) is Admission.FIRST
        await _until(issued + 1)
        await self.make_forgetful()
        for each in (other, store, await self.make_another()):
            assert await _in_time(each, make_claim(9, offset=9)) in {Admission.FIRST, Admission.REDELIVERED}
            assert await each.birth("group") is None
            for claim in backlog:
                with pytest.raises(ReaderForgottenError, match="watchword store init group"):
                    await each.claim(claim)
            copies = [replace(core), replace(backlog[0], place=(Position("tasks/0", 90), time.time() + 1))]
            assert [await each.claim(copy) for copy in copies] == [Admission.TOO_OLD] * 2
        bulk = await _claim_many(store, [make_claim(10), backlog[0], make_claim(11)])
        assert (bulk[0], bulk[2]) == (Admission.FIRST, Admission.FIRST)
        assert isinstance(bulk[1], ReaderForgottenError)
        word = ReaderBirth(floor=time.time() + 2, accepted={"tasks/0": (4, time.time())})
        assert await other.admit_reader("group", word) == word
        assert await store.claim(backlog[1]) is Admission.FIRST
        assert await other.claim(backlog[1]) is Admission.REDELIVERED
        assert await store.claim(make_claim(6, offset=5, at=issued)) is Admission.TOO_OLD

    async def test_the_operators_word_holds_at_once(self) -> None:
        """A replaced birth applies to the next claim of every process, whatever that process has cached."""
        store, other = await self.make_store(), await self.make_another()
        await store.admit_reader("group", ReaderBirth(floor=-inf, accepted={"tasks/0": (3, NOW + 0.0)}))
        assert await other.claim(make_claim(1, offset=1, at=NOW - 5)) is Admission.FIRST
        word = ReaderBirth(floor=float(NOW), accepted={"tasks/1": (3, NOW + 0.0)})
        assert await store.admit_reader("group", word, replace=True) == word
        assert await _settled(other, make_claim(2, offset=2, at=NOW - 5)) is Admission.TOO_OLD
        assert await _settled(store, make_claim(3, offset=3, at=NOW - 5)) is Admission.TOO_OLD
        assert await other.claim(make_claim(1, offset=1, at=NOW - 5)) is Admission.REDELIVERED
        await other.admit_reader("group", ReaderBirth(floor=-inf), replace=True)
        assert await _settled(store, make_claim(4, offset=4, at=NOW - 5)) is Admission.FIRST

    async def test_a_reader_that_nobody_admitted_begins_with_the_store(self) -> None:
        """A message that may be older than the store's birth is never taken for new; a later one is."""
        store = await self.make_store()
        assert await store.claim(make_claim(1, at=int(time.time()) - 10)) is Admission.TOO_OLD
        late = time.time() + 1
        assert await store.claim(make_claim(2, offset=1, at=time.time() - 10, appended=late)) is Admission.TOO_OLD
        with pytest.raises(ReaderForgottenError):
            await store.claim(make_claim(2, offset=1, at=time.time() - 10))
        unstamped = replace(make_claim(3, offset=2, at=time.time() - 10), place=(Position("tasks/0", 2), None))
        with pytest.raises(ReaderForgottenError):
            await store.claim(unstamped)
        assert await store.claim(replace(unstamped, appended_after=late)) is Admission.TOO_OLD
        assert await store.claim(make_claim(4)) is Admission.FIRST

    async def test_who_holds_too_much_is_limited_and_nobody_else(self) -> None:
        """A principal that floods the store is refused in the end; no id is lost, and others are served (A20)."""
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
        """A claim fails in bounded time, and succeeds once the store is back (A35)."""
        store = await self.make_hasty()
        assert await _in_time(store, make_claim(1, offset=1)) in {Admission.FIRST, Admission.REDELIVERED}
        async with self.make_stall():
            begun = time.monotonic()
            with pytest.raises(Exception):  # noqa: B017, PT011 - any; it is the verifier that tells them apart
                await store.claim(make_claim(2, offset=2))
            assert time.monotonic() - begun < PATIENCE
        assert await _in_time(store, make_claim(1, offset=1)) is Admission.REDELIVERED
        assert await _in_time(store, make_claim(2, offset=2)) in {Admission.FIRST, Admission.REDELIVERED}
        assert await _in_time(store, make_claim(2, offset=3)) is Admission.REPLAYED


def _raise_first(answers: Sequence[Admission | BaseException]) -> None:
    """Raise the first exception among the answers."""
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer


async def _claim_many(store: object, claims: Sequence[Claim]) -> Sequence[Admission | BaseException]:
    assert isinstance(store, BulkStore)
    return await store.claim_many(claims)


async def _settled(store: SharedReplayStore, claim: Claim) -> Admission:
    """Claim, and retry if the reader's entry has just changed."""
    try:
        return await store.claim(claim)
    except StoreError:
        return await store.claim(claim)


async def _until(moment: float) -> None:
    while (left := moment - time.time()) >= 0:  # noqa: ASYNC110 - there is no event to await
        await asyncio.sleep(left + 0.01)


async def _in_time(store: ReplayStore, claim: Claim) -> Admission:
    """Claim until the store answers, since it may have to notice its loss first."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await store.claim(claim)
        except Exception:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
