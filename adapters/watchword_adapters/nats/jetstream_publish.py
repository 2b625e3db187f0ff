"""Publishes to streams: signed, and with the id as ``Nats-Msg-Id``, by which the stream drops duplicates."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from nats.errors import NoRespondersError
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NoStreamResponseError, TooManyStalledMsgsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from watchword_adapters.nats.client import WatchwordClient


class StreamPublisher(JetStreamContext):
    """The publishing half of a JetStream context; the caller's header dict is never changed."""

    _client: WatchwordClient

    async def publish(  # noqa: PLR0917 - the base's own signature
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float | None = None,  # noqa: ASYNC109 - the base's own signature
        stream: str | None = None,
        headers: dict[str, Any] | None = None,
        msg_ttl: float | None = None,
        *,
        recipient: str | None = None,
        expires_at: int | None = None,
        answers_at: str = "",
    ) -> api.PubAck:
        """Sign and store a message, and return the PubAck (``timeout`` in seconds; other options as in the base).

        ``Nats-Msg-Id`` is the message's id unless ``headers`` set one, which is then covered by the signature. A stream
        stores no reply subject: if a header names one, repeat it in ``answers_at``, so that answers to it are expected.
        """
        try:
            answer = await self._client.store(
                subject,
                payload,
                _headers(headers, stream, msg_ttl),
                timeout=self._timeout if timeout is None else timeout,
                recipient=recipient,
                expires_at=expires_at,
                answers_at=answers_at,
            )
        except NoRespondersError:
            raise NoStreamResponseError from None
        response = json.loads(answer.data)
        if "error" in response:
            raise APIError.from_error(response["error"])
        return api.PubAck.from_response(response)

    async def publish_async(  # noqa: PLR0917 - the base's own signature
        self,
        subject: str,
        payload: bytes = b"",
        wait_stall: float | None = None,
        stream: str | None = None,
        headers: dict[str, Any] | None = None,
        msg_ttl: float | None = None,
        *,
        recipient: str | None = None,
        expires_at: int | None = None,
    ) -> asyncio.Future[api.PubAck]:
        """Sign and store without waiting; the future returns the PubAck."""
        if not self._async_reply_prefix:
            await self._init_async_reply()
        free = self._publish_async_pending_semaphore
        try:
            # If there is space the base would yield to the loop too: each message would be signed in its own turn.
            async with asyncio.timeout(wait_stall if free.locked() else None):
                await free.acquire()
        except (TimeoutError, asyncio.CancelledError):
            raise TooManyStalledMsgsError from None
        token = self._client.token()
        future: asyncio.Future[api.PubAck] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: self._published(token))
        self._publish_async_futures[token] = future
        self._publish_async_completed_event.clear()
        try:
            inbox = bytes(self._async_reply_prefix or b"").decode() + token
            carried = _headers(headers, stream, msg_ttl)
            await self._client.send(
                subject, payload, inbox, carried, stored=True, recipient=recipient, expires_at=expires_at
            )
        except BaseException:
            future.cancel()
            raise
        return future

    async def _init_async_reply(self) -> None:
        self._publish_async_futures = {}
        prefix = f"{self._client.new_inbox()}."
        self._async_reply_prefix = bytearray(prefix.encode())
        await self._client.open(f"{prefix}*", reader=None, cb=self._handle_async_reply)

    def _published(self, token: str) -> None:
        self._publish_async_futures.pop(token, None)
        if not self._publish_async_futures:
            self._publish_async_completed_event.set()
        self._publish_async_pending_semaphore.release()


def _headers(headers: Mapping[str, str] | None, stream: str | None, ttl: float | None) -> dict[str, str]:
    own = dict(headers or {})
    if stream is not None:
        own[api.Header.EXPECTED_STREAM.value] = stream
    if ttl is not None:
        own[api.Header.MSG_TTL.value] = str(int(ttl))
    return own
