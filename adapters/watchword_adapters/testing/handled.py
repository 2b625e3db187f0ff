"""Messages as a handler receives them, for its unit test: signed with a throwaway key, and judged by the real verifier.

There is no other way to create one. Each key is created for one message and then discarded, and no process that reads a
bus knows it: such messages verify nowhere else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, cast

from watchword import Mode, Policy
from watchword.extras import told
from watchword.spi import Channel, Message, Position
from watchword_adapters.testing.agents import REALM, Agents
from watchword_adapters.testing.at_once import at_once
from watchword_adapters.testing.signing import signed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nats.aio.msg import Msg

    from watchword import Watchword
    from watchword.message import Header
    from watchword_adapters.kafka.records import Deserializer, ObservedRecord, VerifiedRecord
    from watchword_adapters.nats.message import ObservedMsg, VerifiedMsg
    from watchword_adapters.testing.messages import Answer

READER: Final = "agent://test/reader"
"""The principal that reads these messages."""


def verified_record(
    value: bytes | None,
    *,
    topic: str,
    principal: str,
    key: bytes | None = None,
    headers: Sequence[Header] = (),
    partition: int = 0,
    offset: int = 0,
    key_deserializer: Deserializer | None = None,
    value_deserializer: Deserializer | None = None,
) -> VerifiedRecord:
    """Return a record as a ``VerifyingConsumer`` returns it, written by ``principal``; for unit tests only.

    Give the consumer's deserializers if the handler expects what they return. SigningError where nobody could have
    sent such a message.
    """
    message = _record(value, topic, key, headers, partition=partition, offset=offset)
    return cast("VerifiedRecord", _consumed(message, principal, Mode.ENFORCE, key_deserializer, value_deserializer))


def observed_record(
    value: bytes | None,
    *,
    topic: str,
    principal: str | None = None,
    key: bytes | None = None,
    headers: Sequence[Header] = (),
    partition: int = 0,
    offset: int = 0,
    key_deserializer: Deserializer | None = None,
    value_deserializer: Deserializer | None = None,
) -> ObservedRecord:
    """Return a record as delivered in observe mode; for unit tests only.

    Without ``principal`` it is unsigned: ``verified`` is None, since enforce mode would drop it. Otherwise like
    ``verified_record``.
    """
    message = _record(value, topic, key, headers, partition=partition, offset=offset)
    return cast("ObservedRecord", _consumed(message, principal, Mode.OBSERVE, key_deserializer, value_deserializer))


def verified_msg(
    data: bytes = b"",
    *,
    subject: str,
    principal: str,
    headers: Mapping[str, str] | None = None,
    reply: str | None = None,
    stream: str | None = None,
    sequence: int = 1,
) -> VerifiedMsg:
    """Return a message as a handler of ``watchword.nats.connect`` receives it, sent by ``principal``; for tests only.

    With ``reply``, a subject, it is a request: ``answers_to`` returns the answers. With ``stream``, a name, it
    is a JetStream delivery of the message at ``sequence``, and can be acknowledged. SigningError if no sender could
    have sent such a message.
    """
    message = _published(data, subject, headers, reply, stream=stream, sequence=sequence)
    return cast("VerifiedMsg", _delivered(message, principal, Mode.ENFORCE))


def observed_msg(
    data: bytes = b"",
    *,
    subject: str,
    principal: str | None = None,
    headers: Mapping[str, str] | None = None,
    reply: str | None = None,
    stream: str | None = None,
    sequence: int = 1,
) -> ObservedMsg:
    """Return a message as delivered in observe mode; for unit tests only.

    Without ``principal`` it is unsigned: ``verified`` is None, since enforce mode would drop it. Otherwise like
    ``verified_msg``.
    """
    message = _published(data, subject, headers, reply, stream=stream, sequence=sequence)
    return cast("ObservedMsg", _delivered(message, principal, Mode.OBSERVE))


def answers_to(msg: Msg) -> list[Answer]:
    """Return a handler's answers to a message from ``verified_msg`` or ``observed_msg``, in order."""
    from watchword_adapters.testing import messages  # noqa: PLC0415 - a message implies that the client is installed

    return messages.answers_to(msg)


def _record(
    value: bytes | None, topic: str, key: bytes | None, headers: Sequence[Header], *, partition: int, offset: int
) -> Message:
    return Message(
        channel=Channel("kafka", REALM, topic),
        value=value,
        key=key,
        headers=tuple(headers),
        partition=partition,
        position=Position(f"{topic}/{partition}", offset),
        appended_at=time.time(),
    )


def _consumed(
    message: Message,
    principal: str | None,
    mode: Mode,
    key_deserializer: Deserializer | None,
    value_deserializer: Deserializer | None,
) -> VerifiedRecord | ObservedRecord:
    try:
        from watchword_adapters.testing import records  # noqa: PLC0415 - a test of NATS needs no aiokafka
    except ModuleNotFoundError as error:
        raise told(error) from None
    sent, reader = _sent(message, principal, mode)
    raw = records.raw_record(sent)
    delivered = at_once(reader.admit(records.message_of(raw, REALM, "test", exclusive=True)))
    return records.handed_over(raw, delivered, key_deserializer, value_deserializer)


def _published(
    data: bytes,
    subject: str,
    headers: Mapping[str, str] | None,
    reply: str | None,
    *,
    stream: str | None,
    sequence: int,
) -> Message:
    return Message(
        channel=Channel("nats", REALM, subject),
        value=data,
        headers=tuple((name, value.encode()) for name, value in (headers or {}).items()),
        reply_to=reply,
        position=Position(stream, sequence) if stream else None,
        appended_at=time.time() if stream else None,
    )


def _delivered(message: Message, principal: str | None, mode: Mode) -> VerifiedMsg | ObservedMsg:
    try:
        from watchword_adapters.testing import messages  # noqa: PLC0415 - a test of Kafka needs no nats-py
    except ModuleNotFoundError as error:
        raise told(error) from None
    sent, reader = _sent(message, principal, mode)
    raw = messages.raw_msg(sent, reader)
    return messages.handed_over(raw, at_once(reader.admit(messages.message_of(sent, raw, "test"))))


def _sent(message: Message, principal: str | None, mode: Mode) -> tuple[Message, Watchword]:
    """Return the message as sent by its author, and a process that reads it."""
    agents = Agents()
    reader = agents(READER, policy=Policy(mode=mode))
    return message if principal is None else at_once(signed(agents(principal).signer, message)), reader
