"""A stream of JetStream as its server keeps it, one consumer of it, honest writers and an attacker.

It knows no formula of the product's: what a server says of a stream is worked out from what the stream holds.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import floor
from typing import Final

from tests.properties.log_world import START, WRITERS, Ident
from tests.unit.core.world import ALICE, press
from watchword.message import Header
from watchword.spi import Channel, Message, Position

STREAM: Final = "S"
CONSUMER: Final = "worker"
_CHANNEL: Final = Channel("nats", "prod", "tasks")


@dataclass(eq=False)
class Stored:
    """One message of the stream, of a subject that the reader reads or of another (``ident`` None).

    ``is_first`` says that nothing of its id was ever stored before it.
    """

    sequence: int
    stamp: float
    ident: Ident | None = None
    issued_at: int = 0
    headers: tuple[Header, ...] = ()
    is_first: bool = False


@dataclass(eq=False)
class Delivery:
    """A message on its way to one of the subscriptions, for the so-manieth time; ``number`` is the consumer's own."""

    stored: Stored
    attempt: int
    number: int


@dataclass
class Consumer:
    """A consumer: where it has got to, and the attempts of what it waits for; not ``acked`` waits for nothing."""

    made: str
    next: int = 1
    acked: bool = True
    most: int = 0
    numbered: int = 0
    pending: dict[int, int] = field(default_factory=dict)

    @property
    def delivered(self) -> int:
        """The highest sequence that it has delivered."""
        return self.next - 1

    @property
    def floor(self) -> int:
        """The sequence up to which it waits for nothing."""
        return min(self.pending, default=self.next) - 1


class Server:
    """The stream and its one consumer, true time, and how far each clock is from that: half the skew at most."""

    def __init__(self) -> None:
        self.now = float(START)
        self.clock = self.reader = self.signer = 0.0
        self.kept: dict[int, Stored] = {}
        self.last = 0
        self.last_stamp = 0.0
        self.gone_upto = 0
        self.ever: list[Stored] = []
        self.waiting: list[Stored] = []
        self.made = 0
        self.consumer = Consumer("0")

    @property
    def local(self) -> float:
        """What the reader's clock shows."""
        return self.now + self.reader

    # What is published

    def sign(self, principal: str, delay: float) -> Stored:
        """Return a message that an honest agent signed ``delay`` seconds ago, and that is on its way."""
        number, issued_at = len(self.ever) + len(self.waiting), floor(self.now - delay + self.signer)
        message = Message(channel=_CHANNEL, value=b"v")
        signed = press(message, key=WRITERS[principal], principal=principal, c6=issued_at, c7=number.to_bytes(16))
        return Stored(0, 0, (principal, number), issued_at, signed.headers)

    def store(self, message: Stored) -> None:
        """Store a message, for the first time or again."""
        self.last += 1
        self.last_stamp = self.now + self.clock
        is_first = message.ident is not None and all(one.ident != message.ident for one in self.ever)
        stored = replace(message, sequence=self.last, stamp=self.last_stamp, is_first=is_first)
        self.kept[self.last] = stored
        if stored.ident is not None:
            self.ever.append(stored)

    # What is lost

    def purge(self, keep: int) -> None:
        """Take all but the last few out, by a purge or by a limit."""
        for sequence in list(self.kept)[: max(0, len(self.kept) - keep)]:
            self.delete(sequence)

    def delete(self, sequence: int) -> None:
        """Take one message out, which the consumer waits for no longer then."""
        if self.kept.pop(sequence, None) is not None:
            self.gone_upto = max(self.gone_upto, sequence)
            self.consumer.pending.pop(sequence, None)

    # What the server says

    def first(self, sequence: int, *, read: bool) -> Stored | None:
        """Return the first message from a sequence on; only of what is ``read``, maybe."""
        found = (one for one in self.kept.values() if one.sequence >= sequence and not (read and one.ident is None))
        return next(found, None)

    def last_gone_at(self) -> float | None:
        """Return when the last of what is gone was stored at the latest."""
        if not self.gone_upto:
            return None
        behind = self.first(self.gone_upto + 1, read=False)
        return self.last_stamp if behind is None else behind.stamp

    def gone_between(self, first: int, end: int) -> float | None:
        """Return when the last of what is gone from a sequence on, before another, was stored at the latest."""
        gone = next((one for one in range(end - 1, first - 1, -1) if one not in self.kept), None)
        behind = None if gone is None else self.first(gone + 1, read=False)
        return None if gone is None else self.last_stamp if behind is None else behind.stamp

    def since(self, time: float, upto: int) -> Iterator[Stored]:
        """Return what is read that was stored since a time, found by halving, up to a sequence."""
        kept = list(self.kept.values())
        at = bisect_left(kept, time, key=lambda one: one.stamp)
        return (one for one in kept[at:] if one.ident is not None and one.sequence <= upto)

    def between(self, first: int, end: int) -> list[Stored]:
        """Return what is read from a sequence on, before another."""
        return [one for one in self.kept.values() if first <= one.sequence < end and one.ident is not None]

    # What the consumer does

    def deliver(self) -> Delivery | None:
        """Deliver the next message for the first time."""
        consumer, found = self.consumer, self.first(self.consumer.next, read=True)
        if found is None:
            return None
        consumer.next = found.sequence + 1
        if consumer.acked:
            consumer.pending[found.sequence] = 0
        return self._sent(found, 1)

    def deliver_again(self, sequence: int) -> Delivery | None:
        """Deliver again what was not acknowledged; not what has had its last attempt."""
        consumer, found = self.consumer, self.kept[sequence]
        attempt = consumer.pending[sequence] + 1
        if 0 < consumer.most < attempt:
            return None
        return self._sent(found, attempt)

    def _sent(self, stored: Stored, attempt: int) -> Delivery:
        consumer = self.consumer
        consumer.numbered += 1
        if consumer.acked:
            consumer.pending[stored.sequence] = attempt
        return Delivery(stored, attempt, consumer.numbered)

    def make_consumer(self, *, at: int, acked: bool, most: int) -> None:
        """Create the consumer, or recreate it, to begin at a sequence."""
        self.made += 1
        self.consumer = Consumer(str(self.made), max(1, at), acked, most)

    def reset(self, at: int) -> None:
        """Set the consumer to a sequence; it is the same one."""
        self.consumer.next, self.consumer.numbered = max(1, at), 0
        self.consumer.pending.clear()


def read_as(stored: Stored, reader: str) -> Message:
    """Return a message as an adapter hands it to the verifier."""
    return Message(
        channel=_CHANNEL,
        value=b"v",
        headers=stored.headers,
        position=Position(STREAM, stored.sequence),
        appended_at=stored.stamp,
        reader=reader,
        delivered_by=(STREAM, CONSUMER),
        exclusive=True,
    )


JUNK: Final = Stored(0, 0)
"""A message without a signature, of a subject that is not read."""

STRANGE: Final = Stored(0, 0, (ALICE, -1), 0, ())
"""A message without a signature, where the reader reads."""
