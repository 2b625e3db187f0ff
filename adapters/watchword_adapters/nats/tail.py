"""Follows a subject or a stream for ``watchword tail``: acknowledges nothing, and uses its own consumer."""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any, Final

from nats import errors
from nats.js.api import DeliverPolicy
from nats.js.errors import APIError

from watchword import ConfigurationError
from watchword_adapters.nats.client import connect
from watchword_adapters.nats.message import ObservedMsg
from watchword_adapters.nats.temporary import temporary
from watchword_adapters.nats_rights import NotAllowed, refused_right
from watchword_adapters.redriving import onlooker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from watchword import Watchword
    from watchword.spi import Message
    from watchword_adapters.nats.client import WatchwordClient

_BATCH: Final = 100
_ROUND: Final = 5.0


async def tail(
    subject: str,
    *,
    watchword: Watchword,
    stream: str | None,
    from_start: bool,
    ready: Callable[[], None],
    **options: Any,
) -> AsyncGenerator[Message]:
    """Yield the messages on a subject, which may have wildcards, as they arrive, unverified.

    With a ``stream`` these are the messages it stores, with sequence and time; with ``from_start``, all that it has.
    ``ready`` is called once no further message will be missed. ``options`` are nats-py's connection options.
    ConfigurationError if the stream cannot be followed; the client's errors.
    """
    refused: list[str] = []

    async def hear(error: Exception) -> None:
        """Record that the server refuses the subscription, which nats-py reports only here."""
        verb, what = refused_right(str(error))
        if verb == "subscription" and what == subject.lower():
            refused.append(f"subscribe to {subject}")

    client = await connect(watchword=onlooker(watchword), error_cb=hear, **options)
    try:
        if stream is None:
            subscription = await client.subscribe(subject)
            await client.flush()  # a refusal arrives before the response to this
            if refused:
                raise NotAllowed(*refused)
            ready()
            async for msg in subscription.messages:
                if isinstance(msg, ObservedMsg):
                    yield msg.message
            raise errors.ConnectionClosedError
        async with aclosing(_stored(client, stream, subject, from_start=from_start, ready=ready)) as found:
            async for stored in found:
                yield stored.message
    finally:
        await client.close()


async def _stored(
    client: WatchwordClient, stream: str, subject: str, *, from_start: bool, ready: Callable[[], None]
) -> AsyncGenerator[ObservedMsg]:
    policy = DeliverPolicy.ALL if from_start else DeliverPolicy.NEW
    async with AsyncExitStack() as stack:
        try:
            reading = temporary(client.jetstream(), stream, subject, deliver_policy=policy)
            bound, _ = await stack.enter_async_context(reading)
        except APIError as error:  # no such stream, or a WorkQueue, where reading removes messages
            raise ConfigurationError(
                f"stream {stream!r}: {error.description or 'this server has no JetStream'};"
                " omit --stream to follow the subject"
            ) from None
        ready()
        while True:
            try:
                batch = await bound.fetch(_BATCH, timeout=_ROUND)
            except NotAllowed:
                raise
            except errors.TimeoutError:
                continue
            for msg in batch:
                if isinstance(msg, ObservedMsg):
                    yield msg
