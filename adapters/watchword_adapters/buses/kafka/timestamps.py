"""The warning about topics on which the producer, not the broker, sets the time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from aiokafka.protocol.admin import DescribeConfigsRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from watchword import Watchword

_TOPIC_RESOURCE: Final = 2
_SETTING: Final = "message.timestamp.type"


class TimestampWarning:
    """Warns once a topic, as soon as a broker's answer or a record shows that it is on ``CreateTime``."""

    def __init__(self, watchword: Watchword) -> None:
        self._watchword = watchword
        self._asked: set[str] = set()
        self._warned: set[str] = set()
        self._questions: set[asyncio.Task[None]] = set()

    def warn(self, topic: str) -> None:
        """Say what it costs, and what to set."""
        if topic in self._warned:
            return
        self._warned.add(topic)
        policy = self._watchword.verifier.policy
        self._watchword.audit.warn(
            "kafka.create_time_topic",
            topic=topic,
            cost=f"what is read more than {policy.max_age + policy.max_skew:g} s after it was sent is dropped as stale",
            remedy=f"set {_SETTING}=LogAppendTime on the topic",
        )

    def ask(self, client: Any, topics: Iterable[str]) -> None:
        """Ask a broker in the background about topics not asked about before."""
        fresh = sorted(set(topics) - self._asked)
        if fresh:
            self._asked.update(fresh)
            question = asyncio.get_running_loop().create_task(self._ask(client, fresh))
            self._questions.add(question)
            question.add_done_callback(self._questions.discard)

    async def _ask(self, client: Any, topics: list[str]) -> None:
        request = DescribeConfigsRequest([(_TOPIC_RESOURCE, topic, [_SETTING]) for topic in topics])
        try:
            answer = await client.send(client.get_random_node(), request)
            for error_code, _, _, topic, entries in answer.resources:
                if not error_code and any(entry[1] == "CreateTime" for entry in entries):
                    self.warn(topic)
        except Exception:  # noqa: BLE001 - a courtesy that may be forbidden or unknown; the first record tells too
            return

    async def close(self) -> None:
        """Stop asking."""
        for question in tuple(self._questions):
            question.cancel()
        await asyncio.gather(*self._questions, return_exceptions=True)
