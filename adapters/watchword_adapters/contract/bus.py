"""The contract of a bus adapter: subclass ``BusContract``, add a fixture ``harness``, and run it under pytest."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import pytest

from watchword import Mode, Policy, Reason, Rejected, VerifiedMessage
from watchword.envelope import is_envelope_name
from watchword.spi import Channel, Message
from watchword_adapters.testing import Agents as Cast
from watchword_adapters.testing import SharedMemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    from watchword import Unavailable, Watchword
    from watchword.message import Header, Scheme

T = TypeVar("T")

REALM = "contract"
SENDER = "agent://contract/sender"
READER = "agent://contract/reader"
PATIENCE = 30.0
"""Seconds after which an expected message counts as lost."""


@dataclass(frozen=True, kw_only=True)
class Wire:
    """A message as stored on the bus, and as a client without Watchword sends and reads it.

    ``partition`` is None if the bus has none.
    """

    value: bytes | None
    key: bytes | None = None
    headers: tuple[Header, ...] = ()
    partition: int | None = None


@dataclass(frozen=True, kw_only=True)
class Received:
    """What an interceptor returned to its caller: the deserialized ``value``, and the visible headers."""

    value: object
    headers: tuple[Header, ...]
    verdict: VerifiedMessage | Rejected | Unavailable
    """``record.verified``, or in observe mode ``record.verdict``."""


class Tap(Protocol):
    """A plain consumer of one channel."""

    async def next(self) -> Wire:
        """Return the next message, as stored on the bus."""
        ...


class Intake(Protocol):
    """An interceptor's consumer of one channel."""

    async def next(self) -> Received:
        """Return the next message that is delivered; retry if the interceptor raises Unavailable."""
        ...


class BusHarness(ABC):
    """The suite's interface to one bus; every channel preserves one sender's order (a single partition, say)."""

    scheme: Scheme
    """``kafka`` or ``nats``."""

    tombstones: bool = False
    """True if the bus distinguishes an absent value from an empty one."""

    redelivers: bool = False
    """True if messages that could not be judged are redelivered; otherwise they are lost and counted."""

    @abstractmethod
    async def new_channel(self) -> str:
        """Create an unused channel and return its name (topic or subject)."""

    @abstractmethod
    async def publish(self, watchword: Watchword, channel: str, message: Wire) -> None:
        """Send through the interceptor, to partition 0 if there are any, and wait until the bus has it."""

    @abstractmethod
    async def publish_raw(self, channel: str, message: Wire) -> None:
        """Send exactly this message with a plain client, and wait until the bus has it."""

    @abstractmethod
    def tap(self, channel: str) -> AbstractAsyncContextManager[Tap]:
        """Read, with a plain client, everything sent from now on."""

    @abstractmethod
    def intake(
        self, watchword: Watchword, channel: str, *, deserializer: Callable[[bytes | None], object] | None = None
    ) -> AbstractAsyncContextManager[Intake]:
        """Read, with the interceptor, everything sent from now on.

        ``deserializer`` is passed to the client if it takes one; other clients ignore it.
        """


class Agents:
    """A sender and readers that know its key; each reader has its own replay memory and counts."""

    def __init__(self) -> None:
        self._agents = Cast(realm=REALM)
        self.keys = self._agents.keys
        self.sender = self._agents(SENDER)

    def reader(self, mode: Mode = Mode.ENFORCE) -> Watchword:
        """Return a reader with a shared store, so that it may have a name, and starts without a floor."""
        store = SharedMemoryStore(open_to_all=True)
        return self._agents(READER, policy=Policy(mode=mode), replay=store)


