"""A producer for transactions that outlives their failures."""

from __future__ import annotations

import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from aiokafka.errors import KafkaError

from chaos.cast import speaker
from watchword import SigningError, Unavailable
from watchword_adapters.kafka import SigningProducer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chaos.plan import Plan

FAILURES: Final = (KafkaError, SigningError, Unavailable)

_TIMEOUT_MS: Final = 15_000
"""So long the broker waits for a producer that does not come back before it aborts what that left open."""


class Transactor:
    """Sends in transactions as one principal; its producer is recreated after each failure, as a fatal one demands."""

    def __init__(self, plan: Plan, principal: str, name: str) -> None:
        self._plan = plan
        self._principal = principal
        self._name = f"{plan.channel}-{name}"
        self._producer: Any = None  # aiokafka does not annotate what transactions need

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(*FAILURES):
                await producer.stop()

    @asynccontextmanager
    async def transaction(self, *, aborted: bool) -> AsyncIterator[Any]:
        """Begin a transaction, and commit or abort it at the end; after an error nobody knows how it ended."""
        try:
            if self._producer is None:
                producer: Any = SigningProducer(
                    bootstrap_servers=self._plan.address,
                    watchword=speaker(self._plan, self._principal),
                    transactional_id=self._name,
                    transaction_timeout_ms=_TIMEOUT_MS,
                )
                await producer.start()
                self._producer = producer
            await self._producer.begin_transaction()
            yield self._producer
            await (self._producer.abort_transaction() if aborted else self._producer.commit_transaction())
        except FAILURES:
            await self.__aexit__()
            raise
