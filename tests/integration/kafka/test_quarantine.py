"""The quarantine topic on a real Kafka: connections, outages and transactions."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import IllegalOperation, MessageSizeTooLargeError

from tests.integration.kafka.quarantining import held, length, quarantine_in, settled
from tests.integration.kafka.world import REALM, World
from tests.support.patience import PATIENCE
from watchword import ConfigurationError, Reason, Rejected, Unavailable
from watchword.settings import QuarantineSettings
from watchword.spi import Channel, Message, Position
from watchword_adapters.kafka import quarantine as module
from watchword_adapters.kafka.quarantine import KafkaQuarantine
from watchword_adapters.redriving import Stored

UNSIGNED = Rejected(Reason.UNSIGNED)


def message(offset: int, value: bytes | None = b"x", key: bytes | None = None) -> Message:
    """Return the record at an offset of the topic ``tasks``."""
    channel, position = Channel("kafka", REALM, "tasks"), Position("tasks/0", offset)
    return Message(
        channel=channel, value=value, key=key, partition=0, position=position, appended_at=1.0, reader="group"
    )


def offsets(found: list[Stored]) -> list[int]:
    """Return the offsets that copies point at."""
    return [stored.kept.position.offset for stored in found if stored.kept and stored.kept.position]


@pytest.mark.needs_kafka("unknown_topic_error")
async def test_a_missing_topic_is_told_once_and_soon(world: World) -> None:
    """A consumer whose quarantine nobody made hears Unavailable in bounded time, and at once while that lasts."""
    warnings: list[str] = []
    async with quarantine_in(world, world.unique("missing"), timeout=1.0) as quarantine, asyncio.timeout(PATIENCE):
        quarantine._warn = lambda event, **_: warnings.append(event)
        for offset in range(50):
            with pytest.raises(Unavailable, match="quarantine"):
                await quarantine.put(message(offset), UNSIGNED)
    assert warnings == ["quarantine.unavailable"]
    assert quarantine.counts == {"unavailable_rejected": 50}


async def test_a_closed_quarantine_opens_again(world: World) -> None:
    """Several consumers may share one: the first that stops does not end it for the others."""
    topic = await world.make_topic()
    async with quarantine_in(world, topic) as quarantine:
        async with AIOKafkaConsumer(bootstrap_servers=world.bootstrap, client_id="second") as second:
            await second.topics()
            quarantine.attach(second)
        assert quarantine._connection is not None
        assert quarantine._connection["client_id"] != "second"
        for offset in range(2):
            assert await quarantine.put(message(offset), UNSIGNED)
            await quarantine.close()
    assert offsets(await held(world, topic)) == [0, 1]


async def test_tombstones_and_keys_survive(world: World) -> None:
    """An absent value comes back absent, with a key and without."""
    topic = await world.make_topic()
    async with quarantine_in(world, topic) as quarantine:
        for offset, key in enumerate((b"key", None)):
            assert await quarantine.put(message(offset, value=None, key=key), UNSIGNED)
    found = [stored.kept.message for stored in await held(world, topic) if stored.kept is not None]
    assert [(one.key, one.value) for one in found] == [(b"key", None), (None, None)]


async def test_what_is_not_connected_says_what_to_do(world: World) -> None:
    """A quarantine that nobody attached warns with the remedy; a topic that cannot be one is refused at once."""
    agent, details = world.reader(), list[object]()
    agent.audit.warn = lambda _, **fields: details.append(fields["detail"])  # type: ignore[method-assign] # to listen
    quarantine = KafkaQuarantine("quarantine", watchword=agent)
    with pytest.raises(Unavailable):
        await quarantine.put(message(1), UNSIGNED)
    assert "VerifyingConsumer(quarantine=...)" in str(details)
    with pytest.raises(ConfigurationError, match="quarantine topic"):
        KafkaQuarantine("a/b", watchword=world.reader())


def test_settings_make_it(world: World) -> None:
    """``[quarantine] kafka`` gives one with its caps, and without it there is none."""
    agent = world.reader()
    assert KafkaQuarantine.from_settings(agent) is None
    agent.quarantine = QuarantineSettings(nats="q")
    assert KafkaQuarantine.from_settings(agent) is None
    agent.quarantine = QuarantineSettings(kafka="q", max_size=2048)
    made = KafkaQuarantine.from_settings(agent)
    assert made is not None
    assert (made.topic, made._limits.max_size) == ("q", 2048)


# Transactions

Open = Callable[[World], AbstractAsyncContextManager[AIOKafkaProducer]]


@asynccontextmanager
async def plain(world: World) -> AsyncIterator[AIOKafkaProducer]:
    """Open a producer that knows nothing of Watchword."""
    async with AIOKafkaProducer(bootstrap_servers=world.bootstrap, transactional_id=world.unique("tx")) as producer:
        yield producer


@asynccontextmanager
async def signing(world: World) -> AsyncIterator[AIOKafkaProducer]:
    """Open a producer that signs."""
    async with world.producer(transactional_id=world.unique("tx")) as producer:
        yield producer


def moved(topic: str, offset: int) -> dict[TopicPartition, int]:
    """Return offsets to commit."""
    return {TopicPartition(topic, 0): offset}


@pytest.mark.parametrize("opened", [plain, signing])
async def test_copy_and_offset_commit_or_abort_together(world: World, opened: Open) -> None:
    """Copies wait for the offsets' transaction, go with it, and come again with the next where it was aborted."""
    topic, live, group = await world.make_topic(), await world.make_topic(), world.unique("group")
    async with opened(world) as producer:
        quarantine = KafkaQuarantine(topic, watchword=world.reader(), producer=producer, timeout=20)
        assert quarantine.in_transactions
        assert [await quarantine.put(message(offset), UNSIGNED) for offset in (0, 0, 1)] == [True] * 3
        assert await length(world, topic) == 0

        await producer.begin_transaction()
        await producer.send_offsets_to_transaction(moved(live, 1), group)
        await producer.abort_transaction()
        assert await held(world, topic) == []

        assert await quarantine.put(message(2), UNSIGNED)
        async with producer.transaction():
            await producer.send_offsets_to_transaction(moved(live, 3), group)
            assert await held(world, topic) == []
        found = await settled(world, topic, 3)
        assert offsets(found) == [0, 1, 2]
        assert all(stored.kept and stored.kept.message.headers == () for stored in found)

        async with producer.transaction():
            await producer.send_offsets_to_transaction(moved(live, 4), group)
        assert len(await settled(world, topic, 3)) == 3
        await quarantine.close()


