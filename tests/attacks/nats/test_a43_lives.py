"""A43, A46, A47 on a real server: subscriptions of core NATS that end and begin again, and their memories."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from tests.integration.nats.world import CLOUD, PLANNER, World, resend, second_begins, soon, until
from tests.support.patience import PATIENCE
from watchword import Alias, ConfigurationError, Policy, Reason, Watchword
from watchword_adapters.nats import WatchwordClient
from watchword_adapters.stores.journal import FileJournal

Unique = Callable[[str], str]


class Field:
    """A subject, who speaks on it, and an attacker who hears all and sends it again."""

    def __init__(self, world: World, subject: str) -> None:
        self.world = world
        self.subject = subject
        self.seen: list[Msg] = []

    async def prepare(self) -> "Field":
        """Connect."""
        self.planner = await self.world.client(self.world.agent(PLANNER))
        self.attacker = await self.world.plain()

        async def see(msg: Msg) -> None:
            self.seen.append(msg)

        await self.attacker.subscribe(self.subject, cb=see)
        await self.attacker.flush()
        return self

    async def say(self, value: bytes) -> Msg:
        """Publish a signed message, and return what the attacker captured of it."""
        had = len(self.seen)
        await self.planner.publish(self.subject, value)
        await until(lambda: len(self.seen) > had)
        return self.seen[-1]


def journal(tmp_path: Path, clock: Callable[[], float] = time.time, **policy: float) -> FileJournal:
    """Return the journal of an agent on this machine."""
    return FileJournal(
        tmp_path / "state",
        realm="prod",
        principal=CLOUD,
        policy=Policy(**policy),  # type: ignore[arg-type]  # a few floats
        clock=clock,
        warn=lambda *_, **__: None,
    )


async def reading(client: WatchwordClient, subject: str) -> list[bytes]:
    """Subscribe, and return where messages will be."""
    got: list[bytes] = []

    async def take(msg: Msg) -> None:
        got.append(msg.data)

    await client.subscribe(subject, cb=take)
    return got


@pytest.mark.parametrize("reader", [None, "controller"])
async def test_a43_unsubscribe_and_subscribe_again(world: World, unique: Unique, reader: str | None) -> None:
    """A subscription that ends and begins again is the same reader: what it was given once is a replay."""
    field = await Field(world, unique("a43")).prepare()
    guard = world.agent(CLOUD, max_skew=0.0, shared=reader is not None)
    client = await world.client(guard, reader=reader)
    got: list[bytes] = []

    async def take(msg: Msg) -> None:
        got.append(msg.data)

    subscription = await client.subscribe(field.subject, cb=take)
    await client.ready()
    await asyncio.sleep(1.1)  # times of issue are whole seconds, and the floor is not
    captured = await field.say(b"scale up")
    await until(lambda: got)
    for count in range(1, 4):
        await subscription.unsubscribe()
        subscription = await client.subscribe(field.subject, cb=take)
        await client.flush()
        await resend(field.attacker, captured)
        async with asyncio.timeout(PATIENCE):
            while guard.audit.counts[Reason.REPLAYED] < count:  # noqa: ASYNC110 - the client tells nobody
                await asyncio.sleep(0.005)
    await field.say(b"end")
    await until(lambda: got[-1] == b"end")
    assert got == [b"scale up", b"end"]
    assert guard.audit.counts[Reason.REPLAYED] == 3


async def test_a43_two_subscriptions_of_one_subject_are_two_readers(world: World, unique: Unique) -> None:
    """Each of them is given everything, and continues with its own memory when it begins again."""
    field = await Field(world, unique("a43")).prepare()
    guard = world.agent(CLOUD, max_skew=0.0, shared=False)
    client, other = await world.client(guard), await world.client(guard)
    first, second = await reading(client, field.subject), await reading(other, field.subject)
    await client.ready()
    await other.ready()
    await asyncio.sleep(1.1)
    captured = await field.say(b"1")
    await until(lambda: first and second)
    await client.close()
    third = await reading(newcomer := await world.client(guard), field.subject)
    await newcomer.ready()
    await asyncio.sleep(1.1)
    await resend(field.attacker, captured)
    await field.say(b"2")
    await until(lambda: third and len(second) == 2)
    assert (first, second, third) == ([b"1"], [b"1", b"2"], [b"2"])


async def test_a43_patterns_that_overlap_are_two_readers(world: World, unique: Unique) -> None:
    """With a name and a store, a message that two patterns match is given to both, and called a replay by none."""
    field = await Field(world, unique("a43")).prepare()
    guard = world.agent(CLOUD)
    client = await world.client(guard, reader="controller")
    exact, wide = await reading(client, field.subject), await reading(client, ">")
    await client.ready()
    for number in range(20):
        await field.say(b"%d" % number)
    await until(lambda: len(exact) == 20 and len([one for one in wide if one in exact]) == 20)
    assert guard.audit.counts[Reason.REPLAYED] == 0


async def test_a43_a_name_is_one_client_s(world: World) -> None:
    """Two clients of one name would take each other's messages: the second is refused, until the first has gone."""
    guard = world.agent(CLOUD)
    first = await world.client(guard, reader="controller")
    with pytest.raises(ConfigurationError, match="another client of this process has this name"):
        await world.client(guard, reader="controller")
    await first.close()
    await world.client(guard, reader="controller")


