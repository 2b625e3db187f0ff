"""What a client's readers hand over for quarantine: bounded, written beside the traffic, and counted."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from tests.support.patience import PATIENCE
from watchword import Rate, Reason, Rejected, Unavailable
from watchword.audit import Audit
from watchword.quarantine import CappedQuarantine, QuarantineLimits
from watchword.quarantine_copy import Copy
from watchword.spi import Channel, Message, Position
from watchword_adapters import copies as module
from watchword_adapters.copies import SIDE_BY_SIDE, Copies

UNSIGNED = Rejected(Reason.UNSIGNED)
STALE = Rejected(Reason.STALE)
DOWN = Unavailable("keys")


class Shelf(CappedQuarantine):
    """A quarantine that writes when it is let, and notes what it warned of and how many were written at once."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.copies: list[int] = []
        self.warnings: list[tuple[str, object]] = []
        self.at_once = self.most = 0
        self.fault: BaseException | None = None
        super().__init__(
            clock=lambda: 1_800_000_000.0,
            warn=lambda event, **fields: self.warnings.append((event, fields.get("budget"))),
            limits=QuarantineLimits(rate=Rate(10_000, 1.0)),
        )

    def owns(self, channel: Channel) -> bool:
        """See CappedQuarantine."""
        return channel.name == "quarantine"

    async def write(self, copy: Copy) -> bool:
        """See CappedQuarantine."""
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self.gate.wait()
        finally:
            self.at_once -= 1
        if self.fault is not None:
            raise self.fault
        assert copy.position is not None
        self.copies.append(copy.position.offset)
        return True


def audit() -> Audit:
    """Return a new audit trail."""
    return Audit(clock=lambda: 0.0)


def message(offset: int, size: int = 1) -> Message:
    """Return what stands at an offset."""
    return Message(channel=Channel("nats", "prod", "tasks"), value=bytes(size), position=Position("TASKS", offset))


async def settled(condition: Callable[[], object]) -> None:
    """Let other tasks run until ``condition`` holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nobody tells when a task has come so far
            await asyncio.sleep(0)


async def test_handing_over_takes_no_turn_and_writing_goes_side_by_side() -> None:
    """A44: a slow quarantine is written to many copies at a time, and delivery does not wait for one."""
    shelf = Shelf()
    copies = Copies(shelf, audit())
    assert all(copies.offer(message(offset), UNSIGNED) for offset in range(2 * SIDE_BY_SIDE))
    await settled(lambda: shelf.at_once == SIDE_BY_SIDE)
    shelf.gate.set()
    await copies.written(20)
    assert sorted(shelf.copies) == list(range(2 * SIDE_BY_SIDE))
    assert shelf.most == SIDE_BY_SIDE


async def test_each_budget_has_room_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A44: copies that find no room in a flood are counted, warned of once, and leave room for the other kinds."""
    monkeypatch.setattr("watchword.quarantine.MOST_WAITING", 2)
    shelf, trail = Shelf(), audit()
    copies = Copies(shelf, trail)
    assert [copies.offer(message(offset), UNSIGNED) for offset in range(5)] == [True, True, False, False, False]
    assert copies.offer(message(5), STALE)
    assert copies.offer(message(6), DOWN)
    assert trail.counts == {"left_out": 3}
    assert shelf.counts == {"no_room_rejected": 3}
    assert shelf.warnings == [("quarantine.no_room", "rejected")]
    shelf.gate.set()
    await copies.written(20)
    assert copies.offer(message(7), UNSIGNED)
    await copies.written(20)
    assert sorted(shelf.copies) == [0, 1, 5, 6, 7]


async def test_what_waits_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large messages fill the room as many do; a single one always finds some, be its headers as many as they like."""
    monkeypatch.setattr("watchword.quarantine.MOST_BYTES_WAITING", 1000)
    copies = Copies(Shelf(), audit())
    assert [copies.offer(message(offset, 400), UNSIGNED) for offset in range(3)] == [True, True, False]
    assert copies.offer(message(3, 5000), STALE)
    many = Message(channel=Channel("nats", "prod", "tasks"), value=b"", headers=(("x", b""),) * 100_000)
    assert copies.offer(many, DOWN)
    assert not copies.offer(message(4), DOWN)
    await copies.close(0)
    copies.reopen()
    assert [copies.offer(message(offset, 400), UNSIGNED) for offset in range(3)] == [True, True, False]
    assert copies.offer(many, DOWN)
    await copies.close(0)


async def test_clients_of_one_quarantine_share_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is bounded for each quarantine in a process, however many clients hand over to it."""
    monkeypatch.setattr("watchword.quarantine.MOST_WAITING", 3)
    shelf = Shelf()
    first, second = Copies(shelf, audit()), Copies(shelf, audit())
    assert [client.offer(message(at), UNSIGNED) for at, client in enumerate((first, second, first, second))] == [
        True,
        True,
        True,
        False,
    ]
    await first.close(0)
    assert second.offer(message(9), UNSIGNED)
    await second.close(0)


