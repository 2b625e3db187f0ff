"""What a broker refuses when it is made, or before it starts: in one line that says what to write."""

from datetime import UTC, datetime
from typing import Any

import pytest
from faststream.exceptions import IncorrectState
from faststream.nats import KvWatch, NatsRouter, ObjWatch, Schedule

from tests.unit.faststream.agents import agent
from watchword import ConfigurationError, Mode
from watchword.faststream import KafkaBroker, NatsBroker, TestNatsBroker


@pytest.mark.parametrize("kind", [KafkaBroker, NatsBroker])
def test_a_broker_needs_a_watchword(kind: Any) -> None:
    """As every interceptor does."""
    with pytest.raises(ConfigurationError, match=r"watchword=: write watchword\.load"):
        kind(watchword="watchword.toml")


def test_who_only_reads_says_so() -> None:
    """A Kafka broker needs an agent that signs, unless consumer_only=True is set."""
    with pytest.raises(ConfigurationError, match="or write consumer_only=True"):
        KafkaBroker(watchword=agent(signs=False))
    assert KafkaBroker(watchword=agent(signs=False), consumer_only=True).running is False


def test_topics_for_answers_are_a_list() -> None:
    """One name alone would be taken for its letters."""
    with pytest.raises(ConfigurationError, match=r"write a list of topics, \['answers'\]"):
        KafkaBroker(watchword=agent(), reply_topics="answers")


@pytest.mark.parametrize(("option", "watch"), [("kv_watch", KvWatch("b")), ("obj_watch", ObjWatch())])
async def test_buckets_are_refused_before_anything_starts(option: str, watch: Any) -> None:
    """Where a subscriber is declared; one that a router brings, at the start. Streams are named as the covered way."""
    broker, router = NatsBroker(watchword=agent()), NatsRouter()
    watching: Any = {option: watch}
    with pytest.raises(ConfigurationError, match=rf"{option}=: buckets are not supported.*stream="):
        broker.subscriber("bucket", **watching)
    router.subscriber("bucket", **watching)
    broker.include_router(router)
    with pytest.raises(ConfigurationError, match="kv_watch or obj_watch: buckets are not supported"):
        await broker.start()


async def test_buckets_and_schedules_are_refused_where_they_are_asked_for() -> None:
    """Nothing of them is done."""
    broker = NatsBroker(watchword=agent())
    for call in (broker.key_value("b"), broker.object_storage("b")):
        with pytest.raises(ConfigurationError, match="buckets are not supported"):
            await call
    schedule = Schedule(datetime.now(UTC), "later")
    for stream in (None, "work"):
        with pytest.raises(ConfigurationError, match="schedule=: the server would publish the message later"):
            await broker.publish("x", "tasks", stream=stream, schedule=schedule)


async def test_an_observer_may_use_what_nobody_could_verify() -> None:
    """Observing refuses nothing that worked before: the client warns of it."""
    broker = NatsBroker(watchword=agent(mode=Mode.OBSERVE))
    broker.subscriber("bucket", kv_watch=KvWatch("b"))
    with pytest.raises(IncorrectState):  # there is no connection yet
        await broker.key_value("b")
    async with TestNatsBroker(broker):
        pass
