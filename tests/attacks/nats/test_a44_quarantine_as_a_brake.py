"""A44: junk that goes to quarantine holds up nothing honest, whatever becomes of the quarantine."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, RetentionPolicy

from tests.brokers.nats import wheel
from tests.brokers.plugin import MakeStream
from tests.integration.nats.quarantining import UNSIGNED, held, message, quarantine_on
from tests.integration.nats.world import CLOUD, PLANNER, World, soon, unacknowledged, until, world_on
from tests.support.delaying import far_away
from tests.support.kept import Kept
from tests.support.patience import PATIENCE
from watchword import Rate, Reason, Rejected, Unavailable, Watchword
from watchword.spi import Message, QuarantineLimits
from watchword_adapters.nats import NatsQuarantine

HONEST = [b"%d" % number for number in range(10)]
AMPLE = QuarantineLimits(rate=Rate(10_000, 1.0))


async def junk(client: Client, subject: str, count: int) -> None:
    """Publish what nobody signed."""
    for _ in range(count):
        await client.publish(subject, b"forged")
    await client.flush()


async def handled(world: World, stream: str, quarantine: NatsQuarantine) -> list[bytes]:
    """Let a worker of the durable ``d`` acknowledge all that it is given; return the first ten."""
    client = await world.client(quarantine_agent(quarantine), quarantine=quarantine)
    worker = await client.jetstream(sole_reader=True).pull_subscribe_bind("d", stream)
    found: list[bytes] = []
    while len(found) < len(HONEST):
        for msg in await worker.fetch(100, timeout=20):
            await msg.ack()
            found.append(msg.data)
    await client.flush()
    return found


def quarantine_agent(quarantine: NatsQuarantine) -> Any:
    """Return the agent that a test made the quarantine with."""
    return quarantine.agent  # type: ignore[attr-defined]  # set by ``quarantine_of``


def quarantine_of(world: World, subject: str, **options: Any) -> NatsQuarantine:
    """Return a quarantine of a new agent."""
    agent = world.agent(CLOUD)
    quarantine = NatsQuarantine(subject, watchword=agent, **options)
    quarantine.agent = agent  # type: ignore[attr-defined]  # for ``quarantine_agent``
    return quarantine


@pytest.mark.parametrize("retention", [RetentionPolicy.LIMITS, RetentionPolicy.WORK_QUEUE, RetentionPolicy.INTEREST])
@pytest.mark.parametrize("fault", ["missing", "full"])
async def test_a44_a_quarantine_that_takes_nothing_stops_no_durable(
    world: World, make_stream: MakeStream, retention: RetentionPolicy, fault: str
) -> None:
    """More junk than ``max_ack_pending`` is ended without its copies, which are counted; what is honest comes."""
    stream, subject = await make_stream(retention=retention), "nobody.keeps.copies"
    if fault == "full":
        subject = f"{await make_stream(max_msgs=1, discard='new')}.copies"
    attacker, planner = await world.plain(), await world.client(world.agent(PLANNER))
    await attacker.jetstream().add_consumer(stream, ConsumerConfig(durable_name="d", ack_wait=60))
    await junk(attacker, f"{stream}.task", 1100)
    for value in HONEST:
        await planner.jetstream().publish(f"{stream}.task", value)

    quarantine = quarantine_of(world, subject, limits=AMPLE)
    assert await soon(handled(world, stream, quarantine)) == HONEST
    counts = quarantine_agent(quarantine).audit.counts
    assert counts[Reason.UNSIGNED] == 1100
    await until(lambda: counts["left_out"] == 1100 - quarantine.counts["kept"])

    await unacknowledged(partial(attacker.jetstream().consumer_info, stream, "d"), 0)


@pytest.mark.parametrize("bus", ["core", "limits", "workqueue"])
async def test_a44_no_message_waits_for_a_copys_acknowledgement(
    world: World, make_stream: MakeStream, bus: str
) -> None:
    """While the quarantine's server answers nothing, all that is honest is handed over behind what is not."""
    retention = RetentionPolicy.WORK_QUEUE if bus == "workqueue" else RetentionPolicy.LIMITS
    stream, copies = await make_stream(retention=retention), f"{await make_stream()}.copies"
    attacker, planner = await world.plain(), await world.client(world.agent(PLANNER))
    async with far_away(world.url) as proxy:
        far = await nats.connect(f"nats://{proxy.address}")
        quarantine = quarantine_of(world, copies, client=far, timeout=20)
        client = await world.client(quarantine_agent(quarantine), quarantine=quarantine)
        heard: list[bytes] = []

        async def hear(msg: Any) -> None:
            heard.append(msg.data)
            if bus != "core":
                await msg.ack()

        if bus == "core":
            await client.subscribe(f"{stream}.task", cb=hear)
        else:
            js = client.jetstream(sole_reader=True)
            await js.subscribe(f"{stream}.task", durable="d", stream=stream, cb=hear, manual_ack=True)
        await client.flush()
        proxy.stall()
        for value in HONEST:
            await junk(attacker, f"{stream}.task", 5)
            await planner.publish(f"{stream}.task", value)
            await planner.flush()
        await until(lambda: heard == HONEST)
        assert quarantine.counts.total() == 0  # nobody has heard yet what became of any copy
        proxy.go_on()
        await until(lambda: quarantine.counts["kept"] == 50)
        assert len(await held(world, copies)) == 50
        await client.close()
        await far.close()


