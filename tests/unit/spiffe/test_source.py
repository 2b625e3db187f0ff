import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.board import Board
from tests.support.patience import PATIENCE
from tests.support.workload_api import Authority, Svid, WorkloadApi, p256
from tests.unit.spiffe.world import CLOUD, PLANNER, Clock, Warnings, is_key_of, key_id, show, until
from watchword import ConfigurationError, Policy, SigningKey, Unavailable, VerificationKey
from watchword_adapters.agent_context import AgentContext
from watchword_adapters.spiffe import source as module
from watchword_adapters.spiffe.announcing import HEADERS, MAX_VALUE_BYTES, chain_of, to_value
from watchword_adapters.spiffe.bundles import FileBundles
from watchword_adapters.spiffe.certificates import NotVouchedForError, verified_key
from watchword_adapters.spiffe.source import SpiffeKeys, _Reading, from_options


class World:
    """A board, bundles in a file, and a source that reads both."""

    def __init__(self, directory: Path, root: Authority) -> None:
        self.directory, self.root = directory, root
        self.board, self.clock, self.warnings = Board(), Clock(), Warnings()
        self.path = directory / "bundle.pem"
        self.trust(root)
        self.made: list[SpiffeKeys] = []

    def trust(self, *roots: Authority) -> None:
        """Rewrite the bundle, in one step."""
        beside = self.path.with_suffix(".new")
        beside.write_bytes(b"".join(root.pem for root in roots))
        beside.replace(self.path)

    def source(self, **options: Any) -> SpiffeKeys:
        """Return a source."""
        bundles = FileBundles(
            {"acme.example": self.path}, max_staleness=options.pop("max_staleness", 60.0), warn=self.warnings,
            clock=self.clock,
        )  # fmt: skip
        chosen: dict[str, Any] = {"policy": Policy(), "check_every": 60.0} | options
        source = SpiffeKeys(
            realm="prod", bundles=bundles, open_presence=self.board.open, warn=self.warnings, clock=self.clock, **chosen
        )
        self.made.append(source)
        return source


@pytest.fixture
async def world(tmp_path: Path, root: Authority) -> AsyncIterator[World]:
    """Give a world, and see that its threads end."""
    before = {*threading.enumerate()}
    made = World(tmp_path, root)
    yield made
    for source in made.made:
        source.close()
    await until(
        lambda: not [one for one in threading.enumerate() if one.name == "watchword-spiffe" and one not in before]
    )


async def test_what_was_announced_before_is_known(world: World) -> None:
    """A process that starts later knows the keys of the day: each its SPIFFE ID's own, for its certificate's life."""
    svid = world.root.issue()
    await show(world.board, svid)
    source = world.source()
    assert not source.keys
    found = await source.find(PLANNER, key_id(svid))
    assert found is not None
    assert (found.principal, found.not_after) == (PLANNER, int(svid.chain[0].not_valid_after_utc.timestamp()))
    assert source.keys == (found,)
    assert found.verifies(await SigningKey(svid.private).sign(b"x"), b"x")
    assert await source.find(CLOUD, key_id(svid)) == found
    assert await source.find(CLOUD, b"unknown") is None


async def test_a_new_key_is_found_as_soon_as_it_is_asked_for(world: World) -> None:
    """One reading a second at most, however many keys are invented: an agent that did not wait would be rejected."""
    source, svid = world.source(), world.root.issue()
    assert await source.find(PLANNER, key_id(svid)) is None
    reads = world.board.reads
    await show(world.board, svid)
    for number in range(1000):
        assert await source.find(PLANNER, b"%d" % number) is None
    assert await source.find(PLANNER, key_id(svid)) is None
    assert world.board.reads == reads
    world.clock.now += module.FRESH
    assert is_key_of(await source.find(PLANNER, key_id(svid)), svid)
    assert world.board.reads == reads + 1
    assert module.FRESH < module.SETTLE


