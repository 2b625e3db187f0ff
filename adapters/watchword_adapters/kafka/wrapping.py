"""Interceptors for clients that somebody else made."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from watchword import ConfigurationError
from watchword_adapters.kafka.consumer import VerifyingConsumer
from watchword_adapters.kafka.producer import Recipient, SigningProducer

if TYPE_CHECKING:
    from watchword import Quarantine, Watchword


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
    """Make an existing aiokafka client sign or verify, and return it: the very object, so that no way round it is left.

    ConfigurationError for a subclass of aiokafka's, and for a started client that has (de)serializers.
    """
    if type(client) is AIOKafkaProducer:
        if quarantine is not None:
            raise ConfigurationError("quarantine: a producer rejects nothing, leave it out")
        _refuse_started(
            client,
            started=client._sender.sender_task is not None,  # noqa: SLF001 - aiokafka has no public way to ask
            set_up=client._key_serializer or client._value_serializer,  # noqa: SLF001
        )
        return _as_producer(client, watchword, recipient)
    if type(client) is AIOKafkaConsumer:
        if recipient is not None:
            raise ConfigurationError("recipient: a consumer sends nothing, leave it out")
        _refuse_started(
            client,
            started=client._fetcher is not None,  # noqa: SLF001
            set_up=client._key_deserializer or client._value_deserializer,  # noqa: SLF001
        )
        return _as_consumer(client, watchword, quarantine)
    raise ConfigurationError(
        f"wrap() takes an AIOKafkaProducer or AIOKafkaConsumer, not {type(client).__name__}: let a class of your own"
        " inherit from SigningProducer or VerifyingConsumer"
    )


def _refuse_started(client: object, *, started: bool, set_up: object) -> None:
    if started and set_up is not None:
        raise ConfigurationError(
            f"{type(client).__name__} was started with serializers or deserializers, which see bytes before they are"
            " judged: wrap() it before start()"
        )


def _as_producer(client: AIOKafkaProducer, watchword: Watchword, recipient: Recipient | None) -> SigningProducer:
    _ = watchword.signer  # ConfigurationError before anything is changed
    client.__class__ = SigningProducer
    assert isinstance(client, SigningProducer)  # noqa: S101 - for type checkers
    client._adopt(watchword, recipient)  # noqa: SLF001 - one class in two parts
    return client


def _as_consumer(client: AIOKafkaConsumer, watchword: Watchword, quarantine: Quarantine | None) -> VerifyingConsumer:
    coordinator = client._coordinator  # noqa: SLF001
    client.__class__ = VerifyingConsumer
    assert isinstance(client, VerifyingConsumer)  # noqa: S101 - for type checkers
    client._adopt(watchword, quarantine)  # noqa: SLF001 - one class in two parts
    if coordinator is not None:
        coordinator._enable_auto_commit = False  # noqa: SLF001
        client._started()  # noqa: SLF001
    return client
