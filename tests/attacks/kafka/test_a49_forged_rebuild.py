"""A49: forged messages in front of a position make the rebuild longer, each by a bounded cost."""

import base64
from collections.abc import Awaitable, Callable

import pytest
from aiokafka import TopicPartition

from tests.integration.kafka.world import PLANNER, Captured, World
from tests.support.broker_tools import commit_for, ends_of
from tests.support.clocks import Clock, issued
from tests.support.cost import Cost
from tests.support.raw_kafka import Batch, Raw, RawClient
from tests.support.readers import END, raw_of, until
from watchword import SigningKey

pytestmark = pytest.mark.needs_kafka("raw_batches")

MANY = 2_000
TOGETHER = 100


async def honest(world: World, topic: str) -> list[Captured]:
    """Return messages that verify, each with a signature of its own: the measure."""
    return await issued(world, topic, Clock().at, *(b"%d" % number for number in range(MANY)))


async def badly_signed(world: World, topic: str) -> list[Captured]:
    """Return messages of which everything is right but the signature."""
    return [spoilt(record) for record in await honest(world, topic)]


async def of_unknown_keys(world: World, topic: str) -> list[Captured]:
    """Return messages that each name a key that nobody knows."""
    known = world.signing[PLANNER]
    found: list[Captured] = []
    for number in range(MANY):
        world.signing[PLANNER] = SigningKey.generate()
        found += await issued(world, topic, Clock().at, b"%d" % number)
    world.signing[PLANNER] = known
    return found


async def of_another_message(world: World, topic: str) -> list[Captured]:
    """Return one captured envelope on messages of the attacker's own."""
    (record,) = await issued(world, topic, Clock().at, b"captured")
    return [Captured(value=b"%d" % number, headers=record.headers) for number in range(MANY)]


async def unsigned(_: World, __: str) -> list[Captured]:
    """Return messages without any envelope."""
    return [Captured(value=b"%d" % number) for number in range(MANY)]


def spoilt(record: Captured) -> Captured:
    """Change the last byte of the envelope, which is the signature's."""
    ((name, text),) = record.headers
    assert text is not None
    raw = bytearray(base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4)))
    raw[-1] ^= 1
    return Captured(value=record.value, headers=((name, base64.urlsafe_b64encode(raw).rstrip(b"=")),))


async def cost_of_a_rebuild(world: World, make: Callable[[World, str], Awaitable[list[Captured]]]) -> tuple[Cost, int]:
    """Return what it costs to go on behind such messages, and how often a key was asked for."""
    topic, group = await world.make_topic(), world.unique("group")
    records: list[Raw] = [raw_of(record) for record in await make(world, topic)]
    async with RawClient(world.bootstrap) as raw:
        for at in range(0, MANY, TOGETHER):
            await raw.send(topic, Batch(records=records[at : at + TOGETHER]))
    tp = TopicPartition(topic, 0)
    await commit_for(world.bootstrap, group, tp, (await ends_of(world.bootstrap, tp))[1])
    await world.say(topic, END)
    asked = world.keys.asked
    async with world.consumer(world.reader(), topic, group_id=group) as consumer, Cost() as cost:
        assert await until(consumer) == [END]
    return cost, world.keys.asked - asked


@pytest.mark.usefixtures("not_traced")
@pytest.mark.parametrize("make", [badly_signed, of_unknown_keys, of_another_message, unsigned])
async def test_a49_a_forged_message_costs_no_more_than_an_honest_one(
    world: World, make: Callable[[World, str], Awaitable[list[Captured]]]
) -> None:
    """Two thousand forged messages are passed over in at most twice the time of as many honest ones."""
    found: list[tuple[float, float]] = []
    for _ in range(3):  # a busy machine spoils one measurement, not three
        measure, _ = await cost_of_a_rebuild(world, honest)
        forged, asked = await cost_of_a_rebuild(world, make)
        assert asked <= MANY + 10  # one look-up for each unknown key at most, and not many more in all
        found.append((forged.spent, measure.spent))
        if forged.spent <= 2 * measure.spent + 0.1:
            return
    pytest.fail(f"seconds for forged and for honest messages: {found}")
