"""A FastStream service on a real Kafka: handlers get what verified, once, and nothing is lost for an outage of ours."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from faststream import AckPolicy
from faststream.kafka import KafkaBroker as PlainBroker
from faststream.kafka import KafkaMessage

from tests.integration.faststream.backend import signing_elsewhere
from tests.integration.kafka.world import (
    CONTROLLER,
    INTERN,
    PLANNER,
    World,
    eventually,
    without_envelope,
)
from tests.support.patience import PATIENCE
from watchword import Mode, Watchword
from watchword.faststream import KafkaBroker, Principal, Principals, Verified
from watchword_adapters.faststream import holding


async def until(condition: Any) -> None:
    """Wait until it holds."""

    async def probe() -> bool:
        return bool(condition())

    await eventually(probe)


def service(world: World, watchword: Watchword, **options: Any) -> KafkaBroker:
    """Return a broker of ours; one that signs nothing opens no producer."""
    return KafkaBroker(world.bootstrap, watchword=watchword, **{"consumer_only": True} | options)


def forgeries(honest: Any) -> list[Any]:
    """Return what an attacker makes of a record it has seen: unsigned, altered, and the same again."""
    return [without_envelope(honest), replace(honest, value=b"scale down"), honest]


async def test_a_handler_gets_neither_unsigned_nor_forged_nor_replayed_messages(kafka: World) -> None:
    """A plain handler on the same topic acts on all of them: the attack works where nobody verifies."""
    topic, guard = await kafka.make_topic(), kafka.reader()
    plain, ours = PlainBroker(kafka.bootstrap), service(kafka, guard)
    taken: list[bytes] = []
    seen: list[tuple[bytes, str | None]] = []

    @plain.subscriber(topic, auto_offset_reset="earliest")
    async def act(message: KafkaMessage) -> None:
        taken.append(message.body)

    @ours.subscriber(topic, group_id=kafka.unique("group"), auto_offset_reset="earliest")
    async def handle(message: KafkaMessage, who: Principal) -> None:
        seen.append((message.body, who))

    await kafka.say(topic, b"scale up")
    (honest,) = await kafka.capture(topic)
    await kafka.inject(topic, forgeries(honest))
    await kafka.say(topic, b"last")
    async with plain, ours:
        await plain.start()
        await ours.start()
        await until(lambda: len(taken) == 5 and len(seen) == 2)
    assert taken == [b"scale up", b"scale up", b"scale down", b"scale up", b"last"]
    assert seen == [(b"scale up", PLANNER), (b"last", PLANNER)]
    assert [guard.audit.counts[reason] for reason in ("unsigned", "altered", "replayed")] == [1, 1, 1]


async def test_batches_are_signed_and_verified_one_by_one(kafka: World) -> None:
    """publish_batch signs each message, whatever its partition; the handler of a batch gets the sender of each."""
    topic = await kafka.make_topic(partitions=2)
    planner = service(kafka, kafka.speaker(), consumer_only=False)
    ours = service(kafka, kafka.reader())
    seen: list[tuple[str, str | None]] = []

    @ours.subscriber(topic, batch=True, group_id=kafka.unique("group"), auto_offset_reset="earliest")
    async def handle(bodies: list[str], who: Principals) -> None:
        seen.extend(zip(bodies, who, strict=True))

    async with planner, ours:
        await planner.publish_batch("a", "b", topic=topic)
        await kafka.inject(topic, [without_envelope(await kafka.sign(topic, b"forged"))])
        await planner.publish_batch("c", topic=topic, partition=0)
        await ours.start()
        await until(lambda: len(seen) == 3)
    assert sorted(seen) == [("a", PLANNER), ("b", PLANNER), ("c", PLANNER)]


async def test_answers_are_signed_and_go_only_where_they_may(kafka: World) -> None:
    """A message names the topic of its answer; we sign there if the broker's reply_topics has it, and nowhere else."""
    ask, answers, payments = [await kafka.make_topic() for _ in range(3)]
    planner = service(kafka, kafka.speaker(), consumer_only=False)
    intern = service(kafka, kafka.speaker(INTERN), consumer_only=False, reply_topics=[answers])
    ours = service(kafka, kafka.reader())
    seen: list[tuple[str, str, str | None]] = []

    @intern.subscriber(ask, group_id=kafka.unique("group"), auto_offset_reset="earliest")
    async def reply(body: str) -> str:
        return body.upper()

    @ours.subscriber(answers, payments, group_id=kafka.unique("group"), auto_offset_reset="earliest")
    async def handle(body: str, who: Principal, message: KafkaMessage) -> None:
        seen.append((message.raw_message.topic, body, who))  # type: ignore[union-attr] # no batch

    async with planner, intern, ours:
        await intern.start()
        await ours.start()
        await planner.publish("pay mallory", ask, reply_to=payments)
        await planner.publish("fine", ask, reply_to=answers)
        await until(lambda: seen)
    assert seen == [(answers, "FINE", INTERN)]


