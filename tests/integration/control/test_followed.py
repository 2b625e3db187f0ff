"""Operators and agents over a real control log, by settings as people write them, on either bus."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio

from tests.support.broker_tools import admin_of, delete_topics
from tests.support.patience import PATIENCE
from watchword import Reason, Rejected, SigningKey, Watchword, load
from watchword.jwk import to_jwks
from watchword.keys import thumbprint
from watchword.spi import Channel, Message
from watchword.statements import Contain, GiveKey, Release, Revoke, Saying
from watchword_adapters.config import control_parts
from watchword_adapters.control.desk import desk, followed
from watchword_adapters.control.following import Following, Parts
from watchword_adapters.control.log import ControlLog
from watchword_adapters.settings_file import read_settings

ONCALL, PLANNER, NEWCOMER, CONTROLLER = (f"agent://acme/{one}" for one in ("oncall", "planner", "new", "controller"))


@dataclass(frozen=True)
class Bus:
    """Where the control log is: its channel, the settings that lead there, and who may delete it."""

    channel: str
    settings: str
    delete: Callable[[], Awaitable[None]]


@pytest_asyncio.fixture(params=["nats", pytest.param("kafka", marks=pytest.mark.needs_kafka("topic_ids"))])
async def bus(request: pytest.FixtureRequest, unique: Callable[[str], str]) -> AsyncIterator[Bus]:
    """Give a log that is not made yet on each bus, and delete it after the test."""
    name = unique("control")
    if request.param == "nats":
        url = request.getfixturevalue("nats_url")
        connection = await nats.connect(url)

        async def delete_stream() -> None:
            await connection.jetstream().delete_stream(name)

        yield Bus(f"nats://prod/{name}", f'[nats]\nservers = ["{url}"]', delete_stream)
        await delete_stream()
        await connection.close()
        return
    address = request.getfixturevalue("kafka_bootstrap")
    async with admin_of(address) as admin:

        async def delete_topic() -> None:
            await delete_topics(admin, name)

        yield Bus(f"kafka://prod/{name}", f'[kafka]\nservers = ["{address}"]', delete_topic)
        await delete_topic()


class World:
    """One folder for each process: its settings, its keys and what it keeps."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        self.bus = bus
        self.folder = folder
        self.signing = {name: SigningKey.generate() for name in (ONCALL, PLANNER, NEWCOMER)}

    def settings(self, principal: str, *, process: str = "") -> Path:
        """Write the settings of a process, once."""
        folder = self.folder / (process or principal.rpartition("/")[2])
        path = folder / "watchword.toml"
        if path.exists():
            return path
        folder.mkdir()
        known = [self.signing[name].verification_key(name) for name in (ONCALL, PLANNER)]
        (folder / "agents.jwks").write_text(to_jwks(known))
        signer = ""
        if principal in self.signing:
            (folder / "own.pem").write_bytes(self.signing[principal].to_pem())
            signer = '[signer]\nkey = "own.pem"\n'
        path.write_text(
            f'realm = "prod"\nprincipal = "{principal}"\n{signer}'
            '[[keys]]\nsource = "files"\npaths = ["agents.jwks"]\n[[keys]]\nsource = "control"\n'
            f'[control]\nchannel = "{self.bus.channel}"\n'
            f'[[control.operators]]\nprincipal = "{ONCALL}"\n'
            'may = ["key", "revoke", "contain", "release"]\nover = ["agent://acme/**"]\n'
            f'[replay]\nstate = "state"\n{self.bus.settings}\n'
        )
        return path

    def process(self, principal: str, *, process: str = "") -> tuple[Watchword, Parts]:
        """Start what a command is given: the agent of these settings, and what follows their control log."""
        path = self.settings(principal, process=process)
        agent = load(path)
        return agent, control_parts(agent, read_settings(path), path.parent)

    async def made(self) -> ControlLog:
        """Make the log, and return it unconnected."""
        _, parts = self.process(ONCALL)
        log = parts.open_log()
        async with asyncio.timeout(PATIENCE), log:
            assert await log.make()
        return log

    async def say(self, *sayings: Saying) -> None:
        """Let the operator say something, and see that it counts."""
        agent, parts = self.process(ONCALL)
        async with asyncio.timeout(PATIENCE), desk(agent, parts) as at:
            for saying in sayings:
                await at.say(saying)

    async def verdict(self, agent: Watchword, by: str) -> Any:
        """Let a reader judge what someone signs now: whose it is, or why it is dropped."""
        message = Message(channel=Channel("nats", "prod", "tasks"), value=b"x")
        speaker = Watchword(realm="prod", principal=by, key=self.signing[by])
        signed = replace(message, headers=((await speaker.signer.sign(message)).header,))
        try:
            return (await agent.verifier.verify(signed)).principal
        except Rejected as rejected:
            return rejected.reason


