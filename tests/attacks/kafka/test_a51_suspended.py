"""A51: after the machine was suspended nothing that was judged before is handed over unjudged."""

import asyncio
import time
from typing import Any

import pytest

from tests.integration.kafka.world import PLANNER, World, read, values
from tests.support.clocks import HOUR, key_of
from tests.support.patience import PATIENCE
from tests.support.readers import END, judged, until
from tests.support.suspended import Suspension
from watchword import VerificationKey

MANY = 300


@pytest.fixture
def suspension(monkeypatch: pytest.MonkeyPatch) -> Suspension:
    """Give a machine that can be suspended."""
    held = Suspension()
    held.install(monkeypatch)
    return held


async def reading_ahead(consumer: Any) -> int:
    """Take messages one at a time, as fast as they come, so that many are judged ahead; return how many were taken."""
    return len(await read(consumer, 100))


def revoke(world: World, key: VerificationKey, at: float) -> None:
    """Let the key source say that a key is revoked."""
    revoked = VerificationKey.from_public_key(
        key.public, principal=key.principal, key_id=key.key_id, revoked_at=int(at)
    )
    others = [key_of(world, principal) for principal in world.signing if principal != key.principal]
    world.keys.replace(*others, revoked)


async def sent(world: World) -> str:
    """Make a topic with many messages."""
    topic = await world.make_topic()
    async with world.producer() as producer:
        for number in range(MANY):
            await producer.send(topic, b"%d" % number, partition=0)
        await producer.flush()
    return topic


@pytest.mark.parametrize("way", ["getone", "getmany", "async for"])
async def test_a51_a_key_that_was_revoked_meanwhile(world: World, suspension: Suspension, way: str) -> None:
    """Not one message of a key that was revoked while the machine slept is handed over when it wakes up."""
    topic = await sent(world)
    reader = world.reader(max_age=12 * HOUR, clock=suspension.clock)
    async with world.consumer(reader, topic) as consumer:
        taken = await reading_ahead(consumer)
        suspension.sleep(3 * HOUR)
        revoke(world, key_of(world, PLANNER), suspension.clock() - HOUR)
        found: list[Any] = []
        async with asyncio.timeout(PATIENCE):
            while not judged(reader)["key_revoked"]:
                found += await _next(consumer, way)
    assert found == []
    assert judged(reader)["delivered"] - judged(reader)["key_revoked"] <= taken


async def _next(consumer: Any, way: str) -> list[Any]:
    """Return what a second brings."""
    if way == "getmany":
        return [value for records in (await consumer.getmany(timeout_ms=1_000)).values() for value in values(records)]
    try:
        record = await asyncio.wait_for(consumer.getone() if way == "getone" else anext(aiter(consumer)), 1.0)
    except TimeoutError:
        return []
    return [record.value]


async def test_a51_without_a_revocation_all_is_delivered(world: World, suspension: Suspension) -> None:
    """Where nothing has changed but the time, the broker's stamps still say that the messages were fresh."""
    topic = await sent(world)
    reader = world.reader(clock=suspension.clock)
    async with world.consumer(reader, topic) as consumer:
        assert await reading_ahead(consumer) == 100
        suspension.sleep(3 * HOUR)
        await world.say(topic, END)
        rest = await until(consumer)
    assert rest == [b"%d" % number for number in range(100, MANY)] + [END]


def test_a51_the_clocks_of_the_test(suspension: Suspension) -> None:
    """The fake is what a suspension is: wall and boot clock jump, the monotonic clock does not."""
    boot = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_REALTIME)
    before = time.time(), time.clock_gettime(boot), time.monotonic()
    suspension.sleep(HOUR)
    after = time.time(), time.clock_gettime(boot), time.monotonic()
    assert [round(b - a, 1) for a, b in zip(before, after, strict=True)] == [HOUR, HOUR, 0]