async def test_what_waits_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no transaction comes, copies are left out and counted, and memory does not grow."""
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    topic = await world.make_topic()
    async with plain(world) as producer:
        quarantine = KafkaQuarantine(topic, watchword=world.reader(), producer=producer, timeout=20)
        assert [await quarantine.put(message(offset), UNSIGNED) for offset in range(3)] == [True, True, False]
        assert quarantine.counts == {"kept": 2, "capped_rejected": 1}


@pytest.mark.parametrize("failures", [1, 2])
async def test_a_copy_that_cannot_be_sent_fails_a_bounded_number_of_transactions(world: World, failures: int) -> None:
    """It is tried once more as a pointer and then left out: it does not stop the consumer forever."""
    topic, live, group = await world.make_topic(), await world.make_topic(), world.unique("group")
    async with plain(world) as producer:
        quarantine = KafkaQuarantine(topic, watchword=world.reader(), producer=producer, timeout=20)
        assert await quarantine.put(message(7, value=bytes(5000)), UNSIGNED)
        send, quarantine.send = quarantine.send, fail  # type: ignore[method-assign,assignment]  # a fault
        for _ in range(failures):
            await producer.begin_transaction()
            with pytest.raises(Unavailable, match="quarantine unavailable: MessageSizeTooLargeError"):
                await producer.send_offsets_to_transaction(moved(live, 8), group)
            await producer.abort_transaction()
        quarantine.send = send  # type: ignore[method-assign]  # as above
        async with producer.transaction():
            await producer.send_offsets_to_transaction(moved(live, 8), group)
    found = await settled(world, topic, 2 - failures)
    assert [stored.kept.complete for stored in found if stored.kept] == [False] * (2 - failures)


async def fail(*_: object) -> asyncio.Future[object]:
    """Fail as the broker does."""
    raise MessageSizeTooLargeError


async def test_outside_a_transaction_the_client_says_what_is_wrong(world: World) -> None:
    """The hook hides no mistake of the caller's, and loses no copy over it."""
    topic, live, group = await world.make_topic(), await world.make_topic(), world.unique("group")
    async with plain(world) as producer:
        quarantine = KafkaQuarantine(topic, watchword=world.reader(), producer=producer, timeout=20)
        assert await quarantine.put(message(7), UNSIGNED)
        with pytest.raises(IllegalOperation):
            await producer.send_offsets_to_transaction(moved(live, 8), group)
        async with producer.transaction():
            await producer.send_offsets_to_transaction(moved(live, 8), group)
    assert offsets(await settled(world, topic, 1)) == [7]


@pytest.mark.needs_kafka("unknown_topic_error")
async def test_a_missing_topic_fails_no_transaction(world: World) -> None:
    """It is found out when a message is put, not in the middle of the caller's transaction."""
    live, group = await world.make_topic(), world.unique("group")
    async with plain(world) as producer:
        quarantine = KafkaQuarantine(world.unique("missing"), watchword=world.reader(), producer=producer, timeout=1)
        with pytest.raises(Unavailable):
            await quarantine.put(message(7), UNSIGNED)
        async with producer.transaction():
            await producer.send_offsets_to_transaction(moved(live, 8), group)


async def test_a_producer_with_serializers_is_refused(world: World) -> None:
    """Nobody's serializer sees bytes that nobody judged."""
    producer = AIOKafkaProducer(bootstrap_servers=world.bootstrap, value_serializer=str.encode)
    with pytest.raises(ConfigurationError, match="serializers"):
        KafkaQuarantine("quarantine", watchword=world.reader(), producer=producer)
    await producer.start()
    await producer.stop()
