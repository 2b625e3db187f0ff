"""A bus in memory: topics whose records have positions, and subjects that keep nothing. It is no broker.

It has partitions but no groups, and core subjects but no queues, requests or JetStream; no network, no rebalance, no
retention, no transactions. Its use: producers that sign, consumers that verify and an attacker meet in one process, by
a clock that the test moves, and each message is judged by the real verifier. How an adapter deals with a broker is
tested on a broker.
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
    """Topics and subjects of one ``realm``; every record is stamped by the bus, whose ``clock`` a test may move.

    ``messages`` holds whatever was put onto it, in order, as anybody sees it who may read.
    """

    def __init__(self, *, realm: str = REALM, clock: Clock | None = None) -> None:
        self.realm: Final = realm
        self.clock: Final = clock or Clock()
        self.messages: Final[list[Message]] = []
        self._logs: dict[str, list[Message]] = {}
        self._listeners: list[Callable[[Message], None]] = []

    def put(self, message: Message) -> Message:
        """Put exactly this onto its channel, as anybody may who can write there; return it as it stands there.

        A message of a topic is appended to its partition, 0 if it names none; one of a subject is given to those who
        listen now.
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
        """Append a record as a producer does that signs nothing; return it as it stands in the log."""
        return self.put(self.record(topic, value, key=key, headers=headers, partition=partition))

    def publish(
        self, subject: str, data: bytes = b"", *, headers: Mapping[str, str] | None = None, reply: str | None = None
    ) -> Message:
        """Publish to a core subject as a client does that signs nothing; return what was published."""
        return self.put(self.msg(subject, data, headers=headers, reply=reply))

    def producer(self, agent: Watchword) -> MemoryProducer:
        """Return what signs for ``agent`` whatever it puts onto the bus."""
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
        """Return what reads a partition for ``agent`` and verifies, from its beginning or ``from_end``."""
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
        """Return what listens for ``agent``, and verifies, to a subject or those of a pattern, from now on."""
        from watchword_adapters.testing.subject_reader import (  # noqa: PLC0415 - Kafka alone needs no nats-py
            MemorySubscription,
        )

        return MemorySubscription(self, agent, subject)

    def listen(self, listener: Callable[[Message], None]) -> Callable[[], None]:
        """Have ``listener`` called with whatever is put onto the bus from now on; return what ends that."""
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
    """Signs for one agent whatever it puts onto the bus."""

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
        """Sign a record, for ``recipient`` if it is meant for one principal, and append it; return it as it stands."""
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
