"""Turns existing aiokafka producers and consumers into signing and verifying ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from watchword import ConfigurationError
from watchword.agent import require
from watchword_adapters.kafka import _seam
from watchword_adapters.kafka.consumer import VerifyingConsumer
from watchword_adapters.kafka.producer import Recipient, SigningProducer

if TYPE_CHECKING:
    from watchword import Watchword
    from watchword.spi import Quarantine


@overload
def wrap(client: AIOKafkaProducer, *, watchword: Watchword, recipient: Recipient | None = None) -> SigningProducer: ...


@overload
def wrap(
    client: AIOKafkaConsumer, *, watchword: Watchword, quarantine: Quarantine | None = None
) -> VerifyingConsumer: ...


def wrap(
    client: AIOKafkaProducer | AIOKafkaConsumer,
    *,
    watchword: Watchword,
    recipient: Recipient | None = None,
    quarantine: Quarantine | None = None,
) -> SigningProducer | VerifyingConsumer:
    """Make an existing aiokafka client sign or verify in place, so that no reference bypasses it, and return it.

    ConfigurationError for a subclass, and for a consumer that was started with deserializers or is being waited on.
    """
    # Before anything is changed.
    require(watchword, reads=type(client) is AIOKafkaConsumer, recipient=recipient, quarantine=quarantine)
    if type(client) is AIOKafkaProducer:
        if quarantine is not None:
            raise ConfigurationError("quarantine: a producer rejects nothing; omit it")
        return _as_producer(client, watchword, recipient)
    if type(client) is AIOKafkaConsumer:
        if recipient is not None:
            raise ConfigurationError("recipient: a consumer sends nothing; omit it")
        _seam.check(client)  # as above
        if _seam.has_started(client) and _seam.has_deserializers(client):
            raise ConfigurationError(
                "this consumer was started with deserializers, which see unverified bytes: wrap() it before start()"
            )
        if _seam.is_waited_on(client):
            raise ConfigurationError(
                "a task waits for records of this consumer and would get an unverified one, or a waiting call was"
                " cancelled or failed, which looks the same in aiokafka: wrap() it before the first read"
            )
        return _as_consumer(client, watchword, quarantine)
    raise ConfigurationError(
        f"wrap() takes an AIOKafkaProducer or AIOKafkaConsumer, not {type(client).__name__}: let a class of your own"
        " inherit from SigningProducer or VerifyingConsumer"
    )


def _as_producer(client: AIOKafkaProducer, watchword: Watchword, recipient: Recipient | None) -> SigningProducer:
    _ = watchword.signer  # as above: ConfigurationError
    client.__class__ = SigningProducer
    assert isinstance(client, SigningProducer)  # noqa: S101 - for type checkers
    client._adopt(watchword, recipient)  # noqa: SLF001 - one class in two parts
    return client


def _as_consumer(client: AIOKafkaConsumer, watchword: Watchword, quarantine: Quarantine | None) -> VerifyingConsumer:
    started = _seam.has_started(client)
    client.__class__ = VerifyingConsumer
    assert isinstance(client, VerifyingConsumer)  # noqa: S101 - for type checkers
    client._adopt(watchword, quarantine)  # noqa: SLF001 - one class in two parts
    if started:
        client._wrapped()  # noqa: SLF001 - as above
    return client
