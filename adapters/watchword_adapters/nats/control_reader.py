"""Follows a stream from a position on: every entry once, in order, across lost connections and consumers.

The consumer is ephemeral; our own position is what counts. A pull request waits at the server, so that an entry arrives
as soon as it is stored. One request is pending at a time, and the next is sent when its messages were taken, so that
nothing piles up here. Any loss (of the connection, the consumer, or a delivery) is handled alike: a new consumer
continues from our position.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from nats import errors
from nats.js.errors import APIError

from watchword import Unavailable
from watchword.endings import delay_after
from watchword.message import channel_of
from watchword.spi import Message, Position
from watchword_adapters.control.log import TOGETHER, End
from watchword_adapters.nats.headers import CONTROL, block_of
from watchword_adapters.nats.message import delivery_at
from watchword_adapters.nats_rights import NotAllowed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    from nats.aio.msg import Msg

    from watchword_adapters.nats.client import WatchwordClient
    from watchword_adapters.nats.subscription import VerifyingSubscription

_NANOSECONDS: Final = 1_000_000_000
_WAIT: Final = 30
"""Seconds for which the server holds a pull request, and keeps an inactive consumer."""

_HEARTBEAT: Final = 2
"""Seconds between the server's heartbeats while idle; twice as long without one means that all is lost."""

_SECONDS: Final = 5.0
"""Time limit for a response of the server."""

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
_MOST_TRIES: Final = 10
"""Consumers that are created in a row without a message from any before giving up, after some 12 s."""

_EXPIRED: Final = frozenset({"404", "408"})