@pytest_asyncio.fixture
async def quiet(tmp_path: Path) -> AsyncIterator[World]:
    """Give a world on a server of its own, for readers of everything."""
    server = wheel(tmp_path)
    try:
        async with world_on(server.address) as made:
            yield made
    finally:
        server.stop()


@pytest.mark.parametrize("prefixes", [(b"_INBOX", b"_INBOX"), (b"alice", b"bob")], ids=["default", "own"])
async def test_a44_readers_of_everything_copy_no_copies(quiet: World, prefixes: tuple[bytes, bytes]) -> None:
    """Two readers of ``>`` keep one forged message each, and neither copies nor acknowledgements of each other's."""
    manager = (await quiet.plain()).jetstream()
    quarantines = []
    for number, prefix in enumerate(prefixes):
        await manager.add_stream(name=f"Q{number}", subjects=[f"copies.{number}"])
        quarantine = quarantine_of(quiet, f"copies.{number}", limits=AMPLE)
        agent = quarantine_agent(quarantine)
        client = await quiet.client(agent, quarantine=quarantine, inbox_prefix=prefix)

        async def ignore(_: object) -> None:
            pass

        await client.subscribe(">", cb=ignore)
        await client.flush()
        quarantines.append((client, quarantine))
    await (await quiet.plain()).publish("tasks", b"forged")
    await until(lambda: all(quarantine.counts["kept"] for _, quarantine in quarantines))
    for _ in range(50):  # longer than a loop needs for its next round
        for client, _ in quarantines:
            await client.flush()
    assert [quarantine.counts["kept"] for _, quarantine in quarantines] == [1, 1]
    assert [len(await held(quiet, f"copies.{number}")) for number in range(2)] == [1, 1]