async def test_while_observing_answers_to_other_topics_are_not_signed(kafka: World) -> None:
    """They are sent, as before the broker was replaced; but nobody chooses where this agent signs."""
    ask, payments = [await kafka.make_topic() for _ in range(2)]
    planner = service(kafka, kafka.speaker(), consumer_only=False)
    observer = kafka.reader(principal=INTERN, mode=Mode.OBSERVE)
    signer = kafka.speaker(INTERN).signer
    intern = service(kafka, Watchword.of(observer.verifier, signer), consumer_only=False)
    taken: list[Any] = []
    plain = PlainBroker(kafka.bootstrap)

    @intern.subscriber(ask, group_id=kafka.unique("group"), auto_offset_reset="earliest")
    async def reply(body: str) -> str:
        return body.upper()

    @plain.subscriber(payments, auto_offset_reset="earliest")
    async def pay(message: KafkaMessage) -> None:
        taken.append((message.body, list(message.headers)))

    async with planner, intern, plain:
        await intern.start()
        await plain.start()
        await planner.publish("pay mallory", ask, reply_to=payments)
        await until(lambda: taken)
    ((body, headers),) = taken
    assert body == b"PAY MALLORY"
    assert sorted(headers) == ["content-type", "correlation_id"]


@pytest.mark.parametrize("policy", [AckPolicy.NACK_ON_ERROR, AckPolicy.ACK, AckPolicy.ACK_FIRST])
async def test_ack_policies_do_what_they_say(kafka: World, policy: AckPolicy) -> None:
    """A message whose handler failed comes again only by NACK_ON_ERROR, as a redelivery; and none passes by."""
    topic, group = await kafka.make_topic(), kafka.unique("group")
    ours = service(kafka, kafka.reader())
    seen: list[tuple[str, bool]] = []

    @ours.subscriber(topic, group_id=group, auto_offset_reset="earliest", ack_policy=policy)
    async def handle(body: str, verified: Verified) -> None:
        assert verified is not None
        seen.append((body, verified.redelivered))
        if len(seen) == 1:
            raise ValueError(body)

    await kafka.say(topic, b"one", b"two")
    async with ours:
        await ours.start()
        await until(lambda: ("two", False) in seen)
    again = [("one", True)] if policy is AckPolicy.NACK_ON_ERROR else []
    assert seen == [("one", False), *again, ("two", False)]


async def test_a_message_that_cannot_be_judged_waits(kafka: World) -> None:
    """While the key source is down nothing is handed over, committed or passed by; then it is, in order."""
    topic, group, guard = await kafka.make_topic(), kafka.unique("group"), kafka.reader(max_hold=600.0)
    ours = service(kafka, guard)
    seen: list[str] = []

    @ours.subscriber(topic, group_id=group, auto_offset_reset="earliest", ack_policy=AckPolicy.NACK_ON_ERROR)
    async def handle(body: str) -> None:
        seen.append(body)

    kafka.keys.failures = 5
    await kafka.say(topic, b"one", b"two")
    async with ours:
        await ours.start()
        await until(lambda: len(seen) == 2)
    assert seen == ["one", "two"]
    assert kafka.keys.failures == 0
    assert guard.audit.counts["unavailable"] > 0
    assert guard.audit.counts["undetermined"] == 0