class BusContract:
    """Subclass as ``TestMyBus`` with a fixture ``harness`` that returns a ``BusHarness``."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def harness(self) -> BusHarness:
        """Return the bus under test."""
        raise NotImplementedError("override the fixture 'harness' with one that gives a BusHarness")

    @pytest.fixture
    def agents(self) -> Agents:
        """Return a sender, and readers that know its key."""
        return Agents()

    async def test_an_honest_message_is_delivered_once_with_its_principal(
        self, harness: BusHarness, agents: Agents
    ) -> None:
        """A message arrives unchanged, once, with its author."""
        channel, reader = await harness.new_channel(), agents.reader()
        async with harness.intake(reader, channel) as intake:
            await harness.publish(agents.sender, channel, Wire(value=b"scale up", headers=(("kind", b"order"),)))
            await harness.publish(agents.sender, channel, Wire(value=b"next"))
            first, second = await _next(intake), await _next(intake)
        assert (first.value, first.headers) == (b"scale up", (("kind", b"order"),))
        assert second.value == b"next"
        for received in (first, second):
            assert isinstance(received.verdict, VerifiedMessage)
            assert received.verdict.principal == SENDER
            assert not received.verdict.redelivered
        assert reader.audit.counts == {"delivered": 2}

    async def test_an_unsigned_message_is_dropped(self, harness: BusHarness, agents: Agents) -> None:
        """A message without a signature, or stripped of it, is not delivered."""
        channel = await harness.new_channel()
        original = await self._captured(harness, agents, channel)
        stripped = replace(original, headers=tuple(h for h in original.headers if not is_envelope_name(h[0])))
        await self._dropped(harness, agents, channel, stripped, Reason.UNSIGNED)

    async def test_an_altered_message_is_dropped(self, harness: BusHarness, agents: Agents) -> None:
        """A message with another value under a valid signature is not delivered."""
        channel = await harness.new_channel()
        original = await self._captured(harness, agents, channel)
        await self._dropped(harness, agents, channel, replace(original, value=b"forged"), Reason.ALTERED)

    async def test_an_altered_header_is_dropped(self, harness: BusHarness, agents: Agents) -> None:
        """A message with a changed covered header is not delivered."""
        channel = await harness.new_channel()
        original = await self._captured(harness, agents, channel)
        headers = tuple((name, b"forged" if name == "kind" else value) for name, value in original.headers)
        assert headers != original.headers
        await self._dropped(harness, agents, channel, replace(original, headers=headers), Reason.ALTERED)

    async def test_a_second_envelope_is_dropped(self, harness: BusHarness, agents: Agents) -> None:
        """A message with two envelopes in different letter case is not delivered, even if the client shows only one."""
        channel = await harness.new_channel()
        original = await self._captured(harness, agents, channel)
        (envelope,) = (h for h in original.headers if is_envelope_name(h[0]))
        twice = replace(original, headers=(*original.headers, (envelope[0].upper(), envelope[1])))
        await self._dropped(harness, agents, channel, twice, Reason.MALFORMED)

    async def test_a_message_of_another_channel_is_dropped(self, harness: BusHarness, agents: Agents) -> None:
        """A message signed for one channel is rejected on another."""
        elsewhere, channel = await harness.new_channel(), await harness.new_channel()
        original = await self._captured(harness, agents, elsewhere)
        await self._dropped(harness, agents, channel, original, Reason.WRONG_CHANNEL)

    async def test_a_replayed_message_is_dropped(self, harness: BusHarness, agents: Agents) -> None:
        """The same bytes sent again, however often, are delivered exactly once."""
        channel, reader = await harness.new_channel(), agents.reader()
        async with harness.intake(reader, channel) as intake, harness.tap(channel) as tap:
            await harness.publish(agents.sender, channel, Wire(value=b"pay"))
            copy = await _soon(tap.next())
            for _ in range(3):
                await harness.publish_raw(channel, copy)
            await harness.publish(agents.sender, channel, Wire(value=b"last"))
            assert [(await _next(intake)).value, (await _next(intake)).value] == [b"pay", b"last"]
        assert reader.audit.counts == {"delivered": 2, "replayed": 3}

    async def test_empty_and_absent_values_stay_apart(self, harness: BusHarness, agents: Agents) -> None:
        """An empty value stays empty, a tombstone stays a tombstone, and neither can be turned into the other."""
        channel, reader = await harness.new_channel(), agents.reader()
        values = [b"", None] if harness.tombstones else [b""]
        async with harness.intake(reader, channel) as intake, harness.tap(channel) as tap:
            for value in values:
                key = b"key" if harness.tombstones else None
                await harness.publish(agents.sender, channel, Wire(value=value, key=key))
                assert (await _next(intake)).value == value
                if harness.tombstones:
                    swapped = None if value is not None else b""
                    await harness.publish_raw(channel, replace(await _soon(tap.next()), value=swapped))
                    await harness.publish(agents.sender, channel, Wire(value=b"between"))
                    assert (await _next(intake)).value == b"between"
                    await _soon(tap.next())
                    await _soon(tap.next())
        assert reader.audit.counts["altered"] == (len(values) if harness.tombstones else 0)

    async def test_a_header_that_was_not_signed_is_invisible(self, harness: BusHarness, agents: Agents) -> None:
        """A header added in transit does not reach the handler; a trace header may."""
        elsewhere = await harness.new_channel()
        reader = agents.reader()
        async with harness.intake(reader, elsewhere) as intake:
            original = await self._signed(harness, agents, elsewhere)
            added = (("role", b"admin"), ("traceparent", b"00-1-2-03"))
            await harness.publish_raw(elsewhere, replace(original, headers=(*original.headers, *added)))
            received = await _next(intake)
        assert received.headers == (("kind", b"order"), ("traceparent", b"00-1-2-03"))

    async def test_a_deserializer_sees_verified_bytes_only(self, harness: BusHarness, agents: Agents) -> None:
        """No byte of a rejected message reaches the deserializer."""
        channel, seen = await harness.new_channel(), list[bytes | None]()
        async with harness.intake(agents.reader(), channel, deserializer=seen.append) as intake:
            await harness.publish_raw(channel, Wire(value=b"bomb"))
            await harness.publish(agents.sender, channel, Wire(value=b"harmless"))
            await _next(intake)
        assert seen in ([], [b"harmless"])

    async def test_observe_mode_delivers_all_and_counts(self, harness: BusHarness, agents: Agents) -> None:
        """In observe mode nothing is dropped: unsigned messages are delivered as they are, with the verdict."""
        channel, reader = await harness.new_channel(), agents.reader(Mode.OBSERVE)
        async with harness.intake(reader, channel) as intake:
            await harness.publish_raw(channel, Wire(value=b"unsigned", headers=(("kind", b"order"),)))
            await harness.publish(agents.sender, channel, Wire(value=b"signed"))
            unsigned, signed = await _next(intake), await _next(intake)
        assert (unsigned.value, unsigned.headers) == (b"unsigned", (("kind", b"order"),))
        assert isinstance(unsigned.verdict, Rejected)
        assert unsigned.verdict.reason is Reason.UNSIGNED
        assert signed.value == b"signed"
        assert isinstance(signed.verdict, VerifiedMessage)
        assert reader.audit.counts == {"unsigned": 1, "delivered": 1}

    async def test_an_outage_loses_nothing_that_can_come_again(self, harness: BusHarness, agents: Agents) -> None:
        """A message that could not be judged is delivered once the key source is back, if the bus redelivers."""
        channel, reader = await harness.new_channel(), agents.reader()
        async with harness.intake(reader, channel) as intake:
            agents.keys.failures = 2
            for value in (b"1", b"2", b"3"):
                await harness.publish(agents.sender, channel, Wire(value=value))
            expected = {b"1", b"2", b"3"} if harness.redelivers else {b"3"}
            got = {(await _next(intake)).value for _ in expected}
        assert got == expected
        assert reader.audit.counts == {"delivered": len(expected), "unavailable": 2}

    async def test_a_plain_consumer_reads_the_payload_unchanged(self, harness: BusHarness, agents: Agents) -> None:
        """A client without Watchword sees payload and other headers unchanged, and one header more."""
        channel = await harness.new_channel()
        seen = await self._captured(harness, agents, channel)
        assert seen.value == b"scale up"
        assert [h for h in seen.headers if not is_envelope_name(h[0])] == [("kind", b"order")]
        assert [h[0] for h in seen.headers if is_envelope_name(h[0])] == ["watchword"]

    async def _captured(self, harness: BusHarness, agents: Agents, channel: str) -> Wire:
        """Send one message and return it as an attacker sees it."""
        async with harness.tap(channel) as tap:
            await harness.publish(agents.sender, channel, Wire(value=b"scale up", headers=(("kind", b"order"),)))
            return await _soon(tap.next())

    async def _signed(self, harness: BusHarness, agents: Agents, channel: str) -> Wire:
        """Sign a message without sending it."""
        wire = Wire(value=b"scale up", headers=(("kind", b"order"),))
        partition = 0 if harness.scheme == "kafka" else None
        message = Message(
            channel=Channel(harness.scheme, REALM, channel),
            value=wire.value,
            headers=wire.headers,
            partition=partition,
        )
        signed = await agents.sender.signer.sign(message)
        return replace(wire, headers=(*wire.headers, signed.header), partition=partition)

    async def _dropped(self, harness: BusHarness, agents: Agents, channel: str, attack: Wire, reason: Reason) -> None:
        """Show that ``attack`` is rejected for ``reason``, and that later honest messages are delivered."""
        reader = agents.reader()
        async with harness.intake(reader, channel) as intake, harness.tap(channel) as tap:
            await harness.publish_raw(channel, attack)
            assert (await _soon(tap.next())).value == attack.value  # it did reach the bus
            await harness.publish(agents.sender, channel, Wire(value=b"honest"))
            assert (await _next(intake)).value == b"honest"
        assert reader.audit.counts == {str(reason): 1, "delivered": 1}


async def _next(intake: Intake) -> Received:
    return await _soon(intake.next())


async def _soon(coming: Coroutine[object, object, T]) -> T:
    async with asyncio.timeout(PATIENCE):
        return await coming
