"""A55 on a real server: agents announce themselves, and ``watchword who`` shows them and what they report."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.msg import Msg
from nats.js.errors import APIError, NotFoundError

from tests.brokers.nats import wheel
from tests.brokers.plugin import MakeStream
from tests.integration.nats.world import World, resend, until, world_on
from tests.support.fleet import CLOUD, MALLORY, ONCALL, PLANNER, Fleet, clean_environment
from tests.support.patience import PATIENCE
from watchword import ConfigurationError, VerifiedMessage, Watchword
from watchword.presence import CONTENT_TYPE, MAX_BYTES, Announcement, Evidence
from watchword.statements import Contain, Release
from watchword_adapters.control.speaker import speaker
from watchword_adapters.nats import VerifiedMsg, WatchwordClient, connect
from watchword_adapters.nats.control_log import NatsControlLog
from watchword_adapters.nats.presence import NatsPresence

Capture = pytest.CaptureFixture[str]


@pytest_asyncio.fixture
async def fleet(world: World, unique: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Fleet]:
    """Give agents with a control log that was made."""
    channel = unique("control").replace("-", ".")
    with clean_environment(tmp_path):
        made = Fleet(tmp_path, "nats", world.url, channel)
        async with NatsControlLog(channel, watchword=world.agent(PLANNER), servers=world.url) as log:
            assert await log.make()
        yield made
        admin = await world.plain()
        with suppress(NotFoundError):
            await admin.jetstream().delete_stream(channel.replace(".", "-"))


@pytest_asyncio.fixture
async def stored(fleet: Fleet, make_stream: MakeStream) -> Fleet:
    """Give a fleet whose announcements are kept for a day."""
    await make_stream(fleet.presence, max_age=86400)
    return fleet


async def shown(fleet: Fleet, capsys: Capture, enough: Callable[[dict[str, Any]], object], *how: str) -> dict[str, Any]:
    """Ask who is there until that is enough."""
    async with asyncio.timeout(2 * PATIENCE):
        while not enough(found := await fleet.who(capsys, *how)):
            pass
        return found


async def running(world: World, fleet: Fleet, principal: str) -> tuple[Watchword, WatchwordClient]:
    """Start an agent."""
    agent = fleet.agent(principal)
    client = await connect(fleet.address, watchword=agent)
    world.stack.push_async_callback(client.close)
    return agent, client


async def announce(fleet: Fleet, agent: Watchword, *said: Announcement) -> None:
    """Announce what one likes, as an agent can that was taken over."""
    client = await connect(fleet.address, watchword=speaker(agent))  # which announces nothing of itself
    for one in said:
        await client.publish(fleet.presence, one.to_json(), headers={"content-type": CONTENT_TYPE})
    await client.flush()
    await client.close()


def made_up(number: int, **members: Any) -> Announcement:
    """Return an announcement that no process makes."""
    return Announcement(instance=f"{number:016x}", number=1, version="6.6.6", buses=("nats",), started=0, **members)


async def test_agents_are_shown_with_what_they_report(world: World, stored: Fleet, capsys: Capture) -> None:
    """Each agent is listed with its instance, key and bus; a handler's report of a message, with its reporter."""
    cloud, reader = await running(world, stored, CLOUD)
    _, planner = await running(world, stored, PLANNER)
    got: list[VerifiedMsg] = []

    async def take(msg: Any) -> None:
        got.append(msg)

    tasks = f"tasks.{stored.channel}"
    await reader.subscribe(tasks, cb=take)
    await reader.flush()
    await planner.publish(tasks, b"scale to 1000")
    await until(lambda: got)
    assert cloud.report(got[0], 1.0, why="too many")
    assert not cloud.report(got[0])
    score = cloud.trust(PLANNER)
    assert score < 1.0
    found = await shown(stored, capsys, lambda found: PLANNER in found and found[PLANNER]["reported"])
    assert found["dropped"] == {}
    reported = found[PLANNER]["reported"]
    assert (reported["reporters"], reported["facts"]) == ([CLOUD], {"reported": 1})
    assert reported["least"] == reported["median"] == reported["greatest"] == pytest.approx(score, abs=0.01)
    (instance,) = found[CLOUD]["instances"]
    assert instance["key_id"] == cloud.signer.key_id.decode()
    assert instance["buses"] == ["nats"]
    assert instance["control"]["known"] is True
    assert instance["seconds_ago"] <= 3 + 30
    assert ONCALL not in found, "who only asks does not announce itself"


