"""Takes out of a broker's answers what the client could not decode: a poison record must not stop its partition."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from aiokafka.protocol.fetch import FetchRequest
from aiokafka.structs import TopicPartition

from watchword import Message, Position, Reason, Rejected
from watchword.message import channel_of
from watchword_adapters.buses.kafka.records import log_of
from watchword_adapters.buses.kafka.scrub import scrub

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword import Watchword


_MOST_LOST: Final = 10_000


class Sieve:
    """Looks at fetched bytes before the client does, for the partitions on which it failed once.

    Decoding twice is paid for there only. ``position`` tells the client's own position in a partition. ``lost`` holds
    what is to be put into quarantine: where the record was, for nothing of it can be read.
    """

    def __init__(self, watchword: Watchword, position: Callable[[TopicPartition], int | None]) -> None:
        self.careful: Final[set[TopicPartition]] = set()
        self.lost: Final[deque[tuple[Message, Rejected]]] = deque(maxlen=_MOST_LOST)
        self._watchword = watchword
        self._position = position
        self._reported: dict[TopicPartition, int] = {}

    def tap(self, request: Any, response: Any) -> None:
        """Rewrite a broker's answer to a fetch; leave any other as it is."""
        if not self.careful or not isinstance(request, FetchRequest):
            return
        response.topics = [
            (topic, [self._sifted(TopicPartition(topic, answer[0]), answer) for answer in answers])
            for topic, answers in response.topics
        ]

    def _sifted(self, tp: TopicPartition, answer: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a partition's part of the answer, of which the record set is the last field in every version."""
        if tp not in self.careful or not answer[-1]:
            return answer
        records, lost = scrub(answer[-1])
        self._report(tp, lost)
        return (*answer[:-1], records)

    def _report(self, tp: TopicPartition, lost: list[int]) -> None:
        """Count a record once, however often it is fetched."""
        first = max(self._position(tp) or 0, self._reported.get(tp, -1) + 1)
        for offset in lost:
            if offset >= first:
                self._reported[tp] = offset
                channel, position = channel_of("kafka", self._watchword.realm, tp.topic), Position(log_of(tp), offset)
                verdict = Rejected(Reason.MALFORMED, "a record that the client cannot decode", channel=channel.uri)
                self._watchword.audit.refused_raw(
                    verdict, channel=channel.uri, log=position.log, offset=position.offset
                )
                message = Message(channel=channel, value=None, partition=tp.partition, position=position)
                self.lost.append((message, verdict))
