"""Questions about how topics are set up: answers may warn, and nothing else depends on them."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.kafka.fakes import Keys, watchword
from watchword_adapters.kafka.topics import TopicWarnings


def client(answer: Any) -> Any:
    """Return a client whose brokers give one answer, or raise it."""

    async def send(*_: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(resources=[answer])

    return SimpleNamespace(get_random_node=lambda: 0, send=send)


def settings(**values: str) -> Any:
    """Return what a broker says of a topic."""
    return (0, None, 2, "tasks", [(name.replace("_", "."), value) for name, value in values.items()])


@pytest.mark.parametrize(
    ("answer", "warns"),
    [
        (ConnectionError(), False),
        ((29, "forbidden", 2, "tasks", []), False),
        (settings(cleanup_policy="delete"), False),
        (settings(cleanup_policy="compact", min_compaction_lag_ms="310000"), False),
        (settings(cleanup_policy="compact,delete", min_compaction_lag_ms="309999"), True),
        (settings(cleanup_policy="compact"), True),
    ],
)
async def test_a_topic_that_is_compacted_too_early_is_told_once(
    answer: Any, caplog: pytest.LogCaptureFixture, *, warns: bool
) -> None:
    """A user who runs it learns what to set; where a broker may not be asked, or fails, nothing happens."""
    topics = TopicWarnings(watchword(Keys()))
    topics.ask(client(answer), {"tasks"})
    await asyncio.gather(*topics._questions)
    topics.ask(None, {"tasks"})
    assert not topics._questions
    assert caplog.text.count("set min.compaction.lag.ms on the topic to 310000 and the longest time") == warns


async def test_a_question_in_flight_ends_with_the_consumer() -> None:
    """Closing does not wait for a broker that is silent."""
    topics, silent = TopicWarnings(watchword(Keys())), client(None)

    async def send(*_: Any) -> Any:
        await asyncio.Event().wait()

    silent.send = send
    topics.ask(silent, {"tasks"})
    await asyncio.sleep(0)
    await topics.close()
    assert not topics._questions