class Slow(Kept):
    """A quarantine in memory that takes a copy when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.gate = 0, asyncio.Event()

    async def put(self, message: Message, verdict: Rejected | Unavailable) -> bool:
        """See ``Quarantine.put``."""
        self.begun += 1
        await self.gate.wait()
        return await super().put(message, verdict)


async def worker_of(world: World, stream: str, agent: Watchword, quarantine: Kept, **config: Any) -> tuple[Any, Any]:
    """Return a client, and its pull subscription of the durable ``d``."""
    client = await world.client(agent, quarantine=quarantine)
    await client.jsm().add_consumer(stream, ConsumerConfig(durable_name="d", **config))
    return client, await client.jetstream(sole_reader=True).pull_subscribe_bind("d", stream)


@pytest.mark.parametrize("down", [False, True])
async def test_a28_where_terminating_deletes_the_copy_goes_first(
    world: World, make_stream: MakeStream, *, down: bool
) -> None:
    """A rejected message stays in a WorkQueue stream until its copy is written, or cannot be."""
    stream = await make_stream(retention=RetentionPolicy.WORK_QUEUE)
    attacker, kept, agent = await world.plain(), Slow(), world.agent(CLOUD)
    kept.down = down
    await junk(attacker, f"{stream}.task", 1)
    client, worker = await worker_of(world, stream, agent, kept, ack_wait=60)
    while not kept.begun:
        with pytest.raises(nats.errors.TimeoutError):
            await soon(worker.fetch(1, timeout=0.1))
    assert kept.begun == 1
    await client.flush()

    async def stored() -> int:
        return int((await attacker.jetstream().stream_info(stream)).state.messages)

    assert await stored() == 1
    kept.gate.set()
    async with asyncio.timeout(PATIENCE):
        while await stored():  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)
    assert kept.copies == ([] if down else [(b"forged", "unsigned")])
    assert agent.audit.counts == Counter({"unsigned": 1}) + Counter({"left_out": int(down)})


async def test_a44_copies_take_up_few_of_the_places_for_the_unacknowledged(
    world: World, make_stream: MakeStream
) -> None:
    """Where the server lets few messages be unacknowledged, those that wait for their copies leave room for others."""
    stream = await make_stream(retention=RetentionPolicy.WORK_QUEUE)
    attacker, kept = await world.plain(), Slow()
    await junk(attacker, f"{stream}.task", 20)
    await (await world.client(world.agent(PLANNER))).jetstream().publish(f"{stream}.task", b"honest")
    _, worker = await worker_of(world, stream, world.agent(CLOUD), kept, ack_wait=60, max_ack_pending=4)
    (msg,) = await soon(worker.fetch(1, timeout=20))
    assert (msg.data, kept.copies) == (b"honest", [])
    kept.gate.set()
    await until(lambda: len(kept.copies) == 20)  # of those that were ended before as well


async def test_a44_what_could_not_be_judged_holds_up_nothing(world: World, make_stream: MakeStream) -> None:
    """A message that is given up stays unacknowledged until its copy is kept, and others are delivered meanwhile."""
    stream = await make_stream()
    kept, agent = Slow(), world.agent(CLOUD, max_hold=0.0)
    planner = (await world.client(world.agent(PLANNER))).jetstream()
    await planner.publish(f"{stream}.task", b"in doubt")
    world.keys.down = True
    _, worker = await worker_of(world, stream, agent, kept, ack_wait=60)
    while not agent.audit.counts:
        with pytest.raises(nats.errors.TimeoutError):
            await soon(worker.fetch(1, timeout=0.1))
    world.keys.down = False
    await planner.publish(f"{stream}.task", b"honest")
    (msg,) = await soon(worker.fetch(1, timeout=20))
    assert (msg.data, kept.copies) == (b"honest", [])
    await msg.ack()
    await unacknowledged(worker.consumer_info, 1)
    kept.gate.set()
    await until(lambda: agent.audit.counts["undetermined"] == 1)
    assert kept.copies == [(b"in doubt", "undetermined")]


async def test_a44_on_core_nats_what_could_not_be_judged_holds_up_nothing(
    world: World, unique: Callable[[str], str]
) -> None:
    """It is gone either way: its copy goes beside the traffic, and is counted as what became of it."""
    subject, kept, agent = unique("core"), Slow(), world.agent(CLOUD)
    client, planner = await world.client(agent, quarantine=kept), await world.client(world.agent(PLANNER))
    heard: list[bytes] = []

    async def hear(msg: Any) -> None:
        heard.append(msg.data)

    await client.subscribe(subject, cb=hear)
    await client.flush()
    world.keys.down = True
    for number in range(2):
        await planner.publish(subject, b"in doubt")
        await planner.flush()
        await until(lambda: agent.audit.counts["unavailable"] > number)  # noqa: B023 - waited for in this round
    world.keys.down = False
    await planner.publish(subject, b"honest")
    await until(lambda: heard == [b"honest"])
    assert kept.copies == []
    kept.full = True
    kept.gate.set()
    await until(lambda: agent.audit.counts["left_out"] == 2)


async def test_a44_nobody_silences_the_quarantine_with_one_large_message(world: World, make_stream: MakeStream) -> None:
    """What is over the stream's own limit leaves a pointer: it is no outage, after which nothing is tried for long."""
    stream = await make_stream(max_msg_size=4096)
    quarantine = await quarantine_on(world, f"{stream}.copies")
    assert await quarantine.put(message(1, value=bytes(10_000)), UNSIGNED)
    assert await quarantine.put(message(2, value=b"small"), UNSIGNED)
    found = await held(world, f"{stream}.copies")
    assert [stored.kept and stored.kept.complete for stored in found] == [False, True]


@pytest.mark.parametrize("end", ["close", "drain"])
async def test_copies_on_their_way_are_written_before_the_end(world: World, make_stream: MakeStream, end: str) -> None:
    """A client that is closed or drained lets copies arrive that were handed over before."""
    stream = await make_stream()
    quarantine = quarantine_of(world, f"{stream}.copies", limits=AMPLE)
    agent = quarantine_agent(quarantine)
    client = await world.client(agent, quarantine=quarantine)

    async def never(msg: object) -> None:
        raise AssertionError(msg)

    subject = f"end.{stream}"
    await client.subscribe(subject, cb=never)
    await client.flush()
    await junk(await world.plain(), subject, 50)
    await until(lambda: agent.audit.counts[Reason.UNSIGNED] == 50)
    await (client.close() if end == "close" else client.drain())
    assert quarantine.counts == {"kept": 50}
    assert len(await held(world, f"{stream}.copies")) == 50
    await client.connect(world.url)  # nats-py lets a client begin once more
    await client.subscribe(subject, cb=never)
    await client.flush()
    await junk(await world.plain(), subject, 1)
    await until(lambda: quarantine.counts.total() == 51)
