import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, ConsumerStoppedError, RecordTooLargeError

from tests.unit.kafka.fakes import P0, Keys, record, watchword
from watchword import ConfigurationError, SigningError
from watchword_adapters.kafka import SigningProducer, VerifyingConsumer
from watchword_adapters.kafka.topics import TopicWarnings


@pytest.fixture
async def consumer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a consumer of one partition that never connects."""
    made = VerifyingConsumer(group_id="group", watchword=watchword(Keys()))
    made.assign([P0])
    made._coordinator = SimpleNamespace(check_errors=lambda: None)
    made.seek = lambda *_: None  # type: ignore[method-assign]
    monkeypatch.setattr(made._intake.stamps, "ask", lambda *_: None)
    yield made
    made._coordinator = None
    await made.stop()


async def test_a_commit_that_fails_is_said_and_tried_again(
    consumer: VerifyingConsumer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An automatic commit that fails, or hangs, warns and leaves the offsets to the next round."""
    tries: list[Any] = []
    outcomes: list[Any] = [CommitFailedError(), "hang", None]

    async def commit(_: AIOKafkaConsumer, offsets: Any) -> None:
        tries.append(offsets)
        outcome = outcomes.pop(0)
        if outcome == "hang":
            await asyncio.Event().wait()
        elif outcome is not None:
            raise outcome

    monkeypatch.setattr(AIOKafkaConsumer, "commit", commit)
    monkeypatch.setattr(consumer, "_request_timeout_ms", 10)
    consumer._intake.partitions()
    consumer._intake._assignment.state_value(P0).seek(7)
    for _ in range(4):
        await consumer._commit_handled()
    assert tries == [{P0: 7}] * 3
    assert capsys.readouterr().out.count("kafka.commit_failed") == 2


