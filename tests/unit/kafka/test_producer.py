"""What a signing producer refuses, and what stays as aiokafka's own does it."""

from typing import Any

import pytest

from tests.unit.kafka.fakes import P0, REALM, Keys, watchword
from tests.unit.kafka.test_signing import drained, offline
from watchword import ConfigurationError, SigningError, Watchword
from watchword_adapters.kafka import SigningProducer
from watchword_adapters.kafka.entries import Entries


async def test_a_batch_that_does_not_fit_signed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should an envelope ever be larger than was counted with, nothing is sent half: the batch is refused."""
    producer = SigningProducer(watchword=watchword(Keys()), max_batch_size=1_000)
    producer._metadata._partitions["topic"] = {0: None}
    monkeypatch.setattr(producer, "_started", True)
    monkeypatch.setattr(Entries, "largest", lambda *_: 100)
    batch = producer.create_batch()
    while batch.append(timestamp=None, key=None, value=b"v"):
        pass
    with pytest.raises(SigningError, match="put fewer messages"):
        await producer.send_batch(batch, "topic", partition=0)
    assert not producer._message_accumulator._batches
    await producer.stop()


@pytest.mark.parametrize("closed", [True, False])
async def test_a_batch_that_was_closed_stays_closed(monkeypatch: pytest.MonkeyPatch, *, closed: bool) -> None:
    """Closing a batch keeps later sends out of it, as with aiokafka's own."""
    producer = SigningProducer(watchword=watchword(Keys()))
    producer._metadata._partitions["topic"] = {0: None}
    monkeypatch.setattr(producer, "_started", True)
    batch = producer.create_batch()
    batch.append(timestamp=None, key=None, value=b"v")
    if closed:
        batch.close()
    await producer.send_batch(batch, "topic", partition=0)
    (sent,) = producer._message_accumulator._batches[P0]
    assert (sent._builder.closed(), sent.record_count) == (closed, 1)
    producer._message_accumulator._batches.clear()
    await producer.stop()


async def test_the_envelope_is_never_larger_than_a_batch_counts_with() -> None:
    """For the longest names the estimate still covers the envelope that signing gives."""
    agent = watchword(Keys())
    entries = Entries(agent, lambda *_: "r" * 255)
    topic = "t" * 249
    for count in (0, 1, 30):
        headers = [(f"header-{n}-" + "é" * 20, b"v") for n in range(count)]
        entry = entries.entry(topic, 2**31 - 1, None, b"k", b"v", headers)
        assert entry.unsigned is not None
        signed = agent.signer.sign_now([entry.unsigned] * 64)[0]
        assert len(signed) <= entry.unsigned.largest
        for known in (None, topic):
            assert entry.size <= entries.largest(known, b"k", b"v", headers)


async def test_a_producer_without_signer_is_refused() -> None:
    """A process that was set up only to verify gets an error when it creates a producer."""
    agent = Watchword(realm=REALM, keys=Keys())
    with pytest.raises(ConfigurationError, match="only verifies"):
        SigningProducer(watchword=agent)


@pytest.mark.parametrize("told", [5, b"agent://acme/cloud", ["agent://acme/cloud"], ""])
async def test_a_function_that_names_no_principal_is_refused_with_its_message(told: Any) -> None:
    """The message is not sent, and the error is one of ours."""
    async with offline(SigningProducer(watchword=watchword(Keys()), recipient=lambda *_: told)) as producer:
        with pytest.raises(SigningError, match="recipient"):
            await producer.send("topic", b"v", partition=0)
        assert drained(producer) == []
