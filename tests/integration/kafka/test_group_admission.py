"""A shared store that was made, or lost, under a group with a past, on a real broker."""

import time
from pathlib import Path

import pytest

from tests.integration.kafka.world import REALM, World, read, values
from watchword import ConfigurationError, Policy, Watchword
from watchword.replay import ReaderBirth
from watchword_adapters.stores.sqlite import SqliteReplayStore


async def test_a_group_with_a_past_is_refused_by_a_new_store(world: World, tmp_path: Path) -> None:
    """A new group reads all there is; a store that does not know it any more refuses it until the operator spoke."""
    topic, group = await world.make_topic(), world.unique("group")

    def member(path: Path) -> Watchword:
        policy = Policy(max_skew=0.5)
        replay = SqliteReplayStore(path, policy=policy, clock=time.time)
        return Watchword(realm=REALM, keys=world.keys, policy=policy, replay=replay)

    await world.say(topic, b"one", b"two", b"three")
    first = member(tmp_path / "first.db")
    async with world.consumer(first, topic, group_id=group, enable_auto_commit=False) as consumer:
        assert values(await read(consumer, 2)) == [b"one", b"two"]
        await consumer.commit()
    other = member(tmp_path / "other.db")
    async with world.consumer(other, topic, group_id=group, enable_auto_commit=False) as consumer:
        with pytest.raises(ConfigurationError, match=rf"1 partitions, such as {topic}/0 up to 2; backlog: 1 records"):
            await read(consumer, 1)
        replay = other.verifier.replay
        assert isinstance(replay, SqliteReplayStore)
        await replay.admit_reader(f"kafka:{group}", ReaderBirth(floor=0.0))
        assert values(await read(consumer, 1)) == [b"three"]
