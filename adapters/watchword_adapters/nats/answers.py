"""Which request an answer is bound to: that of the message in whose handler it is given."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from watchword import SigningError
from watchword_adapters.nats.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword import VerifiedMessage

_INBOX: Final = "_INBOX"

HANDLED: Final[ContextVar[VerifiedMessage | None]] = ContextVar("handled", default=None)
"""The verified message that the present task took last; one variable for all connections of the process."""


class ReplySubject(str):
    """The reply subject of a verified message: a text that knows which request an answer there belongs to.

    A copy of its characters is a mere text.
    """

    __slots__ = ("request",)
    request: VerifiedMessage

    @classmethod
    def of(cls, request: VerifiedMessage) -> str:
        """Return the signed reply subject of a message; the empty text where it has none."""
        return cls.to(request.reply_to, request) if request.reply_to else ""

    @classmethod
    def to(cls, subject: str, request: VerifiedMessage) -> ReplySubject:
        """Return ``subject`` as one where answers to ``request`` go: a message from a stream has it in a header."""
        made = cls(subject)
        made.request = request
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)


class HiddenReply(str):
    """What stands for a reply subject of the server's own: no text at all. An answer there is dropped.

    It counts as one, though, so that a handler answers as it does else; nats-py's micro services raise an error where
    there is none, which any stranger could bring about while this agent observes. ``request`` is what asked for it, if
    that verified: a reply subject of the server's own is refused by then, but not one that a header names.
    """

    __slots__ = ("request",)
    request: VerifiedMessage | None

    @classmethod
    def of(cls, request: VerifiedMessage | None) -> HiddenReply:
        """Return what stands for the reply subject of ``request``."""
        made = cls()
        made.request = request
        return made

    def __bool__(self) -> bool:
        return True


class Answers:
    """Finds the request that a bare publish answers.

    Certain is what goes to the ``reply`` of a message. For mere texts, as they come out of a store, a bounded memory
    helps, by inbox; there the first principal that named an inbox owns it, so that nobody else can draw its answers.
    Inboxes only: else a request that names an application subject would bend what we publish there.
    """

    def __init__(self, *, seconds: float, clock: Callable[[], float]) -> None:
        self._owed: Recent[VerifiedMessage] = Recent(seconds=seconds, clock=clock)

    def heard(self, request: VerifiedMessage) -> None:
        """Remember a verified request by its inbox."""
        reply = request.reply_to
        if reply is not None and request.position is None and reply.startswith(_INBOX):
            owner = self._owed.get(reply)
            if owner is None or owner.principal == request.principal:
                self._owed.put(reply, request)

    def request_at(self, subject: str) -> VerifiedMessage | None:
        """Return the request that is answered by a publish to ``subject``."""
        if isinstance(subject, ReplySubject):
            return subject.request
        if not subject.startswith(_INBOX):
            return None
        handled = HANDLED.get()
        if handled is not None and handled.reply_to == subject:
            return handled
        return self._owed.get(subject)


def forwarded(subject: str, reply: str) -> SigningError:
    """Return the error of whoever passes a request on with the requester's own reply subject."""
    return SigningError(
        f"publish({subject!r}, reply={reply!r}) passes on the reply subject of a request: what others answer there "
        "answers nothing that they were asked, and is rejected. Ask them with 'answer = await nc.request(...)' in the "
        "handler, and answer with 'await msg.respond(answer.data)'"
    )
