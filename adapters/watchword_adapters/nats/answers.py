"""Finds the request that a publish answers: by its reply subject, by the running handler, or by a bounded memory."""

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
"""The verified message that the current task received last, across all connections of the process."""


class ReplySubject(str):
    """The reply subject of a verified message: a string that carries the request that an answer there belongs to.

    A copy of its characters is a plain string.
    """

    __slots__ = ("request",)
    request: VerifiedMessage

    @classmethod
    def of(cls, request: VerifiedMessage) -> str:
        """Return the signed reply subject of a message; an empty string if it has none."""
        return cls.to(request.reply_to, request) if request.reply_to else ""

    @classmethod
    def to(cls, subject: str, request: VerifiedMessage) -> ReplySubject:
        """Return ``subject`` as the reply subject of ``request``: a message from a stream names it in a header."""
        made = cls(subject)
        made.request = request
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)


class HiddenReply(str):
    """Replaces a reply subject of the server's own by an empty string; an answer there is dropped.

    It is still truthy, so that a handler answers as usual; nats-py's micro services raise an error if there is no reply
    subject, which any stranger could provoke in observe mode. ``request`` is the message that named it, if verified:
    such a reply subject is rejected by then, but one named in a header is not.
    """

    __slots__ = ("request",)
    request: VerifiedMessage | None

    @classmethod
    def of(cls, request: VerifiedMessage | None) -> HiddenReply:
        """Return the replacement for the reply subject of ``request``."""
        made = cls()
        made.request = request
        return made

    def __bool__(self) -> bool:
        return True


class Answers:
    """Finds the request that a plain publish answers.

    A publish to the ``reply`` of a message identifies it with certainty. For plain strings, such as those read from a
    store, a bounded memory by inbox helps; there the first principal that named an inbox owns it, so that no other can
    draw its answers. Only inboxes count: otherwise a request could name an application subject, and what we publish
    there would be bound to it.
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
        """Return the request that a publish to ``subject`` answers; None if it answers none."""
        if isinstance(subject, ReplySubject):
            return subject.request
        if not subject.startswith(_INBOX):
            return None
        handled = HANDLED.get()
        if handled is not None and handled.reply_to == subject:
            return handled
        return self._owed.get(subject)


def forwarded(subject: str, reply: str) -> SigningError:
    """Return the error for forwarding a request with the requester's own reply subject."""
    return SigningError(
        f"publish({subject!r}, reply={reply!r}) forwards the reply subject of a request: answers to it would not match "
        "the request that they answer, and be rejected. Send a request with 'answer = await nc.request(...)' in the "
        "handler, and answer with 'await msg.respond(answer.data)'"
    )