async def answered(source: SpiffeKeys, svid: Svid) -> VerificationKey | None:
    """Return what a source says of a key once it can say anything."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(Unavailable):
                return await source.find(PLANNER, key_id(svid))
            await asyncio.sleep(0.01)


async def test_many_who_ask_at_once_share_a_reading(world: World) -> None:
    """Also those who ask for different keys, and those who give up harm nobody."""
    source, svids = world.source(), [world.root.issue() for _ in range(8)]
    assert await source.find(PLANNER, b"x") is None
    reads = world.board.reads
    for svid in svids:
        await show(world.board, svid)
    world.clock.now += module.FRESH
    asked = [asyncio.ensure_future(source.find(PLANNER, key_id(svid))) for svid in svids]
    impatient = asyncio.ensure_future(source.find(PLANNER, b"x"))
    await asyncio.sleep(0)
    impatient.cancel()
    found = await asyncio.gather(*asked)
    assert all(is_key_of(one, svid) for one, svid in zip(found, svids, strict=True))
    assert world.board.reads - reads <= 2


async def test_a_source_that_is_closed_when_it_is_asked_ends(world: World) -> None:
    """Its thread learns of both in one turn of its loop, and the end is not lost in the wake-up."""
    source = world.source()
    assert await source.find(PLANNER, b"x") is None
    assert source._reading is not None

    def woken_and_closed(reading: _Reading) -> None:
        reading._wake.set()
        reading._wake_watch.set()
        reading._thread._closed = True
        reading._thread._cancel()

    source._reading._thread.call(woken_and_closed, source._reading)  # the fixture waits for the thread's end


async def test_who_cannot_have_a_key_here_is_not_looked_for(world: World) -> None:
    """Another kind of name, another trust domain: no reading, whatever becomes of the channel."""
    world.board.down = True
    source = world.source()
    for name in ("agent://acme/planner", "spiffe://other.example/planner", "spiffe://acme.example", "spiffe://"):
        assert await source.find(name, b"x") is None
    assert world.board.reads == 0


async def test_what_is_new_is_read_without_being_asked_for(world: World) -> None:
    """So that the first message by a new key waits for nothing, as a rule."""
    source, svid = world.source(check_every=0.05), world.root.issue()
    assert await source.find(PLANNER, b"x") is None
    await show(world.board, svid)
    await until(lambda: source.keys)
    assert is_key_of(await source.find(PLANNER, key_id(svid)), svid)


async def test_what_lately_came_is_known_before_the_day_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start does not wait for a day of announcements, but nothing is called unknown before they are read."""
    now = world.board.clock()
    new = world.root.issue()
    monkeypatch.setattr(world.board, "clock", lambda: now - 3600)
    old = world.root.issue(begin=datetime.now(UTC) - timedelta(hours=2), life=timedelta(hours=2))
    await show(world.board, old)
    monkeypatch.setattr(world.board, "clock", lambda: now)
    await show(world.board, new)
    gate, passed = threading.Event(), Board.open

    def opened(board: Board, agent: Any) -> Any:
        channel = passed(board, agent)
        really = channel.read

        async def read(*, since: float, listen: float) -> Any:
            if since < now - 2 * module.LATELY:
                await asyncio.to_thread(gate.wait, 20)
            async for message in really(since=since, listen=listen):
                yield message

        monkeypatch.setattr(channel, "read", read)
        return channel

    monkeypatch.setattr(Board, "open", opened)
    source = world.source()
    assert is_key_of(await source.find(PLANNER, key_id(new)), new)
    waits = asyncio.ensure_future(source.find(PLANNER, key_id(old)))
    unknown = asyncio.ensure_future(source.find(PLANNER, b"unknown"))
    assert not (await asyncio.wait((waits, unknown), timeout=0.1))[0]
    gate.set()
    assert is_key_of(await waits, old)
    assert await unknown is None


async def test_only_its_own_key_shows_a_certificate(world: World) -> None:
    """A09: a certificate that someone else shows, or a message that nobody signed, vouches for nothing."""
    svid, stranger = world.root.issue(), p256()
    await show(world.board, svid, by=stranger)
    await show(world.board, svid, CLOUD)
    world.board.put(to_value(svid.der), tuple((name, text.encode()) for name, text in HEADERS.items()))
    source = world.source()
    assert await source.find(PLANNER, key_id(svid)) is None
    assert source.keys == ()
    await show(world.board, svid)
    world.clock.now += module.FRESH
    assert is_key_of(await source.find(PLANNER, key_id(svid)), svid)


