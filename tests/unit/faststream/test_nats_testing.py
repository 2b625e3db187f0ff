"""FastStream's in-memory NATS on our brokers: what a handler's test sees was signed and verified."""

from typing import Any

import pytest
from faststream.nats import JStream, NatsMessage, PullSub
from faststream.nats import NatsBroker as PlainBroker
from faststream.nats import TestNatsBroker as PlainTestNatsBroker

from tests.unit.faststream.agents import CLOUD, PLANNER, STRANGER, agent
from watchword import ConfigurationError, Mode, Rejected
from watchword.faststream import NatsBroker, Principal, Principals, TestNatsBroker, Verified
from watchword_adapters.nats import ObservedMsg, VerifiedMsg


async def test_a_handler_is_told_who_wrote_a_message() -> None:
    """Principal and Verified are parameters like others; the reply subject was signed."""
    broker, seen = NatsBroker(watchword=agent()), []

    @broker.subscriber("tasks.*")
    async def handle(body: str, who: Principal, verified: Verified, message: NatsMessage) -> None:
        assert verified is not None
        seen.append((body, who, verified, message))

    async with TestNatsBroker(broker):
        await broker.publish("scale up", "tasks.a", headers={"team": "blue"}, reply_to="answers")
    ((body, who, verified, message),) = seen
    assert (body, who, verified.reply_to) == ("scale up", PLANNER, "answers")
    assert isinstance(message.raw_message, VerifiedMsg)
    assert message.headers["team"] == "blue"
    assert "watchword" not in message.headers


async def test_who_is_not_known_or_not_meant_is_rejected() -> None:
    """Several brokers are several agents: who publishes signs, and whose handler it is judges."""
    planner = NatsBroker(watchword=agent(), recipient=lambda *_: CLOUD)
    stranger, cloud = NatsBroker(watchword=agent(STRANGER)), NatsBroker(watchword=agent(CLOUD))
    seen = []

    @cloud.subscriber("tasks")
    async def handle(who: Principal) -> None:
        seen.append(who)

    @stranger.subscriber("own")
    async def own() -> None:
        raise AssertionError

    async with TestNatsBroker(planner, stranger, cloud):
        await planner.publish("x", "tasks")
        with pytest.raises(Rejected, match="unknown_key"):
            await stranger.publish("x", "tasks")
        with pytest.raises(Rejected, match="wrong_recipient"):
            await planner.publish("x", "own")
    assert seen == [PLANNER]


async def test_an_answer_is_bound_to_its_request() -> None:
    """What request() returns is verified, the handler's agent's, and answers this very request."""
    planner, cloud = NatsBroker(watchword=agent()), NatsBroker(watchword=agent(CLOUD))
    asked = []

    @cloud.subscriber("ask")
    async def handle(body: str, verified: Verified) -> str:
        assert verified is not None
        asked.append(verified.id)
        return body.upper()

    async with TestNatsBroker(planner, cloud):
        answer: Any = await planner.request("ready", "ask")
    assert await answer.decode() == "READY"
    assert answer.raw_message.verified.principal == CLOUD
    assert [answer.raw_message.verified.in_reply_to] == asked


async def test_messages_of_streams_have_a_place() -> None:
    """Each lies in its stream once, for however many handlers; pull batches know each sender."""
    broker, seen = NatsBroker(watchword=agent()), []
    offsets = []

    @broker.subscriber("tasks", stream=JStream("work"), durable="a", pull_sub=True)
    async def single(verified: Verified) -> None:
        assert verified is not None
        assert verified.position is not None
        offsets.append(verified.position.offset)

    @broker.subscriber("tasks", stream=JStream("work"), durable="b", pull_sub=PullSub(batch=True))
    async def batch(bodies: list[str], who: Principals) -> None:
        seen.append((bodies, who))

    async with TestNatsBroker(broker):
        await broker.publish("one", "tasks", stream="work")
        await broker.publish("two", "tasks", stream="work")
    assert offsets == [0, 1]
    assert seen == [(["one"], [PLANNER]), (["two"], [PLANNER])]


async def test_an_observer_hands_over_what_would_be_dropped_and_says_so() -> None:
    """While observing the same handler runs; the sender of what did not verify is None."""
    stranger = NatsBroker(watchword=agent(STRANGER))
    cloud, seen = NatsBroker(watchword=agent(CLOUD, mode=Mode.OBSERVE)), []

    @cloud.subscriber("tasks")
    async def handle(body: str, who: Principal, message: NatsMessage) -> None:
        seen.append((body, who, type(message.raw_message).__mro__[2]))

    async with TestNatsBroker(stranger, cloud):
        await stranger.publish("x", "tasks")
    assert seen == [("x", None, ObservedMsg)]


async def test_faststreams_own_test_broker_would_go_past_verification() -> None:
    """What nobody has judged never reaches a handler of ours, whichever way it came; the error names the remedy."""
    broker = NatsBroker(watchword=agent())

    @broker.subscriber("tasks")
    async def handle(body: str) -> None:
        raise AssertionError(body)

    @broker.subscriber("pulled", stream="work", pull_sub=PullSub(batch=True))
    async def pulled(bodies: list[str]) -> None:
        raise AssertionError(bodies)

    for subject in ("tasks", "pulled"):
        with pytest.raises(ConfigurationError, match="use TestKafkaBroker and TestNatsBroker"):
            async with PlainTestNatsBroker(broker):
                await broker.publish("x", subject)


def test_a_plain_broker_is_not_tested_as_one_of_ours() -> None:
    """The error says what to write."""
    with pytest.raises(
        ConfigurationError, match="FastStream's own TestNatsBroker, or create a NatsBroker of watchword"
    ):
        TestNatsBroker(PlainBroker())
