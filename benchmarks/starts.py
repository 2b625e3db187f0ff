"""What a reader of NATS loses when it starts, restarts under load, or subscribes again, and how long it is deaf.

Someone speaks all the while. Lost is what a reader owes and has not handed over: on core NATS, which offers nothing
twice, what was published once the server had confirmed the subscription; on a stream everything that it holds. Settings
are the defaults. A reader that begins without any memory may lose what is issued within the skew and a second (times of
issue are whole seconds), and has to say so, with the end of it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from nats.js.api import ConsumerConfig, StreamConfig

from watchword import Policy, Watchword
from watchword.replay import ReaderBirth, SharedReplayStore
from watchword.spi import Audit, MemoryReplayStore
from watchword_adapters.nats import connect
from watchword_adapters.stores.journal import FileJournal
from watchword_adapters.stores.sqlite import SqliteReplayStore

from .cast import REALM, agent, clock, principal, signing_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from nats.aio.msg import Msg

    from watchword_adapters.nats import WatchwordClient

MOMENTS: Final = ("first start", "restart", "subscribed again")
_PACE: Final = 0.02
"""Seconds between two messages."""

_BEFORE: Final = 10
"""Messages that a stream holds before its first reader comes."""

_WATCHED: Final = 1.0
"""Seconds for which a reader is watched, from when it should lose nothing any more."""

_FETCHED: Final = 0.3
"""Seconds for which a fetch waits."""

_ACK_WAIT: Final = 1.0
"""Seconds after which a durable's message comes again that an ending subscription has left."""

_PATIENCE: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of reader: how it ``reads`` (``core``, or a consumer of a stream), and where its memory is.

    ``state`` is for a journal that there is (``empty``), or that `watchword init` has made (``made``); ``known`` says
    that `watchword store init` has registered the reader in the store.
    """

    name: str
    reads: str
    state: str = ""
    store: str = "memory"
    queue: str = ""
    reader: str | None = None
    known: bool = False

    def may_lose(self, moment: str) -> bool:
        """Return True where nothing can tell what an earlier reader was given."""
        if self.reads != "core" or self.known or self.state == "made" or moment == MOMENTS[2]:
            return False
        return moment == MOMENTS[0] or (not self.state and self.store == "memory")


KINDS: Final = (
    Kind(name="core, no `state`", reads="core"),
    Kind(name="core, `state`, no `watchword init`", reads="core", state="empty"),
    Kind(name="core, `state`, `watchword init`", reads="core", state="made"),
    Kind(name="queue group, SQLite", reads="core", store="sqlite", queue="workers"),
    Kind(name="queue group, SQLite, `store init`", reads="core", store="sqlite", queue="workers", known=True),
    Kind(name="`reader=`, SQLite", reads="core", store="sqlite", reader="controller"),
    Kind(name="`reader=`, SQLite, `store init`", reads="core", store="sqlite", reader="controller", known=True),
    Kind(name="durable pull, `sole_reader`", reads="durable"),
    Kind(name="durable pull, SQLite", reads="durable", store="sqlite"),
    Kind(name="durable push, `sole_reader`", reads="durable push"),
    Kind(name="ephemeral pull", reads="pull"),
    Kind(name="ephemeral push", reads="push"),
    Kind(name="ordered", reads="ordered"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start: ``lost`` of the messages that it ``owed``; seconds from its beginning to the first delivery.

    ``announced`` is the end of the floor of which the reader warned, in seconds from its beginning; None without one.
    ``lost_unannounced`` were issued after that end, or without a warning at all. ``allowed`` tells how many seconds'
    worth may be lost.
    """

    reader: str
    moment: str
    owed: int
    lost: int
    seconds: float
    announced: float | None
    lost_unannounced: int
    allowed: float
    lost_for: float

    @property
    def holds(self) -> bool:
        """Whether it kept its promise."""
        return not self.lost_unannounced and self.lost_for <= self.allowed


def measure(address: str, broker: str, *, small: bool) -> dict[str, Any]:
    """Start every kind of reader in every way."""
    policy = Policy(max_skew=1.0) if small else Policy()
    starts = asyncio.run(_measure(address, policy))
    rows = [asdict(one) | {"holds": one.holds} for one in starts]
    return {"starts": {"broker": broker, "max_skew": policy.max_skew, "per_second": 1 / _PACE, "starts": rows}}


async def _measure(address: str, policy: Policy) -> list[Start]:
    """Let all kinds start side by side: they are deaf, or idle, most of the time."""
    return [
        start for starts in await asyncio.gather(*(_play(address, policy, kind) for kind in KINDS)) for start in starts
    ]