async def test_only_the_bundle_makes_a_certificate_count(world: World) -> None:
    """A09: whatever an attacker signs by a key of its own, with a certificate of its own, is unknown."""
    own = p256()
    for svid in (
        Authority(name="root").issue(private=own),
        Authority(name="workload", private=own).issue(private=own),
        world.root.issue("/other", private=own, uris=["spiffe://other.example/planner"]),
    ):
        await show(world.board, svid)
    source = world.source()
    assert await source.find(PLANNER, key_id(world.root.issue(private=own))) is None
    assert source.keys == ()


async def test_one_public_key_of_two_workloads_stays_with_the_first(world: World) -> None:
    """An attacker who has a certificate issued for another's public key gains nothing."""
    svid = world.root.issue()
    await show(world.board, svid)
    source = world.source()
    assert is_key_of(await source.find(PLANNER, key_id(svid)), svid)
    await show(world.board, world.root.issue("/cloud", private=svid.private), CLOUD)
    world.clock.now += module.FRESH
    found = await source.find(CLOUD, key_id(svid))
    assert found is not None
    assert found.principal == PLANNER


@pytest.mark.parametrize("gap", [0, 10])
async def test_two_certificates_of_one_key_are_one_key(world: World, gap: int) -> None:
    """It holds as long as either does; where nothing vouched for it in between, the later one counts."""
    begin, life = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5), timedelta(minutes=10)
    first = world.root.issue(begin=begin, life=life)
    later = begin + life + timedelta(minutes=gap)
    second = world.root.issue(private=first.private, begin=later, life=life)
    await show(world.board, first)
    shown_at = (later + timedelta(minutes=1)).timestamp()
    really, world.board.clock = world.board.clock, lambda: shown_at
    await show(world.board, second)
    world.board.clock = really
    source = world.source(wall_clock=lambda: shown_at)
    found = await source.find(PLANNER, key_id(first))
    assert found is not None
    assert found.not_before == (later if gap else begin).timestamp()
    assert found.not_after == (later + life).timestamp()


GARBAGE = [
    b"",
    b"{}",
    b"[]",
    b"\xff",
    b'{"svid": []}',
    b'{"svid": ["x"]}',
    b'{"svid": "x"}',
    b'{"svid": [1]}',
    b"{" * 999,
]


async def test_garbage_on_the_channel_stops_nothing(world: World) -> None:
    """Anyone who may write there may write anything, also in front of what is honest."""
    headers = tuple((name, text.encode()) for name, text in HEADERS.items())
    for value in (*GARBAGE, b"x" * (MAX_VALUE_BYTES + 1), json.dumps({"svid": ["MAo="] * 4}).encode()):
        world.board.put(value, headers)
        world.board.put(value, ())
    svid = world.root.issue()
    await show(world.board, svid)
    source = world.source()
    assert is_key_of(await source.find(PLANNER, key_id(svid)), svid)
    assert world.warnings == []


@pytest.mark.parametrize("value", [*GARBAGE, b"x" * (MAX_VALUE_BYTES + 1)])
def test_what_shows_no_chain_is_refused(value: bytes) -> None:
    """By one error, which says what it should be; an empty chain is a chain, and no key."""
    if value == b'{"svid": []}':
        assert chain_of(value) == []
        return
    with pytest.raises(NotVouchedForError):
        chain_of(value)


