"""Agents on a real server: a planner, a cloud controller, a compromised one, and plain clients for the attacker."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, Final, TypeVar

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import ConsumerInfo

from tests.support.patience import PATIENCE
from watchword import (
    Alias,
    Allow,
    Mode,
    Policy,
    Reason,
    SigningKey,
    Watchword,
)
from watchword.journal import Journal
from watchword.spi import ReplayStore
from watchword.testing import KeyDirectory, SharedMemoryStore
from watchword_adapters.nats import VerifiedMsg, VerifyingPullSubscription, WatchwordClient

REALM: Final = "prod"
PLANNER: Final = "agent://acme/planner"
CLOUD: Final = "agent://acme/cloud"
MALLORY: Final = "agent://acme/mallory"

T = TypeVar("T")


class Plain(Client):
    """A nats-py client whose ``flush`` means it."""

    async def flush(self, timeout: int = 10) -> None:  # noqa: ASYNC109 - the base's own signature
        """Wait until the server has what was sent: the base's first PING overtakes that, its second one does not."""
        await super().flush(timeout)
        await super().flush(timeout)


@dataclass
class World:
    """One run: every agent's key, and the clients that were opened."""

    url: str
    stack: contextlib.AsyncExitStack
    signing: dict[str, SigningKey] = field(
        default_factory=lambda: {name: SigningKey.generate() for name in (PLANNER, CLOUD, MALLORY)}
    )

    def __post_init__(self) -> None:
        self.keys = KeyDirectory(key.verification_key(name) for name, key in self.signing.items())

    def agent(  # noqa: D102 - as its parameters say
        self,
        principal: str,
        *,
        clock: Callable[[], float] = time.time,
        mode: Mode = Mode.ENFORCE,
        max_age: float = 300.0,
        max_skew: float = 30.0,
        allow: tuple[Allow, ...] = (),
        max_hold: float = 30.0,
        speaks: bool = True,
        shared: bool = True,
        aliases: tuple[Alias, ...] = (),
        journal: Journal | None = None,
        store: ReplayStore | None = None,
    ) -> Watchword:
        policy = Policy(mode=mode, max_age=max_age, max_skew=max_skew, max_hold=max_hold, allow=allow, aliases=aliases)
        if store is None and shared:  # with those of this test's clients that are given the same agent
            store = SharedMemoryStore(policy=policy, clock=clock, open_to_all=True)
        return Watchword(
            realm=REALM,
            principal=principal,
            key=self.signing[principal] if speaks else None,
            keys=self.keys,
            policy=policy,
            replay=store,
            journal=journal,
            clock=clock,
        )

    async def client(self, watchword: Watchword, **options: Any) -> WatchwordClient:
        """Connect an agent."""
        own: dict[str, Any] = {"reader": token_hex(4) if watchword.verifier.shared_replay else None}
        own |= {name: options.pop(name) for name in ("recipient", "quarantine", "reader") if name in options}
        client = WatchwordClient(watchword=watchword, **own)
        await client.connect(self.url, **options)
        self.stack.push_async_callback(_closed, client)
        return client

    async def plain(self, **options: Any) -> Client:
        """Connect a client that knows nothing of Watchword; the attacker's too."""
        client = Plain()
        await client.connect(self.url, **options)
        self.stack.push_async_callback(_closed, client)
        return client

    async def duel(self, subject: str, **options: Any) -> "Duel":
        """Let a plain handler and a protected one read ``subject``; ``options`` are those of ``agent``."""
        guard = self.agent(options.pop("principal", CLOUD), **options)
        duel = Duel(
            subject=subject,
            guard=guard,
            planner=await self.client(self.agent(PLANNER)),
            attacker=await self.plain(),
            victim=await self.client(guard),
        )
        await duel.attacker.subscribe(subject, cb=duel.took)
        await duel.victim.subscribe(subject, cb=duel.passed)
        await duel.attacker.flush()
        await duel.victim.flush()
        return duel


