"""Announcements on a NATS subject: published, and read from a stream or from live publishers.

They are published like any message, without waiting for a stream's response: a stream that covers the subject stores
them; otherwise live subscribers receive them. All share one subject. With one per process, a stream could store only
the latest of each; but then anyone with the right to publish could displace another's announcement.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

from nats import errors
from nats.js.api import DeliverPolicy
from nats.js.errors import APIError

from watchword import ConfigurationError
from watchword_adapters.control.speaker import speaker
from watchword_adapters.nats.client import connect
from watchword_adapters.nats.control_stream import stream_name
from watchword_adapters.nats.message import ObservedMsg
from watchword_adapters.nats.temporary import temporary
from watchword_adapters.nats_rights import NotAllowed, refused_right
from watchword_adapters.redriving import onlooker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from types import TracebackType

    from watchword import Watchword
    from watchword.spi import Message
    from watchword_adapters.nats.client import WatchwordClient

_PULL: Final = 16 << 20
"""Bytes that one pull may return: a server drops a client with more pending than ``max_pending``, 64 MiB."""

_BATCH: Final = 100
_MADE: Final = {
    "description": "Watchword: which processes are there",
    "retention": "limits",
    "discard": "old",
    "max_age": 86_400 * 10**9,
    "max_bytes": 1 << 30,
    "max_msg_size": 64 * 1024,  # an announcement has 48 KiB (docs/decisions/0017)
}
_SECONDS: Final = 5.0
"""Time limit for a response of the server."""


class NatsPresence:
    """See ``PresenceChannel``; ``options`` are those of nats-py's ``connect``, including ``servers``."""

    def __init__(self, subject: str, *, watchword: Watchword, **options: Any) -> None:
        self._subject: Final = subject
        self._watchword: Final = watchword
        self._options: Final = options
        self._refused: list[str] = []
        self._speaking: WatchwordClient | None = None
        self._reading: WatchwordClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        clients, self._speaking, self._reading = (self._speaking, self._reading), None, None
        for client in clients:
            if client is not None:
                await client.close()

    async def make(self) -> bool:
        """See PresenceChannel."""
        client = await self._connected(onlooker(self._watchword))
        try:
            if await self._stream(client) is not None:
                return False
            name = stream_name(self._subject)
            question = json.dumps({"name": name, "subjects": [self._subject], **_MADE}).encode()
            try:
                answer = await client.request(f"$JS.API.STREAM.CREATE.{name}", question, timeout=_SECONDS)
            except NotAllowed as refusal:
                missing = " nor ".join(refusal.rights)
                raise ConfigurationError(
                    f"presence {self._subject!r}: this user may not {missing}; permit it on the server"
                ) from refusal
            found = json.loads(answer.data)
            if "error" in found:
                raise APIError.from_error(found["error"])
            return True
        finally:
            await client.close()

    async def announce(self, value: bytes, headers: Mapping[str, str]) -> None:
        """See PresenceChannel."""
        if self._speaking is None:
            self._speaking = await self._connected(speaker(self._watchword))
        await self._speaking.publish(self._subject, value, headers=dict(headers))
        await self._speaking.flush(timeout=int(_SECONDS))
        self._check_rights()

    async def stores(self) -> bool:
        """See PresenceChannel."""
        return await self._stream(await self._reader()) is not None

    async def read(self, *, since: float, listen: float) -> AsyncGenerator[Message]:
        """See PresenceChannel."""
        client = await self._reader()
        stream = await self._stream(client)
        found = self._coming(client, listen) if stream is None else self._stored(client, stream, since)
        async for msg in found:
            if isinstance(msg, ObservedMsg):
                yield msg.message

    async def _reader(self) -> WatchwordClient:
        if self._reading is None:
            self._reading = await self._connected(onlooker(self._watchword))
        return self._reading

    async def _connected(self, agent: Watchword) -> WatchwordClient:
        return await connect(watchword=agent, error_cb=self._hear, **self._options)

    async def _hear(self, error: Exception) -> None:
        """Record a refusal of the server, which nats-py reports only here."""
        verb, what = refused_right(str(error))
        if what == self._subject.lower():
            self._refused.append(f"{'publish to' if verb == 'publish' else 'subscribe to'} {self._subject}")

    def _check_rights(self) -> None:
        if self._refused:
            missing, self._refused = self._refused[0], []
            raise ConfigurationError(
                f"presence {self._subject!r}: this user may not {missing}; permit it on the server"
            ) from None

    async def _stream(self, client: WatchwordClient) -> str | None:
        """Return the stream that stores the subject; None if there is none, or this user may not ask."""
        question = json.dumps({"subject": self._subject}).encode()
        try:
            answer = await client.request("$JS.API.STREAM.NAMES", question, timeout=_SECONDS)
        except (errors.NoRespondersError, NotAllowed):
            return None
        names = json.loads(answer.data).get("streams") or []
        return str(names[0]) if names else None

    async def _coming(self, client: WatchwordClient, listen: float) -> AsyncGenerator[Any]:
        subscription = await client.subscribe(self._subject)
        await client.flush(timeout=int(_SECONDS))
        self._check_rights()
        end = time.monotonic() + listen
        while (left := end - time.monotonic()) > 0:
            with suppress(errors.TimeoutError):
                yield await subscription.next_msg(timeout=left)

    async def _stored(self, client: WatchwordClient, stream: str, since: float) -> AsyncGenerator[Any]:
        start = {
            "deliver_policy": DeliverPolicy.BY_START_TIME,
            "opt_start_time": datetime.fromtimestamp(since, UTC),
        }
        most = together(client.max_payload)
        async with temporary(client.jetstream(), stream, self._subject, **start) as (bound, info):
            left = info.num_pending or 0
            while left > 0:
                try:
                    batch = await bound.fetch(min(most, left), timeout=_SECONDS)
                except errors.TimeoutError:  # the rest has just expired
                    break
                for msg in batch:
                    left -= 1
                    yield msg


def together(largest: int) -> int:
    """Return how many messages to request at once, each of at most ``largest`` bytes."""
    return max(1, min(_BATCH, _PULL // largest))