@pytest.mark.parametrize("fault", [None, Unavailable("quarantine"), OSError()])
async def test_whoever_asks_hears_what_became_of_it(fault: Exception | None) -> None:
    """Only a copy that is there counts as kept; what is rejected and left none is counted as left out."""
    shelf, trail = Shelf(), audit()
    shelf.fault = fault
    shelf.gate.set()
    copies, told = Copies(shelf, trail), list[bool]()

    async def then(kept: bool) -> None:  # noqa: FBT001 - as Copies calls it
        told.append(kept)

    assert await copies.ask(message(1), DOWN) is (fault is None)
    assert copies.offer(message(2), UNSIGNED, then)
    await copies.written(20)
    assert told == [fault is None]
    assert trail.counts == ({} if fault is None else {"left_out": 1})


async def test_whoever_stops_asking_stops_no_writing() -> None:
    """A caller that is cancelled while it waits for an answer leaves the copy on its way."""
    shelf = Shelf()
    copies = Copies(shelf, audit())
    asking = asyncio.create_task(copies.ask(message(1), DOWN))
    await settled(lambda: shelf.at_once)
    asking.cancel()
    await asyncio.wait([asking])
    shelf.gate.set()
    await copies.written(20)
    assert shelf.copies == [1]


@pytest.mark.parametrize("fault", ["raises", "hangs"])
async def test_a_quarantine_that_breaks_its_promises_stops_nothing(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in may raise anything, or hang: one warning is logged, and each message that it misses is counted."""
    monkeypatch.setattr(module, "LONGEST", 0.01)
    trail, warnings = audit(), list[str]()
    monkeypatch.setattr(trail, "warn", lambda event, **_: warnings.append(event))

    class Broken:
        async def put(self, message: Message, verdict: Rejected | Unavailable) -> bool:
            if fault == "hangs":
                await asyncio.Event().wait()
            raise ValueError(message, verdict)

    copies = Copies(Broken(), trail)
    for offset in range(2):
        copies.offer(message(offset), UNSIGNED)
    assert await copies.ask(message(2), DOWN) is False
    assert trail.counts == {"left_out": 2}
    assert warnings == ["quarantine.failed"]


async def test_closing_waits_so_long_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies have a bounded time at the end; then what is not written is counted, and its room is free."""
    monkeypatch.setattr("watchword.quarantine.MOST_WAITING", 2 * SIDE_BY_SIDE)
    shelf, trail = Shelf(), audit()
    copies, told = Copies(shelf, trail), list[bool]()

    async def then(kept: bool) -> None:  # noqa: FBT001 - as Copies calls it
        told.append(kept)

    for offset in range(2 * SIDE_BY_SIDE):
        assert copies.offer(message(offset), UNSIGNED, then)
    await settled(lambda: shelf.at_once == SIDE_BY_SIDE)
    await copies.close(0.01)
    assert not copies.offer(message(999), UNSIGNED)
    assert trail.counts == {"left_out": 2 * SIDE_BY_SIDE + 1}
    assert (shelf.copies, shelf.at_once, told) == ([], 0, [])
    assert shelf.warnings == []
    copies.reopen()
    assert all(copies.offer(message(offset), UNSIGNED) for offset in range(2 * SIDE_BY_SIDE))
    assert not copies.offer(message(999), UNSIGNED)
    shelf.gate.set()
    await copies.written(20)
    assert await copies.ask(message(1), DOWN)


async def test_closing_waits_for_nobody_who_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that swallows a cancellation, as nats-py's does while its buffer is full, does not hold up the end."""
    monkeypatch.setattr(module, "CLOSING_WAIT", 0.01)
    trail, gate, begun, ended = audit(), asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Deaf:
        async def put(self, *_: object) -> bool:
            begun.set()
            while not gate.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await gate.wait()
            ended.set()
            return False

    copies = Copies(Deaf(), trail)
    assert copies.offer(message(1), UNSIGNED)
    await begun.wait()
    await copies.close(0)
    assert trail.counts == {"left_out": 1}
    gate.set()
    await ended.wait()
    for _ in range(9):  # for the worker to end
        await asyncio.sleep(0)
    assert trail.counts == {"left_out": 1}


async def test_waiting_for_what_was_handed_over_waits_for_nothing_later() -> None:
    """A flood that continues keeps nobody waiting who asked for what was there before."""
    shelf = Shelf()
    copies = Copies(shelf, audit())
    copies.offer(message(0), UNSIGNED)
    await settled(lambda: shelf.at_once)
    waiting = asyncio.gather(copies.written(60), copies.written(60))
    await asyncio.sleep(0)  # now both are waiting
    shelf.gate.set()
    await settled(lambda: shelf.copies)
    shelf.gate.clear()
    copies.offer(message(1), UNSIGNED)
    await asyncio.wait_for(waiting, 20)
    assert shelf.copies == [0]
    await copies.close(0)
