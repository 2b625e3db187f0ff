"""From observing to enforcing on live traffic, without a restart: nothing honest is lost, and counts agree."""

import time
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.integration.kafka.world import CONTROLLER, REALM, World
from watchword import Mode, Policy, Watchword
from watchword.policy import ChannelRule
from watchword_adapters.kafka import VerifyingConsumer
from watchword_adapters.stores.sqlite import SqliteReplayStore

EACH = 30
POLICY = Policy(max_skew=30.0)


async def records_of(world: World, topic: str, count: int) -> list[Any]:
    """Capture what stands in a log."""
    async with AIOKafkaConsumer(topic, bootstrap_servers=world.bootstrap, auto_offset_reset="earliest") as consumer:
        return [await consumer.getone() for _ in range(count)]


async def speak(world: World, plain: AIOKafkaProducer, topic: str, first: int) -> None:
    """Let the planner and a stranger speak by turns."""
    async with world.producer() as planner:
        for number in range(first, first + EACH):
            await planner.send_and_wait(topic, b"%d" % number, partition=0)
            await plain.send_and_wait(topic, b"forged %d" % number, partition=0)


async def take(consumer: VerifyingConsumer, got: list[tuple[bytes, bool]], count: int, *, honest: bool = False) -> None:
    """Take so many records, or so many of them that verified."""
    before = len(got)
    while sum(is_verified or not honest for _, is_verified in got[before:]) < count:
        record = await consumer.getone()
        got.append((record.value or b"", record.verified is not None))


@pytest.mark.parametrize("is_shared", [False, True], ids=["log", "store"])
@pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "unstamped"])
async def test_every_honest_record_is_delivered_once_through_the_switch(
    world: World, tmp_path: Path, *, is_shared: bool, stamped: bool
) -> None:
    """Before it all is handed over, marked; then forgeries are dropped, and copies of earlier records too."""
    topic = await world.make_topic(message_timestamp_type="LogAppendTime" if stamped else "CreateTime")
    store = SqliteReplayStore(tmp_path / "ids.db", policy=POLICY, clock=time.time) if is_shared else None
    policy = Policy(mode=Mode.OBSERVE, max_skew=POLICY.max_skew)
    agent = Watchword(realm=REALM, principal=CONTROLLER, keys=world.keys, policy=policy, replay=store)
    got: list[tuple[bytes, bool]] = []
    async with (
        AIOKafkaProducer(bootstrap_servers=world.bootstrap) as plain,
        world.consumer(agent, topic, group_id=f"group-{topic}") as consumer,
    ):
        await speak(world, plain, topic, 0)
        await take(consumer, got, 2 * EACH)
        assert sum(is_verified for _, is_verified in got) == EACH
        agent.switch(POLICY, agent.verifier.keys)
        before = len(got)
        await speak(world, plain, topic, EACH)
        for record in await records_of(world, topic, 4 * EACH):
            if record.headers:
                await plain.send_and_wait(topic, record.value, partition=0, headers=list(record.headers))
        await speak(world, plain, topic, 2 * EACH)
        await take(consumer, got, 2 * EACH, honest=True)
        honest = [value for value, is_verified in got if is_verified]
        assert honest == [b"%d" % number for number in range(3 * EACH)]
        assert [value for value, is_verified in got[before:] if not is_verified] == []
        assert agent.audit.counts["replayed"] == 2 * EACH
    if store is not None:
        await store.close()


async def test_each_topic_has_its_mode_and_changes_it_alone(world: World) -> None:
    """One consumer enforces one topic and observes the other, and either may be switched while it reads."""
    topics = [await world.make_topic(), await world.make_topic()]
    agent = world.reader(mode=Mode.OBSERVE)
    rule = ChannelRule(f"kafka://{REALM}/{topics[0]}", Mode.ENFORCE)
    agent.switch(Policy(mode=Mode.OBSERVE, channels=(rule,), max_skew=30.0), agent.verifier.keys)
    got: list[tuple[str, bytes]] = []
    async with (
        AIOKafkaProducer(bootstrap_servers=world.bootstrap) as plain,
        world.consumer(agent, *topics, group_id=f"group-{topics[0]}") as consumer,
    ):

        async def round_of(count: int) -> set[tuple[int, bytes]]:
            got.clear()
            async with world.producer() as planner:
                for topic in topics:
                    await plain.send_and_wait(topic, b"forged", partition=0)
                    await planner.send_and_wait(topic, b"signed", partition=0)
            for _ in range(count):
                record = await consumer.getone()
                got.append((record.topic, record.value or b""))
            return {(topics.index(topic), value) for topic, value in got}

        assert await round_of(3) == {(0, b"signed"), (1, b"forged"), (1, b"signed")}
        other = ChannelRule(f"kafka://{REALM}/{topics[1]}", Mode.ENFORCE)
        agent.switch(Policy(mode=Mode.OBSERVE, channels=(other,), max_skew=30.0), agent.verifier.keys)
        assert await round_of(3) == {(0, b"forged"), (0, b"signed"), (1, b"signed")}
