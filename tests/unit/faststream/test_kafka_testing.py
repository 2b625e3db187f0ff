"""FastStream's in-memory Kafka on our brokers: what a handler's test sees was signed and verified."""

from typing import Any

import pytest
from faststream.kafka import KafkaBroker as PlainBroker
from faststream.kafka import KafkaMessage, KafkaRouter
from faststream.kafka import TestKafkaBroker as PlainTestKafkaBroker

from tests.unit.faststream.agents import CLOUD, PLANNER, STRANGER, agent
from watchword import Allow, ConfigurationError, Mode, Reason, Rejected
from watchword.faststream import KafkaBroker, Principal, Principals, TestKafkaBroker, Verified, VerifiedBatch
from watchword_adapters.kafka import ObservedRecord, VerifiedRecord


async def test_a_handler_is_told_who_wrote_a_message() -> None:
    """Principal and Verified are parameters like others; what was verified is all there."""
    broker, seen = KafkaBroker(watchword=agent()), []

    @broker.subscriber("tasks")
    async def handle(body: str, who: Principal, verified: Verified, message: KafkaMessage) -> None:
        assert verified is not None
        assert verified.position is not None
        seen.append((body, who, verified, verified.position.offset, message.raw_message))

    async with TestKafkaBroker(broker):
        await broker.publish("scale up", "tasks", key=b"k", headers={"team": "blue"})
        await broker.publish("scale down", "tasks")
    (body, who, verified, at, raw), (_, _, second, behind, _) = seen
    assert (body, who, verified.principal) == ("scale up", PLANNER, PLANNER)
    assert isinstance(raw, VerifiedRecord)
    assert dict(raw.headers)["team"] == b"blue"
    assert "watchword" not in dict(raw.headers)
    assert [at, behind] == [0, 1]
    assert verified.id != second.id


async def test_several_brokers_are_several_agents() -> None:
    """Who publishes signs, and whose handler it is judges: by its own keys and rules."""
    planner, stranger = KafkaBroker(watchword=agent()), KafkaBroker(watchword=agent(STRANGER))
    cloud = KafkaBroker(watchword=agent(CLOUD, allow=(Allow(PLANNER, ("kafka://test/tasks",)),)))
    seen = []

    @cloud.subscriber("tasks", group_id="a")
    @cloud.subscriber("orders", group_id="a")
    async def handle(body: str, who: Principal) -> None:
        seen.append((body, who))

    @cloud.subscriber("tasks", group_id="b")
    async def also(body: str, who: Principal) -> None:
        seen.append((body, who))

    async with TestKafkaBroker(planner, stranger, cloud):
        await planner.publish("one", "tasks")
        with pytest.raises(Rejected) as unknown:
            await stranger.publish("two", "tasks")
        with pytest.raises(Rejected) as forbidden:
            await planner.publish("three", "orders")
    assert seen == [("one", PLANNER)] * 2
    assert [unknown.value.reason, forbidden.value.reason] == [Reason.UNKNOWN_KEY, Reason.NOT_PERMITTED]


async def test_a_message_is_meant_for_its_recipient() -> None:
    """The broker's recipient is signed, and another agent's handler is not called."""
    planner = KafkaBroker(watchword=agent(), recipient=lambda *_: CLOUD)
    cloud, seen = KafkaBroker(watchword=agent(CLOUD)), []

    @cloud.subscriber("tasks")
    async def handle(verified: Verified) -> None:
        assert verified is not None
        seen.append(verified.recipient)

    @planner.subscriber("own")
    async def own() -> None:
        raise AssertionError

    async with TestKafkaBroker(planner, cloud):
        await planner.publish("x", "tasks")
        with pytest.raises(Rejected, match="wrong_recipient"):
            await planner.publish("x", "own")
    assert seen == [CLOUD]


async def test_each_message_of_a_batch_has_its_sender() -> None:
    """A batch's handler knows the sender of each, in order, whether they were published together or alone."""
    broker, seen = KafkaBroker(watchword=agent()), []

    @broker.subscriber("tasks", batch=True)
    async def handle(bodies: list[str], who: Principals, verified: VerifiedBatch) -> None:
        seen.append((bodies, who, [one and one.value for one in verified]))

    async with TestKafkaBroker(broker):
        await broker.publish_batch("a", "b", topic="tasks")
        await broker.publish("c", "tasks")
    assert seen == [(["a", "b"], [PLANNER] * 2, [b"a", b"b"]), (["c"], [PLANNER], [b"c"])]


