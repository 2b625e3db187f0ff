"""A verdict does not outlive what it rests on: what was judged ahead of a slow caller is judged again (A23, A24)."""

import asyncio
import math
import time
from dataclasses import replace
from typing import Any

import pytest

from tests.integration.kafka.world import Kept
from tests.unit.kafka.fakes import KEY, OTHER, P0, SENDER, FakeConsumer, Keys, intake, record, watchword
from tests.unit.kafka.test_bulk import numbers, one, tree
from watchword import MemoryKeys, Mode, Unavailable, VerificationKey, Watchword
from watchword_adapters.freshness import FRESH
from watchword_adapters.kafka import progress
from watchword_adapters.kafka.intake import Intake


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the caller count as one that takes records quickly, however slow this machine is."""
    monkeypatch.setattr(progress, "BRISK", math.inf)


def revoke(keys: Keys) -> None:
    """Let the sender's key be revoked by now."""
    revoked = VerificationKey.from_public_key(
        KEY.public, principal=SENDER, key_id=KEY.key_id, revoked_at=int(time.time()) - 1
    )
    keys._keys = MemoryKeys([revoked])


async def slow(agent: Watchword, kept: Kept | None = None) -> tuple[FakeConsumer, Intake]:
    """Return an intake whose caller was quick, and then took long over a record while others were ready."""
    consumer = FakeConsumer(P0)
    what = intake(consumer, agent, **({} if kept is None else {"quarantine": kept}))
    consumer.logs[P0] = await tree(P0, numbers(40))
    while not (what.partitions().get(P0) and what.partitions()[P0].ready and what.partitions()[P0].ahead > 8):
        await one(what)
    what.partitions()[P0].ready_since -= 60.0
    return consumer, what


@pytest.mark.parametrize("way", ["revoked", "unknown", "contained"])
async def test_what_was_judged_long_ago_is_not_handed_over_on_its_old_verdict(way: str) -> None:
    """A23, A24: neither records of a key that was revoked or withdrawn meanwhile, nor those of who was contained."""
    keys, kept = Keys(), Kept()
    agent = watchword(keys, shared=False)
    _, what = await slow(agent, kept)
    behind = what.judged()[P0]
    if way == "revoked":
        revoke(keys)
    elif way == "unknown":
        keys._keys = MemoryKeys([])
    else:
        agent.verifier.policy = replace(agent.verifier.policy, contained=frozenset({SENDER}))
    loop = asyncio.get_running_loop()
    assert what.at_hand(()) is None
    assert await what.next((), deadline=loop.time() + 0.3, most=1, one=True) == {}
    assert what.judged()[P0] == 40
    reason = {"revoked": "key_revoked", "unknown": "unknown_key", "contained": "contained"}[way]
    assert agent.audit.counts[reason] == 40 - behind
    assert len(kept.copies) == 40 - behind


async def test_what_still_holds_is_handed_over_and_is_no_redelivery() -> None:
    """A17: an honest record that waited is neither lost nor taken for one that was delivered before."""
    agent = watchword(Keys(), shared=False)
    _, what = await slow(agent)
    for offset in range(what.judged()[P0], 40):
        found: Any = await one(what)
        assert (found.offset, found.verified.redelivered) == (offset, False)


async def test_an_outage_hands_nothing_over_on_an_old_verdict() -> None:
    """A35: while nobody can say whether the key still holds nothing is handed over, and nothing is lost."""
    keys = Keys()
    _, what = await slow(watchword(keys, shared=False))
    behind = what.judged()[P0]
    keys.failures = 1
    with pytest.raises(Unavailable, match="keys"):
        await what.next((), deadline=0.0, most=1, one=True)
    assert what.judged()[P0] == behind
    assert [(await one(what)).offset for _ in range(behind, 40)] == [*range(behind, 40)]


async def test_a_key_source_slower_than_verdicts_stand_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A21: however long each look-up takes, what it found is handed over."""
    keys = Keys()
    _, what = await slow(watchword(keys, shared=False))
    loop, now = asyncio.get_running_loop(), asyncio.get_running_loop().time
    late, find = 0.0, keys.find

    async def slowly(principal: str, key_id: bytes) -> VerificationKey | None:
        nonlocal late
        late += 2 * FRESH
        return await find(principal, key_id)

    monkeypatch.setattr(keys, "find", slowly)
    monkeypatch.setattr(loop, "time", lambda: now() + late)
    behind = what.judged()[P0]
    assert [(await one(what)).offset for _ in range(behind, behind + 3)] == [*range(behind, behind + 3)]


async def test_a_verdict_is_as_old_as_the_key_that_it_rests_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A23: what a key signed that is revoked while another sender's is looked for is not handed over."""
    keys, late = Keys(), [0.0]
    agent, consumer = watchword(keys, shared=False), FakeConsumer(P0)
    what = intake(consumer, agent)
    consumer.logs[P0] = [*await tree(P0, numbers(4)), await record(P0, 4, b"4", principal=OTHER)]
    loop, now, find = asyncio.get_running_loop(), asyncio.get_running_loop().time, keys.find

    async def slowly(principal: str, key_id: bytes) -> VerificationKey | None:
        found = await find(principal, key_id)
        if principal == OTHER:
            late[0] += FRESH
            revoke(keys)
        return found

    monkeypatch.setattr(keys, "find", slowly)
    monkeypatch.setattr(loop, "time", lambda: now() + late[0])
    assert await what.next((), deadline=loop.time() + 2 * FRESH, most=500, one=False) == {}
    assert what.judged() == {P0: 5}
    assert agent.audit.counts["key_revoked"] == 4


