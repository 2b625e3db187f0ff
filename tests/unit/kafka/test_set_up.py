"""Every way to make something of ours says at once what its Watchword lacks, and leaves the client as it was."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.unit.kafka.fakes import KEY, Keys, watchword
from watchword import ConfigurationError
from watchword_adapters.config import load
from watchword_adapters.kafka import KafkaQuarantine, SigningProducer, VerifyingConsumer, redrive, wrap

SIGNS = 'realm = "test"\nprincipal = "agent://test/sender"\n[signer]\nkey = "planner.pem"\n'
OBSERVES = 'realm = "test"\n[policy]\nmode = "observe"\n'


async def _wrap(made: Callable[[], Any], agent: Any) -> None:
    client = made()
    try:
        wrap(client, watchword=agent)
    finally:
        assert type(client) in {AIOKafkaConsumer, AIOKafkaProducer}
        await client.stop()


async def _make(made: Callable[..., Any], agent: Any) -> None:
    made(watchword=agent)


WAYS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "consumer": lambda agent: _make(VerifyingConsumer, agent),
    "producer": lambda agent: _make(SigningProducer, agent),
    "wrapped consumer": lambda agent: _wrap(AIOKafkaConsumer, agent),
    "wrapped producer": lambda agent: _wrap(AIOKafkaProducer, agent),
    "quarantine": lambda agent: _make(lambda watchword: KafkaQuarantine("copies", watchword=watchword), agent),
    "copies": lambda agent: redrive.copies("copies", watchword=agent),
    "redrive": lambda agent: anext(redrive.redrive("copies", watchword=agent)),
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_path_in_the_place_of_a_watchword_is_refused(way: str) -> None:
    """The error names the call that makes one of it, and no client is left open."""
    with pytest.raises(ConfigurationError, match=r'write watchword\.load\("watchword.toml"\)'):
        await WAYS[way]("watchword.toml")


@pytest.fixture
def signs(tmp_path: Path) -> Path:
    """Return the settings of a process that only signs."""
    (tmp_path / "planner.pem").write_bytes(KEY.to_pem())
    (tmp_path / "planner.pem").chmod(0o600)
    path = tmp_path / "watchword.toml"
    path.write_text(SIGNS)
    return path


@pytest.mark.parametrize("way", ["consumer", "wrapped consumer", "redrive"])
async def test_a_consumer_without_a_key_source_is_refused(signs: Path, way: str) -> None:
    """It would pass over every message as ``unknown_key``, for good, and commit behind it."""
    with pytest.raises(ConfigurationError, match=r"no key source.*\[\[keys\]\]"):
        await WAYS[way](load(signs))


async def test_a_process_that_only_signs_needs_no_key_source(signs: Path) -> None:
    """Its producer is made as ever."""
    producer = SigningProducer(watchword=load(signs))
    await producer.stop()


async def test_an_observer_needs_no_key_source(tmp_path: Path) -> None:
    """Before keys are given out, it counts who signs."""
    (tmp_path / "watchword.toml").write_text(OBSERVES)
    consumer = VerifyingConsumer(watchword=load(tmp_path / "watchword.toml"))
    await consumer.stop()


async def test_a_source_that_knows_nobody_is_one() -> None:
    """Keys may come later."""
    await VerifyingConsumer(watchword=watchword(Keys())).stop()


@pytest.mark.parametrize(
    ("make", "given", "why"),
    [
        (SigningProducer, {"recipient": "agent://acme/cloud"}, "recipient=: write a function"),
        (VerifyingConsumer, {"quarantine": "copies"}, "quarantine=: "),
    ],
    ids=["producer", "consumer"],
)
async def test_what_a_client_cannot_use_is_refused_at_once(
    make: Callable[..., Any], given: dict[str, Any], why: str
) -> None:
    """The error says what to write instead, and no client is left open."""
    with pytest.raises(ConfigurationError, match=why):
        make(watchword=watchword(Keys()), **given)


@pytest.mark.parametrize(
    ("made", "given", "why"),
    [
        (AIOKafkaProducer, {"recipient": "agent://acme/cloud"}, "recipient=: write a function"),
        (AIOKafkaConsumer, {"quarantine": "copies"}, "quarantine=: "),
    ],
)
async def test_what_wrap_cannot_use_leaves_the_client_as_it_was(
    made: Callable[[], Any], given: dict[str, Any], why: str
) -> None:
    """As above, for a client that someone else made."""
    client = made()
    with pytest.raises(ConfigurationError, match=why):
        wrap(client, watchword=watchword(Keys()), **given)
    assert type(client) is made
    await client.stop()


@pytest.mark.parametrize("given", [5, "a b", ""])
async def test_a_batch_is_for_a_topic(given: Any) -> None:
    """What no topic can be called is refused when the batch is made, and not by each message."""
    producer = SigningProducer(watchword=watchword(Keys()))
    with pytest.raises(ConfigurationError, match=r"topic .*: use 1 to 249 of"):
        producer.create_batch(topic=given)
    await producer.stop()