async def test_statements_that_were_heard_are_told(world: World, stored: Fleet, capsys: Capture) -> None:
    """Each process says how far it heard an operator's key, so that it can be asked whether all have something."""
    await running(world, stored, CLOUD)
    await stored.say(Contain(MALLORY))

    def heard(found: dict[str, Any]) -> list[Any]:
        return [one for instance in found[CLOUD]["instances"] for one in instance["control"]["heard"]]

    found = await shown(stored, capsys, lambda found: CLOUD in found and heard(found))
    (link,) = heard(found)
    assert (link["operator"], link["number"], link["whole"]) == (ONCALL, 1, 1)
    assert len(link["digest"]) == 43
    assert found[MALLORY] == {"principal": MALLORY, "contained": True, "instances": [], "reported": None}


async def test_a_subject_without_stream_is_listened_to(world: World, fleet: Fleet, capsys: Capture) -> None:
    """Where nothing is stored, who listens for as long as one announcement takes."""
    await running(world, fleet, CLOUD)
    found = await shown(fleet, capsys, lambda found: CLOUD in found)
    assert len(found[CLOUD]["instances"]) == 1


async def test_a_flood_of_copies_forgeries_and_inventions(world: World, stored: Fleet, capsys: Capture) -> None:
    """A55: copies make nobody live, nobody speaks in another's name, and one voice is one, however often it speaks."""
    attacker = await world.plain()
    heard: list[Msg] = []

    async def take(msg: Msg) -> None:
        heard.append(msg)

    listening = await attacker.subscribe(stored.presence, cb=take)
    await attacker.flush()
    await running(world, stored, CLOUD)
    await until(lambda: heard)
    await listening.unsubscribe()
    mallory = stored.agent(MALLORY)
    lies = [
        made_up(n, evidence={PLANNER: Evidence(0.01, {"reported": n}), MALLORY: Evidence(1.0, {})}) for n in range(80)
    ]
    await announce(stored, stored.agent(PLANNER), made_up(1, evidence={MALLORY: Evidence(0.5, {"not_permitted": 1})}))
    await announce(stored, mallory, *lies)
    for _ in range(3):
        await resend(attacker, heard[0])
    await resend(attacker, heard[0], data=made_up(99).to_json())
    await attacker.publish(stored.presence, made_up(98).to_json(), headers={"content-type": CONTENT_TYPE})
    await attacker.flush()
    found = await stored.who(capsys, "--since", "24h")
    assert found["dropped"] == {"replayed": 3, "altered": 1, "unsigned": 1, "no_room": 16}
    assert len(found[MALLORY]["instances"]) == 64
    assert len(found[CLOUD]["instances"]) == len(found[PLANNER]["instances"]) == 1
    assert found[PLANNER]["reported"] == {
        "reporters": [MALLORY], "least": 0.01, "median": 0.01, "greatest": 0.01, "facts": {"reported": 1},
    }  # fmt: skip
    assert found[MALLORY]["reported"]["reporters"] == [PLANNER]
    await stored.say(Contain(MALLORY))
    found = await stored.who(capsys, "--since", "24h")
    assert found["dropped"]["contained"] == 80
    assert found[MALLORY] | {"reported": None} == {
        "principal": MALLORY, "contained": True, "instances": [], "reported": None,
    }  # fmt: skip
    assert found[PLANNER]["reported"] is None


