"""A temporary consumer, by which stored messages are read without a trace: nothing is acknowledged or kept."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from nats import errors
from nats.js.api import AckPolicy, ConsumerConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats.js.api import ConsumerInfo

    from watchword_adapters.nats.jetstream import VerifyingJetStream

_IDLE: Final = 30.0
"""Seconds after which the server deletes an abandoned consumer."""


@asynccontextmanager
async def temporary(
    context: VerifyingJetStream, stream: str, subject: str, **start: Any
) -> AsyncIterator[tuple[Any, ConsumerInfo]]:
    """Read ``subject`` of a stream from ``start`` on: yields the pull subscription, and its consumer as it was created.

    ``start`` are settings of nats-py's ConsumerConfig. Raises the client's errors.
    """
    config = ConsumerConfig(**start, ack_policy=AckPolicy.NONE, inactive_threshold=_IDLE)
    bound = await context.pull_subscribe(subject, stream=stream, config=config)
    try:
        info = await bound.consumer_info()
        try:
            yield bound, info
        finally:
            with suppress(errors.Error):  # otherwise the server deletes it
                await context.delete_consumer(stream, info.name)
    finally:
        await bound.unsubscribe()