async def test_what_was_shown_before_is_not_looked_at_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each agent shows its certificate again and again, and anyone may copy it: that costs a digest."""
    svid, bad = world.root.issue(), Authority(name="root").issue()
    looked: list[int] = []
    really = verified_key

    def counted(*given: Any, **more: Any) -> Any:
        looked.append(1)
        return really(*given, **more)

    monkeypatch.setattr("watchword_adapters.spiffe.source.verified_key", counted)
    monkeypatch.setattr(module, "MOST_CHAINS", 2)
    for _ in range(5):
        await show(world.board, svid)
        await show(world.board, bad)
    source = world.source()
    assert is_key_of(await source.find(PLANNER, key_id(svid)), svid)
    assert len(looked) == 2
    for _ in range(3):
        await show(world.board, Authority(name="root").issue())
    world.clock.now += module.FRESH
    assert await source.find(PLANNER, b"x") is None
    assert source._reading is not None
    assert len(source._reading._chains) == 2


async def test_who_leaves_the_bundle_is_gone_and_who_comes_in_is_known(world: World) -> None:
    """Bundle rotation: both authorities for a while, then the new one alone; also with the channel out of reach."""
    second = Authority(name="second")
    old, new = world.root.issue(), second.issue()
    for svid in (old, new):
        await show(world.board, svid)
    source = world.source(check_every=0.05)
    assert is_key_of(await source.find(PLANNER, key_id(old)), old)
    assert await source.find(PLANNER, key_id(new)) is None
    world.trust(world.root, second)
    await until(lambda: len(source.keys) == 2)
    assert is_key_of(await source.find(PLANNER, key_id(new)), new)
    world.board.down = True
    world.trust(second)
    await until(lambda: len(source.keys) == 1)
    assert is_key_of(await source.find(PLANNER, key_id(new)), new)
    with pytest.raises(Unavailable):
        await source.find(PLANNER, key_id(old))
    world.board.down = False
    assert await answered(source, old) is None


async def test_an_outage_calls_nothing_unknown(world: World) -> None:
    """Known keys remain valid; others raise Unavailable at once until the channel is back; one warning is logged."""
    svid, new = world.root.issue(), world.root.issue()
    await show(world.board, svid)
    source = world.source(check_every=0.05)
    assert is_key_of(await source.find(PLANNER, key_id(svid)), svid)
    world.board.down = True
    await until(lambda: "keys.presence_not_read" in world.warnings.events)
    world.clock.now += module.FRESH
    for _ in range(3):
        assert is_key_of(await source.find(PLANNER, key_id(svid)), svid)
        with pytest.raises(
            Unavailable, match="the presence channel cannot be read: ConnectionError: the board is down"
        ):
            await source.find(PLANNER, key_id(new))
    assert world.warnings.events == ["keys.presence_not_read"]
    world.board.down = False
    await show(world.board, new)
    await until(lambda: len(source.keys) == 2)
    assert is_key_of(await source.find(PLANNER, key_id(new)), new)


async def test_who_asks_while_it_breaks_is_told(world: World) -> None:
    """The question that finds it out waits for nothing more, nor does one whose asker gave up."""
    await show(world.board, world.root.issue())
    world.board.hangs.set()
    source = world.source()
    asked = [asyncio.ensure_future(source.find(PLANNER, b"%d" % number)) for number in range(3)]
    await until(lambda: world.board.reads)
    asked[0].cancel()
    world.board.down = True
    world.board.hangs.clear()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert all(isinstance(one, Unavailable) for one in found[1:])


async def test_a_channel_that_hangs_is_not_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for longer than a bound, and where it never came to an answer, not at all."""
    monkeypatch.setattr(module, "READ_LIMIT", 0.05)
    world.board.hangs.set()
    source = world.source()
    with pytest.raises(Unavailable, match=r"takes longer than 0\.05 s"):
        await source.find(PLANNER, b"x")
    world.clock.now += 1
    with pytest.raises(Unavailable, match="no connection"):
        await source.find(PLANNER, b"x")
    world.board.hangs.clear()


async def test_a_channel_that_stores_nothing_is_told(world: World) -> None:
    """Certificates would be lost to those who come later: that is Unavailable, and what makes a stream is named."""
    world.board.keeps = False
    source = world.source()
    with pytest.raises(Unavailable, match="'watchword control init' sets that up"):
        await source.find(PLANNER, b"x")