async def test_megabytes_of_a_stranger_hide_nobody(world: World, stored: Fleet, capsys: Capture) -> None:
    """A55: where a stream takes large messages, they are counted, and the others are shown all the same."""
    await announce(stored, stored.agent(CLOUD), made_up(1))
    stranger = await world.plain()
    for _ in range(100):
        await stranger.publish(stored.presence, bytes(1_000_000))
        await stranger.flush()
    await announce(stored, stored.agent(PLANNER), made_up(2))
    found = await stored.who(capsys, "--since", "24h")
    assert found["dropped"] == {"unsigned": 100}
    assert len(found[CLOUD]["instances"]) == len(found[PLANNER]["instances"]) == 1


async def test_what_is_made_takes_no_megabytes(world: World, unique: Callable[[str], str]) -> None:
    """A55: the stream keeps the longest announcement, nothing longer, and as many as a day has."""
    subject = unique("presence")
    admin = (await world.plain()).jetstream()
    async with NatsPresence(subject, watchword=world.agent(PLANNER), servers=world.url) as channel:
        assert await channel.make()
        try:
            assert not await channel.make()
            config = (await admin.stream_info(subject)).config
            assert (config.max_bytes, config.max_age) == (1 << 30, 86_400)
            with pytest.raises(APIError, match="message size exceeds maximum allowed"):
                await admin.publish(subject, bytes(64 * 1024 + 1))
            await channel.announce(bytes(MAX_BYTES), {"content-type": CONTENT_TYPE})
            (found,) = [one async for one in channel.read(since=0.0, listen=0.0)]
            assert found.value == bytes(MAX_BYTES)
        finally:
            await admin.delete_stream(subject)


async def test_what_others_say_moves_no_verdict(world: World, stored: Fleet, capsys: Capture) -> None:
    """A55: a fleet that is lied to delivers as before, and its own trust stays what it was."""
    cloud, reader = await running(world, stored, CLOUD)
    for liar in (MALLORY, PLANNER):
        await announce(stored, stored.agent(liar), made_up(1, evidence={ONCALL: Evidence(0.0, {"reported": 9})}))
    found = await shown(stored, capsys, lambda found: {CLOUD, MALLORY, PLANNER} <= set(found))
    assert found[ONCALL]["reported"]["reporters"] == [MALLORY, PLANNER]
    assert cloud.trust(ONCALL) == 1.0
    subscription = await reader.subscribe(f"tasks.{stored.channel}")
    await reader.flush()
    oncall = await connect(stored.address, watchword=stored.agent(ONCALL))
    await oncall.publish(f"tasks.{stored.channel}", b"restart")
    msg: Any = await subscription.next_msg(timeout=PATIENCE)
    assert isinstance(msg.verified, VerifiedMessage)
    await oncall.close()


async def test_a_contained_agent_is_silent_until_it_is_released(world: World, stored: Fleet, capsys: Capture) -> None:
    """Its own signer holds its announcements back; nothing else of it stops, and after a release it is back."""
    await stored.say(Contain(CLOUD))
    agent, _ = await running(world, stored, CLOUD)
    await until(lambda: agent.audit.events["presence.unavailable"])
    found = await stored.who(capsys)
    assert (found[CLOUD]["contained"], found[CLOUD]["instances"]) == (True, [])
    await stored.say(Release(CLOUD))
    found = await shown(stored, capsys, lambda found: CLOUD in found and found[CLOUD]["instances"])
    assert found[CLOUD]["contained"] is False


LIMITED = """
no_auth_user: admin
authorization { users: [
  { user: admin, password: x, permissions: { publish: ">", subscribe: ">" } }
  { user: mute, password: x, permissions: { publish: { deny: "presence" }, subscribe: ">" } }
  { user: deaf, password: x, permissions: { publish: { deny: "$JS.API.>" }, subscribe: { deny: "presence" } } }
  { user: plain, password: x, permissions: { publish: { deny: "$JS.API.>" }, subscribe: ">" } }
] }
"""


