"""Judges what one NATS subscription reads, before anything of it reaches a handler."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from watchword import Channel, Expected, Message, ObservedMessage, Reason, Rejected, Unavailable
from watchword_adapters.buses.nats.headers import HeaderBlock
from watchword_adapters.buses.nats.message import delivered_msg

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.msg import Msg

    from watchword import Delivered, Request, VerifiedMessage, Watchword
    from watchword.quarantine import Quarantine
    from watchword_adapters.buses.nats.message import ObservedMsg, VerifiedMsg

_NONE: Final = HeaderBlock()


class Reader:
    """One reader of core NATS subjects: a queue group, or one subscription.

    ``name`` is the scope in which an id is used once. A reader that is ``alone`` remembers in this process, and its
    ``log`` is forgotten when it closes. ``expected`` tells what is waited for on a subject; ``admitted`` hears of each
    verified message. Until ``ready`` nothing is judged.
    """

    def __init__(
        self,
        watchword: Watchword,
        name: str,
        *,
        alone: bool = True,
        expected: Callable[[str], Expected] | None = None,
        admitted: Callable[[VerifiedMessage], None] | None = None,
        quarantine: Quarantine | None = None,
    ) -> None:
        self.watchword: Final = watchword
        self.name: Final = name
        self.alone: Final = alone
        self.ready: Final = asyncio.Event()
        self.ready.set()
        self._quarantine = quarantine
        self._expected = expected or (lambda _: Expected())
        self._admitted = admitted
        self.resetting = False

    @property
    def log(self) -> str:
        """The replay store's name for the run of messages that this reader reads."""
        return f"{self.name}#"

    async def judge(self, raw: Msg) -> Msg | None:
        """Return what the handler may have of ``raw``; None when it was refused (and audited) or is a status only."""
        if is_status(raw):
            return None
        await self.ready.wait()
        message = self.message(raw)
        try:
            return self.deliver(raw, message, await self._verdict(raw, message))
        except (Rejected, Unavailable) as verdict:
            await self.refused(raw, message, verdict)
            return None

    def message(self, raw: Msg) -> Message:
        """Return ``raw`` as the core sees it."""
        return Message(
            channel=Channel("nats", self.watchword.realm, raw.subject),
            value=raw.data,
            headers=block_of(raw).pairs,
            reply_to=raw.reply or None,
            reader=self.name,
            alone=self.alone,
        )

    def expect(self, raw: Msg, message: Message) -> Expected:  # noqa: ARG002 - streams look at the message
        """Return what this reader waits for where ``raw`` was found."""
        return self._expected(raw.subject)

    def deliver(self, raw: Msg, message: Message, delivered: Delivered) -> VerifiedMsg | ObservedMsg:
        """Return what the handler gets."""
        verdict = delivered.verdict if isinstance(delivered, ObservedMessage) else delivered
        if self._admitted is not None and not isinstance(verdict, Rejected | Unavailable):
            self._admitted(verdict)
        return delivered_msg(raw, message, delivered)

    async def refused(
        self,
        raw: Msg,  # noqa: ARG002 - streams answer it
        message: Message,
        verdict: Rejected | Unavailable,
    ) -> None:
        """Keep a copy, and say so to the bus; core NATS offers nothing again, so it is dropped."""
        kept = False
        with suppress(Unavailable):  # counted there
            kept = await self.keep(message, verdict)
        if isinstance(verdict, Unavailable):
            self.watchword.verifier.pass_over(message)
            if kept:
                self.watchword.audit.passed_over()

    async def keep(self, message: Message, verdict: Rejected | Unavailable) -> bool:
        """Put what is not delivered into quarantine, where there is one; tell whether it is there."""
        return self._quarantine is not None and await self._quarantine.put(message, verdict)

    def close(self) -> None:
        """Forget the ids of a reader that reads alone: none can come back to them."""
        if self.alone and not self.resetting:
            self.watchword.verifier.forget(self.log)

    async def _verdict(self, raw: Msg, message: Message) -> Delivered:
        fault = block_of(raw).fault
        if fault is None:
            return await self.watchword.admit(message, self.expect(raw, message))
        verdict = Rejected(Reason.MALFORMED, fault, channel=message.channel.uri)
        self.watchword.audit.refused(message, verdict)
        if not self.watchword.observing:
            raise verdict
        return ObservedMessage(message, verdict)


def only_answer_to(request: Request) -> Callable[[str], Expected]:
    """Return an expectation that one request is answered, and nothing else."""
    expected = Expected(requests={request.id: request}, only_replies=True)
    return lambda _: expected


def block_of(raw: Msg) -> HeaderBlock:
    """Return the headers of a message that this client read."""
    return raw.headers if isinstance(raw.headers, HeaderBlock) else _NONE


def is_status(raw: Msg) -> bool:
    """Tell whether ``raw`` is a status line of the server: no message, and for no handler."""
    return block_of(raw).status is not None
