"""Lets nats-py's micro services answer discovery requests (PING, INFO, STATS), which are unsigned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error
from nats.micro.service import DEFAULT_PREFIX, Service

from watchword.message import SERVERS_SUBJECTS
from watchword_adapters.nats._seam import client_of
from watchword_adapters.nats.headers import block_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[Msg], Awaitable[None]]

_ASKED: Final = f"{DEFAULT_PREFIX}."


def is_discovery(subject: str, cb: object) -> bool:
    """Return True if a subscription is a service's own to PING, INFO or STATS.

    Its handler is nats-py's, and reads nothing of a message but its reply subject. A program's own handler is judged
    like any other, on these subjects too.
    """
    owner, function = getattr(cb, "__self__", None), getattr(cb, "__func__", None)
    return (
        subject.startswith(_ASKED)
        and isinstance(owner, Service)
        and getattr(function, "__module__", None) == Service.__module__
    )


def unsigned(cb: Handler) -> Handler:
    """Return a handler that passes ``cb`` a discovery request, whose answer is sent unsigned."""

    async def answer(raw: Msg) -> None:
        if block_of(raw).status is None and not raw.reply.startswith(SERVERS_SUBJECTS):
            await cb(_Question(client_of(raw), raw.subject, raw.reply))

    return answer


class _Question(Msg):
    async def respond(self, data: bytes) -> None:
        """Answer an unsigned request, unsigned and without its headers."""
        if not self.reply:
            raise Error("no reply subject available")
        await Client.publish(client_of(self), self.reply, data)
