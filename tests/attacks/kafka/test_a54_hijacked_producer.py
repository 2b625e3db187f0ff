"""A54: a writer uses another producer's id, epoch and next sequence number, which every reader of the topic sees.

The broker then takes that producer's own batch for a duplicate: it acknowledges it, and stores nothing.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import InvalidTxnState, KafkaError, OutOfOrderSequenceNumber, ProducerFenced, RequestTimedOutError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from tests.integration.kafka.world import PLANNER, REALM, World, read, values
from tests.support.patience import PATIENCE
from watchword import Policy, Watchword, WatchwordError
from watchword_adapters.kafka import AckMismatchError

Stamps = Literal["CreateTime", "LogAppendTime"]
STAMPS: list[Stamps] = ["CreateTime", "LogAppendTime"]
SKEW = 0.2


@dataclass
class Attacker:
    """May write to the topic, and knows of the victim what stands in its batches."""

    client: AIOKafkaClient
    topic: str
    victim: AIOKafkaProducer

    async def write(self, *, ahead: int = 0, records: int = 1, epoch: int = 0, partition: int = 0) -> None:
        """Write a batch as if the victim did: ``ahead`` of its next sequence number, or in a later epoch."""
        manager: Any = self.victim._txn_manager
        tp = TopicPartition(self.topic, partition)
        sequence = 0 if epoch else manager.sequence_number(tp) + ahead
        builder = DefaultRecordBatchBuilder(
            2, 0, 0, manager.producer_id, manager.producer_epoch + epoch, sequence, 1 << 20
        )
        for offset in range(records):
            builder.append(offset, int(time.time() * 1000), None, b"forged", [])
        await self.client._wait_on_metadata(self.topic)
        request = ProduceRequest(
            transactional_id=None,
            required_acks=-1,
            timeout=5_000,
            topics=[(self.topic, [(partition, bytes(builder.build()))])],
        )
        error = InvalidTxnState.errno
        async with asyncio.timeout(PATIENCE):  # a transaction ends a little after the broker has said so
            while error == InvalidTxnState.errno:
                answer = await self.client.send(self.client.cluster.leader_for_partition(tp), request)
                ((_, ((_, error, *_),)),) = answer.topics
        assert not error


@asynccontextmanager
async def attacked(world: World, topic: str, victim: AIOKafkaProducer) -> AsyncIterator[Attacker]:
    """Let someone attack a producer that has sent its first message there."""
    client = AIOKafkaClient(bootstrap_servers=world.bootstrap)
    await client.bootstrap()
    try:
        await victim.send_and_wait(topic, b"first", partition=0)
        yield Attacker(client, topic, victim)
    finally:
        await client.close()


def agent(world: World, *, max_skew: float = 30.0) -> Watchword:
    """Return a speaker of which clocks may differ by no more than this."""
    policy, key = Policy(max_skew=max_skew), world.signing[PLANNER]
    return Watchword(realm=REALM, principal=PLANNER, key=key, keys=world.keys, policy=policy)


async def delivered(world: World, topic: str, count: int) -> list[bytes]:
    """Return what a reader is given, which is all that stands there signed."""
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        found = values(await read(consumer, count))
        assert await consumer.getmany(timeout_ms=200) == {}
    return found


@pytest.mark.parametrize("stamps", STAMPS)
async def test_a54_the_client_alone_believes_the_acknowledgement(world: World, stamps: Stamps) -> None:
    """The attack works: aiokafka's own send succeeds, and the message stands nowhere."""
    topic = await world.make_topic(timestamp_type=stamps)
    async with (
        AIOKafkaProducer(bootstrap_servers=world.bootstrap, enable_idempotence=True) as victim,
        attacked(world, topic, victim) as attacker,
    ):
        await attacker.write()
        assert (await victim.send_and_wait(topic, b"second", partition=0)).offset == 1
    assert [copy.value for copy in await world.capture(topic, 2)] == [b"first", b"forged"]


async def by_send(victim: Any, topic: str, value: bytes) -> object:
    """Send a message."""
    return await victim.send_and_wait(topic, value, partition=0)


async def by_batch(victim: Any, topic: str, value: bytes) -> object:
    """Send a batch of one message."""
    batch = victim.create_batch()
    batch.append(timestamp=None, key=None, value=value)
    return await (await victim.send_batch(batch, topic, partition=0))


