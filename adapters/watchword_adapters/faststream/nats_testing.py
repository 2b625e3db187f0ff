"""FastStream's in-memory NATS for tests, with messages signed and verified as on a server."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from faststream.nats import TestNatsBroker as Base
from faststream.nats.testing import PatchedMessage

from watchword.message import channel_of
from watchword.spi import Expected, Message, Request
from watchword_adapters.faststream import _seam as seam
from watchword_adapters.faststream.memory import Logs, broker_of, changed, require_ours
from watchword_adapters.faststream.nats_broker import NatsBroker
from watchword_adapters.nats.message import ObservedMsg, VerifiedMsg, delivered_msg

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from watchword.spi import Position


class TestNatsBroker(Base, **seam.registered(NatsBroker)):
    """A ``faststream.nats.TestNatsBroker`` for our brokers: no server, but real signatures and verdicts.

    A message is signed by the broker that publishes it and judged by the one whose handler receives it, so several
    brokers in one test are several agents. If it is rejected, ``publish`` raises Rejected; with a real broker the
    handler would just not be called. Answers to ``request`` are bound to it as on a server; those to ``reply_to`` are
    ordinary messages.
    """

    def __init__(self, *brokers: Any, **options: Any) -> None:
        require_ours(brokers, NatsBroker)
        super().__init__(*brokers, **options)
        self._logs = Logs()

    @contextmanager
    def _patch_producer(self, broker: Any) -> Generator[None]:
        fake = FakeProducer(broker, self.brokers, self._logs)
        with changed(broker.config.broker_config, producer=fake, js_producer=fake):
            yield


class _Verified(PatchedMessage, VerifiedMsg):
    """A verified message whose acknowledgement goes nowhere."""


class _Observed(PatchedMessage, ObservedMsg):
    """As ``_Verified``, in observe mode."""


class FakeProducer(seam.FakeNatsProducer):
    """FastStream's fake producer; it signs, and verifies before it calls a handler."""

    def __init__(self, broker: NatsBroker, brokers: Sequence[Any], logs: Logs) -> None:
        super().__init__(broker, brokers)
        self._ours = broker
        self._logs = logs

    async def _execute_handler(self, msg: Any, subject: str, handler: Any) -> Any:
        reader = broker_of(handler, self.brokers)
        of_stream = getattr(handler, "stream", None)
        group = getattr(handler, "queue", "") or f"subscriber {id(handler)}"
        first, *_ = messages = msg if isinstance(msg, list) else [msg]
        judged = [await self._judged(one, reader, group, of_stream and of_stream.name) for one in messages]
        answer: Any = await super()._execute_handler(judged if isinstance(msg, list) else judged[0], subject, handler)
        answer.asked = (first.request, reader)
        return answer

    async def request(self, cmd: Any) -> Any:
        """See FastStream; the answer is bound to the request, and judged."""
        answer: Any = await super().request(cmd)
        request, sender = answer.asked
        headers, _ = await _signed(answer, sender, self._ours.watchword.signer.principal, request.id)
        expected = Expected(requests={request.id: request}, only_replies=True)
        stored = replace(answer, headers=headers)
        message = _message(stored, self._ours, reader="answers")
        return _shown(stored, await self._ours.watchword.admit(message, expected))

    async def _judged(self, msg: Any, reader: NatsBroker, group: str, stream: str | None) -> Any:
        """Return a message as ``reader`` would receive it; Rejected if it would not."""
        if not hasattr(msg, "request"):  # sent once, however many subscribers receive it
            unsigned, whom = _message(msg, self._ours), self._ours.recipient
            named = None if whom is None else whom(unsigned.channel, None, unsigned.headers)
            headers, number = await _signed(msg, self._ours, named)
            msg.request = Request(id=number, channel=unsigned.channel, recipient=named)
            msg.stored = replace(msg, headers=headers)
            msg.places = {}
        options: dict[str, Any] = {}
        if stream is not None:
            if stream not in msg.places:
                msg.places[stream] = self._logs.append(stream)
            options = {"position": msg.places[stream], "appended_at": reader.watchword.clock(), "exclusive": True}
        message = _message(msg.stored, reader, reader=group, **options)
        return _shown(msg.stored, await reader.watchword.admit(message))


async def _signed(
    msg: PatchedMessage, sender: NatsBroker, recipient: str | None, in_reply_to: bytes | None = None
) -> tuple[dict[str, str], bytes]:
    """Return the message's headers with the envelope, and its id."""
    signed = await sender.watchword.signer.sign(_message(msg, sender), recipient=recipient, in_reply_to=in_reply_to)
    name, value = signed.header
    return {**(msg.headers or {}), name: (value or b"").decode()}, signed.id


def _message(msg: PatchedMessage, agent: NatsBroker, position: Position | None = None, **options: Any) -> Message:
    return Message(
        channel=channel_of("nats", agent.watchword.realm, msg.subject),
        value=msg.data,
        headers=tuple([(name, text.encode()) for name, text in (msg.headers or {}).items()]),
        reply_to=None if position is not None else msg.reply or None,
        position=position,
        **options,
    )


def _shown(msg: PatchedMessage, found: Any) -> VerifiedMsg | ObservedMsg:
    shown: Any = delivered_msg(msg, found)
    shown.__class__ = _Verified if isinstance(shown, VerifiedMsg) else _Observed
    return shown  # type: ignore[no-any-return]