async def test_a_parameter_for_one_message_is_refused_in_a_batch_and_the_other_way_round() -> None:
    """The error says which to write."""
    broker = KafkaBroker(watchword=agent())

    @broker.subscriber("batch", batch=True)
    async def batch(bodies: list[str], who: Principal) -> None:
        raise AssertionError(bodies, who)

    @broker.subscriber("single")
    async def single(body: str, who: Principals) -> None:
        raise AssertionError(body, who)

    async with TestKafkaBroker(broker):
        with pytest.raises(ConfigurationError, match="use Principals or VerifiedBatch"):
            await broker.publish("a", "batch")
        with pytest.raises(ConfigurationError, match="use Principal or Verified"):
            await broker.publish("a", "single")


async def test_an_answer_is_signed_by_who_gives_it() -> None:
    """What request() returns was verified, and is the handler's agent's."""
    planner, cloud = KafkaBroker(watchword=agent()), KafkaBroker(watchword=agent(CLOUD))

    @cloud.subscriber("ask")
    async def handle(body: str, who: Principal) -> str:
        return f"{body} for {who}"

    async with TestKafkaBroker(planner, cloud):
        answer: Any = await planner.request("ready", "ask")
    assert await answer.decode() == f"ready for {PLANNER}"
    assert answer.raw_message.verified.principal == CLOUD


async def test_answers_go_to_topics_that_were_allowed() -> None:
    """A message may name any topic for its answer; where the broker does not allow it, nothing is signed there."""
    broker = KafkaBroker(watchword=agent(), reply_topics=["answers"])
    seen = []

    @broker.subscriber("ask")
    async def handle(body: str) -> str:
        return body.upper()

    @broker.subscriber("answers")
    @broker.subscriber("payments")
    async def took(body: str) -> None:
        seen.append(body)

    async with TestKafkaBroker(broker):
        await broker.publish("fine", "ask", reply_to="answers")
        await broker.publish("pay", "ask", reply_to="payments")
    assert seen == ["FINE"]


async def test_an_observer_hands_over_what_would_be_dropped_and_says_so() -> None:
    """While observing the same handler runs; the sender of what did not verify is None."""
    stranger = KafkaBroker(watchword=agent(STRANGER))
    cloud, seen = KafkaBroker(watchword=agent(CLOUD, mode=Mode.OBSERVE)), []

    @cloud.subscriber("tasks")
    async def handle(body: str, who: Principal, message: KafkaMessage) -> None:
        seen.append((body, who, type(message.raw_message)))

    async with TestKafkaBroker(stranger, cloud):
        await stranger.publish("x", "tasks")
    assert seen == [("x", None, ObservedRecord)]


async def test_faststreams_own_test_broker_would_go_past_verification() -> None:
    """What nobody has judged never reaches a handler of ours, whichever way it came; the error names the remedy."""
    broker = KafkaBroker(watchword=agent())

    @broker.subscriber("tasks")
    async def handle(body: str) -> None:
        raise AssertionError(body)

    with pytest.raises(ConfigurationError, match="use TestKafkaBroker"):
        async with PlainTestKafkaBroker(broker):
            await broker.publish("x", "tasks")


def test_a_plain_broker_is_not_tested_as_one_of_ours() -> None:
    """The error says what to write."""
    with pytest.raises(
        ConfigurationError, match="FastStream's own TestKafkaBroker, or create a KafkaBroker of watchword"
    ):
        TestKafkaBroker(PlainBroker())


async def test_routers_and_publishers_work_as_they_do() -> None:
    """A router of FastStream's, a publisher's mock, and a publisher without a subscriber."""
    broker, router = KafkaBroker(watchword=agent()), KafkaRouter(prefix="a-")

    @router.subscriber("in")
    @router.publisher("out")
    async def handle(body: str, who: Principal) -> str:
        return f"{who} said {body}"

    broker.include_router(router)
    async with TestKafkaBroker(broker):
        await broker.publish("go", "a-in")
        handle.mock.assert_called_once_with("go")