async def test_bundles_that_nobody_knows_any_more_are_not_believed(world: World) -> None:
    """The last good one holds for max_staleness; then nothing verifies, until it can be read again."""
    svid = world.root.issue()
    await show(world.board, svid)
    source = world.source(check_every=0.05, max_staleness=60.0)
    assert is_key_of(await source.find(PLANNER, key_id(svid)), svid)
    good = world.path.read_bytes()
    for wrong in (b"x", None):
        told = len(world.warnings)
        if wrong is None:
            world.path.unlink()
        else:
            world.path.write_bytes(wrong)
        await until(lambda told=told: len(world.warnings) > told)  # type: ignore[misc]
        assert is_key_of(await source.find(PLANNER, key_id(svid)), svid)
    assert set(world.warnings.events) == {"keys.bundles_not_read"}
    world.clock.now += 61.0
    with pytest.raises(Unavailable, match="trust bundles could not be read for longer than max_staleness"):
        await source.find(PLANNER, key_id(svid))
    world.path.write_bytes(good)
    assert is_key_of(await answered(source, svid), svid)


async def test_keys_are_forgotten_once_nobody_can_lag_that_far(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that ended is kept for as long as its messages may be read; then it goes, and of too many the first."""
    now = datetime.now(UTC)
    ended = world.root.issue(begin=now - timedelta(minutes=50), life=timedelta(minutes=30))
    later = world.root.issue(begin=now - timedelta(minutes=50), life=timedelta(minutes=40))
    wall = Clock((now - timedelta(minutes=45)).timestamp())
    world.board.clock = wall
    await show(world.board, ended)
    await show(world.board, later)
    wall.now = now.timestamp()
    policy = Policy(max_age=60.0, max_skew=5.0, max_lag=3600.0)
    source = world.source(policy=policy, wall_clock=wall)
    assert is_key_of(await source.find(PLANNER, key_id(ended)), ended)
    wall.now += 2700.0
    world.clock.now += 1
    assert await source.find(PLANNER, b"x") is None
    assert [key.key_id for key in source.keys] == [key_id(later)]
    monkeypatch.setattr(module, "MOST_OF_ONE", 2)
    world.board.messages.clear()
    several = [world.root.issue(begin=now, life=timedelta(hours=3 + number)) for number in range(3)]
    for svid in several:
        await show(world.board, svid)
    world.clock.now += 1
    assert await source.find(PLANNER, b"x") is None
    assert {key.key_id for key in source.keys} == {key_id(svid) for svid in several[1:]}
    monkeypatch.setattr(module, "MOST", 1)
    world.clock.now += 1
    assert await source.find(PLANNER, b"x") is None
    assert [key.key_id for key in source.keys] == [key_id(several[2])]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # forking is what it is about
async def test_a_forked_child_reads_for_itself(world: World) -> None:
    """The thread is the parent's: a child that asks begins one of its own."""
    svid = world.root.issue()
    await show(world.board, svid)
    source = world.source()
    assert is_key_of(await source.find(PLANNER, key_id(svid)), svid)
    reading = source._reading
    assert reading is not None
    reading.pid = os.getpid() + 1  # type: ignore[misc]  # as a child finds it
    assert is_key_of(await source.find(PLANNER, key_id(svid)), svid)
    assert source._reading is not reading
    reading.close()


@pytest.fixture
def context(tmp_path: Path, root: Authority) -> AgentContext:
    """Return what the settings say besides."""
    (tmp_path / "bundle.pem").write_bytes(root.pem)
    board = Board()
    return AgentContext(
        realm="prod", directory=tmp_path, clock=board.clock, policy=Policy(), warn=Warnings(), presence=board.open
    )


FILES = {"bundles": {"acme.example": "bundle.pem"}}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, 'whose workloads? write trust_domains = ["acme.example"], or [keys.bundles]'),
        (FILES | {"trust_domains": ["acme.example"]}, "write bundles or trust_domains, not both"),
        (FILES | {"socket": "unix:///x"}, "write socket only with trust_domains"),
        ({"bundles": {}}, "at least one file in bundles"),
        ({"bundles": {"ACME": "bundle.pem"}}, "'ACME' is not a trust domain"),
        (
            {"bundles": {"acme.example": "none.pem"}},
            "none.pem: No such file or directory; write the output of 'spire-server",
        ),
        ({"bundles": {"acme.example": "."}}, "is a directory"),
        (FILES | {"check_every": 0}, "check_every of 0 s: write 0.05 s to 60 s"),
        (FILES | {"max_staleness": 1}, "max_staleness of 1 s: write 5 s to 604800 s"),
        (FILES | {"paths": []}, "paths"),
        ({"trust_domains": ["acme.example"], "socket": "unix:///none"}, 'does not exist.; write socket = "unix:'),
        ({"trust_domains": ["acme.example"], "socket": "http://x"}, "SPIFFE Workload API"),
    ],
)
def test_a_mistake_in_the_table_is_told(context: AgentContext, options: dict[str, Any], complaint: str) -> None:
    """With what to write instead."""
    with pytest.raises(ConfigurationError) as error:
        from_options(options, context)
    assert complaint in str(error.value)


