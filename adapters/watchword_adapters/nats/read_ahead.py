"""Judges the messages already queued for a callback together with the next one, in bulk."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from watchword import VerifiedMessage
from watchword_adapters.nats.look_ups import FRESH
from watchword_adapters.nats.reader import is_undetermined

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from watchword.signatures import CheckRunner
    from watchword_adapters.nats.reader import Judged, Reader

MOST: Final = 256
"""Most messages judged together: some whole trees, whose leaves are hashed only once. With 64 few are whole."""

MOST_BYTES: Final = 1 << 20
"""Most bytes of data judged together, apart from the first message's."""

PATIENCE: Final = 0.05
"""Seconds of look-ups after which no further key is looked up, so that no message waits for strangers' keys."""


class ReadAhead:
    """Verdicts on the first messages in the queue of one subscription.

    A message stays in the queue until its turn, and its verdict takes effect only then: the client's counts, limits,
    draining and drops are as if each were judged alone, and nothing waits for further messages.
    """

    def __init__(self, reader: Reader, queue: asyncio.Queue[Msg], check: CheckRunner) -> None:
        self._reader = reader
        self._verifier = reader.watchword.verifier
        self._queue = queue
        self._check = check
        self.judged: deque[Judged] = deque()
        """Judged messages whose turn has not come; for callers to inspect."""

        self._doubtful = False
        self._changes = 0

    def at_hand(self, raw: Msg) -> Msg | None:
        """Return the message for the handler, if ``raw`` is next, was verified, and its verdict is not too old."""
        judged = self.judged[0]
        if judged.raw is raw and isinstance(judged.verdict, VerifiedMessage) and not self._is_old(judged):
            del self.judged[0]
            return self._reader.deliver(raw, judged.verdict)
        return None

    async def judge(self, raw: Msg, *, exclusive: bool) -> Msg | None:
        """Return the message for the handler, as ``Reader.judge`` does; ``raw`` was taken off the queue.

        ``exclusive`` judges it alone.
        """
        if self.judged and self.judged[0].raw is not raw:  # it waited for its key, and has returned ahead of these
            return await self._reader.judge(raw)
        if not self.judged:
            if exclusive or self._queue.empty() or not self._reader.looks_ahead:
                return await self._reader.judge(raw)
            changes = self._verifier.changes
            self.judged.extend(await self._reader.judge_first(self._together(raw), self._check, patience=PATIENCE))
            self._doubtful = is_undetermined(self.judged[-1].verdict)
            self._changes = changes
        judged = self.judged.popleft()
        if self._is_old(judged):
            self._changes = self._verifier.changes
            judged, *behind = await self._reader.renew([judged, *self.judged], self._check)
            self.judged = deque(behind)
        return await self._reader.conclude(judged)

    def _is_old(self, judged: Judged) -> bool:
        """Return True if a verdict may no longer hold."""
        if self._verifier.changes != self._changes:
            return True
        return asyncio.get_running_loop().time() - judged.at >= FRESH

    def _together(self, raw: Msg) -> list[Msg]:
        """Return ``raw`` and the messages to judge with it: none during an outage, when that may be wasted."""
        together, size = [raw], 0
        if not self._doubtful:
            for waiting in self._queue._queue:  # type: ignore[attr-defined]  # noqa: SLF001 - read without taking
                size += len(waiting.data)
                if len(together) == MOST or size > MOST_BYTES:
                    break
                together.append(waiting)
        return together
