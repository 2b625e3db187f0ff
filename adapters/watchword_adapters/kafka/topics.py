"""Warns about topics whose compaction removes messages that their readers must remember."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from aiokafka.protocol.admin import DescribeConfigsRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from watchword import Watchword

_TOPIC_RESOURCE: Final = 2
_CLEANUP: Final = "cleanup.policy"
_LAG: Final = "min.compaction.lag.ms"


class TopicWarnings:
    """Warns once about each topic, if the broker reports that it is compacted too early."""

    def __init__(self, watchword: Watchword) -> None:
        self._watchword = watchword
        self._asked: set[str] = set()
        self._questions: set[asyncio.Task[None]] = set()

    def ask(self, client: Any, topics: Iterable[str]) -> None:
        """Request the settings of topics in the background, once for each."""
        fresh = sorted(set(topics) - self._asked)
        if fresh:
            self._asked.update(fresh)
            question = asyncio.get_running_loop().create_task(self._ask(client, fresh))
            self._questions.add(question)
            question.add_done_callback(self._questions.discard)

    async def _ask(self, client: Any, topics: list[str]) -> None:
        request = DescribeConfigsRequest([(_TOPIC_RESOURCE, topic, [_CLEANUP, _LAG]) for topic in topics])
        try:
            answer = await client.send(client.get_random_node(), request)
            for error_code, _, _, topic, entries in answer.resources:
                if not error_code:
                    self._check(topic, {entry[0]: entry[1] for entry in entries})
        except Exception:  # noqa: BLE001 - best effort: the request may be forbidden or unsupported
            return

    def _check(self, topic: str, settings: dict[str, str | None]) -> None:
        window = self._watchword.verifier.policy.window
        if "compact" in (settings.get(_CLEANUP) or "") and float(settings.get(_LAG) or 0) < window * 1000:
            self._watchword.audit.warn(
                "kafka.compaction_forgets",
                topic=topic,
                cost="after a restart, the replay of a message whose original was compacted away is delivered",
                remedy=f"set {_LAG} on the topic to {window * 1000:.0f} and the longest time that a reader is down",
            )

    async def close(self) -> None:
        """Cancel running requests."""
        for question in tuple(self._questions):
            question.cancel()
        await asyncio.gather(*self._questions, return_exceptions=True)