async def test_rights_that_are_missing_are_told(tmp_path: Path) -> None:
    """A user who may not publish or read there gets an error that says so; one without rights to streams can listen."""
    path = tmp_path / "server.conf"
    path.write_text(LIMITED)
    broker = wheel(tmp_path, "-c", str(path))
    try:
        async with world_on(broker.address) as world:
            agent = world.agent(PLANNER)

            def on(user: str) -> NatsPresence:
                return NatsPresence("presence", watchword=agent, servers=broker.address, user=user, password="x")

            async with on("mute") as mute:
                with pytest.raises(ConfigurationError, match="this user may not publish to presence; permit it"):
                    await mute.announce(b"{}", {})
                assert [one async for one in mute.read(since=0.0, listen=0.01)] == []
            async with on("deaf") as deaf:
                with pytest.raises(ConfigurationError, match="this user may not subscribe to presence; permit it"):
                    await anext(deaf.read(since=0.0, listen=1.0))
            async with on("plain") as plain:
                reading = plain.read(since=0.0, listen=PATIENCE)
                coming = asyncio.ensure_future(anext(reading))
                while not coming.done():
                    await plain.announce(b"{}", {})
                assert coming.result().value == b"{}"
                await reading.aclose()
    finally:
        broker.stop()


async def test_what_is_deleted_meanwhile_is_not_waited_for(world: World, make_stream: MakeStream) -> None:
    """A stream that loses what it had when it was asked ends the reading all the same."""
    name = await make_stream()
    subject = f"{name}.presence"
    admin = await world.plain()
    await admin.jetstream().update_stream(name=name, subjects=[subject])
    async with NatsPresence(subject, watchword=world.agent(PLANNER), servers=world.url) as channel:
        for number in range(150):
            await channel.announce(b"%d" % number, {})
        reading = channel.read(since=0.0, listen=0.0)
        first = await anext(reading)
        assert first.value == b"0"
        await admin.jetstream().purge_stream(name)
        assert len([one async for one in reading]) < 149


TRUSTED = """
[[policy.allow]]
principal = "agent://acme/planner"
channels = ["nats://prod/tasks.>"]
min_trust = 0.95
"""


async def test_a_restart_lets_nobody_in(world: World, fleet: Fleet) -> None:
    """A55: an agent that lost its trust by a report is kept out by the process that comes next, too."""
    tasks, got = f"tasks.{fleet.channel}", list[Any]()

    async def take(msg: Any) -> None:
        got.append(msg)

    planner = await connect(fleet.address, watchword=speaker(fleet.agent(PLANNER)))
    world.stack.push_async_callback(planner.close)

    async def kept_out(agent: Watchword) -> None:
        async with asyncio.timeout(PATIENCE):
            while not agent.audit.counts["not_trusted"]:
                await planner.publish(tasks, b"scale")
                await planner.flush()

    first = fleet.agent(CLOUD, TRUSTED)
    reader = await connect(fleet.address, watchword=first)
    await reader.subscribe(tasks, cb=take)
    await reader.flush()
    await planner.publish(tasks, b"scale")
    await until(lambda: got)
    assert first.report(got[0])
    await kept_out(first)
    await reader.close()
    await until(lambda: any(PLANNER in text for text in _kept(fleet.directory / ".cloud")))
    again = fleet.agent(CLOUD, TRUSTED)
    assert again.trust(PLANNER) < 0.95
    reader = await connect(fleet.address, watchword=again)
    world.stack.push_async_callback(reader.close)
    await reader.subscribe(tasks, cb=take)
    await reader.flush()
    await kept_out(again)
    assert len(got) == 1


def _kept(directory: Path) -> list[str]:
    return [path.read_text() for path in directory.glob("*.trust")]
