"""Judges for a callback, together with the message whose turn it is, what waits behind that one already."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from watchword import VerifiedMessage
from watchword_adapters.freshness import FRESH
from watchword_adapters.nats.reader import is_undetermined

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from watchword.signatures import CheckRunner
    from watchword_adapters.nats.reader import Judged, Reader

MOST: Final = 256
"""Messages judged together: some full trees, of which each leaf is hashed but once. With 64 few trees come whole."""

MOST_BYTES: Final = 1 << 20
"""Bytes of data judged together at most, beside the first message's."""

PATIENCE: Final = 0.05
"""Seconds of looking for keys behind which no other is looked for: no message is to wait for strangers' keys."""


class ReadAhead:
    """Verdicts on the messages that stand first in the queue of one subscription.

    A message stays in the queue until its turn, and so does everything that its verdict brings about: what the client
    counts, limits, drains and drops is as if each were judged alone, and nothing waits for anything to come.
    """

    def __init__(self, reader: Reader, queue: asyncio.Queue[Msg], check: CheckRunner) -> None:
        self._reader = reader
        self._verifier = reader.watchword.verifier
        self._queue = queue
        self._check = check
        self.judged: deque[Judged] = deque()
        """What was judged and has not had its turn, for those who look."""

        self._doubtful = False
        self._changes = 0

    def at_hand(self, raw: Msg) -> Msg | None:
        """Return what the handler may have of ``raw``, if it is the next one, has verified, and that still stands."""
        judged = self.judged[0]
        if judged.raw is raw and isinstance(judged.verdict, VerifiedMessage) and not self._is_old(judged):
            del self.judged[0]
            return self._reader.deliver(raw, judged.verdict)
        return None

    async def judge(self, raw: Msg, *, exclusive: bool) -> Msg | None:
        """Return what the handler may have of ``raw``, which was taken off the queue, as ``Reader.judge`` does.

        ``exclusive`` lets nothing more be judged with it.
        """
        if self.judged and self.judged[0].raw is not raw:  # it waited for its key, and has come back before these
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
        """Return True for a verdict that may not stand any more."""
        if self._verifier.changes != self._changes:
            return True
        return asyncio.get_running_loop().time() - judged.at >= FRESH

    def _together(self, raw: Msg) -> list[Msg]:
        """Return ``raw`` and what is judged with it: nothing while an outage lasts, where it may be in vain."""
        together, size = [raw], 0
        if not self._doubtful:
            for waiting in self._queue._queue:  # type: ignore[attr-defined]  # noqa: SLF001 - a look, and nothing is taken
                size += len(waiting.data)
                if len(together) == MOST or size > MOST_BYTES:
                    break
                together.append(waiting)
        return together