@pytest.mark.needs_kafka("producer_sequences")
@pytest.mark.parametrize("way", [by_send, by_batch])
@pytest.mark.parametrize("stamps", STAMPS)
async def test_a54_an_answer_that_belongs_to_another_batch_is_an_error(
    world: World, caplog: pytest.LogCaptureFixture, stamps: Stamps, way: Callable[..., Any]
) -> None:
    """The sender learns by an error, and once by a warning, that its message is not stored; the next is delivered."""
    topic = await world.make_topic(timestamp_type=stamps)
    async with (
        world.producer(agent(world, max_skew=SKEW)) as victim,
        attacked(world, topic, victim) as attacker,
    ):
        for _ in range(2):
            await attacker.write()
            await asyncio.sleep(0 if stamps == "CreateTime" else SKEW * 2)  # earlier than clocks can explain
            with pytest.raises(AckMismatchError, match="not stored") as raised:
                await way(victim, topic, b"second")
            assert isinstance(raised.value, WatchwordError)
            assert isinstance(raised.value, KafkaError)
            await way(victim, topic, b"third")
    assert await delivered(world, topic, 3) == [b"first", b"third", b"third"]
    said = caplog.text
    assert said.count("kafka.ack_mismatch") == 1
    assert topic in said


async def test_a54_stamped_in_time_an_answer_shows_nothing(world: World) -> None:
    """The limit that SECURITY states: on a stamped topic, an attack within ``max_skew`` of the send cannot be seen."""
    topic = await world.make_topic(timestamp_type="LogAppendTime")
    async with world.producer() as victim, attacked(world, topic, victim) as attacker:
        await attacker.write()
        await victim.send_and_wait(topic, b"second", partition=0)
        await victim.send_and_wait(topic, b"third", partition=0)
    assert await delivered(world, topic, 2) == [b"first", b"third"]


@pytest.mark.needs_kafka("producer_sequences")
@pytest.mark.parametrize(
    ("attack", "error"),
    [
        ({"records": 2}, OutOfOrderSequenceNumber),
        ({"epoch": 1}, ProducerFenced),
    ],
    ids=["more records", "next epoch"],
)
async def test_a54_what_the_broker_refuses_is_an_error(
    world: World, attack: dict[str, int], error: type[Exception]
) -> None:
    """A batch of another length, or of the next epoch, makes the broker refuse the victim's, which learns of it."""
    topic = await world.make_topic()
    async with world.producer() as victim, attacked(world, topic, victim) as attacker:
        await attacker.write(**attack)
        with pytest.raises(error):
            await victim.send_and_wait(topic, b"second", partition=0)
    assert await delivered(world, topic, 1) == [b"first"]


async def test_a54_without_idempotence_there_is_nothing_to_hijack(world: World) -> None:
    """A producer as aiokafka makes it bears no number that someone else could use: all that it sends is delivered."""
    topic = await world.make_topic(timestamp_type="CreateTime")
    async with (
        world.producer() as numbered,
        attacked(world, topic, numbered) as attacker,
        world.producer(enable_idempotence=False) as victim,
    ):
        for value in (b"second", b"third"):
            await attacker.write()
            await attacker.write(ahead=1, records=3)
            await victim.send_and_wait(topic, value, partition=0)
            numbered._txn_manager.increment_sequence_number(TopicPartition(topic, 0), 4)
    assert await delivered(world, topic, 3) == [b"first", b"second", b"third"]


@pytest.mark.needs_kafka("producer_sequences")
async def test_a54_a_transaction_learns_of_it_too(world: World) -> None:
    """A transactional producer is idempotent: its send fails, so that the transaction is aborted."""
    topic = await world.make_topic(timestamp_type="CreateTime")
    async with world.producer(transactional_id=world.unique("tx")) as victim:
        await victim.begin_transaction()
        async with attacked(world, topic, victim) as attacker:
            await victim.commit_transaction()
            await attacker.write()

            async def work() -> None:
                async with victim.transaction():
                    await victim.send_and_wait(topic, b"second", partition=0)

            with pytest.raises(AckMismatchError):
                await work()
            await victim.begin_transaction()
            await victim.send_and_wait(topic, b"third", partition=0)
            await victim.commit_transaction()
    assert await delivered(world, topic, 2) == [b"first", b"third"]


@pytest.mark.parametrize("stamps", STAMPS)
async def test_a54_an_honest_retry_is_no_attack(world: World, monkeypatch: pytest.MonkeyPatch, stamps: Stamps) -> None:
    """A batch that was stored, and whose answer was lost, is sent again and found to be stored: no error."""
    topic = await world.make_topic(timestamp_type=stamps)
    async with world.producer(agent(world, max_skew=SKEW)) as producer:
        lost: list[str] = []
        send = producer.client.send

        async def lossy(node: int, request: Any, **options: Any) -> Any:
            answer = await send(node, request, **options)
            if isinstance(request, ProduceRequest) and len(lost) % 2 == 0:
                lost.append("answer")
                await asyncio.sleep(SKEW * 2)
                raise RequestTimedOutError
            lost.append("no answer")
            return answer

        monkeypatch.setattr(producer.client, "send", lossy)
        offsets = [(await producer.send_and_wait(topic, b"%d" % n, partition=0)).offset for n in range(3)]
    assert offsets == [0, 1, 2]
    assert lost.count("answer") == 3
    assert await delivered(world, topic, 3) == [b"0", b"1", b"2"]
