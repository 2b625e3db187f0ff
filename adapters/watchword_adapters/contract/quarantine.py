"""The contract of a quarantine: subclass ``QuarantineContract``, create a quarantine, and run it under pytest."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import pytest

from watchword import Rate, Reason, Rejected, Unavailable
from watchword.audit import Audit
from watchword.envelope import is_envelope_name
from watchword.quarantine_copy import message_digest
from watchword.spi import Message, Position, QuarantineLimits
from watchword_adapters.copies import Copies

if TYPE_CHECKING:
    from watchword.quarantine_copy import Kept
    from watchword.spi import Channel, Quarantine

UNSIGNED = Rejected(Reason.UNSIGNED, "no envelope")
UNDETERMINED = Unavailable("keys", "ConnectionError")

Fault: TypeAlias = Literal["missing", "full", "silent"]
"""Missing topic or stream, or no broker; full; a broker that never responds."""

FAULTS: Final[tuple[Fault, ...]] = get_args(Fault)


class QuarantineContract(ABC):
    """What every ``Quarantine`` must do; the tests are coroutines for pytest-asyncio.

    ``channel`` is one that the quarantine does not own, ``log`` one of its logs.
    """

    channel: Channel
    log: str

    @abstractmethod
    async def make_quarantine(self, *, limits: QuarantineLimits | None = None) -> Quarantine:
        """Return an empty, working quarantine."""

    @abstractmethod
    async def make_broken(self, fault: Fault) -> Quarantine | None:
        """Return a quarantine that cannot be written for this reason; None if its bus cannot fail in this way."""

    @abstractmethod
    async def kept(self, quarantine: Quarantine) -> list[tuple[tuple[str, ...], Kept]]:
        """Return all copies in order, each with its header names as on the bus."""

    @abstractmethod
    def own_channel(self, quarantine: Quarantine) -> Channel:
        """Return the channel that copies are written to."""

    def message(self, offset: int, **fields: object) -> Message:
        """Return the message at an offset."""
        made = Message(
            channel=self.channel,
            value=b'{"scale": 3}',
            headers=(("watchword", b"envelope"), ("content-type", b"application/json")),
            partition=0 if self.channel.scheme == "kafka" else None,
            position=Position(self.log, offset),
            appended_at=1_763_928_000.5,
            reader="controllers",
        )
        return replace(made, **fields)  # type: ignore[arg-type]  # fields of the caller

    async def test_a_kept_message_reads_back_whole(self) -> None:
        """The copy has the value, headers, reason and position of the message."""
        quarantine, message = await self.make_quarantine(), self.message(7)
        assert await quarantine.put(message, UNSIGNED) is True
        ((_, copy),) = await self.kept(quarantine)
        assert (copy.reason, copy.detail, copy.reader) == ("unsigned", "no envelope", "controllers")
        assert (copy.channel, copy.position, copy.appended_at) == (self.channel, message.position, 1_763_928_000.5)
        assert (copy.message.value, copy.message.headers, copy.complete) == (message.value, message.headers, True)
        assert copy.digest == message_digest(message)

    async def test_a_copy_has_no_envelope(self) -> None:
        """No verifier finds an envelope in a copy, whatever the letter case of its original."""
        quarantine = await self.make_quarantine()
        for offset, name in enumerate(("watchword", "Watchword", "WATCHWORD")):
            assert await quarantine.put(self.message(offset, headers=((name, b"envelope"),)), UNSIGNED)
        copies = await self.kept(quarantine)
        assert len(copies) == 3
        assert not any(is_envelope_name(name) for names, _ in copies for name in names)

    async def test_nobody_can_set_our_headers(self) -> None:
        """A message's own headers with our names do not appear as those of the copy."""
        quarantine = await self.make_quarantine()
        forged = (("watchword-reason", b"stale"), ("watchword-position", b"other/0@1"))
        assert await quarantine.put(self.message(7, headers=forged), UNSIGNED)
        ((names, copy),) = await self.kept(quarantine)
        assert len(set(names)) == len(names)
        assert (copy.reason, copy.position) == ("unsigned", Position(self.log, 7))
        assert copy.message.headers == forged

    async def test_odd_headers_survive(self) -> None:
        """Repeated and raw values are preserved bit for bit."""
        odd = (("a", b"1"), ("a", b"2"), ("c", b"\xff\r\n\x00"), ("d", b" x "))
        quarantine = await self.make_quarantine()
        assert await quarantine.put(self.message(7, headers=odd), UNSIGNED)
        ((_, copy),) = await self.kept(quarantine)
        assert copy.message.headers == odd

    async def test_the_undetermined_are_labelled(self) -> None:
        """A message that could not be judged is distinguishable from a rejected one."""
        quarantine = await self.make_quarantine()
        assert await quarantine.put(self.message(7), UNDETERMINED)
        ((_, copy),) = await self.kept(quarantine)
        assert (copy.reason, copy.detail) == ("undetermined", "keys ConnectionError")

    async def test_one_copy_a_position(self) -> None:
        """A redelivery leaves no second copy, and counts as stored."""
        quarantine = await self.make_quarantine()
        assert [await quarantine.put(self.message(offset), UNSIGNED) for offset in (7, 7, 8, 7)] == [True] * 4
        assert len(await self.kept(quarantine)) == 2

    async def test_its_own_channel_does_not_feed_it(self) -> None:
        """A message read from the quarantine is never written to it again."""
        quarantine = await self.make_quarantine()
        assert await quarantine.put(self.message(7, channel=self.own_channel(quarantine)), UNSIGNED) is True
        assert await self.kept(quarantine) == []

    async def test_caps_hold_for_each_kind(self) -> None:
        """A flood of forgeries is cut off, and leaves space for late and for undetermined messages."""
        quarantine = await self.make_quarantine(limits=QuarantineLimits(rate=Rate(2, 3600.0)))
        answers = [await quarantine.put(self.message(offset), UNSIGNED) for offset in range(5)]
        assert answers == [True, True, False, False, False]
        assert await quarantine.put(self.message(5), Rejected(Reason.STALE))
        assert await quarantine.put(self.message(6), UNDETERMINED)
        assert [copy.position and copy.position.offset for _, copy in await self.kept(quarantine)] == [0, 1, 5, 6]

    async def test_a_large_message_leaves_a_pointer(self) -> None:
        """Over the size cap the copy has only the position of the message."""
        quarantine = await self.make_quarantine(limits=QuarantineLimits(max_size=1024))
        assert await quarantine.put(self.message(7, value=bytes(100_000)), UNSIGNED)
        ((_, copy),) = await self.kept(quarantine)
        assert (copy.complete, copy.message.value, copy.position) == (False, None, Position(self.log, 7))

    async def test_what_the_bus_cannot_take_leaves_a_pointer(self) -> None:
        """A copy over the bus's own limit is cut, and the reader continues."""
        quarantine = await self.make_quarantine(limits=QuarantineLimits(max_size=8 * 1024 * 1024))
        assert await quarantine.put(self.message(7, value=bytes(4 * 1024 * 1024)), UNSIGNED)
        ((_, copy),) = await self.kept(quarantine)
        assert not copy.complete

    async def test_many_may_put_at_once(self) -> None:
        """Copies of several partitions do not interfere."""
        quarantine = await self.make_quarantine()
        answers = await asyncio.gather(*(quarantine.put(self.message(offset), UNSIGNED) for offset in range(20)))
        assert answers == [True] * 20
        assert len(await self.kept(quarantine)) == 20

    async def test_copies_leave_no_copies(self) -> None:
        """A rejected copy is not copied again: two quarantines that read each other do not loop."""
        quarantine, message = await self.make_quarantine(), self.message(7)
        assert await quarantine.put(message, UNSIGNED)
        ((names, _),) = await self.kept(quarantine)
        copy = self.message(8, headers=tuple((name, b"as it was") for name in names))
        assert await quarantine.put(copy, UNSIGNED) is True
        assert len(await self.kept(quarantine)) == 1

    @pytest.mark.parametrize("fault", FAULTS)
    async def test_where_it_cannot_be_written_it_says_so_soon(self, fault: Fault) -> None:
        """A quarantine that accepts nothing is Unavailable within seconds, and at once on the next call."""
        quarantine = await self.make_broken(fault)
        if quarantine is None:
            return
        for patience in (10.0, 0.5):
            started = time.monotonic()
            with pytest.raises(Unavailable) as caught:
                await quarantine.put(self.message(7), UNSIGNED)
            assert caught.value.what == "quarantine"
            assert time.monotonic() - started < patience

    async def test_copies_go_beside_the_traffic(self) -> None:
        """A44: offered messages are written in the background, any number concurrently, and are read back complete."""
        quarantine = await self.make_quarantine()
        copies = Copies(quarantine, Audit(clock=time.time))
        assert all(copies.offer(self.message(offset), UNSIGNED) for offset in range(50))
        await copies.written(20)
        assert {copy.position and copy.position.offset for _, copy in await self.kept(quarantine)} == set(range(50))

    @pytest.mark.parametrize("fault", FAULTS)
    async def test_where_it_cannot_be_written_nobody_waits(self, fault: Fault) -> None:
        """A44: a flood is accepted in one turn of the event loop, and each message without a copy is counted."""
        quarantine, audit = await self.make_broken(fault), Audit(clock=time.time)
        if quarantine is None:
            return
        copies, turns = Copies(quarantine, audit), list[None]()
        asyncio.get_running_loop().call_soon(turns.append, None)
        for offset in range(2000):
            copies.offer(self.message(offset), UNSIGNED)
        assert turns == []
        assert await copies.ask(self.message(2000), UNDETERMINED) is False
        await copies.close()
        assert audit.counts == {"left_out": 2000}
