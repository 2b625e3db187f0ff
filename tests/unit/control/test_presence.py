"""What a process announces, when, and that nothing else suffers where it cannot."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from types import TracebackType
from typing import Any, Self

import pytest

import watchword
from tests.support.patience import PATIENCE
from tests.unit.control.world import BOT, FIRST, OPERATORS, PLANNER, Contain, issued
from watchword import SigningError, SigningKey, Watchword
from watchword.control import Control
from watchword.presence import MAX_ACCUSED, Announcement, parse_announcement
from watchword.spi import Message
from watchword.trust import Fact
from watchword_adapters.control import presence as presences
from watchword_adapters.control.following import Following, Parts
from watchword_adapters.control.presence import Announcer
from watchword_adapters.control.state import Place
from watchword_adapters.control.thread import FollowerThread
from watchword_adapters.testing import Clock


class Heard:
    """A channel that keeps what it is given, and can be down."""

    def __init__(self) -> None:
        self.said: list[Announcement] = []
        self.opened = 0
        self.open = 0
        self.error: Exception | None = None

    async def __aenter__(self) -> Self:
        self.opened += 1
        self.open += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open -= 1

    async def make(self) -> bool:
        """Make nothing."""
        return False

    async def announce(self, value: bytes, headers: Mapping[str, str]) -> None:
        """Keep it."""
        if self.error is not None:
            raise self.error
        assert headers == {"content-type": "application/vnd.watchword.presence+json"}
        self.said.append(parse_announcement(value))

    async def stores(self) -> bool:
        """Return True: it keeps all."""
        return True

    async def read(self, *, since: float, listen: float) -> AsyncGenerator[Message]:  # noqa: ARG002 - nobody reads here
        """Give nothing."""
        nothing: tuple[Message, ...] = ()
        for none in nothing:
            yield none


class World:
    """An agent that follows a log which says nothing."""

    def __init__(self) -> None:
        self.clock = Clock(1_700_000_000.0)
        self.heard = Heard()
        key = SigningKey.generate()
        self.agent = Watchword(realm="prod", principal=PLANNER, key=key, clock=self.clock)
        self.control = Control(OPERATORS, clock=self.clock)
        self.parts = Parts(
            realm="prod",
            control=self.control,
            operators=OPERATORS,
            root=self.agent.verifier.keys,
            open_log=_no_log,
            state=None,
            clock=self.clock,
            audit=self.agent.audit,
        )
        self.following = Following(self.parts)
        self.announcer = Announcer(self.agent, lambda: self.heard, every=0.01)

    async def run(self, enough: Callable[[], object]) -> None:
        """Announce until that is enough."""
        running = asyncio.create_task(self.announcer.run(self.following))
        async with asyncio.timeout(PATIENCE):
            while not enough():  # noqa: ASYNC110 - it happens in the announcer, which tells nobody
                await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _no_log() -> Any:
    raise ConnectionError("there is no log")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Give a world in which pauses are short."""
    monkeypatch.setattr(presences, "LOOK_EVERY", 0.001)
    return World()


def test_it_says_what_a_process_is_and_knows(world: World) -> None:
    """Promise: version, buses, how far each operator's key was heard, and evidence on others but not on itself."""
    world.announcer.connected("nats")
    world.announcer.connected("kafka")
    world.announcer.connected("nats")
    first = world.announcer.announcement(world.following)
    assert (first.version, first.buses, first.started) == (watchword.__version__, ("kafka", "nats"), 1_700_000_000)
    assert (first.known, first.place, first.heard, first.evidence) == (False, None, {}, {})
    world.control.hear(issued(Contain(BOT), FIRST))
    world.following.is_known, world.following.place = True, Place("log 1", 12)
    for name in (PLANNER, BOT):
        world.agent.verifier.trust.note(name, Fact.CONTAINED)
    second = world.announcer.announcement(world.following)
    assert (second.instance, second.number) == (first.instance, first.number + 1)
    assert (second.known, second.place, second.statements) == (True, ("log 1", 12), 1)
    assert second.heard == {FIRST: world.control.link(FIRST)}
    assert {name: dict(one.facts) for name, one in second.evidence.items()} == {BOT: {"contained": 1}}
    assert second.full == ()
    assert parse_announcement(second.to_json()).instance == first.instance


def test_kinds_that_are_full_are_told(world: World) -> None:
    """Promise: who asks whether a key is known everywhere learns where there was no room for it."""
    control = Control(OPERATORS, most={"key": 0, "revoke": 0, "contain": 0})
    control.hear(issued(Contain(BOT), FIRST))
    assert control.full == ("contain",)
    world.following.control = control  # type: ignore[misc]  # a test's shortcut
    assert world.announcer.announcement(world.following).full == ("contain",)


def test_a_forked_child_is_another_process(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: two processes never announce themselves as one."""
    first = world.announcer.announcement(world.following)
    parent = os.getppid()
    monkeypatch.setattr(os, "getpid", lambda: parent)
    assert world.announcer.announcement(world.following).instance != first.instance


async def test_nothing_is_announced_before_a_client_has_connected(world: World) -> None:
    """Promise: a command that only looks at things is no agent, and opens no connection."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(world.announcer.run(world.following), 0.05)
    assert world.heard.opened == 0
    world.announcer.connected("nats")
    await world.run(lambda: len(world.heard.said) >= 3)
    assert [one.number for one in world.heard.said[:3]] == [1, 2, 3]
    assert (world.heard.opened, world.heard.open) == (1, 0)


@pytest.mark.parametrize("error", [ConnectionError("down"), SigningError("this agent is contained")])
async def test_what_fails_is_told_once_and_tried_again(world: World, error: Exception) -> None:
    """Promise: a bus that is down, or a signer that is held, stops nothing, fills no log, and is got over."""
    told = world.agent.audit.events
    world.heard.error = error
    world.announcer.connected("nats")
    await world.run(lambda: world.heard.opened >= 3)
    assert told["presence.unavailable"] == 1
    world.heard.error = None
    await world.run(lambda: world.heard.said)
    world.heard.error = error
    await world.run(lambda: told["presence.unavailable"] == 2)
    assert world.heard.open == 0


async def test_a_process_that_only_sends_is_announced_too(world: World) -> None:
    """Promise: the thread begins when a client connects, for one that reads nothing as well; the log may be down."""
    FollowerThread(world.agent, world.parts, announcer=world.announcer)
    world.agent.connected("kafka")
    async with asyncio.timeout(PATIENCE):
        while len(world.heard.said) < 2:  # noqa: ASYNC110 - it happens in another thread
            await asyncio.sleep(0.001)
    assert world.heard.said[0].buses == ("kafka",)
    assert not world.heard.said[0].known


async def test_an_agent_without_channel_announces_nothing(world: World) -> None:
    """Promise: presence is off unless it was asked for."""
    FollowerThread(world.agent, world.parts)
    world.agent.connected("nats")
    assert world.heard.opened == 0


def test_evidence_has_an_end(world: World) -> None:
    """Promise: an attacker who makes many agents misbehave makes no announcement longer than it may be."""
    for number in range(MAX_ACCUSED + 10):
        world.agent.verifier.trust.note(f"agent://acme/{number}", Fact.REPORTED)
    said = parse_announcement(world.announcer.announcement(world.following).to_json())
    assert (len(said.evidence), said.left_out) == (MAX_ACCUSED, 10)
