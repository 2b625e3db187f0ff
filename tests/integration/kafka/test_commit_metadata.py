"""One commit says all that a successor must know: what stands in a commit's metadata, and what is not believed."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import OffsetMetadataTooLargeError
from aiokafka.structs import OffsetAndMetadata

from tests.brokers.plugin import TimestampType
from tests.integration.kafka.world import World, eventually, observe, read, values
from tests.support.broker_tools import commit_for, committed_by
from tests.support.patience import PATIENCE
from tests.support.readers import END, judged, until
from watchword import ConfigurationError, Mode

MARK = "w1 "
MOST = 512
"""Characters of our metadata, at most."""

LIMIT = 4_096
"""Characters of metadata that the broker takes, as it comes out of its box."""


async def metadata_of(world: World, group: str, tp: TopicPartition, offset: int) -> str:
    """Return the metadata of what a group has committed, once it is at this offset (a transaction's end takes time)."""
    found: list[str] = []

    async def is_there() -> bool:
        one = await committed_by(world.bootstrap, group, tp)
        found[:] = [one.metadata] if one is not None and one.offset == offset else []
        return bool(found)

    await eventually(is_there)
    return found[0]


def is_ours(metadata: str) -> bool:
    """Return True if this is a checkpoint, short enough."""
    return metadata.startswith(MARK) and len(metadata) <= MOST


@pytest.mark.parametrize("moment", ["by hand", "at an offset by hand", "at the interval", "at the end", "at a move"])
async def test_every_commit_carries_it(world: World, moment: str) -> None:
    """No matter who commits and when: the offset comes with a checkpoint, of at most 512 characters."""
    topic, group = await world.make_topic(), world.unique("group")
    tp = TopicPartition(topic, 0)
    await world.say(topic, b"0", b"1")
    by_hand = "by hand" in moment
    options = {"group_id": group, "enable_auto_commit": not by_hand, "heartbeat_interval_ms": 100}
    async with world.consumer(world.reader(), topic, auto_commit_interval_ms=50, **options) as consumer:
        assert values(await read(consumer, 2)) == [b"0", b"1"]
        assert await consumer.getmany(timeout_ms=100) == {}  # both are handled
        match moment:
            case "by hand":
                await consumer.commit()
            case "at an offset by hand":
                await consumer.commit({tp: 2})
            case "at the interval":
                await eventually(lambda: _is_committed(world, group, tp, 2))
            case "at a move":
                async with world.consumer(world.reader(), topic, group_id=group, heartbeat_interval_ms=100) as second:
                    await eventually(lambda: _moved(consumer, second))
    assert is_ours(await metadata_of(world, group, tp, 2))


async def _is_committed(world: World, group: str, tp: TopicPartition, offset: int) -> bool:
    found = await committed_by(world.bootstrap, group, tp)
    return found is not None and found.offset == offset


async def _moved(*consumers: Any) -> bool:
    return sum(len(consumer.assignment()) for consumer in consumers) == 1


@pytest.mark.parametrize("commits", [True, False])
async def test_the_first_commit_comes_before_the_first_message(world: World, *, commits: bool) -> None:
    """A group has committed where it begins before anything is handed over, and continues from there after a crash."""
    topic, group = await world.make_topic(), world.unique("group")
    tp = TopicPartition(topic, 0)
    await world.say(topic, b"0", b"1")
    options = {"group_id": group, "enable_auto_commit": commits, "auto_offset_reset": "latest"}
    async with world.consumer(world.reader(), topic, **options) as consumer:
        assert await consumer.getmany(timeout_ms=300) == {}
        await world.say(topic, b"2")
        assert values(await read(consumer, 1)) == [b"2"]
        assert is_ours(await metadata_of(world, group, tp, 2))
        await consumer.stop()  # nothing is handled: as a crash
    await world.say(topic, b"3")
    async with world.consumer(world.reader(), topic, **options) as consumer:
        assert await until(consumer, b"3") == [b"2", b"3"]


@pytest.mark.parametrize("own", ["mine", "", "x" * LIMIT])
async def test_a_callers_own_metadata_stays(world: World, own: str) -> None:
    """What a caller commits beside an offset is kept as it is, up to the broker's limit, and ours is left out."""
    topic, group = await world.make_topic(), world.unique("group")
    tp = TopicPartition(topic, 0)
    await world.say(topic, b"0", b"1")
    given: Any = OffsetAndMetadata(1, own) if own == "mine" else (1, own)
    async with world.consumer(world.reader(), topic, group_id=group, enable_auto_commit=False) as consumer:
        assert values(await read(consumer, 2)) == [b"0", b"1"]
        await consumer.commit({tp: given})
    found = await metadata_of(world, group, tp, 1)
    assert found == own or (own == "" and is_ours(found))
    await world.inject(topic, await world.capture(topic))
    await world.say(topic, END)
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert await until(consumer) == [b"1", END]


async def test_metadata_beyond_the_limit_is_refused_as_by_the_client(world: World) -> None:
    """A caller's own that is too long for the broker raises, and the earlier commit stands."""
    topic, group = await world.make_topic(), world.unique("group")
    tp = TopicPartition(topic, 0)
    await world.say(topic, b"0", b"1")
    async with world.consumer(world.reader(), topic, group_id=group, enable_auto_commit=False) as consumer:
        assert len(await read(consumer, 2)) == 2
        await consumer.commit({tp: 1})
        with pytest.raises(OffsetMetadataTooLargeError):
            await consumer.commit({tp: (2, "x" * (LIMIT + 1))})
    await metadata_of(world, group, tp, 1)


SPOILT: dict[str, Callable[[list[str]], list[str]]] = {
    "nothing": lambda _: [],
    "another program's": lambda _: ["checkpoint", "of", "someone", "else"],
    "the mark alone": lambda _: ["w1"],
    "a later version": lambda fields: ["w2", *fields[1:]],
    "cut off": lambda fields: fields[:-1],
    "too long": lambda fields: fields * 40,
    "far numbers": lambda fields: [*fields[:2], *("99999999999999" for _ in fields[2:])],
    "negative numbers": lambda fields: [*fields[:2], *("-5" for _ in fields[2:])],
    "no numbers": lambda fields: [*fields[:2], *("nan" for _ in fields[2:])],
    "no ASCII": lambda fields: [*fields[:2], *("\u0661\u0662" for _ in fields[2:])],
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
async def test_metadata_that_cannot_be_ours(world: World, spoil: Callable[[list[str]], list[str]]) -> None:
    """Whatever stands beside a group's offset: the start loses no honest message, and takes no copy for one."""
    topic, group = await world.make_topic(), world.unique("group")
    tp = TopicPartition(topic, 0)
    await world.say(topic, b"0", b"1")
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert len(await read(consumer, 2)) == 2
    real = await metadata_of(world, group, tp, 2)
    assert is_ours(real)
    await commit_for(world.bootstrap, group, tp, 2, " ".join(spoil(real.split(" ")))[:LIMIT])
    await world.inject(topic, await world.capture(topic, 2))
    await world.say(topic, b"2", END)
    reader = world.reader()
    async with world.consumer(reader, topic, group_id=group) as consumer:
        assert await until(consumer) == [b"2", END]
    assert judged(reader)["delivered"] == 2


async def test_commits_through_a_transaction(world: World) -> None:
    """K15: the offsets for a transaction come from the consumer, judged ones only, with the checkpoint beside them."""
    topic, group = await world.make_topic(), world.unique("group")
    tp = TopicPartition(topic, 0)
    await world.say(topic, b"0", b"1", b"2")
    options = {"group_id": group, "enable_auto_commit": False, "isolation_level": "read_committed"}
    async with (
        world.consumer(world.reader(), topic, **options) as consumer,
        world.producer(transactional_id=world.unique("tx")) as producer,
    ):
        assert values(await read(consumer, 2)) == [b"0", b"1"]
        asking: Any = consumer
        async with producer.transaction():
            offsets = await asking.offsets_for_transaction()
            assert offsets[tp].offset == 2
            await producer.send_offsets_to_transaction(offsets, group)
    assert is_ours(await metadata_of(world, group, tp, 2))
    await world.inject(topic, await world.capture(topic, 2))
    await world.say(topic, END)
    async with world.consumer(world.reader(), topic, **options) as consumer:
        assert await until(consumer) == [b"2", END]


@pytest.mark.parametrize("told", [3, (3, ""), OffsetAndMetadata(3, "")])
async def test_k15_a_transaction_commits_nothing_that_nobody_judged(world: World, told: Any) -> None:
    """K15: offsets beyond the judged ones are refused by a producer beside the consumer, those of strangers are not."""
    topic, other, group = await world.make_topic(), await world.make_topic(), world.unique("group")
    tp = TopicPartition(topic, 0)
    await world.say(topic, b"0", b"1", b"2")
    options = {"group_id": group, "enable_auto_commit": False}
    async with (
        world.consumer(world.reader(), topic, **options) as consumer,
        world.producer(transactional_id=world.unique("tx")) as producer,
    ):
        assert values(await read(consumer, 2)) == [b"0", b"1"]
        with pytest.raises(ConfigurationError, match=f"{topic}/0 at 3: records are verified only up to 2"):
            async with producer.transaction():
                await producer.send_offsets_to_transaction({tp: told}, group)
        assert (await committed_by(world.bootstrap, group, tp)).offset == 0  # type: ignore[union-attr] # by the start
        async with producer.transaction():
            await producer.send_offsets_to_transaction({tp: told}, f"{group}-other")
        async with producer.transaction():  # another one, as aiokafka knows one group in a transaction
            await producer.send_offsets_to_transaction({TopicPartition(other, 0): told}, group)
            await producer.send_offsets_to_transaction({tp: 2}, group)


async def test_k15_a_consumer_that_was_stopped_is_asked_no_more(world: World) -> None:
    """K15: a consumer that was stopped, though someone holds it, does not keep its successor from committing."""
    topic, group = await world.make_topic(), world.unique("group")
    tp = TopicPartition(topic, 0)
    sent = [b"%d" % number for number in range(6)]
    await world.say(topic, *sent)
    options = {"group_id": group, "enable_auto_commit": False}
    held: list[Any] = []
    async with world.producer(transactional_id=world.unique("tx")) as producer:
        for life in range(3):
            async with world.consumer(world.reader(), topic, **options) as consumer:
                held.append(consumer)
                assert values(await read(consumer, 2)) == sent[2 * life : 2 * life + 2]
                async with producer.transaction():
                    await producer.send_offsets_to_transaction(await consumer.offsets_for_transaction(), group)
                assert is_ours(await metadata_of(world, group, tp, 2 * life + 2))


@pytest.mark.parametrize("told", [2, (2, ""), OffsetAndMetadata(2, "")])
async def test_a_transaction_carries_a_checkpoint(world: World, told: Any) -> None:
    """Offsets that the caller counted get the metadata of the consumer beside the producer; the caller's own stays."""
    topic, group = await world.make_topic(), world.unique("group")
    tp = TopicPartition(topic, 0)
    await world.say(topic, b"0", b"1", b"2")
    options = {"group_id": group, "enable_auto_commit": False}
    async with (
        world.consumer(world.reader(), topic, **options) as consumer,
        world.producer(transactional_id=world.unique("tx")) as producer,
    ):
        assert values(await read(consumer, 2)) == [b"0", b"1"]
        async with producer.transaction():
            await producer.send_offsets_to_transaction({tp: told}, group)
        assert is_ours(await metadata_of(world, group, tp, 2))
        async with producer.transaction():
            await producer.send_offsets_to_transaction({tp: (1, "mine")}, group)
        assert await metadata_of(world, group, tp, 1) == "mine"


@pytest.mark.parametrize("kind", ["LogAppendTime", "CreateTime"])
@pytest.mark.parametrize("place", [0, 2])
async def test_an_operator_sets_the_group_back(world: World, kind: TimestampType, place: int) -> None:
    """A group that is set back from outside gets what stands there again, and no copy of anything."""
    topic, group = await world.make_topic(timestamp_type=kind), world.unique("group")
    tp = TopicPartition(topic, 0)
    honest = [b"0", b"1", b"2", b"3"]
    await world.say(topic, *honest)
    captured = await world.capture(topic, len(honest))
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert values(await read(consumer, 4)) == honest
    await commit_for(world.bootstrap, group, tp, place)
    await world.inject(topic, captured)
    await world.say(topic, END)
    reader = world.reader()
    async with world.consumer(reader, topic, group_id=group) as consumer:
        assert await until(consumer) == [*honest[place:], END]
    assert judged(reader)["replayed"] == 4


async def test_observing_leaves_no_floor_for_enforcing(world: World) -> None:
    """A group that observed and then enforces begins with what is honest, and with no copy of what it handed on."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"0", b"1")
    captured = await world.capture(topic, 2)
    async with world.consumer(world.reader(mode=Mode.OBSERVE), topic, group_id=group) as consumer:
        assert values(await observe(consumer, 2)) == [b"0", b"1"]
    await world.inject(topic, captured)
    await world.say(topic, b"2", END)
    async with asyncio.timeout(PATIENCE), world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert await until(consumer) == [b"2", END]
