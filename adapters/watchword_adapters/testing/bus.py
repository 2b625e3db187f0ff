"""An in-memory bus: topics whose records have positions, and subjects that store nothing. It is not a broker.

It has partitions but no groups, and core subjects but no queues, requests or JetStream; no network, no rebalances, no
retention, no transactions. It lets signing producers, verifying consumers and an attacker meet in one process, with a
clock that the test moves, and the real verifier judges each message. How an adapter deals with a broker is tested on a
broker.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from watchword.spi import Channel, Message, Position
from watchword_adapters.testing.agents import REALM
from watchword_adapters.testing.clock import Clock
from watchword_adapters.testing.signing import signed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from watchword import Watchword
    from watchword.message import Header
    from watchword_adapters.kafka.records import Deserializer
    from watchword_adapters.testing.log_reader import MemoryConsumer
    from watchword_adapters.testing.subject_reader import MemorySubscription


class MemoryBus:
    """Topics and subjects of one ``realm``; the bus stamps every record, by a ``clock`` that tests can move.

    ``messages`` holds everything put onto it, in order, as any reader sees it.
    """

    def __init__(self, *, realm: str = REALM, clock: Clock | None = None) -> None:
        self.realm: Final = realm
        self.clock: Final = clock or Clock()
        self.messages: Final[list[Message]] = []
        self._logs: dict[str, list[Message]] = {}
        self._listeners: list[Callable[[Message], None]] = []

    def put(self, message: Message) -> Message:
        """Put exactly this message onto its channel, like any client with write access; return it as stored.

        A message of a topic is appended to its partition, 0 by default; one of a subject is passed to the current
        subscribers.
        """
        if message.channel.scheme == "kafka":
            partition = message.partition or 0
            log = self.log(message.channel.name, partition)
            position = Position(f"{message.channel.name}/{partition}", len(log))
            message = replace(message, partition=partition, position=position, appended_at=self.clock())
            log.append(message)
        self.messages.append(message)
        for listener in (*self._listeners,):
            listener(message)
        return message

    def append(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[Header] = (),
        partition: int = 0,
    ) -> Message:
        """Append an unsigned record, like a plain producer; return it as stored in the log."""
        return self.put(self.record(topic, value, key=key, headers=headers, partition=partition))

    def publish(
        self, subject: str, data: bytes = b"", *, headers: Mapping[str, str] | None = None, reply: str | None = None
    ) -> Message:
        """Publish an unsigned message to a core subject, like a plain client; return it."""
        return self.put(self.msg(subject, data, headers=headers, reply=reply))

    def producer(self, agent: Watchword) -> MemoryProducer:
        """Return a producer that signs as ``agent``."""
        return MemoryProducer(self, agent)

    def consumer(
        self,
        agent: Watchword,
        topic: str,
        *,
        partition: int = 0,
        group: str = "group",
        from_end: bool = False,
        key_deserializer: Deserializer | None = None,
        value_deserializer: Deserializer | None = None,
    ) -> MemoryConsumer:
        """Return a verifying consumer of a partition for ``agent``, from its beginning or ``from_end``."""
        from watchword_adapters.testing.log_reader import MemoryConsumer  # noqa: PLC0415 - NATS alone needs no aiokafka

        return MemoryConsumer(
            self,
            agent,
            topic,
            partition=partition,
            group=group,
            from_end=from_end,
            key_deserializer=key_deserializer,
            value_deserializer=value_deserializer,
        )

    def subscribe(self, agent: Watchword, subject: str) -> MemorySubscription:
        """Return a verifying subscription for ``agent`` to a subject or a pattern, from now on."""
        from watchword_adapters.testing.subject_reader import (  # noqa: PLC0415 - Kafka alone needs no nats-py
            MemorySubscription,
        )

        return MemorySubscription(self, agent, subject)

    def listen(self, listener: Callable[[Message], None]) -> Callable[[], None]:
        """Call ``listener`` with every message put onto the bus from now on; return a function that ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def log(self, topic: str, partition: int = 0) -> list[Message]:
        """Return the records of a partition, at their offsets."""
        return self._logs.setdefault(f"{topic}/{partition}", [])

    def record(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[Header] = (),
        partition: int = 0,
    ) -> Message:
        """Return an unsigned record, not appended yet."""
        channel = Channel("kafka", self.realm, topic)
        return Message(channel=channel, value=value, key=key, headers=tuple(headers), partition=partition)

    def msg(
        self, subject: str, data: bytes = b"", *, headers: Mapping[str, str] | None = None, reply: str | None = None
    ) -> Message:
        """Return an unsigned message of a core subject, not published yet."""
        pairs = tuple((name, value.encode()) for name, value in (headers or {}).items())
        return Message(channel=Channel("nats", self.realm, subject), value=data, headers=pairs, reply_to=reply)


class MemoryProducer:
    """Signs messages as one agent, and puts them onto the bus."""

    def __init__(self, bus: MemoryBus, agent: Watchword) -> None:
        self._bus = bus
        self._signer = agent.signer

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[Header] = (),
        partition: int = 0,
        recipient: str | None = None,
    ) -> Message:
        """Sign a record, for ``recipient`` if it is meant for one principal, and append it; return it as stored."""
        record = self._bus.record(topic, value, key=key, headers=headers, partition=partition)
        return self._bus.put(await signed(self._signer, record, recipient=recipient))

    async def publish(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        reply: str | None = None,
        recipient: str | None = None,
    ) -> Message:
        """Sign a message, for ``recipient`` if it is meant for one principal, and publish it to a core subject."""
        msg = self._bus.msg(subject, data, headers=headers, reply=reply)
        return self._bus.put(await signed(self._signer, msg, recipient=recipient))
