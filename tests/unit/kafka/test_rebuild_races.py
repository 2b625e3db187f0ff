"""A14, A17: no seek, rebalance or second task that comes between makes a guard forget, or wait for ever."""

import asyncio
from dataclasses import replace
from typing import Any

from tests.unit.kafka.fakes import P0, REALM, SENDER, FakeConsumer, Keys, intake, record
from tests.unit.kafka.test_rebuild import alone, fill, replay, until, values
from watchword import Allow, Message, Rate, Rejected, Unavailable
from watchword_adapters.kafka import VerifiedRecord
from watchword_adapters.kafka.intake import Intake


async def one(what: Intake) -> Any:
    """Return the value of the next record, as getone does."""
    async with asyncio.timeout(20):
        ((found,),) = (await what.next((), deadline=None, most=1, one=True)).values()
    return found.value


async def test_an_idle_consumer_waits() -> None:
    """Once a guard is there, who waits for records waits for the client, and does not spin."""
    consumer = FakeConsumer(P0)
    await fill(consumer, b"0")
    what = intake(consumer, alone())
    assert await values(what, 1) == [b"0"]
    waits = 0

    async def nothing(*_: Any, timeout_ms: float, **__: Any) -> dict[Any, Any]:
        nonlocal waits
        waits += timeout_ms > 0
        await asyncio.sleep(timeout_ms / 1000)
        return {}

    what._take_from_client = nothing
    turn = what._turn
    deadline = asyncio.get_running_loop().time() + 0.05
    assert await what.next((), deadline=deadline, most=None, one=False) == {}
    assert 1 <= waits <= what._turn - turn <= 5


async def test_what_an_earlier_task_still_judges_leaves_no_trace_in_a_new_guard() -> None:
    """A copy that is being judged while the partition is sought is no first sight for the guard built after that."""
    consumer, keys = FakeConsumer(P0), Keys()
    agent = alone(keys)
    await fill(consumer, b"0", b"1")
    replay(consumer, 0)
    await fill(consumer, b"3", b"4")
    consumer.seek(P0, 2)
    find, begun, go_on = keys.find, asyncio.Event(), asyncio.Event()

    async def slow_for_the_copy(principal: str, key_id: bytes) -> Any:
        if keys.asked == 1 and not begun.is_set():  # 0 and 1 are remembered
            begun.set()
            await go_on.wait()
        return await find(principal, key_id)

    keys.find = slow_for_the_copy  # type: ignore[method-assign]
    what = intake(consumer, agent)
    first = asyncio.create_task(one(what))
    await begun.wait()
    what.put_back([P0])
    consumer.seek(P0, 2)
    second = asyncio.create_task(one(what))
    await asyncio.wait({second}, timeout=0.05)
    go_on.set()
    assert {await first, await second} == {b"3", b"4"}
    assert agent.audit.counts == {"replayed": 2, "delivered": 2}


async def test_a_task_that_waits_for_its_turn_judges_nothing_before_the_guard_is_there() -> None:
    """A seek while several tasks read leaves the record that is read for the anchor to the guard built upon it."""
    consumer, keys = FakeConsumer(P0), Keys()
    agent = alone(keys)
    await fill(consumer, b"0", b"1")
    replay(consumer, 1)
    await fill(consumer, b"3", b"4", b"5")
    look_up, asked, go_on = consumer.offsets_for_times, asyncio.Event(), asyncio.Event()

    async def slow(times: Any) -> Any:
        if consumer.state(P0).position > 2:
            asked.set()
            await go_on.wait()
        return await look_up(times)

    consumer.offsets_for_times = slow  # type: ignore[method-assign]
    what = intake(consumer, agent)
    keys.gate.clear()
    readers = [asyncio.create_task(one(what))]
    await keys.question.wait()
    readers.append(asyncio.create_task(one(what)))  # waits for the first one
    await asyncio.wait(readers, timeout=0.01)
    what.put_back([P0])
    consumer.seek(P0, 2)
    readers.append(asyncio.create_task(one(what)))  # asks for the anchor
    await asked.wait()
    keys.gate.set()
    await asyncio.wait(readers, timeout=0.01)
    go_on.set()
    assert {await reader for reader in readers} == {b"3", b"4", b"5"}
    assert agent.audit.counts["replayed"] == 1


async def test_a_kept_guard_waits_for_the_position() -> None:
    """After a rebalance the client does not know its position at once: nothing is read again for that."""
    consumer, keys = FakeConsumer(P0), Keys()
    what = intake(consumer, alone(keys))
    await fill(consumer, b"0", b"1")
    assert await values(what, 2) == [b"0", b"1"]
    consumer.assign(P0)
    consumer.state(P0).has_valid_position = False
    take = consumer.take

    async def take_where_known(*tps: Any, **options: Any) -> Any:
        await asyncio.sleep(0)
        return await take(*tps, **options) if consumer.state(P0).has_valid_position else {}

    what._take_from_client = take_where_known
    call = asyncio.create_task(values(what, 1))
    turn = what._turn
    await until(lambda: what._turn > turn + 2)
    assert what.partitions()[P0].kept == 2
    consumer.state(P0).has_valid_position, consumer.state(P0).position = True, 2
    replay(consumer, 0)
    consumer.logs[P0].append(await record(P0, 3, b"end"))
    assert await call == [b"end"]
    assert keys.asked == 2