async def test_a_handler_whose_answer_cannot_be_signed_waits(kafka: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By no ack policy is a message given up because a key was away: its answer goes out when the key is back."""
    monkeypatch.setattr(holding, "SHORTEST", 0.01)
    ask, answers = await kafka.make_topic(), await kafka.make_topic()
    backend, agent = signing_elsewhere(kafka.reader(principal=INTERN), kafka.signing[INTERN])
    intern = service(kafka, agent, consumer_only=False)
    ours = service(kafka, kafka.reader())
    asked: list[str] = []
    seen: list[tuple[str, str | None]] = []

    @intern.subscriber(ask, group_id=kafka.unique("group"), auto_offset_reset="earliest")
    @intern.publisher(answers)
    async def reply(body: str) -> str:
        asked.append(body)
        return body.upper()

    @ours.subscriber(answers, group_id=kafka.unique("group"), auto_offset_reset="earliest")
    async def handle(body: str, who: Principal) -> None:
        seen.append((body, who))

    async with intern, ours:
        backend.failures = 3
        await intern.start()
        await ours.start()
        await kafka.say(ask, b"fine")
        await until(lambda: seen)
    assert (asked, seen) == (["fine"], [("FINE", INTERN)])


async def test_workers_of_a_group_and_of_a_pool_get_each_message_once(kafka: World) -> None:
    """max_workers, by partitions or by a queue, changes nothing: each message is handed over once, with its sender."""
    topic = await kafka.make_topic(partitions=2)
    ours = service(kafka, kafka.reader(principal=CONTROLLER))
    by_partition: list[str] = []
    by_queue: list[str] = []
    a, b = kafka.unique("a"), kafka.unique("b")

    @ours.subscriber(topic, group_id=a, ack_policy=AckPolicy.NACK_ON_ERROR, max_workers=2, auto_offset_reset="earliest")
    async def one(body: str, who: Principal) -> None:
        by_partition.append(f"{body} of {who}")

    @ours.subscriber(topic, group_id=b, ack_policy=AckPolicy.ACK_FIRST, max_workers=2, auto_offset_reset="earliest")
    async def two(body: str, who: Principal) -> None:
        by_queue.append(f"{body} of {who}")

    async with kafka.producer() as producer:
        for number in range(10):
            await producer.send_and_wait(topic, b"task %d" % number, partition=number % 2)
    async with ours:
        await ours.start()
        await until(lambda: len(by_partition) == 10 and len(by_queue) == 10)
    assert sorted(by_partition) == sorted(by_queue) == [f"task {number} of {PLANNER}" for number in range(10)]


async def test_an_observer_hands_over_all_and_says_what_it_is(kafka: World) -> None:
    """While observing, a service works as before: the sender of what does not verify is None."""
    topic, guard = await kafka.make_topic(), kafka.reader(mode=Mode.OBSERVE)
    ours = service(kafka, guard)
    seen: list[tuple[str, str | None]] = []

    @ours.subscriber(topic, group_id=kafka.unique("group"), auto_offset_reset="earliest")
    async def handle(body: str, who: Principal) -> None:
        seen.append((body, who))

    await kafka.say(topic, b"real")
    await kafka.inject(topic, [without_envelope(await kafka.sign(topic, b"forged"))])
    async with ours:
        await ours.start()
        await until(lambda: len(seen) == 2)
    assert seen == [("real", PLANNER), ("forged", None)]
    assert guard.audit.counts["unsigned"] == 1


async def test_messages_are_taken_one_by_one_without_a_handler(kafka: World) -> None:
    """get_one() and ``async for`` give what verified, too."""
    topic, ours = await kafka.make_topic(), service(kafka, kafka.reader())
    taking = ours.subscriber(topic, auto_offset_reset="earliest")
    await kafka.inject(topic, [without_envelope(await kafka.sign(topic, b"forged"))])
    await kafka.say(topic, b"one", b"two")
    async with ours:
        await ours.start()
        message: Any = await taking.get_one(timeout=PATIENCE)
        another: Any = await anext(aiter(taking))
    assert [message.body, another.body] == [b"one", b"two"]
    assert message.raw_message.verified.principal == PLANNER


async def test_a_broker_starts_again(kafka: World) -> None:
    """Stopped and started, it has new clients, which sign and verify as the first ones did."""
    topic, ours = await kafka.make_topic(), service(kafka, kafka.speaker(), consumer_only=False)
    seen: list[tuple[str, str | None]] = []

    @ours.subscriber(topic, group_id=kafka.unique("group"), auto_offset_reset="earliest")
    async def handle(body: str, who: Principal) -> None:
        seen.append((body, who))

    for body in ("one", "two"):
        await ours.start()
        await ours.publish(body, topic)
        await until(lambda body=body: (body, PLANNER) in seen)
        await asyncio.wait_for(ours.stop(), PATIENCE)
    assert {body for body, _ in seen} == {"one", "two"}