async def _play(address: str, policy: Policy, kind: Kind) -> list[Start]:
    with TemporaryDirectory(prefix="watchword-starts-") as directory:
        async with _speaker(address, kind) as speaker:
            return await _Stage(address, policy, kind, speaker, Path(directory)).play()


class _Speaker:
    """Says a number every ``_PACE`` seconds; ``said`` has when each was published."""

    def __init__(self, client: WatchwordClient, subject: str, stream: str | None) -> None:
        self.subject: Final = subject
        self.stream: Final = stream
        self.said: list[float] = []
        self._client = client

    async def say(self) -> None:
        """Say the next number."""
        at, value = time.time(), str(len(self.said)).encode()
        if self.stream is None:
            await self._client.publish(self.subject, value)
        else:
            await self._client.jetstream().publish(self.subject, value)
        self.said.append(at)

    async def talk(self) -> None:
        """Go on."""
        while True:
            await self.say()
            await asyncio.sleep(_PACE)


@asynccontextmanager
async def _speaker(address: str, kind: Kind) -> AsyncIterator[_Speaker]:
    """Let someone speak until the end, to a stream if there is to be one."""
    subject = f"starts-{secrets.token_hex(4)}"
    client = await connect(address, watchword=agent(batch=1))
    stream = None if kind.reads == "core" else subject
    try:
        if stream is not None:
            config = StreamConfig(name=stream, subjects=[subject], duplicate_window=2 * 60)
            await client.jetstream().add_stream(config)
        speaker = _Speaker(client, subject, stream)
        for _ in range(_BEFORE if stream is not None else 0):
            await speaker.say()
        talking = asyncio.create_task(speaker.talk())
        try:
            yield speaker
        finally:
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)
            if stream is not None:
                await client.jetstream().delete_stream(stream)
    finally:
        await client.close()


class _Warnings(Audit):
    """Hears of floors."""

    def __init__(self) -> None:
        super().__init__(clock=clock)
        self.until: float | None = None

    def refused(self, *_: object, **__: object) -> None:
        """See ``Audit``; a line for each would be in the way of the figures."""

    def note(self, *_: object, **__: object) -> None:
        """See ``Audit``; as above."""

    def warn(self, event: str, **fields: Any) -> None:
        """See ``Audit``."""
        if event in {"replay.floor", "replay.cut"}:
            self.until = max(fields["until"], self.until or -inf)


class _Process:
    """A process that reads: it has a memory of its own, and maybe a store and a journal on its disk."""

    def __init__(self, address: str, policy: Policy, kind: Kind, directory: Path) -> None:
        self.audit: Final = _Warnings()
        self.client: WatchwordClient
        self._address = address
        self._kind = kind
        self._journal = journal(directory, policy) if kind.state else None
        replay: Any = MemoryReplayStore(horizon=policy.horizon)
        if kind.store == "sqlite":
            replay = SqliteReplayStore(directory / "replay.sqlite", policy=policy, clock=clock)
        self.replay: Final = replay
        self._watchword = Watchword(
            realm=REALM,
            keys=[signing_key().verification_key(principal())],
            policy=policy,
            replay=replay,
            journal=self._journal,
            clock=clock,
            audit=self.audit,
        )

    async def begin(self) -> None:
        """Connect."""
        self.client = await connect(self._address, watchword=self._watchword, reader=self._kind.reader)

    async def end(self) -> None:
        """Stop in good order."""
        await self.client.close()
        if self._journal is not None:
            self._journal.close()
        if self._kind.store != "memory":
            await self.replay.close()