async def test_the_iterator_passes_what_is_too_large(
    consumer: VerifyingConsumer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As aiokafka's, the iterator goes on behind a record that is larger than a fetch, and says so; it ends on stop."""
    raw = await record(P0, 0, b"v")
    answers: list[Any] = [RecordTooLargeError("too large"), {P0: [raw]}, ConsumerStoppedError()]

    async def take(*_: Any, **__: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(consumer._intake, "_take_from_client", take)
    monkeypatch.setattr(consumer._subscription.subscription.__class__, "_reassignment_in_progress", False)
    assert [r.value async for r in consumer] == [b"v"]
    assert "kafka.record_too_large" in capsys.readouterr().out


async def test_a_closed_consumer_says_so() -> None:
    """After stop() every way in raises aiokafka's own error."""
    consumer = VerifyingConsumer(watchword=watchword(Keys()))
    await consumer.stop()
    for call in (consumer.getone(), consumer.getmany()):
        with pytest.raises(ConsumerStoppedError):
            await call
    with pytest.raises(ConsumerStoppedError):
        aiter(consumer)


async def test_arguments_are_checked_before_anything_is_taken(consumer: VerifyingConsumer) -> None:
    """A wrong argument is one clear error."""
    with pytest.raises(ValueError, match="positive"):
        await consumer.getmany(max_records=0)
    with pytest.raises(TypeError, match="TopicPartition"):
        await consumer.getone("topic")  # type: ignore[arg-type]


async def test_a_listener_that_fails_does_not_keep_us_from_committing(consumer: VerifyingConsumer) -> None:
    """The caller's listener may raise: our commit at the revocation is made all the same."""
    committed: list[bool] = []

    class Listener(ConsumerRebalanceListener):
        def on_partitions_revoked(self, revoked: Any) -> None:
            raise ZeroDivisionError(revoked)

        async def on_partitions_assigned(self, assigned: Any) -> None:
            committed.append(bool(assigned))

    async def commit() -> None:
        committed.append(True)

    consumer.unsubscribe = lambda: None  # type: ignore[method-assign]
    consumer._commit_handled = commit  # type: ignore[method-assign]
    consumer._subscription.unsubscribe()
    consumer.subscribe(["topic"], listener=Listener())
    listener = consumer._subscription.listener
    with pytest.raises(ZeroDivisionError):
        await listener.on_partitions_revoked({P0})
    await listener.on_partitions_assigned(set())
    assert committed == [True, False]


async def test_a_consumer_without_auto_commit_never_commits_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """With enable_auto_commit=False, or without a group, no offset is committed unasked."""

    async def commit(*_: Any) -> None:
        pytest.fail("committed")

    monkeypatch.setattr(AIOKafkaConsumer, "commit", commit)
    for options in ({"group_id": "group", "enable_auto_commit": False}, {"group_id": None}):
        consumer = VerifyingConsumer(watchword=watchword(Keys()), **options)
        await consumer._subscription.listener.on_partitions_revoked(set())
        await consumer._subscription.listener.on_partitions_assigned(set())
        consumer._started()
        assert consumer._committer is None
        await consumer.stop()


async def test_a_broker_that_answers_nothing_about_topics_is_no_error() -> None:
    """Where asking for a topic's settings is forbidden or fails, nothing happens; a record tells later."""
    warning = TopicWarnings(watchword(Keys()))

    async def refuse(*_: Any) -> Any:
        raise ConnectionError

    async def forbid(*_: Any) -> Any:
        return SimpleNamespace(resources=[(29, "forbidden", 2, "b", [])])

    for topic, send in (("a", refuse), ("b", forbid)):
        warning.ask(SimpleNamespace(get_random_node=lambda: 0, send=send), {topic})
        await asyncio.gather(*warning._questions)
    assert warning._warned == set()
    warning.ask(None, {"a", "b"})
    assert not warning._questions


async def test_a_question_in_flight_ends_with_the_consumer() -> None:
    """Closing does not wait for a broker that is silent."""
    warning = TopicWarnings(watchword(Keys()))

    async def silent(*_: Any) -> Any:
        await asyncio.Event().wait()

    warning.ask(SimpleNamespace(get_random_node=lambda: 0, send=silent), {"a"})
    await asyncio.sleep(0)
    await warning.close()
    assert not warning._questions


async def test_a_batch_that_does_not_fit_signed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should an envelope ever be larger than was counted with, nothing is sent half: the batch is refused."""
    producer = SigningProducer(watchword=watchword(Keys()), max_batch_size=1_000)
    producer._metadata._partitions["topic"] = {0: None}
    monkeypatch.setattr(producer, "_envelope_size", lambda *_: 1)
    monkeypatch.setattr(producer._sender, "_sender_task", object())
    batch = producer.create_batch()
    while batch.append(timestamp=None, key=None, value=b"v"):
        pass
    with pytest.raises(SigningError, match="put fewer messages"):
        await producer.send_batch(batch, "topic", partition=0)
    assert not producer._message_accumulator._batches
    monkeypatch.undo()
    await producer.stop()


@pytest.mark.parametrize("closed", [True, False])
async def test_a_batch_that_was_closed_stays_closed(monkeypatch: pytest.MonkeyPatch, *, closed: bool) -> None:
    """Closing a batch keeps later sends out of it, as with aiokafka's own."""
    producer = SigningProducer(watchword=watchword(Keys()))
    sent: list[Any] = []

    async def send_batch(_: AIOKafkaProducer, builder: Any, *__: Any, **___: Any) -> None:
        sent.append(builder)

    async def known(*_: Any) -> None:
        pass

    monkeypatch.setattr(AIOKafkaProducer, "send_batch", send_batch)
    monkeypatch.setattr(producer, "_know", known)
    batch = producer.create_batch()
    batch.append(timestamp=None, key=None, value=b"v")
    if closed:
        batch.close()
    await producer.send_batch(batch, "topic", partition=0)
    assert (sent[0].closed(), sent[0].record_count()) == (closed, 1)
    await producer.stop()


async def test_the_envelope_is_never_larger_than_a_batch_counts_with() -> None:
    """For the longest names the estimate still covers the envelope that signing gives."""
    agent = watchword(Keys())
    producer = SigningProducer(watchword=agent, recipient=lambda *_: "r" * 255)
    topic = "t" * 249
    for count in (0, 1, 30):
        batch = producer.create_batch()
        names = tuple((f"header-{n}-" + "é" * 20, b"v") for n in range(count))
        batch.append(timestamp=None, key=b"k", value=b"v", headers=names)
        entry = producer._entry(topic, 2**31 - 1, *batch.entries[0])
        assert entry.draft is not None
        signed = producer._signer.sign_now([entry.draft] * 64)[0].header[1]
        for known in (None, topic):
            assert len(signed or b"") <= entry.draft.largest <= producer._envelope_size(known, b"k", b"v", names)
    await producer.stop()


async def test_a_producer_without_signer_is_refused() -> None:
    """A process that was set up only to verify is told so where the producer is made."""
    agent = watchword(Keys())
    agent._signer = None
    with pytest.raises(ConfigurationError, match="only verifies"):
        SigningProducer(watchword=agent)