@pytest.mark.parametrize("shared", [True, False])
async def test_a47_an_alias_is_the_reader_of_what_was_signed(world: World, unique: Unique, *, shared: bool) -> None:
    """A message copied to the subject of an alias is a replay there, with a store and without."""
    field = await Field(world, unique("a47")).prepare()
    mapped = unique("mapped")
    alias = Alias(f"nats://prod/{mapped}", f"nats://prod/{field.subject}")
    guard = world.agent(CLOUD, max_skew=0.0, shared=shared, aliases=(alias,))
    client = await world.client(guard, reader="controller" if shared else None)
    original, copies = await reading(client, field.subject), await reading(client, mapped)
    await client.ready()
    await asyncio.sleep(1.1)
    await resend(field.attacker, await field.say(b"once"), subject=mapped)
    await until(lambda: guard.audit.counts.total() == 2)
    assert len(original) + len(copies) == 1
    assert guard.audit.counts == {"delivered": 1, Reason.REPLAYED: 1}


async def test_a46_a_restart_with_a_journal_loses_nothing(world: World, unique: Unique, tmp_path: Path) -> None:
    """A restarted process knows what the one before it was given, and takes what is new without delay."""
    field = await Field(world, unique("a46")).prepare()
    journal(tmp_path).initialise()
    captured: list[Msg] = []
    for number in range(3):
        guard = world.agent(CLOUD, shared=False, journal=journal(tmp_path))
        client = await world.client(guard, reader=None)
        got = await reading(client, field.subject)
        await client.ready()
        for msg in captured:
            await resend(field.attacker, msg)
        captured.append(await field.say(b"%d" % number))
        async with asyncio.timeout(PATIENCE):
            while not got or guard.audit.counts[Reason.REPLAYED] < number:  # noqa: ASYNC110 - the client tells nobody
                await asyncio.sleep(0.005)
        assert got == [b"%d" % number]
        await client.close()


async def test_n1_a_process_that_takes_over_knows_what_the_old_one_was_given(
    world: World, unique: Unique, tmp_path: Path
) -> None:
    """While an older process of the agent still runs, a new one takes nothing that the old one may have been given."""
    field = await Field(world, unique("n1")).prepare()
    old_journal, new_journal = journal(tmp_path, max_skew=1.0), journal(tmp_path, max_skew=1.0)
    old_journal.initialise()
    old = await world.client(world.agent(CLOUD, shared=False, max_skew=1.0, journal=old_journal), reader=None)
    before = await reading(old, field.subject)
    await old.ready()
    captured = [await field.say(b"1")]
    await until(lambda: before)
    guard = world.agent(CLOUD, shared=False, max_skew=1.0, journal=new_journal)
    new = await world.client(guard, reader=None)
    got = await reading(new, field.subject)
    captured.append(await field.say(b"2"))
    await until(lambda: len(before) == 2)
    await new.ready()
    await asyncio.sleep(1.1)
    for msg in captured:
        await resend(field.attacker, msg)
    await field.say(b"3")
    await until(lambda: len(before) == 3 and got)
    assert (before, got) == ([b"1", b"2", b"3"], [b"3"])
    assert guard.audit.counts[Reason.STALE] + guard.audit.counts[Reason.REPLAYED] >= 2
    await old.close()
    await new.close()
    last = world.agent(CLOUD, shared=False, max_skew=1.0, journal=journal(tmp_path, max_skew=1.0))
    after = await reading(client := await world.client(last, reader=None), field.subject)
    await client.ready()
    for msg in [*captured, field.seen[-1]]:
        await resend(field.attacker, msg)
    await field.say(b"4")
    await until(lambda: after)
    assert after == [b"4"], "and what comes after both knows what either was given"


