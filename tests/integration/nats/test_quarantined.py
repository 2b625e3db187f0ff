"""A client with a quarantine, end to end on a real server."""

from tests.brokers.plugin import MakeStream
from tests.integration.nats.quarantining import held
from tests.integration.nats.world import CLOUD, PLANNER, World, until
from watchword_adapters.nats import NatsQuarantine, WatchwordClient


async def test_a_terminated_message_is_kept_first(world: World, make_stream: MakeStream) -> None:
    """A copy is written before TERM, which may delete; what is behind it is delivered."""
    stream = await make_stream()
    subject = f"{await make_stream()}.copies"
    await (await world.plain()).jetstream().publish(f"{stream}.task", b"forged")
    await (await world.client(world.agent(PLANNER))).jetstream().publish(f"{stream}.task", b"honest")
    agent = world.agent(CLOUD)
    client = WatchwordClient(watchword=agent, quarantine=NatsQuarantine(subject, watchword=agent))
    await client.connect(world.url)
    try:
        bound = await client.jetstream(sole_reader=True).pull_subscribe(f"{stream}.task", stream=stream)
        (msg,) = await bound.fetch(1, timeout=10)
        assert msg.data == b"honest"
        (stored,) = await held(world, subject)
        assert stored.kept is not None
        assert (stored.kept.reason, stored.kept.message.value) == ("unsigned", b"forged")
    finally:
        await client.close()


async def test_a_core_message_is_kept(world: World, make_stream: MakeStream) -> None:
    """What a callback never sees leaves a copy, through the client that reads."""
    stream, subject = await make_stream(), f"{await make_stream()}.copies"
    agent = world.agent(CLOUD)
    quarantine = NatsQuarantine(subject, watchword=agent)
    client = WatchwordClient(watchword=agent, quarantine=quarantine)
    await client.connect(world.url)
    try:
        await client.subscribe(f"{stream}.other", cb=never)
        await client.flush()
        await (await world.plain()).publish(f"{stream}.other", b"forged")
        await until(lambda: quarantine.counts["kept"] == 1)
    finally:
        await client.close()
    assert len(await held(world, subject)) == 1


async def never(msg: object) -> None:
    """Fail."""
    raise AssertionError(msg)