@dataclass
class Duel:
    """One subject, read by a plain handler and by a protected one."""

    subject: str
    guard: Watchword
    planner: WatchwordClient
    attacker: Client
    victim: WatchwordClient
    unprotected: list[Msg] = field(default_factory=list)
    delivered: list[VerifiedMsg] = field(default_factory=list)

    async def took(self, msg: Msg) -> None:
        """Act on whatever comes."""
        self.unprotected.append(msg)

    async def passed(self, msg: Msg) -> None:
        """Act on what Watchword delivers."""
        self.delivered.append(verified(msg))

    async def capture(self, data: bytes = b"scale up", headers: dict[str, str] | None = None) -> Msg:
        """Send an honest message, and return it as the attacker sees it."""
        seen, had = len(self.unprotected), len(self.delivered)
        await self.planner.publish(self.subject, data, headers=headers)
        await until(lambda: len(self.unprotected) > seen and len(self.delivered) > had)
        assert self.delivered[-1].data == data
        return self.unprotected[seen]

    async def drops(self, attack: Awaitable[object], reason: Reason, *, times: int = 1) -> None:
        """Show that the plain handler falls for ``attack``, the protected one does not, and honest traffic flows."""
        before, seen, had = self.guard.audit.counts.copy(), len(self.unprotected), len(self.delivered)
        await attack
        await until(lambda: len(self.unprotected) == seen + times)
        await self.capture(b"honest")
        assert [msg.data for msg in self.delivered[had:]] == [b"honest"]
        assert self.guard.audit.counts - before == {reason: times, "delivered": 1}


@contextlib.asynccontextmanager
async def world_on(url: str) -> AsyncIterator[World]:
    """Give a world whose clients are closed at its end."""
    async with contextlib.AsyncExitStack() as stack:
        yield World(url, stack)


async def _closed(client: Client) -> None:
    if not client.is_closed:
        await client.close()


async def soon(coming: Awaitable[T]) -> T:
    """Wait for what must come."""
    return await asyncio.wait_for(coming, PATIENCE)


async def unanswered(asking: Awaitable[object], seen: Callable[[], object]) -> None:
    """Let a request wait until something is seen that does not answer it, and a little longer; then give it up."""
    waiting = asyncio.ensure_future(asking)
    await until(seen)
    assert not (await asyncio.wait([waiting], timeout=0.1))[0]
    waiting.cancel()
    await asyncio.wait([waiting])


async def until(condition: Callable[[], object]) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the client, which tells nobody
            await asyncio.sleep(0.005)


async def nothing_fetched(subscription: VerifyingPullSubscription, size: int, counts: Counter[str], total: int) -> None:
    """Fetch, and be given nothing, until so many verdicts were counted."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with pytest.raises(NatsTimeoutError):
                await subscription.fetch(size, timeout=1)
            if counts.total() >= total:
                return


async def unacknowledged(look: Callable[[], Awaitable[ConsumerInfo]], count: int) -> ConsumerInfo:
    """Wait until the server counts so many messages as unacknowledged: it takes in acks in its own time."""
    async with asyncio.timeout(PATIENCE):
        while (info := await look()).num_ack_pending != count:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)
    return info


async def second_begins() -> None:
    """Wait until what is issued is not dated before now: times of issue are whole seconds."""
    now = time.time()
    await until(lambda: int(time.time()) > now)


def verified(msg: Msg) -> VerifiedMsg:
    """Return ``msg``, which must have been verified."""
    assert isinstance(msg, VerifiedMsg)
    return msg


async def raw(client: Client, subject: str, block: bytes, payload: bytes = b"", reply: str = "") -> None:
    """Publish exactly these bytes as header block and payload."""
    head = f"HPUB {subject} {reply} {len(block)} {len(block) + len(payload)}\r\n".encode()
    await client._send_command(head + block + payload + b"\r\n")
    await client._flush_pending()
    await client.flush()


def block(*headers: tuple[str, str | bytes]) -> bytes:
    """Return the header block with exactly these lines."""
    lines = [name.encode() + b": " + (value.encode() if isinstance(value, str) else value) for name, value in headers]
    return b"".join(line + b"\r\n" for line in [b"NATS/1.0", *lines, b""])


async def resend(client: Client, msg: Msg, subject: str | None = None, **changes: Any) -> None:
    """Publish a captured message again, ``changes`` being its ``data``, ``headers`` or ``reply``."""
    await client.publish(
        subject or msg.subject,
        changes.get("data", msg.data),
        reply=changes.get("reply", msg.reply),
        headers=changes.get("headers", msg.headers),
    )
    await client.flush()