async def test_a46_without_a_journal_the_floor_is_announced(world: World, unique: Unique) -> None:
    """At a first start, one or two warnings for 200 subscriptions say until when messages are lost; ``ready`` waits."""
    subject, warned = unique("a46"), []
    guard = world.agent(CLOUD, shared=False, max_skew=2.0)
    guard.audit.warn = lambda event, **fields: warned.append((event, fields))  # type: ignore[method-assign]  # to listen
    client, planner = await world.client(guard, reader=None), await world.client(world.agent(PLANNER))
    got = await reading(client, f"{subject}.0")
    begun = time.time()
    for number in range(1, 200):
        await client.subscribe(f"{subject}.{number}")
    await client.flush()
    subscribed = time.time()
    await planner.publish(f"{subject}.0", b"too early")
    await soon(client.ready())
    assert time.time() >= begun + 2.0
    await asyncio.sleep(1.1)
    await planner.publish(f"{subject}.0", b"in time")
    await until(lambda: got)
    assert got == [b"in time"]
    floors = [fields for event, fields in warned if event == "replay.floor"]
    assert 1 <= len(floors) <= 2
    assert begun + 2.0 <= floors[0]["until"] <= subscribed + 4.0
    assert "watchword init" in floors[0]["remedy"]


async def test_a46_nothing_is_dropped_once_the_client_is_ready(world: World, unique: Unique) -> None:
    """What is sent as soon as ``ready`` returns is delivered, and nothing is lost behind the end that was announced."""
    subject, warned = unique("a46"), []
    guard = world.agent(CLOUD, shared=False, max_skew=1.0)
    guard.audit.warn = lambda _, **fields: warned.append(fields["until"])  # type: ignore[method-assign]  # to listen
    client, planner = await world.client(guard, reader=None), await world.client(world.agent(PLANNER))
    await second_begins()
    await asyncio.sleep(0.3)  # so that the floor, too, ends early in a second
    got = await reading(client, subject)
    await soon(client.ready())
    assert time.time() >= warned[0]
    await planner.publish(subject, b"ready")
    await until(guard.audit.counts.total)
    assert got == [b"ready"]


async def test_n9_a_machine_that_was_set_back_begins_anew(world: World, unique: Unique) -> None:
    """Where the wall clock moves against the machine's own, what was issued until then is stale."""
    field = await Field(world, unique("n9")).prepare()
    guard: Watchword = world.agent(CLOUD, shared=False, max_skew=2.0)
    client = await world.client(guard, reader=None)
    got = await reading(client, field.subject)
    await client.ready()
    await asyncio.sleep(1.1)
    await field.say(b"1")
    await until(lambda: got)
    guard.lives.compare_clocks(time.time() + 3600, time.clock_gettime(time.CLOCK_BOOTTIME))
    await field.say(b"2")
    await until(lambda: guard.audit.counts[Reason.STALE] == 1)
    assert got == [b"1"]