def test_without_a_presence_channel_there_are_no_certificates(context: AgentContext, tmp_path: Path) -> None:
    """The error for a missing presence channel says what to write."""
    bare = AgentContext(realm="prod", directory=tmp_path, clock=context.clock, policy=Policy(), warn=Warnings())
    with pytest.raises(ConfigurationError, match='write presence = "nats://prod/<subject>"'):
        from_options(FILES, bare)


async def test_the_workload_api_gives_bundles(
    context: AgentContext, root: Authority, serve: Callable[..., WorkloadApi]
) -> None:
    """At once, and pushed when they change; a bundle with what is no authority leaves what was, of its own domain."""
    api = serve(root.issue("/reader"))
    source = from_options({"trust_domains": ["acme.example", "other.example"], "socket": api.socket}, context)
    warnings = context.warn
    assert isinstance(warnings, Warnings)
    assert "gives no bundle of other.example, only of acme.example" in str(warnings)
    assert context.presence is not None
    board = context.presence.__self__  # type: ignore[attr-defined]
    other = Authority("other.example")
    svid, foreign = root.issue(), other.issue()
    await show(board, svid)
    await show(board, foreign, "spiffe://other.example/planner")
    try:
        assert is_key_of(await source.find(PLANNER, key_id(svid)), svid)
        assert await source.find("spiffe://other.example/planner", key_id(foreign)) is None
        api.update([root.issue("/reader")], [root], {"other.example": [other]})
        await until(lambda: len(source.keys) == 2)
        found = await source.find("spiffe://other.example/planner", key_id(foreign))
        assert is_key_of(found, foreign)
        second, wrong = Authority(name="second"), Authority(name="wrong", is_authority=False)
        api.update([second.issue("/reader")], [second, wrong], {"other.example": [other]})
        await until(lambda: "CN=wrong" in str(warnings))
        assert is_key_of(await source.find(PLANNER, key_id(svid)), svid)
        api.update([second.issue("/reader")], [second], {"other.example": [wrong]})
        await until(lambda: [key.principal for key in source.keys] == ["spiffe://other.example/planner"])
    finally:
        source.close()


async def test_a_key_is_known_as_soon_as_it_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of others' announcements behind it does not keep a reader that starts from knowing it (A21)."""
    monkeypatch.setattr(module, "PUBLISH_EVERY", 0.0)
    svid = world.root.issue()
    await show(world.board, svid)
    await show(world.board, Authority(name="other").issue("/junk"), "spiffe://acme.example/junk")
    world.board.stuck_at = 1
    source = world.source()
    assert is_key_of(await source.find(PLANNER, key_id(svid)), svid)
    assert len(source.keys) == 1
    world.board.stuck_at = None


async def test_a_bundle_of_the_past_is_told(tmp_path: Path) -> None:
    """Messages of its time may be read still; that no new one can verify is no riddle."""
    past = datetime.now(UTC) - timedelta(days=2)
    (tmp_path / "old.pem").write_bytes(Authority(now=past).pem)
    warnings = Warnings()
    context = AgentContext(
        realm="prod", directory=tmp_path, clock=time.time, policy=Policy(), warn=warnings, presence=Board().open
    )
    from_options({"bundles": {"acme.example": "old.pem"}}, context).close()
    assert [(event, fields["trust_domain"]) for event, fields in warnings] == [("keys.bundle_ended", "acme.example")]
