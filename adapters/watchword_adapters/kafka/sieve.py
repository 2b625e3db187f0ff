"""Looks at every fetched batch before the client does: no record may stop its partition, or move it elsewhere."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from aiokafka.protocol.fetch import FetchRequest
from aiokafka.structs import TopicPartition

from watchword import Message, Position, Reason, Rejected
from watchword.message import channel_of
from watchword_adapters.kafka.records import log_of
from watchword_adapters.kafka.scrub import Lost, scrub

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword import Watchword


_MOST_LOST: Final = 10_000


class Sieve:
    """Takes out of a broker's answers what the client must not see.

    ``position`` tells the client's own position in a partition. ``lost`` holds what is to be put into quarantine: where
    the record was, for nothing that it says of itself can be believed.
    """

    def __init__(self, watchword: Watchword, position: Callable[[TopicPartition], int | None]) -> None:
        self.lost: Final[deque[tuple[Message, Rejected]]] = deque(maxlen=_MOST_LOST)
        self._watchword = watchword
        self._position = position
        self._reported: dict[TopicPartition, tuple[int, int]] = {}

    def tap(self, request: Any, response: Any) -> None:
        """Rewrite a broker's answer to a fetch; leave any other as it is."""
        if not isinstance(request, FetchRequest):
            return
        response.topics = [
            (topic, [self._sifted(TopicPartition(topic, answer[0]), answer) for answer in answers])
            for topic, answers in response.topics
        ]

    def _sifted(self, tp: TopicPartition, answer: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a partition's part of the answer: in every version its end is third, its record set is last."""
        if not answer[-1]:
            return answer
        records, lost = scrub(answer[-1], log_end=answer[2])
        if lost:
            self._report(tp, lost)
        return (*answer[:-1], records)

    def _report(self, tp: TopicPartition, lost: list[Lost]) -> None:
        """Count a record once, however often it is fetched."""
        position, latest = self._position(tp) or 0, self._reported.get(tp, (-1, -1))
        for one in lost:
            if one.end <= position or (one.base, one.number) <= latest:
                continue
            self._reported[tp] = latest = (one.base, one.number)
            channel, place = channel_of("kafka", self._watchword.realm, tp.topic), Position(log_of(tp), one.offset)
            detail = "a record that cannot be decoded, or at an offset outside its batch"
            verdict = Rejected(Reason.MALFORMED, detail, channel=channel.uri)
            self._watchword.audit.refused_raw(verdict, channel=channel.uri, log=place.log, offset=place.offset)
            message = Message(channel=channel, value=None, partition=tp.partition, position=place)
            self.lost.append((message, verdict))
