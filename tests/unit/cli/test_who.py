"""``watchword who``: what it shows of announcements, and what it says where it cannot."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from tests.unit.cli.conftest import PLANNER, Run
from watchword import Unavailable, Watchword
from watchword.control import Link
from watchword.presence import CONTENT_TYPE, SVID_CONTENT_TYPE, Announcement, Evidence
from watchword.spi import Channel, Message
from watchword_adapters.cli import obeying as obeyings
from watchword_adapters.cli import who as whos
from watchword_adapters.config import load

CHANNEL = Channel("nats", "prod", "watchword.presence")
HEADERS = (("content-type", CONTENT_TYPE.encode()),)
BOB = "agent://acme/bob"
CONTROL = """
[control]
channel = "nats://prod/watchword.control"
presence = "nats://prod/watchword.presence"
[[control.operators]]
principal = "agent://acme/oncall"
may = ["contain"]
over = ["**"]
"""


class Bus:
    """What stands on the channel."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.asked: list[tuple[float, float]] = []
        self.error: Exception | None = None
        self.options: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """See PresenceChannel."""

    async def read(self, *, since: float, listen: float) -> AsyncGenerator[Message]:
        """Yield it."""
        self.asked.append((since, listen))
        for message in self.messages:
            yield message
        if self.error is not None:
            raise self.error