async def test_only_a_guard_that_was_there_is_kept() -> None:
    """A14: a partition that comes back before its guard was built is read again, though its position is the same."""
    consumer, keys = FakeConsumer(P0), Keys()
    agent = alone(keys)
    await fill(consumer, b"0", b"1")
    replay(consumer, 1)
    await fill(consumer, b"3")
    consumer.seek(P0, 2)
    what = intake(consumer, agent)
    keys.gate.clear()
    call = asyncio.create_task(one(what))
    await keys.question.wait()
    consumer.assign(P0)
    consumer.seek(P0, 2)
    assert what.partitions()[P0].kept is None
    keys.gate.set()
    assert await call == b"3"
    assert agent.audit.counts == {"replayed": 1, "delivered": 1}


async def test_an_anchor_of_an_earlier_assignment_moves_nothing() -> None:
    """A17: a look-up that ends after a rebalance neither begins the guard again nor seeks."""
    consumer, agent = FakeConsumer(P0), alone()
    await fill(consumer, b"0", b"1", b"2")
    consumer.seek(P0, 1)
    look_up, asked, go_on = consumer.offsets_for_times, asyncio.Event(), asyncio.Event()

    async def slow_once(times: Any) -> Any:
        if not asked.is_set():
            asked.set()
            await go_on.wait()
        return await look_up(times)

    consumer.offsets_for_times = slow_once  # type: ignore[method-assign]
    what = intake(consumer, agent)
    call = asyncio.create_task(one(what))
    await asked.wait()
    (anchoring,) = (part.anchoring for part in what.partitions().values())
    assert anchoring is not None
    consumer.assign(P0)
    consumer.seek(P0, 1)
    assert what.partitions()[P0].anchoring is not anchoring
    await asyncio.wait({anchoring}, timeout=5)
    assert anchoring.cancelled()
    assert await call == b"1"
    assert what.judged() == {P0: 2}


async def test_a_position_that_is_reset_while_the_anchor_is_looked_for_is_the_one_that_counts() -> None:
    """A guard is never built for a position that the client has left: nothing between is delivered again."""
    consumer = FakeConsumer(P0)
    await fill(consumer, b"0", b"1", b"2", b"3")
    consumer.seek(P0, 1)
    look_up = consumer.offsets_for_times
    what = intake(consumer, alone())

    async def reset(times: Any) -> Any:
        consumer.offsets_for_times = look_up  # type: ignore[method-assign]
        what.partitions()[P0].pending.clear()
        consumer.seek(P0, 3)
        return await look_up(times)

    consumer.offsets_for_times = reset  # type: ignore[method-assign]
    assert await one(what) == b"3"


async def test_what_was_judged_and_not_handed_over_is_no_redelivery() -> None:
    """A17: a rebalance takes back what the caller has not seen; when it comes it is marked as what it is."""
    consumer, agent = FakeConsumer(P0), alone()
    await fill(consumer, b"0", b"1")
    what = intake(consumer, agent)
    (first,) = (await what.next((), deadline=None, most=1, one=False))[P0]
    partition = what.partitions()[P0]
    consumer._subscription.reassignment_in_progress = True
    assert await what.next((), deadline=0.0, most=None, one=False) == {}
    assert [one.record.value for one in partition.ready] == [b"1"]
    consumer.assign(P0)
    consumer._subscription.reassignment_in_progress = False
    consumer.seek(P0, 1)
    (second,) = (await what.next((), deadline=None, most=1, one=False))[P0]
    for found, value in ((first, b"0"), (second, b"1")):
        assert isinstance(found, VerifiedRecord)
        assert (found.value, found.verified.redelivered) == (value, False)


async def test_a_call_that_is_cancelled_does_not_bring_back_what_came_too_fast() -> None:
    """A40: who stops waiting while a copy goes into quarantine gets no second verdict on the same record."""
    consumer, agent = FakeConsumer(P0), alone()
    verifier = agent.verifier
    rule = Allow(SENDER, (f"kafka://{REALM}/{P0.topic}",), Rate(1, 3600.0))
    verifier.policy = replace(verifier.policy, allow=(rule,))
    await fill(consumer, b"0", b"too fast")
    writing, kept = asyncio.Event(), list[bytes | None]()

    class Slow:
        async def put(self, message: Message, _: Rejected | Unavailable) -> bool:
            if not writing.is_set():
                writing.set()
                await asyncio.Event().wait()
            kept.append(message.value)
            return True

    what = intake(consumer, agent, quarantine=Slow())
    assert await one(what) == b"0"
    call = asyncio.create_task(one(what))
    await writing.wait()
    call.cancel()
    await asyncio.wait({call})
    assert call.cancelled()
    assert await what.next((), deadline=0.0, most=None, one=False) == {}
    assert kept == [b"too fast"]
    assert agent.audit.counts == {"delivered": 1, "rate_limited": 1}
