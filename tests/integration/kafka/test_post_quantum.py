"""Agents with ML-DSA keys on a real Kafka: large envelopes in large trees, beside an agent with another key."""

import asyncio
import base64
from collections import Counter

import cbor2
import pytest
from aiokafka import AIOKafkaConsumer

from tests.brokers.plugin import MakeTopic
from tests.support.patience import PATIENCE
from watchword import Algorithm, SigningError, SigningKey, Watchword
from watchword.kafka import SigningProducer, VerifyingConsumer

MANY = 300


def size_of(envelope: bytes) -> int:
    """Return how many leaves the tree of an envelope has; 0 if it was signed alone."""
    unprotected = cbor2.loads(base64.urlsafe_b64decode(envelope + b"=="))[2][1]
    return cbor2.loads(unprotected[396][-1][0])[0] if unprotected else 0


@pytest.mark.parametrize("algorithm", [Algorithm.ML_DSA_44, Algorithm.ML_DSA_65])
async def test_messages_share_a_signature_and_arrive(
    kafka_bootstrap: str, make_topic: MakeTopic, algorithm: Algorithm
) -> None:
    """All of them are delivered, with few signatures; a batch that is compressed holds each of these once."""
    topic, names = await make_topic(), ("agent://acme/planner", "agent://acme/old")
    keys = dict(zip(names, (SigningKey.generate(algorithm), SigningKey.generate()), strict=True))
    known = [key.verification_key(name) for name, key in keys.items()]
    for name, key in keys.items():
        agent = Watchword(realm="prod", principal=name, key=key)
        async with SigningProducer(
            bootstrap_servers=kafka_bootstrap, watchword=agent, max_batch_size=1_000_000, compression_type="gzip"
        ) as producer:
            await asyncio.gather(*[await producer.send(topic, b"%d" % number) for number in range(MANY)])
            if key.algorithm is algorithm:
                with pytest.raises(
                    SigningError, match="max_request_size"
                ):  # which counts the envelope, before it is sent
                    await producer.send(topic, bytes((1 << 20) - 3000))
    async with VerifyingConsumer(
        topic,
        bootstrap_servers=kafka_bootstrap,
        auto_offset_reset="earliest",
        watchword=Watchword(realm="prod", keys=known),
    ) as consumer:
        got = [await asyncio.wait_for(consumer.getone(), PATIENCE) for _ in range(2 * MANY)]
    assert Counter(record.verified.principal for record in got) == dict.fromkeys(names, MANY)
    async with AIOKafkaConsumer(topic, bootstrap_servers=kafka_bootstrap, auto_offset_reset="earliest") as plain:
        records = [await asyncio.wait_for(plain.getone(), PATIENCE) for _ in range(MANY)]
    assert max(size_of(dict(record.headers)["watchword"]) for record in records) > 64
