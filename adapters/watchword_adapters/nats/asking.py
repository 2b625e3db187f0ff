"""The part of the NATS client that asks: an answer counts only when it verifies and answers this very request."""

# ruff: noqa: SLF001 - nats-py has no hooks: its subclasses must reach where the base reaches

from __future__ import annotations

import asyncio
from functools import cached_property
from secrets import token_hex
from typing import TYPE_CHECKING, Any, cast

from nats import errors
from nats.aio.client import PING_PROTO, _validate_queue, _validate_subject
from nats.aio.subscription import DEFAULT_SUB_PENDING_BYTES_LIMIT, DEFAULT_SUB_PENDING_MSGS_LIMIT

from watchword_adapters.nats.headers import NO_RESPONDERS
from watchword_adapters.nats.message import server_msg
from watchword_adapters.nats.reader import Reader, block_of, only_answer_to, only_answers
from watchword_adapters.nats.requests import Waiting
from watchword_adapters.nats.signing import CONTROL_SUBJECTS, SigningClient
from watchword_adapters.nats.subscription import VerifyingSubscription

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from nats.aio.msg import Msg


class AskingClient(SigningClient):
    """Sends requests, and judges each answer in the requester's own task."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._waiting: dict[str, Waiting] = {}

    @cached_property
    def _answers(self) -> Reader:
        """The reader of all answers, made with the first request: who only publishes needs no keys."""
        return Reader(self.watchword, self._own("answers"))

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,  # noqa: ASYNC109 - the base's own signature
        old_style: bool = False,  # noqa: ARG002, FBT001, FBT002 - as above
        headers: dict[str, Any] | None = None,
        *,
        recipient: str | None = None,
        expires_at: int | None = None,
    ) -> Msg:
        """Ask and return the first answer that verifies and answers this request; others are audited and ignored.

        ``old_style`` makes no difference. nats.errors.TimeoutError after ``timeout`` seconds, NoRespondersError at once
        when the server says so.
        """
        if subject.startswith(CONTROL_SUBJECTS):
            raw = await self._ask(
                lambda inbox: super(AskingClient, self).publish(subject, payload, inbox, headers), timeout
            )
            return server_msg(raw)

        answers = self._answers.name

        async def send(inbox: str) -> Reader:
            request = await self.send(subject, payload, inbox, headers, recipient=recipient, expires_at=expires_at)
            expected = only_answers if request is None else only_answer_to(request)
            return Reader(self.watchword, answers, expected=expected, admitted=self._answering.heard)

        return await self._ask(send, timeout)

    async def store(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None,
        *,
        timeout: float,  # noqa: ASYNC109 - as request
        **options: Any,
    ) -> Msg:
        """Publish to a stream and return the server's PubAck, which nobody signs."""

        async def send(inbox: str) -> None:
            await self.send(subject, payload, inbox, headers, stored=True, **options)

        return await self._ask(send, timeout)

    async def _ask(self, send: Callable[[str], Awaitable[Reader | None]], seconds: float | None) -> Msg:
        """Send a request with a fresh inbox; the reader that ``send`` returns judges the answers, None takes any.

        One timer for each request, and none that an answer starts anew: asyncio.timeout does more for each.
        """
        if self.is_draining_pubs:
            raise errors.ConnectionDrainingError
        if not self._resp_sub_prefix:
            await self._init_request_sub()
        token = self._nuid.next().decode() + token_hex(2)
        waiting, loop = Waiting(), asyncio.get_running_loop()
        self._waiting[token], timer = waiting, None
        try:
            reader = await send(cast("bytearray", self._resp_sub_prefix).decode() + token)
            waiting.pong = self.pong_behind()
            deadline = None if seconds is None else loop.time() + seconds
            timer = None if deadline is None else loop.call_at(deadline, waiting.over)
            while True:
                raw = await waiting.answer()
                block = block_of(raw)
                if block.status == NO_RESPONDERS:
                    raise errors.NoRespondersError
                if reader is not None:
                    async with asyncio.timeout_at(deadline):
                        answer = await reader.judge(raw)
                    if answer is not None:
                        return answer
                elif block.fault is None:
                    return raw
        except TimeoutError:
            raise errors.TimeoutError from None
        finally:
            del self._waiting[token]
            if timer is not None:
                timer.cancel()

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """Send a PING behind what was sent before; the base lets it overtake, and its PONG then proves nothing."""
        if not self.is_connected:
            await super()._send_ping(future)
            return
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        await self._send_command(PING_PROTO)
        await self._flush_pending()

    async def _init_request_sub(self) -> None:
        self._resp_sub_prefix = bytearray(f"{self.new_inbox()}.".encode())
        await self.open(f"{self._resp_sub_prefix.decode()}*", reader=None, cb=self._request_sub_callback)

    async def _request_sub_callback(self, msg: Msg) -> None:
        waiting = self._waiting.get(msg.subject.rpartition(".")[2])
        if waiting is not None:
            waiting.arrived(msg)

    async def open(
        self,
        subject: str,
        *,
        reader: Reader | None,
        queue: str = "",
        cb: Callable[[Msg], Awaitable[None]] | None = None,
        max_msgs: int = 0,
        pending_msgs_limit: int = DEFAULT_SUB_PENDING_MSGS_LIMIT,
        pending_bytes_limit: int = DEFAULT_SUB_PENDING_BYTES_LIMIT,
    ) -> VerifyingSubscription:
        """Open a subscription that ``reader`` judges; as the base does, but with our class."""
        _validate_subject(subject, strict=True)
        _validate_queue(queue)
        if self.is_closed:
            raise errors.ConnectionClosedError
        if self.is_draining:
            raise errors.ConnectionDrainingError
        subscription = VerifyingSubscription(
            self,
            self._sid + 1,
            subject,
            queue=queue,
            cb=cb,
            reader=reader,
            max_msgs=max_msgs,
            pending_msgs_limit=pending_msgs_limit,
            pending_bytes_limit=pending_bytes_limit,
        )
        self._sid += 1
        subscription._start(self._error_cb)
        self._subs[subscription._id] = subscription
        await self._send_subscribe(subscription)
        return subscription

    def _own(self, kind: str) -> str:
        return f"{kind}:{self._nuid.next().decode()}"
