"""The brokers that the other integration tests stand on."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nats
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from redis.asyncio import Redis

from tests.brokers.broker import Broker
from tests.brokers.plugin import MakeStream, MakeTopic, TimestampType
from tests.brokers.versions import kafka_metadata_level, nats_version, redis_version
from tests.support.patience import PATIENCE

SECONDS_1970 = 1_000  # a record time that no broker of today would stamp


@pytest.mark.parametrize("timestamp_type", ["LogAppendTime", "CreateTime"])
async def test_topic_stamps_records_as_asked(
    kafka_bootstrap: str, make_topic: MakeTopic, timestamp_type: TimestampType
) -> None:
    """A topic of LogAppendTime overrides the sender's record time, one of CreateTime keeps it."""
    topic = await make_topic(timestamp_type=timestamp_type)
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap) as producer:
        await producer.send_and_wait(topic, b"value", timestamp_ms=SECONDS_1970)
    async with AIOKafkaConsumer(topic, bootstrap_servers=kafka_bootstrap, auto_offset_reset="earliest") as consumer:
        record = await asyncio.wait_for(consumer.getone(), 20)
    assert record.value == b"value"
    assert (record.timestamp == SECONDS_1970) is (timestamp_type == "CreateTime")


@pytest.mark.needs_kafka("duplicate_headers")
async def test_headers_arrive_as_they_were_sent(kafka_bootstrap: str, make_topic: MakeTopic) -> None:
    """Order, repeated names and null values of record headers survive the broker."""
    topic = await make_topic()
    headers = [("b", b"1"), ("a", None), ("b", b"\xff")]
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap) as producer:
        await producer.send_and_wait(topic, b"value", headers=headers)
    async with AIOKafkaConsumer(topic, bootstrap_servers=kafka_bootstrap, auto_offset_reset="earliest") as consumer:
        record = await asyncio.wait_for(consumer.getone(), 20)
    assert list(record.headers) == headers


async def test_transaction_commits(kafka_bootstrap: str, make_topic: MakeTopic, unique: Callable[[str], str]) -> None:
    """The broker can talk to itself, which transaction markers need."""
    topic = await make_topic(partitions=2)
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, transactional_id=unique("tx"))
    async with producer, asyncio.timeout(PATIENCE), producer.transaction():
        await producer.send(topic, b"value", partition=1)
    async with AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap, isolation_level="read_committed") as consumer:
        consumer.assign([TopicPartition(topic, 1)])
        await consumer.seek_to_beginning()
        assert (await asyncio.wait_for(consumer.getone(), 20)).value == b"value"


@pytest.mark.needs_kafka("restart")
async def test_kafka_keeps_records_over_a_restart(kafka_broker: Broker, make_topic: MakeTopic) -> None:
    """A restarted broker is the same broker: same address, same log."""
    topic = await make_topic()
    address = kafka_broker.address
    async with AIOKafkaProducer(bootstrap_servers=address) as producer:
        await producer.send_and_wait(topic, b"value")
    await asyncio.to_thread(kafka_broker.restart)
    async with AIOKafkaConsumer(topic, bootstrap_servers=address, auto_offset_reset="earliest") as consumer:
        assert (await asyncio.wait_for(consumer.getone(), 30)).value == b"value"


async def test_stream_stores_what_is_published(nats_url: str, make_stream: MakeStream) -> None:
    """JetStream is on, and a stream takes the messages of its subjects."""
    stream = await make_stream()
    connection = await nats.connect(nats_url)
    async with connection:
        acknowledged = await connection.jetstream().publish(f"{stream}.task", b"value")
        stored = await connection.jetstream().get_msg(stream, seq=acknowledged.seq)
    assert stored.data == b"value"


@pytest.mark.needs_kafka("pause")
def test_paused_kafka_answers_nothing_and_comes_back(kafka_broker: Broker) -> None:
    """A pause looks like a network that swallows everything, and ends with the block."""
    with kafka_broker.paused(), pytest.raises(TimeoutError):
        kafka_metadata_level(kafka_broker.address, timeout=0.5)
    kafka_metadata_level(kafka_broker.address)


@pytest.mark.needs_nats("pause")
def test_paused_server_answers_nothing_and_comes_back(nats_broker: Broker) -> None:
    """A pause looks like a network that swallows everything, and ends with the block."""
    with nats_broker.paused(), pytest.raises(TimeoutError):
        nats_version(nats_broker.address, timeout=0.5)
    assert nats_version(nats_broker.address) == nats_broker.version


@pytest.mark.needs_redis("pause", "restart")
async def test_redis_keeps_keys_over_a_restart(redis_broker: Broker) -> None:
    """A restarted server is the same server: same address, same keys; and a pause ends with the block."""
    with redis_broker.paused(), pytest.raises(TimeoutError):
        redis_version(redis_broker.address, timeout=0.5)
    async with Redis.from_url(redis_broker.address) as client:
        await client.set("test-brokers", b"kept")
    redis_broker.restart()
    async with Redis.from_url(redis_broker.address) as client:
        assert await client.get("test-brokers") == b"kept"
    assert redis_version(redis_broker.address) == redis_broker.version


USES = """
import signal, sys, time, tempfile
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores
tempfile.tempdir = sys.argv[1]
from watchword.brokers import kafka_broker, nats_server
with {}() as address:
    print(address, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("starts", ["nats_server", "kafka_broker"])
def test_an_embedded_broker_goes_with_its_process(tmp_path: Path, starts: str, how: signal.Signals) -> None:
    """However the process ends that started it, the broker ends too, and nothing of it stays on the disk."""
    command = [sys.executable, "-c", USES.format(starts), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:  # noqa: S603 - ours
        assert process.stdout is not None
        host, _, port = process.stdout.readline().strip().removeprefix("nats://").rpartition(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        process.send_signal(how)
        process.wait(30)
    deadline = time.monotonic() + 20
    while list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, int(port)), timeout=5)