@pytest.fixture
def bus(config: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Bus:
    """Give a bus; the control log says nothing."""
    assert run("keygen", "-p", "agent://acme/gone").code == 0
    assert run("jwks", "planner.jwk", "gone.jwk", "-o", "agents.jwks").code == 0
    config.write_text(config.read_text() + '[policy]\ncontained = ["agent://acme/gone"]\n' + CONTROL)
    bus = Bus()

    def opened(_agent: Watchword, _settings: Any, _directory: Path, channel: Channel, **options: Any) -> Bus:
        assert channel == CHANNEL
        bus.options = options
        return bus

    @asynccontextmanager
    async def nothing_said(parts: Any) -> AsyncIterator[None]:
        assert parts.state is None
        yield

    monkeypatch.setattr(whos, "open_presence", opened)
    monkeypatch.setattr(obeyings, "followed", nothing_said)
    return bus


def said(number: int = 1, **members: Any) -> Announcement:
    """Return an announcement."""
    return Announcement(instance=f"{number:016x}", number=1, version="1.0", buses=("nats",), started=0, **members)


def put(
    bus: Bus,
    value: bytes | Announcement,
    *,
    agent: Watchword | None = None,
    headers: tuple[tuple[str, bytes], ...] = HEADERS,
) -> None:
    """Put an announcement of the planner's on the bus."""
    value = value if isinstance(value, bytes) else value.to_json()
    message = Message(channel=CHANNEL, value=value, headers=headers)
    signed = asyncio.run((agent or load("watchword.toml", telemetry=False)).signer.sign(message))
    bus.messages.append(replace(message, headers=(*headers, signed.header)))


def test_who_is_there_is_shown(bus: Bus, run: Run) -> None:
    """Each process a line, and below it what is reported of others; who is contained is marked, present or not."""
    evidence = {BOB: Evidence(0.5, {"reported": 2, "not_permitted": 1}), "agent://acme/\u202eevil": Evidence(0.1, {})}
    put(bus, said(evidence=evidence, known=True, place=("log", 12)))
    put(bus, said(2))
    begun = time.time()
    ran = run("who")
    assert (ran.code, ran.err) == (0, "")
    key = load("watchword.toml", telemetry=False).signer.key_id.decode()
    told = re.sub(r"\d+ s ago", "N s ago", ran.out).splitlines()
    assert told[:6] == [
        BOB,
        "  not present",
        "  trust 0.50 to 0.50, median 0.50, of 1 reporter: not_permitted by 1, reported by 1",
        "agent://acme/gone (contained)",
        "  not present",
        PLANNER,
    ]
    assert sorted(told[6:8]) == [  # the later one first
        f"  {1:016x}: N s ago, key {key}, version 1.0, on nats, control log at 12",
        f"  {2:016x}: N s ago, key {key}, version 1.0, on nats, control log not known",
    ]
    assert told[8:] == [
        "agent://acme/\\u202eevil",
        "  not present",
        "  trust 0.10 to 0.10, median 0.10, of 1 reporter: no fact named",
    ]
    ((since, listen),) = bus.asked
    assert begun <= since + 30 <= time.time()
    assert listen == 12.0
    assert bus.options["servers"] == ["nats://localhost:4222"]


def test_it_is_told_as_json(bus: Bus, run: Run) -> None:
    """A program reads one object: processes with what they know of the control log, reports with their reporters."""
    by = "agent://acme/oncall", "k" * 43
    issued = int(time.time())
    put(bus, said(known=True, place=("log", 12), statements=3, heard={by: Link(9, "d" * 43, 8)}, full=("key",)))
    begun = time.time()
    ran = run("who", "--json", "--since", "24h", "--servers", "nats://there:4222")
    assert ran.code == 0
    (told,) = ran.lines
    principals: Any = told["principals"]
    assert [(one["principal"], one["contained"]) for one in principals] == [
        ("agent://acme/gone", True),
        (PLANNER, False),
    ]
    (instance,) = principals[1]["instances"]
    assert instance["seconds_ago"] <= time.time() - issued
    assert instance["control"] == {
        "known": True,
        "place": ["log", 12],
        "statements": 3,
        "full": ["key"],
        "heard": [{"operator": by[0], "key": by[1], "number": 9, "digest": "d" * 43, "whole": 8}],
    }
    assert bus.options["servers"] == ["nats://there:4222"]
    assert begun <= bus.asked[0][0] + 86400 <= time.time()


def test_what_does_not_count_is_told(bus: Bus, run: Run) -> None:
    """Forgeries, and signed words that are no announcement, are counted on standard error; nobody is shown for them."""
    put(bus, b"not an announcement")
    bus.messages.append(Message(channel=CHANNEL, value=said().to_json(), headers=HEADERS))
    bus.messages.append(Message(channel=CHANNEL, value=said().to_json(), headers=HEADERS))
    ran = run("who")
    assert ran.code == 0
    assert ran.out == "agent://acme/gone (contained)\n  not present\n"
    assert ran.err == "watchword: left out: 2 unsigned, 1 no_announcement\n"
    assert run("who", "--json").lines[0]["dropped"] == {"unsigned": 2, "no_announcement": 1}


def test_a_certificate_is_no_announcement(bus: Bus, run: Run) -> None:
    """Workloads show theirs on the same channel: that is nothing to show to operators, and nothing wrong."""
    put(bus, said())
    put(bus, b'{"svid": []}', headers=(("content-type", SVID_CONTENT_TYPE.encode()),))
    ran = run("who", "--json")
    assert ran.code == 0
    told: Any = ran.lines[0]
    assert (len(told["principals"][-1]["instances"]), told["dropped"]) == (1, {})


def test_too_many_processes_are_told(bus: Bus, run: Run) -> None:
    """Where there was no room for all, that is said."""
    agent = load("watchword.toml", telemetry=False)
    for number in range(70):
        put(bus, said(number), agent=agent)
    assert run("who", "--json").lines[0]["dropped"] == {"no_room": 6}


def test_what_cannot_be_judged_is_told(bus: Bus, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key source that is down is no forgery: exit code 3."""

    class Down:
        async def verify(self, _: Message) -> None:
            raise Unavailable("keys", "down")

        def obey(self, *_: object) -> None: ...

    put(bus, said())

    def judging(_: Watchword) -> Any:
        return type("Judging", (), {"verifier": Down()})

    monkeypatch.setattr(whos, "judge", judging)
    ran = run("who", "--json")
    assert (ran.code, ran.lines[0]["dropped"]) == (3, {"unavailable": 1})


@pytest.mark.usefixtures("bus")
def test_nobody_is_there(run: Run, config: Path) -> None:
    """Silence is said to be silence."""
    config.write_text(config.read_text().replace('contained = ["agent://acme/gone"]', ""))
    assert run("who").out == "no announcements\n"


def test_a_bus_that_is_down_is_told(bus: Bus, run: Run) -> None:
    """What the client raises is one line, and exit code 3."""
    bus.error = ConnectionRefusedError("nobody listens")
    ran = run("who")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.count("\n") == 1
    assert "nobody listens (at nats://localhost:4222; use --servers for another)" in ran.err


@pytest.mark.parametrize("since", ["0.5s", "25h", "soon"])
@pytest.mark.usefixtures("bus")
def test_how_far_back_is_bounded(run: Run, since: str) -> None:
    """Announcements are kept for a day."""
    ran = run("who", "--since", since)
    assert ran.code == 2
    assert ran.err.startswith("watchword: --since: write ")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text[: text.index("[control]")], "no channel for announcements: write presence ="),
        (
            lambda text: text.replace('presence = "nats://prod/watchword.presence"\n', ""),
            'write presence = "nats://prod/<subject>" or "kafka://prod/<topic>" under [control]',
        ),
        (lambda text: text.replace("prod/watchword.presence", "other/x"), "is not in realm 'prod'"),
        (lambda text: text.replace("watchword.presence", "watchword.control"), "write another channel"),
        (lambda text: text.replace("nats://prod/watchword.presence", "presence"), "control.presence: "),
        (lambda text: text.replace("presence =", 'announce_every = "1d"\npresence ='), "write 1 s to 3600 s"),
        (lambda text: text.replace("presence =", 'announce_every = "0.5s"\npresence ='), "write 1 s to 3600 s"),
    ],
)
@pytest.mark.usefixtures("bus")
def test_settings_that_name_no_channel_are_told(
    run: Run, config: Path, change: Callable[[str], str], told: str
) -> None:
    """One line says what to write."""
    config.write_text(change(config.read_text()))
    ran = run("who")
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
    assert ran.err.count("\n") == 1