class _Stage:
    """One kind of reader, from its first start on."""

    def __init__(self, address: str, policy: Policy, kind: Kind, speaker: _Speaker, directory: Path) -> None:
        self._address = address
        self._policy = policy
        self._kind = kind
        self._speaker = speaker
        self._directory = directory
        self._given: set[int] = set()

    async def play(self) -> list[Start]:
        """Start, restart, and subscribe again."""
        if self._kind.state == "made":
            made = journal(self._directory, self._policy)
            made.initialise()
            made.close()
        if self._kind.known:
            await self._make_known()
        starts: list[Start] = []
        process = await self._process()
        reading: _Reading | None = None
        try:
            for moment in MOMENTS:
                begun = time.time()
                if reading is not None:
                    await reading.end()
                    self._given |= reading.got.keys()
                if moment == MOMENTS[1]:
                    await process.end()
                    process = await self._process()
                process.audit.until = None
                reading = _Reading(self._kind, self._speaker, process.client)
                await reading.begin()
                starts.append(await self._watch(moment, begun, process, reading))
        finally:
            if reading is not None:
                await reading.end()
            await process.end()
        return starts

    async def _process(self) -> _Process:
        process = _Process(self._address, self._policy, self._kind, self._directory)
        await process.begin()
        return process

    async def _watch(self, moment: str, begun: float, process: _Process, reading: _Reading) -> Start:
        """See what is delivered, until nothing may be lost any more; then wait for what is on its way."""
        async with asyncio.timeout(_PATIENCE):
            await process.client.ready()
        async with asyncio.timeout(_PATIENCE):
            while not reading.got:  # noqa: ASYNC110 - what is waited for happens in the client, which tells nobody
                await asyncio.sleep(_PACE)
        await asyncio.sleep(1 + _WATCHED)
        said = dict(enumerate(self._speaker.said))
        with suppress(TimeoutError):  # then the last one is lost
            async with asyncio.timeout(2 * _ACK_WAIT):
                while len(said) - 1 not in reading.got:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(_PACE)
        if self._speaker.stream is not None:
            await asyncio.sleep(2 * _ACK_WAIT)
        owed = {number: at for number, at in said.items() if self._speaker.stream or at >= reading.confirmed_at}
        # A durable is one reader over all its subscriptions; any other consumer begins with the whole stream.
        given = reading.got.keys() | (self._given if self._kind.reads.startswith("durable") else set())
        lost = {number: at for number, at in owed.items() if number not in given}
        until = process.audit.until
        unannounced = [at for at in lost.values() if until is None or at > until]
        return Start(
            reader=self._kind.name,
            moment=moment,
            owed=len(owed),
            lost=len(lost),
            seconds=round(min(reading.got.values()) - begun, 3),
            announced=None if until is None else round(until - begun, 3),
            lost_unannounced=len(unannounced),
            allowed=self._policy.max_skew + 1 if self._kind.may_lose(moment) else 0.0,
            lost_for=round(max(lost.values()) - reading.confirmed_at, 3) if lost else 0.0,
        )

    async def _make_known(self) -> None:
        """Do what `watchword store init` does for a reader that has never read."""
        store: Any = SqliteReplayStore(self._directory / "replay.sqlite", policy=self._policy, clock=clock)
        await store.start()
        kind, subject = self._kind, self._speaker.subject
        name = f"queue:{kind.queue}:{subject}" if kind.queue else f"name:{kind.reader}:{subject}"
        if isinstance(store, SharedReplayStore):
            await store.admit_reader(name, ReaderBirth(floor=-inf))
        await store.close()


class _Reading:
    """One subscription; ``got`` has when each number was handed over first."""

    def __init__(self, kind: Kind, speaker: _Speaker, client: WatchwordClient) -> None:
        self._kind = kind
        self._speaker = speaker
        self._client = client
        self._subscription: Any = None
        self._fetching: asyncio.Task[None] | None = None
        self._ended = False
        self.got: dict[int, float] = {}
        self.confirmed_at = 0.0

    async def begin(self) -> None:
        """Subscribe, and wait until the server has confirmed it."""
        subject, kind = self._speaker.subject, self._kind
        config = ConsumerConfig(ack_wait=_ACK_WAIT)
        js = self._client.jetstream(sole_reader=kind.store == "memory")
        match kind.reads:
            case "core":
                self._subscription = await self._client.subscribe(subject, queue=kind.queue, cb=self._take)
            case "durable" | "pull":
                durable = "worker" if kind.reads == "durable" else None
                self._subscription = await js.pull_subscribe(subject, durable, config=config)
                self._fetching = asyncio.create_task(self._fetch())
            case "durable push":
                self._subscription = await js.subscribe(subject, durable="worker", config=config, cb=self._take)
            case _:
                self._subscription = await js.subscribe(
                    subject, cb=self._take, ordered_consumer=kind.reads == "ordered"
                )
        for _ in range(2):  # the first PING of nats-py overtakes what was sent before it
            await self._client.flush()
        self.confirmed_at = time.time()

    async def end(self) -> None:
        """End."""
        self._ended = True
        if self._fetching is not None:
            await self._fetching  # not cancelled: what the server has given it would be lost to it
        await self._subscription.unsubscribe()

    async def _take(self, msg: Msg) -> None:
        self.got.setdefault(int(msg.data), time.time())

    async def _fetch(self) -> None:
        while not self._ended:
            with suppress(TimeoutError):
                for msg in await self._subscription.fetch(64, timeout=_FETCHED):
                    await self._take(msg)
                    await msg.ack()


def journal(directory: Path, policy: Policy) -> FileJournal:
    """Return the journal that `[replay] state` names."""
    warn: Callable[..., None] = lambda *_, **__: None  # noqa: E731 - a protocol with fields of any name
    return FileJournal(directory / "state", realm=REALM, principal=None, policy=policy, clock=clock, warn=warn)
