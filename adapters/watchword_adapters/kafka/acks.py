"""What a broker's answer shows of the batch that it acknowledges, and when it belongs to another one.

The broker knows an idempotent producer's batches by its producer id, its epoch and a sequence number. All of these
stand in the log, and any writer may put them on a batch of its own. If a writer sends the next number before the
producer does, the broker takes the producer's batch for a duplicate, provided that it has as many records: it
acknowledges it with the offset and the time of the batch that it has, and stores nothing (seen on Apache Kafka 4.3).
What can be seen of that:

- On a topic with ``CreateTime`` the answer to a batch that was stored bears no time; that to a duplicate does. A
  duplicate is honest only if the batch was sent before, and then that time is the latest of its own records.
- On a topic with ``LogAppendTime`` every answer bears a time. That of a duplicate may lie before its batch was sent,
  by more than clocks differ.
- Offsets of one partition grow: one that is below the end of the last batch, or that the broker does not know,
  belongs to no batch that was stored just now.

So an attack within ``max_skew`` of the send cannot be seen where the broker stamps; nor can one in a topic where the
broker has not answered this producer honestly yet. A batch of another length makes the broker refuse the producer's,
and the next epoch locks it out: these the client itself raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from aiokafka.errors import DuplicateSequenceNumber

from watchword import WatchwordError

if TYPE_CHECKING:
    from aiokafka.structs import TopicPartition

_NO_TIME: Final = -1


class AckMismatchError(WatchwordError, DuplicateSequenceNumber):
    """The broker's acknowledgement belongs to another batch, so these messages are not stored, most likely.

    Somebody who may write to the topic uses this producer's id and sequence numbers. Leave ``enable_idempotence`` off.
    """


class Sent(NamedTuple):
    """A batch that was sent: how many records, the latest of their timestamps (ms), when first (s), how many times."""

    records: int
    latest: int
    at: float
    attempts: int


class Acks:
    """Judges the answers to one idempotent producer; ``max_skew`` is how far clocks may differ, in seconds."""

    def __init__(self, max_skew: float) -> None:
        self._max_skew = max_skew
        self._ends: dict[TopicPartition, int] = {}
        self._unstamped: set[str] = set()

    def mismatch(self, tp: TopicPartition, sent: Sent, offset: int, time_ms: int) -> str | None:
        """Return why an answer (offset of the first record, time or -1) belongs to another batch; None if it fits."""
        if offset < 0:
            return "the broker knows it for a duplicate, and not of what"
        end = self._ends.get(tp, 0)
        self._ends[tp] = offset + sent.records
        if offset < end:
            return f"offset {offset} was taken before, by this producer's own batches (or the topic was made anew)"
        return self._late(tp.topic, sent, time_ms)

    def _late(self, topic: str, sent: Sent, time_ms: int) -> str | None:
        """Return why the time of an answer is another batch's."""
        if time_ms == _NO_TIME:
            self._unstamped.add(topic)
        elif sent.attempts > 1 and time_ms == sent.latest:
            pass  # it was stored the first time, and that answer was lost
        elif topic in self._unstamped:
            self._unstamped.discard(topic)  # the topic's setting may have been changed: then this is the only error
            return "the broker took it for a duplicate of what is stored at that offset"
        elif time_ms / 1000 < sent.at - self._max_skew:
            early = sent.at - time_ms / 1000
            return f"what is stored at that offset was stored {early:.1f} s before this was sent"
        return None
