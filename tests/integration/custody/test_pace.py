"""Slow back-ends on both buses: messages share calls, keep their order, and hold up nothing else."""

import asyncio
import os
import threading
import time
from pathlib import Path

import nats
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from nats.aio.msg import Msg

from tests.brokers.plugin import MakeTopic
from tests.support.patience import PATIENCE
from watchword import Algorithm, Policy, SigningKey, Watchword
from watchword.algorithms import PublicKey
from watchword.kafka import SigningProducer
from watchword.nats import connect
from watchword.spi import Context
from watchword_adapters.signers.held import HeldKey, HeldOptions

MANY = 300


class Slow:
    """Holds a key; a call takes 20 ms, in which it counts who called."""

    def __init__(self) -> None:
        self.key = SigningKey.generate()
        self.calls = 0
        self.threads: set[threading.Thread] = set()

    def public(self) -> PublicKey:
        """Return the public half."""
        return self.key.public

    def sign(self, data: bytes, algorithm: Algorithm) -> bytes:
        """Sign, slowly."""
        del algorithm
        self.calls += 1
        self.threads.add(threading.current_thread())
        time.sleep(0.02)
        return self.key.sign_now(data)


@pytest.fixture
def slow() -> Slow:
    """Give who holds the key."""
    return Slow()


@pytest.fixture
def agent(slow: Slow, tmp_path: Path) -> Watchword:
    """Give an agent that signs by it."""
    context = Context(
        realm="prod", directory=tmp_path, clock=time.time, policy=Policy(), warn=lambda *_, **__: None
    )  # fmt: skip
    key = HeldKey.of(slow, HeldOptions(timeout=60.0), context)
    slow.calls = 0
    return Watchword(realm="prod", principal="agent://acme/slow", key=key)


def _shared(slow: Slow) -> None:
    """See that messages shared calls: alone first, then by batches of 64; and that no call was the event loop's."""
    assert 5 <= slow.calls <= 8
    assert threading.main_thread() not in slow.threads


async def test_nats_keeps_order_and_goes_on(slow: Slow, agent: Watchword, nats_url: str) -> None:
    """Many tasks that publish at once share few calls; the server sees their messages in the order of their calls."""
    subject, heard, all_heard = f"pace-{os.urandom(4).hex()}", list[bytes](), asyncio.Event()
    plain, client = await nats.connect(nats_url), await connect(nats_url, watchword=agent)
    try:

        async def hear(msg: Msg) -> None:
            heard.append(msg.data)
            if len(heard) == MANY:
                all_heard.set()

        await plain.subscribe(subject, cb=hear)
        await plain.flush()
        sends = [asyncio.create_task(client.publish(subject, b"%d" % number)) for number in range(MANY)]
        rounds = 0
        while not all(send.done() for send in sends):
            await asyncio.sleep(0)  # a round of the loop, of which there are many in the time of one call
            rounds += 1
        await asyncio.gather(*sends)
        await client.flush()
        await plain.flush()
        async with asyncio.timeout(PATIENCE):
            await all_heard.wait()
    finally:
        await client.close()
        await plain.close()
    assert heard == [b"%d" % number for number in range(MANY)]
    assert rounds > slow.calls
    _shared(slow)


async def test_kafka_keeps_order_and_goes_on(
    slow: Slow, agent: Watchword, kafka_bootstrap: str, make_topic: MakeTopic
) -> None:
    """Many tasks that send at once share few calls; their messages stand in the log in the order of their calls."""
    topic = await make_topic()
    async with SigningProducer(bootstrap_servers=kafka_bootstrap, watchword=agent, max_batch_size=1 << 20) as producer:
        sends = [asyncio.create_task(producer.send(topic, b"%d" % number, partition=0)) for number in range(MANY)]
        rounds = 0
        while not all(send.done() for send in sends):
            await asyncio.sleep(0)
            rounds += 1
        await asyncio.gather(*await asyncio.gather(*sends))
    assert rounds > slow.calls
    _shared(slow)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(topic, 0)])
    await consumer.start()
    try:
        async with asyncio.timeout(PATIENCE):
            found = [(await consumer.getone()).value for _ in range(MANY)]
    finally:
        await consumer.stop()
    assert found == [b"%d" % number for number in range(MANY)]
