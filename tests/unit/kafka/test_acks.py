"""Which answers of a broker fit the batch that was sent, answer by answer."""

from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from tests.unit.kafka.fakes import P0, P1
from watchword_adapters.kafka.acks import Acks, Sent

NOW = 1_700_000_000.0
SKEW = 5.0
OTHER = TopicPartition("other", 0)


def at(seconds: float) -> int:
    """Return a time relative to now, in the broker's milliseconds."""
    return int((NOW + seconds) * 1000)


def answer(offset: int, time_ms: int = -1, *, attempts: int = 1, count: int = 1, tp: TopicPartition = P0) -> Any:
    """Return an answer to a batch that was made a second ago and sent now."""
    return tp, Sent(count, at(-1), NOW, attempts), offset, time_ms


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        # On CreateTime an answer bears no time.
        ([answer(0), answer(1)], [None, None]),
        ([answer(0, count=3), answer(3)], [None, None]),
        ([answer(0), answer(1, at(0))], [None, "took it for a duplicate"]),
        ([answer(0), answer(1, at(0), tp=P1)], [None, "took it for a duplicate"]),
        # ... but to a duplicate, which is honest where the batch was sent before, and its own.
        ([answer(0), answer(1, at(-1), attempts=2)], [None, None]),
        ([answer(0), answer(1, at(-1), attempts=1)], [None, "took it for a duplicate"]),
        ([answer(0), answer(1, at(0), attempts=2)], [None, "took it for a duplicate"]),
        ([answer(0, at(-1), attempts=2)], [None]),
        # A topic whose setting was changed costs one error, and is then seen as stamped.
        ([answer(0), answer(1, at(0)), answer(2, at(0))], [None, "took it for a duplicate", None]),
        ([answer(0), answer(1, at(0)), answer(2), answer(3, at(0))], [None, "duplicate", None, "duplicate"]),
        ([answer(0, at(0)), answer(1)], [None, None]),
        # On LogAppendTime each answer bears one, of when it was stored.
        ([answer(0, at(0)), answer(1, at(0.1))], [None, None]),
        ([answer(0, at(-SKEW)), answer(1, at(-SKEW - 0.1))], [None, "5.1 s before this one was sent"]),
        ([answer(0, at(60))], [None]),
        ([answer(0, at(-SKEW - 0.1), attempts=2)], ["before this one was sent"]),
        # A topic tells nothing of another one.
        ([answer(0), answer(0, at(0), tp=OTHER)], [None, None]),
        # Offsets grow.
        ([answer(5, count=3), answer(7)], [None, "offset 7 was already taken"]),
        ([answer(5, count=3), answer(8)], [None, None]),
        ([answer(5), answer(0), answer(1)], [None, "offset 0 was already taken", None]),
        ([answer(5), answer(0, tp=P1)], [None, None]),
        ([answer(-1), answer(0)], ["without naming", None]),
        ([answer(-1, at(-1), attempts=2)], ["without naming"]),
    ],
)
def test_an_answer_fits_its_batch_or_is_named(answers: list[Any], expected: list[str | None]) -> None:
    """An honest answer is never an error, and each sign of another batch's answer is one."""
    acks = Acks(SKEW)
    for given, text in zip(answers, expected, strict=True):
        why = acks.mismatch(*given)
        assert why is None if text is None else text in (why or "")
