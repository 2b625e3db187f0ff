"""Warnings about topics that cost messages or memory: on which the producer sets the time, or compaction forgets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from aiokafka.protocol.admin import DescribeConfigsRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from watchword import Watchword

_TOPIC_RESOURCE: Final = 2
_SETTING: Final = "message.timestamp.type"
_CLEANUP: Final = "cleanup.policy"
_LAG: Final = "min.compaction.lag.ms"


class TopicWarnings:
    """Warns once a topic, as soon as a broker's answer or a record shows that it is on ``CreateTime``, or compacted."""

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
        request = DescribeConfigsRequest([(_TOPIC_RESOURCE, topic, [_SETTING, _CLEANUP, _LAG]) for topic in topics])
        try:
            answer = await client.send(client.get_random_node(), request)
            for error_code, _, _, topic, entries in answer.resources:
                settings = {} if error_code else {entry[0]: entry[1] for entry in entries}
                if settings.get(_SETTING) == "CreateTime":
                    self.warn(topic)
                self._check_compaction(topic, settings)
        except Exception:  # noqa: BLE001 - a courtesy that may be forbidden or unknown; the first record tells too
            return

    def _check_compaction(self, topic: str, settings: dict[str, str | None]) -> None:
        window = self._watchword.verifier.policy.window
        if "compact" in (settings.get(_CLEANUP) or "") and float(settings.get(_LAG) or 0) < window * 1000:
            self._watchword.audit.warn(
                "kafka.compaction_forgets",
                topic=topic,
                cost="after a restart the replay of an original that was compacted away is delivered",
                remedy=f"set {_LAG} to {window * 1000:.0f} or more on the topic",
            )

    async def close(self) -> None:
        """Stop asking."""
        for question in tuple(self._questions):
            question.cancel()
        await asyncio.gather(*self._questions, return_exceptions=True)
