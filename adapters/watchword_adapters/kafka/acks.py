"""Detects acknowledgements that belong to another batch than the one that a producer sent.

The broker identifies an idempotent producer's batches by producer id, epoch and sequence number. All three are visible
in the log, and any writer may put them on its own batch. If a writer sends the next number before the producer does,
the broker takes the producer's batch for a duplicate, provided that both have as many records: it acknowledges it with
the offset and the time of the batch that it has, and stores nothing (seen on Apache Kafka 4.3). The signs of that:

- On a topic with ``CreateTime``, the response to a stored batch has no time; that to a duplicate has one. A duplicate
  is honest only if the batch was sent before, and then the time is the latest of its own records.
- On a topic with ``LogAppendTime``, every response has a time. That of a duplicate may be earlier than the send, by
  more than clocks differ.
- Offsets of one partition grow: one that is below the end of the last batch, or that the broker does not know,
  cannot belong to a batch that was just stored.

An attack within ``max_skew`` of the send therefore cannot be detected if the broker stamps, nor one in a topic where
the broker has not yet answered this producer honestly. If the batch has another length, the broker refuses the
producer's, and the next epoch locks it out: the client itself raises these errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from aiokafka.errors import DuplicateSequenceNumber

from watchword import WatchwordError

if TYPE_CHECKING:
    from aiokafka.structs import TopicPartition

_NO_TIME: Final = -1


class AckMismatchError(WatchwordError, DuplicateSequenceNumber):
    """The broker's acknowledgement belongs to another batch, so these messages were most likely not stored.

    Another client with write access uses this producer's id and sequence numbers. Turn ``enable_idempotence`` off.
    """


class Sent(NamedTuple):
    """A batch that was sent: number of records, their latest timestamp (ms), first send (s), attempts."""

    records: int
    latest: int
    at: float
    attempts: int


class Acks:
    """Checks the acknowledgements to one idempotent producer; ``max_skew`` is how far clocks may differ, in seconds."""

    def __init__(self, max_skew: float) -> None:
        self._max_skew = max_skew
        self._ends: dict[TopicPartition, int] = {}
        self._unstamped: set[str] = set()

    def mismatch(self, tp: TopicPartition, sent: Sent, offset: int, time_ms: int) -> str | None:
        """Return why a response (offset of the first record, time or -1) belongs to another batch; None if it fits."""
        if offset < 0:
            return "the broker calls it a duplicate without naming an offset"
        end = self._ends.get(tp, 0)
        self._ends[tp] = offset + sent.records
        if offset < end:
            return f"offset {offset} was already taken by this producer's own batches (or the topic was recreated)"
        return self._late(tp.topic, sent, time_ms)

    def _late(self, topic: str, sent: Sent, time_ms: int) -> str | None:
        """Return why the time of a response belongs to another batch."""
        if time_ms == _NO_TIME:
            self._unstamped.add(topic)
        elif sent.attempts > 1 and time_ms == sent.latest:
            pass  # it was stored by an earlier attempt, whose response was lost
        elif topic in self._unstamped:
            self._unstamped.discard(topic)  # if the topic's setting was changed, this is the only error
            return "the broker took it for a duplicate of the batch at that offset"
        elif time_ms / 1000 < sent.at - self._max_skew:
            early = sent.at - time_ms / 1000
            return f"the batch at that offset was stored {early:.1f} s before this one was sent"
        return None