@pytest.fixture
def world(bus: Bus, tmp_path: Path) -> World:
    """Give a world on each bus."""
    return World(bus, tmp_path)


async def within(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - a follower sets no event
            await asyncio.sleep(0.01)


async def test_what_an_operator_says_reaches_an_agent_that_runs(world: World) -> None:
    """Promise (A23, A24, A52): contained, released, given a key and revoked, while it runs and without its settings."""
    await world.made()
    agent = load(world.settings(CONTROLLER))
    await agent.verifier.start()
    assert await world.verdict(agent, PLANNER) == PLANNER
    assert await world.verdict(agent, NEWCOMER) is Reason.UNKNOWN_KEY

    async def comes(by: str, expected: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            while await world.verdict(agent, by) != expected:  # noqa: ASYNC110 - as below
                await asyncio.sleep(0.01)

    new = world.signing[NEWCOMER].verification_key(NEWCOMER)
    await world.say(Contain(PLANNER, why="INC-1"), GiveKey(new))
    await comes(PLANNER, Reason.CONTAINED)
    await comes(NEWCOMER, NEWCOMER)
    await world.say(Release(PLANNER))
    await comes(PLANNER, PLANNER)
    await world.say(Revoke(thumbprint(new.public), 1))
    await comes(NEWCOMER, Reason.KEY_REVOKED)
    assert await world.verdict(agent, PLANNER) == PLANNER


async def test_a_log_that_was_cut_short_rolls_nothing_back(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Promise (A52): after a restart beside a new log all holds that was known, and what is said from then on."""
    await world.made()
    await world.say(Contain(PLANNER), Contain(NEWCOMER), Release(NEWCOMER))
    _, parts = world.process(CONTROLLER)
    async with asyncio.timeout(PATIENCE), followed(parts) as following:
        before = following.place
        assert held(following) == [PLANNER]
    await world.bus.delete()
    await world.made()
    _, parts = world.process(CONTROLLER)
    async with asyncio.timeout(PATIENCE), followed(parts) as following:
        assert held(following) == [PLANNER]
        await within(lambda: "control.log_shorter" in caplog.text)
        await world.say(Contain(NEWCOMER))
        await within(lambda: held(following) == [NEWCOMER, PLANNER])
        assert following.place is not None
        assert before is not None
        assert following.place.identity != before.identity
    await world.say(Release(PLANNER))
    _, parts = world.process(CONTROLLER)
    async with asyncio.timeout(PATIENCE), followed(parts) as following:
        assert held(following) == [NEWCOMER]


async def test_a_log_that_is_made_anew_while_it_is_followed_is_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise (A52): no restart is needed to notice it, and none to hear what is said on the new one."""
    await world.made()
    await world.say(Contain(PLANNER))
    _, parts = world.process(CONTROLLER)
    async with asyncio.timeout(PATIENCE), followed(parts) as following:
        await world.bus.delete()
        await world.made()
        await within(lambda: "control.log_shorter" in caplog.text)
        assert held(following) == [PLANNER]
        await world.say(Release(PLANNER))
        await within(lambda: not held(following))


def held(following: Following) -> list[str]:
    """Return who is contained."""
    return [one.who for one in following.control.containments(0.0)]