class StreamFollower:
    """Reads one stream for one caller; ``found`` returns the stream's name and end, and refuses another log.

    An async context, which deletes its consumer on exit.
    """

    def __init__(
        self,
        client: WatchwordClient,
        subject: str,
        position: int,
        found: Callable[[], Awaitable[tuple[str, End]]],
    ) -> None:
        self._client: Final = client
        self._subject: Final = subject
        self._found: Final = found
        self._position = position
        self._seen = 0  # where the log ended when the consumer was made
        self._stream = self._consumer = self._inbox = ""
        self._deliveries: VerifyingSubscription | None = None
        self._connection: asyncio.Future[None] | None = None
        self._number = 0
        self._awaited = 0
        self._tries = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end_consumer(for_good=True)

    async def next(self) -> tuple[Sequence[Message], int]:
        """Wait for entries; return at most TOGETHER, and the position after them.

        The list is empty if the log has no entries between the old position and the new one.
        """
        while True:
            if self._deliveries is None or (self._connection is not None and self._connection.done()):
                before = self._position
                await self._begin()
                if self._position > before:
                    return (), self._position
                continue
            if not self._awaited:
                await self._ask_for_more()
            entries: list[Message] = []
            before = self._position
            raw = await self._first()
            while raw is not None:
                if not self._take(raw, entries):
                    await self._end_consumer()
                    break
                more = self._deliveries.can_take and len(entries) < TOGETHER
                raw = self._deliveries.taken() if more else None
            if self._position > before:
                self._tries = 0
                return entries, self._position

    async def _begin(self) -> None:
        """Create a consumer from our position on; retries while a server restarts."""
        await self._end_consumer()
        while True:
            self._tries += 1
            if self._tries > _MOST_TRIES:
                raise Unavailable("control", f"stream {self._stream!r} does not deliver")
            if self._tries > 1:
                await asyncio.sleep(delay_after(self._tries - 2, _FIRST_PAUSE, _LONGEST_PAUSE))
            try:
                await self._make_consumer()
            except NotAllowed:
                raise
            except (errors.TimeoutError, errors.NoRespondersError, APIError) as error:
                if self._client.is_closed:
                    raise errors.ConnectionClosedError from error
                if self._tries == _MOST_TRIES:
                    raise
                if isinstance(error, APIError) and (error.code or 0) < 500:  # noqa: PLR2004 - the server's own failure
                    raise
            else:
                return

    async def _make_consumer(self) -> None:
        self._connection = self._client.next_connection()
        self._stream, end = await self._found()
        if self._position > end.next:
            raise Unavailable("control", f"the log ends before position {self._position}, at {end.next}")
        self._consumer, self._inbox = self._client.token(), self._client.new_inbox()
        start = max(self._position, end.first)
        config = {
            "name": self._consumer,
            "filter_subject": self._subject,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": start,
            "ack_policy": "none",
            "inactive_threshold": _WAIT * _NANOSECONDS,
            "mem_storage": True,
            "num_replicas": 1,
        }
        made = await self._client.request(
            f"$JS.API.CONSUMER.CREATE.{self._stream}.{self._consumer}.{self._subject}",
            json.dumps({"stream_name": self._stream, "config": config}).encode(),
            timeout=_SECONDS,
        )
        answer: dict[str, Any] = json.loads(made.data)
        if "error" in answer:
            raise APIError.from_error(answer["error"])
        self._deliveries = await self._client.open(self._inbox, reader=None)
        self._number = self._awaited = 0
        self._seen = end.next
        self._position = end.next if not answer["num_pending"] else start

    async def _ask_for_more(self) -> None:
        question = {
            "batch": TOGETHER,
            "expires": _WAIT * _NANOSECONDS,
            "idle_heartbeat": _HEARTBEAT * _NANOSECONDS,
        }
        self._awaited = TOGETHER
        await self._client.publish(self._next, json.dumps(question).encode(), reply=self._inbox)

    @property
    def _next(self) -> str:
        return f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"

    async def _first(self) -> Msg | None:
        """Wait for the next message; None if the consumer or the connection is lost."""
        assert self._deliveries is not None  # noqa: S101 - for the type checker: set by _begin
        assert self._connection is not None  # noqa: S101 - as above
        if self._deliveries.can_take:
            return self._deliveries.taken()
        coming = asyncio.ensure_future(
            self._client.requests.unless_refused(self._next, self._deliveries.next_msg(2 * _HEARTBEAT + 1))
        )
        try:
            await asyncio.wait((coming, self._connection), return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                return coming.result()
        except NotAllowed:
            raise
        except errors.TimeoutError:
            if self._client.is_reconnecting:  # then the connection ends the wait
                return None
            await self._end_consumer()
        finally:
            if not coming.done():
                coming.cancel()
                await asyncio.wait((coming,))
        return None

    def _take(self, raw: Msg, entries: list[Message]) -> bool:
        """Handle a message; return False if the consumer is lost, or has lost a delivery."""
        block = block_of(raw)
        if block.status is not None:
            self._tries = 0 if block.status == CONTROL else self._tries
            self._awaited = self._awaited if block.status == CONTROL else 0
            return block.status in _EXPIRED or block.status == CONTROL
        delivery = delivery_at(raw.reply)
        if delivery is None or delivery.by != (self._stream, self._consumer) or delivery.number <= self._number:
            return True  # not from our consumer
        if delivery.number > self._number + 1:
            return False
        self._number += 1
        self._awaited -= 1
        if delivery.sequence >= self._position:
            entries.append(
                Message(
                    channel=channel_of("nats", self._client.watchword.realm, raw.subject),
                    value=raw.data,
                    headers=() if block.fault else block.pairs,  # nothing in a malformed block can be trusted
                    position=Position(self._stream, delivery.sequence),
                    appended_at=delivery.stamp / _NANOSECONDS,
                )
            )
            self._position = delivery.sequence + 1
        if not delivery.pending:  # everything that was there when the consumer was created has been read
            self._position = max(self._position, self._seen)
        return True

    async def _end_consumer(self, *, for_good: bool = False) -> None:
        deliveries, self._deliveries = self._deliveries, None
        if deliveries is None or self._client.is_closed:
            return
        with suppress(errors.Error):
            await deliveries.unsubscribe()
            if for_good and self._client.is_connected:  # otherwise the server deletes it
                delete = f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._consumer}"
                await self._client.request(delete, timeout=1.0)