async def test_what_was_judged_before_a_slow_outage_is_handed_over_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: Unavailable is told when there is nothing else to return, however long it took to find out."""
    keys, late = Keys(), [0.0]
    consumer = FakeConsumer(P0)
    what = intake(consumer, watchword(keys, shared=False))
    consumer.logs[P0] = [*await tree(P0, numbers(4)), await record(P0, 4, b"4", principal=OTHER)]
    loop, now, find = asyncio.get_running_loop(), asyncio.get_running_loop().time, keys.find

    async def slowly(principal: str, key_id: bytes) -> VerificationKey | None:
        if principal == OTHER:
            late[0] += FRESH
            raise ConnectionError
        return await find(principal, key_id)

    monkeypatch.setattr(keys, "find", slowly)
    monkeypatch.setattr(loop, "time", lambda: now() + late[0])
    found = await what.next((), deadline=loop.time() + 20, most=500, one=False)
    assert [record.value for record in found[P0]] == numbers(4)
    with pytest.raises(Unavailable, match="keys"):
        await what.next((), deadline=loop.time() + 20, most=500, one=False)


async def test_a_caller_who_is_cancelled_is_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: what is ready and too old is not looked at once more for a caller who gives up."""
    keys, late = Keys(), [0.0]
    consumer = FakeConsumer(P0)
    what = intake(consumer, watchword(keys, shared=False))
    consumer.logs[P0] = [*await tree(P0, numbers(300)), await record(P0, 300, b"300", principal=OTHER)]
    loop, now, find = asyncio.get_running_loop(), asyncio.get_running_loop().time, keys.find
    hangs = asyncio.Event()

    async def hanging(principal: str, key_id: bytes) -> VerificationKey | None:
        if principal == OTHER or hangs.is_set():
            late[0] += FRESH
            hangs.set()
            await asyncio.Event().wait()
        return await find(principal, key_id)

    monkeypatch.setattr(keys, "find", hanging)
    monkeypatch.setattr(loop, "time", lambda: now() + late[0])
    calling = asyncio.create_task(what.next((), deadline=None, most=500, one=False))
    await asyncio.wait_for(hangs.wait(), 20)
    assert what.partitions()[P0].ready
    calling.cancel()
    await asyncio.wait([calling], timeout=5)
    assert calling.cancelled()


async def test_after_too_long_an_outage_they_are_kept_undetermined() -> None:
    """A38: once ``max_hold`` is over they go to quarantine, as any record does that cannot be judged."""
    keys, kept = Keys(), Kept()
    _, what = await slow(watchword(keys, shared=False, max_hold=0.0), kept)
    behind = what.judged()[P0]
    keys.failures = 1000
    assert await what.next((), deadline=0.0, most=1, one=True) == {}
    while what.judged()[P0] < 40:
        await what.next((), deadline=0.0, most=1, one=True)
    assert len(kept.copies) == 40 - behind


async def test_a_seek_while_they_are_judged_once_more_wins() -> None:
    """What the caller has sought away from is not taken up again."""
    keys = Keys()
    consumer, what = await slow(watchword(keys, shared=False))
    revoke(keys)
    keys.gate.clear()
    keys.question.clear()
    waiting = asyncio.create_task(what.next((), deadline=None, most=1, one=True))
    await keys.question.wait()
    what.put_back([P0])
    consumer.seek(P0, 0)
    keys._keys = MemoryKeys([KEY.verification_key(SENDER)])
    keys.gate.set()
    ((found,),) = (await asyncio.wait_for(waiting, 20)).values()
    assert found.offset == 0


async def test_observing_judges_nothing_ahead() -> None:
    """In observe mode nothing is dropped, so that what waits has the verdict of its own moment."""
    agent = watchword(Keys(), Mode.OBSERVE, shared=False)
    consumer = FakeConsumer(P0)
    what = intake(consumer, agent)
    consumer.logs[P0] = await tree(P0, numbers(20))
    for calls in range(1, 11):
        await one(what)
        assert agent.audit.counts["delivered"] == calls