async def test_n9_a_machine_that_was_set_back_before_its_first_message(
    world: World, unique: Unique, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been given one that it knows no more of: that is as stale as any that came before."""
    field = await Field(world, unique("n9")).prepare()
    guard: Watchword = world.agent(CLOUD, shared=False, max_skew=2.0)
    client = await world.client(guard, reader=None)
    got = await reading(client, field.subject)
    await client.ready()
    lost = time.clock_gettime(time.CLOCK_BOOTTIME) - 100
    monkeypatch.setattr("watchword_adapters.nats.core_reader.since_boot", lambda: lost)
    await field.say(b"1")
    await until(guard.audit.counts.total)
    assert (got, guard.audit.counts[Reason.STALE]) == ([], 1)


async def test_n9_a_machine_that_was_set_back_while_nothing_came(
    world: World, unique: Unique, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The floor begins when the clock moves and not with the next message, which so is no longer lost."""
    field, warned = await Field(world, unique("n9")).prepare(), []
    guard: Watchword = world.agent(CLOUD, shared=False, max_skew=2.0)
    client = await world.client(guard, reader=None)
    got = await reading(client, field.subject)
    await client.ready()
    guard.audit.warn = lambda _, **fields: warned.append(fields["reader"])  # type: ignore[method-assign]  # to listen
    lost = time.clock_gettime(time.CLOCK_BOOTTIME) - 100
    monkeypatch.setattr("watchword_adapters.nats.core_reader.since_boot", lambda: lost)
    await until(lambda: warned)
    await client.ready()
    await field.say(b"1")
    await until(guard.audit.counts.total)
    assert (got, warned) == ([b"1"], ["all: the clock was set"])


async def test_a34_a_clock_that_is_set_back_between_two_starts(world: World, unique: Unique, tmp_path: Path) -> None:
    """What a journal was given is no first sight, though the clock now shows less than it showed then."""
    subject, ahead = unique("a34"), 3600.0
    now = [time.time() + ahead]
    state = journal(tmp_path, clock=lambda: now[0])
    state.initialise()
    guard = world.agent(CLOUD, shared=False, journal=state, clock=lambda: now[0])
    client = await world.client(guard, reader=None)
    attacker = await world.plain()
    seen = await attacker.subscribe(subject)
    await attacker.flush()
    got = await reading(client, subject)
    await client.flush()
    early = await world.client(world.agent(PLANNER, clock=lambda: now[0]))
    await early.publish(subject, b"once")
    await until(lambda: got)
    captured = await soon(seen.next_msg(timeout=None))
    await client.close()
    now[0] += 400  # so that the journal forgets it, for it is no longer fresh
    state = journal(tmp_path, clock=lambda: now[0])
    client = await world.client(world.agent(CLOUD, shared=False, journal=state, clock=lambda: now[0]), reader=None)
    got = await reading(client, f"{subject}.other")
    await client.flush()
    await client.close()
    now[0] -= 400
    state = journal(tmp_path, clock=lambda: now[0])
    guard = world.agent(CLOUD, shared=False, journal=state, clock=lambda: now[0])
    client = await world.client(guard, reader=None)
    got = await reading(client, subject)
    await client.flush()
    await resend(attacker, captured)
    await until(guard.audit.counts.total)
    assert (got, guard.audit.counts["delivered"]) == ([], 0)


@pytest.mark.parametrize("kept", ["journal", "nothing"])
async def test_a43_connections_that_take_turns(world: World, unique: Unique, tmp_path: Path, kept: str) -> None:
    """A connection is opened before the old one is closed: none takes what another was given, over restarts too."""
    field = await Field(world, unique("a43")).prepare()
    captured: list[Msg] = []
    for start in range(2):
        state = journal(tmp_path, max_skew=1.0) if kept == "journal" else None
        if state is not None and not start:
            state.initialise()
        guard = world.agent(CLOUD, shared=False, max_skew=1.0, journal=state)
        old = None
        for turn in range(3):
            client = await world.client(guard, reader=None)
            got = await reading(client, field.subject)
            await client.ready()
            if old is not None:
                await old.close()
            await asyncio.sleep(1.1)
            for msg in captured:
                await resend(field.attacker, msg)
            captured.append(await field.say(b"%d.%d" % (start, turn)))
            async with asyncio.timeout(PATIENCE):
                while not got:  # noqa: ASYNC110 - the client tells nobody
                    await asyncio.sleep(0.005)
            assert got == [b"%d.%d" % (start, turn)]
            old = client
        await client.close()
