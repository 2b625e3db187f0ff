"""NATS messages as a client delivers them, without a server."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from nats.aio.msg import Msg

from watchword_adapters.nats._seam import client_of
from watchword_adapters.nats.headers import HeaderBlock
from watchword_adapters.nats.message import delivered_msg, delivery_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from watchword import VerifiedMessage, Watchword
    from watchword.spi import Delivered, Message, Position
    from watchword_adapters.nats.message import ObservedMsg, VerifiedMsg


class Answer(NamedTuple):
    """A handler's answer; ``headers`` are those of the answer."""

    data: bytes
    headers: dict[str, str]


class _Client:
    """Replaces a message's client: records a handler's answers, and accepts acknowledgements."""

    def __init__(self, watchword: Watchword) -> None:
        self.watchword = watchword
        self.answers: list[Answer] = []

    async def answer(
        self,
        reply: str,  # noqa: ARG002 - there is one requester only
        data: bytes,
        headers: Mapping[str, str] | None,
        request: VerifiedMessage | None,  # noqa: ARG002 - as reply
    ) -> None:
        self.answers.append(Answer(data, dict(headers or {})))

    async def publish(self, subject: str, payload: bytes = b"") -> None:
        """Accept an acknowledgement; its effect shows on the message."""

    async def request(self, subject: str, *, timeout: float) -> Msg:  # noqa: ARG002, ASYNC109 - nats-py's own
        """Accept an acknowledgement that waits for a response."""
        client: Any = self
        return Msg(client, subject=subject)


def _ack_subject(position: Position, appended_at: float) -> str:
    """Return the ack subject of the first delivery of the message at a position."""
    return f"$JS.ACK.{position.log}.test.1.{position.offset}.{position.offset}.{round(appended_at * 1_000_000_000)}.0"


def raw_msg(message: Message, reader: Watchword) -> Msg:
    """Return a message as nats-py's; one with a position is a delivery of that stream."""
    client: Any = _Client(reader)
    headers: Any = HeaderBlock(message.headers)
    position, appended_at = message.position, message.appended_at or 0.0
    reply = message.reply_to if position is None else _ack_subject(position, appended_at)
    return Msg(
        client,
        subject=message.channel.name,
        reply=reply or "",
        data=message.value or b"",
        headers=headers,
    )


def message_of(message: Message, raw: Msg, reader: str) -> Message:
    """Return a message as the adapter passes it to the verifier."""
    delivery = delivery_at(raw.reply)
    return replace(
        message,
        reader=reader,
        exclusive=True,
        reply_to=None if delivery else raw.reply or None,
        delivered_by=delivery and delivery.by,
    )


def handed_over(raw: Msg, delivered: Delivered) -> VerifiedMsg | ObservedMsg:
    """Return the message that the client passes to a handler."""
    return delivered_msg(raw, delivered)


def answers_to(msg: Msg) -> list[Answer]:
    """Return a handler's answers to a message created here, in order."""
    answers: list[Answer] = client_of(msg).answers
    return answers
