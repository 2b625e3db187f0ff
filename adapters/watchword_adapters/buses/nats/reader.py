"""Judges what one NATS subscription reads, before anything of it reaches a handler."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from watchword import Expected, ObservedMessage, Reason, Rejected, Unavailable
from watchword.message import channel_of, make_message
from watchword_adapters.buses.nats.headers import HeaderBlock
from watchword_adapters.buses.nats.message import delivered_msg

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nats.aio.msg import Msg

    from watchword import Delivered, Message, Position, Request, VerifiedMessage, Watchword
    from watchword.proving import Checker
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
        self._judging = 0
        self._closed = False

    @property
    def log(self) -> str:
        """The replay store's name for the run of messages that this reader reads."""
        return f"{self.name}#"

    async def judge(self, raw: Msg) -> Msg | None:
        """Return what the handler may have of ``raw``; None when it was refused (and audited) or is a status only."""
        block = block_of(raw)
        if block.status is not None:
            return None
        if not self.ready.is_set():
            await self.ready.wait()
        message = self.message(raw)
        self._judging += 1
        try:
            if block.fault is None:
                return self.deliver(raw, message, await self.watchword.admit(message, self.expect(raw, message)))
            return self.deliver(raw, message, self._unreadable(message, block.fault))
        except (Rejected, Unavailable) as verdict:
            await self.refused(raw, message, verdict)
            return None
        finally:
            self._judging -= 1
            if self._closed:
                self._forget()

    async def judge_many(self, raws: Sequence[Msg], check: Checker) -> list[Msg]:
        """Return what the handler may have of ``raws``, in their order; each is treated as ``judge`` would.

        Behind one that is Unavailable the others are judged without the bulk until something is determined again: so
        an outage costs no more than they are many.
        """
        await self.ready.wait()
        self._judging += 1
        try:
            found = [(raw, self.message(raw)) for raw in raws if not is_status(raw)]
            delivered: list[Msg] = []
            at, outage = 0, False
            while at < len(found):
                if outage and not self.alone:  # a store that is shared sees no order anyway: they may wait together
                    judged = await asyncio.gather(*(self.judge(raw) for raw, _ in found[at:]))
                    return delivered + [msg for msg in judged if msg is not None]
                end = at + 1 if outage else self._end_of_run(found, at)
                verdicts = await self._verdicts(found[at:end], check)
                for (raw, message), verdict in zip(found[at:end], verdicts, strict=False):
                    if isinstance(verdict, Rejected | Unavailable):
                        await self.refused(raw, message, verdict)
                    else:
                        delivered.append(self.deliver(raw, message, verdict))
                at, outage = at + len(verdicts), _is_undetermined(verdicts[-1])
            return delivered
        finally:
            self._judging -= 1
            self._forget()

    def message(self, raw: Msg) -> Message:
        """Return ``raw`` as the core sees it."""
        return self._message(raw, raw.reply or None, None, None, None)

    def _message(
        self,
        raw: Msg,
        reply_to: str | None,
        position: Position | None,
        appended_at: float | None,
        delivered_by: tuple[str, str] | None,
    ) -> Message:
        channel, pairs = channel_of("nats", self.watchword.realm, raw.subject), block_of(raw).pairs
        name, alone = self.name, self.alone
        made: Message = make_message(
            channel, raw.data, None, pairs, None, reply_to, position, appended_at, None, name, delivered_by, alone
        )
        return made

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
        """Forget the ids of a reader that reads alone, once nothing is being judged: none can come back to them."""
        self._closed = self._closed or not self.resetting
        self._forget()

    def _forget(self) -> None:
        if self.alone and self._closed and not self._judging:
            self.watchword.verifier.forget(self.log)

    def _unreadable(self, message: Message, fault: str) -> ObservedMessage:
        """Account for a message whose header block is none; raise Rejected unless observing."""
        verdict = Rejected(Reason.MALFORMED, fault, channel=message.channel.uri)
        self.watchword.audit.refused(message, verdict)
        if not self.watchword.observing:
            raise verdict
        return ObservedMessage(message, verdict)

    def _end_of_run(self, found: Sequence[tuple[Msg, Message]], at: int) -> int:
        """Return where what can be judged in bulk with the message ``at`` ends."""
        expected, end = self.expect(*found[at]), at
        while end < len(found) and block_of(found[end][0]).fault is None and self.expect(*found[end]) is expected:
            end += 1
        return max(end, at + 1)

    async def _verdicts(
        self, run: Sequence[tuple[Msg, Message]], check: Checker
    ) -> Sequence[Delivered | Rejected | Unavailable]:
        """Judge messages of one expectation, up to the first that is Unavailable."""
        (raw, message), *_ = run
        if (fault := block_of(raw).fault) is None:
            messages = [message for _, message in run]
            return await self.watchword.admit_many(messages, self.expect(raw, message), check=check)
        try:
            return [self._unreadable(message, fault)]
        except Rejected as verdict:
            return [verdict]


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


def _is_undetermined(verdict: Delivered | Rejected | Unavailable) -> bool:
    return isinstance(verdict.verdict if isinstance(verdict, ObservedMessage) else verdict, Unavailable)
