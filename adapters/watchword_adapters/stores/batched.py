"""What the shared stores have in common: claims gathered into batches, bounded in time, opened when first needed."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, NamedTuple, Self

from pydantic import Field

from watchword import Admission, ConfigurationError
from watchword.settings import Duration, Section

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from watchword import Claim, Policy
    from watchword_adapters.plugins import Warn

TIMEOUT: Final = 2.0
PER_PRINCIPAL: Final = 10_000_000
MOST_TIMEOUT: Final = 60.0
GRACE: Final = 3 * MOST_TIMEOUT
"""Seconds for which an entry outlives its claim's ``keep_until``.

A claim is judged up to two time-outs after it was made, and a server's clock may be one more ahead, beyond the skew.
"""

_COOL_DOWN: Final = 0.2
"""Seconds for which a failure to open speaks for the claims that follow, so that they do not all knock."""
_TAG_BYTES: Final = 16


class StoreOptions(Section):
    """Options of every shared store: ``timeout`` (of one claim) and ``per_principal`` (ids that one may hold)."""

    timeout: Annotated[Duration, Field(gt=0, le=MOST_TIMEOUT)] = TIMEOUT
    per_principal: Annotated[int, Field(gt=0)] = PER_PRINCIPAL


class StoreError(Exception):
    """The store does not answer as it should; the verifier makes ``Unavailable`` of it."""


class Use(NamedTuple):
    """What a store keeps of a claim: 16 bytes each for id, claims at their place (b"" if it has none) and principal.

    ``lives`` is until when an entry must be kept, in seconds since the epoch.
    """

    key: bytes
    mark: bytes
    owner: bytes
    issued_at: int
    lives: float


class _Waiting(NamedTuple):
    claim: Claim
    future: asyncio.Future[Admission]
    since: float


class BatchedReplayStore(ABC):
    """A replay store that several processes share, to which many claims go at once.

    What has gathered when the event loop comes round goes out as one batch; while ``flights`` batches are out, the
    next one gathers. A claim waits at most ``timeout`` seconds, is out at most as long, and then raises TimeoutError.
    It may have been remembered all the same, which at its own place makes it an honest redelivery later.

    Two floors make sure that what a store no longer knows is not taken for new. What was appended more than
    ``max_lag`` ago is TOO_OLD, and an entry outlives that. And a store bears a birth mark: what was issued up to
    ``max_skew`` after its birth and is not known is TOO_OLD, for the store that was there before may have known it.

    It opens by itself at the first claim; ``start`` opens it earlier, and says what is wrong with it. It serves one
    event loop at a time. ``policy`` is that of all who share it, ``clock`` returns seconds since the epoch, ``warn`` is
    told of births.
    """

    shared: Final = True
    """Tells ``config.load`` that all who read share it."""

    flights: ClassVar[int] = 1
    most: ClassVar[int] = 500
    """Claims in one batch."""

    def __init__(
        self,
        *,
        policy: Policy,
        clock: Callable[[], float],
        timeout: float = TIMEOUT,
        per_principal: int = PER_PRINCIPAL,
        warn: Warn | None = None,
    ) -> None:
        if not 0 < timeout <= MOST_TIMEOUT:
            raise ConfigurationError(f"timeout of {timeout:g} s: choose more than 0 and at most {MOST_TIMEOUT:g} s")
        if per_principal < 1:
            raise ConfigurationError(f"per_principal of {per_principal}: choose at least 1")
        self._clock: Final = clock
        self._max_skew: Final = policy.max_skew
        self._max_lag: Final = policy.max_lag
        self._lifetime: Final = policy.window + policy.max_lag + GRACE
        self._warn: Final = warn
        self._birth: float | None = None
        self._timeout: Final = timeout
        self._per_principal: Final = per_principal
        self._adopt(None)

    async def claim(self, claim: Claim) -> Admission:
        """See ``ReplayStore.claim``; any exception means that nothing is known of the claim."""
        return await self._asked(claim)

    async def claim_many(self, claims: Sequence[Claim]) -> Sequence[Admission]:
        """See ``BulkStore.claim_many``; each is atomic by itself.

        Any exception means that of some nothing is known. They may have been remembered all the same, as in ``claim``.
        """
        return await asyncio.gather(*[self._asked(claim) for claim in claims])

    def _asked(self, claim: Claim) -> asyncio.Future[Admission]:
        """Put a claim to those that wait, and return what its answer is put into."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Admission] = loop.create_future()
        if claim.reference < self._clock() - self._max_lag:
            future.set_result(Admission.TOO_OLD)
            return future
        if loop is not self._loop:
            self._adopt(loop)
        self._waiting.append(_Waiting(claim, future, loop.time()))
        if len(self._tasks) < self.flights:
            self._tasks.add(loop.create_task(self._fly()))
        return future

    async def start(self) -> None:
        """Open the store now; ConfigurationError says what must be set otherwise before it can be trusted."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._adopt(loop)
        async with asyncio.timeout(self._timeout):
            await self._be_open(again=True)

    async def close(self) -> None:
        """Let go of the store, after the claims that are under way; a later claim opens it again."""
        if asyncio.get_running_loop() is not self._loop:
            self._adopt(None)
            return
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._shut()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    async def _open(self) -> None:
        """Connect and check that the store can be trusted."""

    @abstractmethod
    async def _judge(self, uses: Sequence[Use]) -> Sequence[Admission]:
        """Answer each claim, in order; claims of one batch see each other."""

    @abstractmethod
    async def _close(self) -> None:
        """Disconnect."""

    @abstractmethod
    def _abandon(self) -> None:
        """Drop what belonged to an event loop that is no more."""

    def _adopt(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._waiting: deque[_Waiting] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening = asyncio.Lock()
        self._opened = False
        self._failed: tuple[float, Exception] | None = None
        self._abandon()

    async def _fly(self) -> None:
        while batch := self._take():
            try:
                async with asyncio.timeout(self._timeout):
                    await self._be_open()
                    answers = await self._judge([_use(waiting.claim) for waiting in batch])
                if len(answers) != len(batch):
                    raise StoreError("the store gave another number of answers than was asked for")  # noqa: TRY301
            except Exception as error:  # noqa: BLE001 - told to every claim of the batch
                for waiting in batch:
                    if not waiting.future.done():
                        waiting.future.set_exception(error)
            else:
                for waiting, answer in zip(batch, answers, strict=True):
                    if not waiting.future.done():
                        waiting.future.set_result(answer)
        # At once, and not when the loop finds the task done: a claim that comes in between needs another.
        self._tasks.discard(asyncio.current_task())

    def _take(self) -> list[_Waiting]:
        """Take the next batch; who has given up meanwhile, or waits for too long, is not asked for."""
        batch: list[_Waiting] = []
        since = asyncio.get_running_loop().time() - self._timeout
        while self._waiting and len(batch) < self.most:
            waiting = self._waiting.popleft()
            if waiting.since < since and not waiting.future.done():
                waiting.future.set_exception(TimeoutError("the store is behind"))
            if not waiting.future.done():
                batch.append(waiting)
        return batch

    async def _be_open(self, *, again: bool = False) -> None:
        if self._is_open():
            return
        async with self._opening:
            if self._is_open():
                return
            if not again and self._failed is not None and time.monotonic() < self._failed[0] + _COOL_DOWN:
                raise self._failed[1]
            try:
                await self._open()
            except Exception as error:
                self._failed = (time.monotonic(), error)
                raise
            self._opened, self._failed = True, None

    def _is_open(self) -> bool:
        return self._opened

    def _is_born(self, birth: float) -> None:
        """Note the birth mark, and warn of one that makes honest messages stale."""
        if birth == self._birth:
            return
        anew, self._birth = self._birth is not None, birth
        floor = birth + self._max_skew
        if self._warn is not None and (anew or floor > self._clock()):
            self._warn("replay.store_born", store=type(self).__name__, stale_if_issued_up_to=floor)

    async def _shut(self) -> None:
        async with self._opening:
            self._opened = False
            await self._close()


def too_old(use: Use, birth: float, max_skew: float) -> bool:
    """Tell whether a store that was born at ``birth`` may not vouch for an id that it does not know."""
    return use.issued_at <= birth + max_skew


def _use(claim: Claim) -> Use:
    mark = b""
    if claim.place is not None:
        position, stamp = claim.place
        mark = _tag(claim.digest, _bytes(position.log), repr((position.offset, stamp)).encode())
    return Use(
        # The issue time counts to an id's identity (docs/spec.md, section "Replay").
        key=_tag(_bytes(claim.scope), _bytes(claim.principal), claim.id, str(claim.issued_at).encode()),
        mark=mark,
        owner=_tag(_bytes(claim.principal)),
        issued_at=claim.issued_at,
        lives=claim.keep_until + GRACE,
    )


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _tag(*parts: bytes) -> bytes:
    # Lengths first, so that no byte can move from one part to the next. Another's id cannot be hit: that would be a
    # second preimage of 128 bits; two of one's own that collide harm nobody else.
    return sha256(b"".join(len(part).to_bytes(4) + part for part in parts)).digest()[:_TAG_BYTES]
