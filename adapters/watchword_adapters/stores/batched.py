"""Base class of the shared stores: batches claims, bounds their time, and opens the store on first use."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from math import ceil, inf
from threading import Lock
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, NamedTuple, Protocol, Self, TypeAlias

from pydantic import Field

from watchword import ConfigurationError
from watchword.replay import ReaderForgottenError, StoreError, how_to_admit
from watchword.settings import Duration, Section
from watchword.spi import Admission

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from types import TracebackType

    from watchword import Policy
    from watchword.replay import ReaderBirth
    from watchword.spi import Claim, Warn

TIMEOUT: Final = 2.0
PER_PRINCIPAL: Final = 10_000_000
MOST_TIMEOUT: Final = 60.0
GRACE: Final = 3 * MOST_TIMEOUT
"""Seconds for which an entry outlives its claim's ``keep_until``.

A claim is judged up to two time-outs after it was made, and a server's clock may be another one ahead, plus skew.
"""

_COOL_DOWN: Final = 0.2
"""Seconds for which a failure to open also fails later claims, so that not all of them try to connect."""
_TAG_BYTES: Final = 16
_ROUNDING: Final = 0.001
"""Rounding error of sums and differences of times, in seconds."""


class StoreOptions(Section):
    """Options of every shared store: ``timeout`` (of one claim) and ``per_principal`` (ids that one may hold)."""

    timeout: Annotated[Duration, Field(gt=0, le=MOST_TIMEOUT)] = TIMEOUT
    per_principal: Annotated[int, Field(gt=0)] = PER_PRINCIPAL


FORGOTTEN: Final = "forgotten"
"""An answer instead of an admission: the message was in the log before the store lost its entry of the reader."""

Refusal: TypeAlias = Literal[Admission.TOO_OLD, "forgotten"]
Answer: TypeAlias = "Admission | Literal['forgotten'] | StoreError"
"""A store's answer to one claim; an error if it cannot judge the claim."""


class Use(NamedTuple):
    """A claim as a store keeps it: 16-byte hashes of id, of position or arrival, and of principal.

    The second, ``mark``, is b"" for a claim that has neither. ``lives`` is until when an entry must be kept, in seconds
    since the epoch. ``log`` and ``offset`` are its position ("" and -1 without one); ``appended`` is the earliest time
    at which it was appended (minus infinity if unknown).
    """

    key: bytes
    mark: bytes
    owner: bytes
    issued_at: int
    lives: float
    reader: str
    log: str
    offset: int
    appended: float


class Born(Protocol):
    """A store's entry of a reader; see ``ReaderBirth``."""

    @property
    def floor(self) -> float:
        """The time of issue up to which an unknown id is too old."""
        ...

    @property
    def accepted(self) -> Mapping[str, tuple[int, float]]:
        """The backlogs that are exempt from the floor."""
        ...


class NoAnswerError(StoreError, TimeoutError):
    """The store did not answer a claim in time."""


class _Waiting(NamedTuple):
    claim: Claim
    future: asyncio.Future[Admission]
    since: float

    def tell(self, answer: Admission | Literal["forgotten"] | Exception) -> None:
        """Complete the claim with an answer, unless it was cancelled."""
        if self.future.done():
            return
        if answer == FORGOTTEN:
            answer = ReaderForgottenError(self.claim.reader)
        if isinstance(answer, Exception):
            self.future.set_exception(answer)
        else:
            self.future.set_result(answer)


class BatchedReplayStore(ABC):
    """A replay store that several processes share, and that judges many claims at once.

    Claims collected in one turn of the event loop are sent as one batch; while ``flights`` batches are pending, the
    next one collects. A claim waits at most ``timeout`` seconds, is pending for at most as long, and then raises
    NoAnswerError. It may have been stored all the same: the same claim is then REDELIVERED later, by its position or
    its arrival.

    Two floors ensure that an id that a store has lost is not taken for new. A message appended more than ``max_lag``
    ago is TOO_OLD, and entries live longer than that. And a store records a birth for each reader, and a mark since its
    own beginning: if it may have lost ids, it is reborn and knows no readers any more.

    It opens at the first claim; ``start`` opens it earlier, and raises what is wrong with it. It serves one event loop
    at a time: another one may use it once that one has ended or has closed it. ``policy`` must be the same for all that
    share it, ``realm`` separates readers of the same name in two clusters, ``clock`` returns seconds since the epoch,
    and ``warn`` is called for readers that were lost.
    """

    flights: ClassVar[int] = 1
    most: ClassVar[int] = 500
    """Most claims in one batch."""

    def __init__(
        self,
        *,
        policy: Policy,
        clock: Callable[[], float],
        timeout: float = TIMEOUT,
        per_principal: int = PER_PRINCIPAL,
        realm: str = "",
        warn: Warn | None = None,
    ) -> None:
        if not 0 < timeout <= MOST_TIMEOUT:
            raise ConfigurationError(f"timeout of {timeout:g} s: write more than 0 and at most {MOST_TIMEOUT:g} s")
        if per_principal < 1:
            raise ConfigurationError(f"per_principal of {per_principal}: write at least 1")
        self._clock: Final = clock
        self._max_skew: Final = policy.max_skew
        self._max_lag: Final = policy.max_lag
        self._lifetime: Final = ceil(policy.longest + GRACE)
        self._realm: Final = realm
        self._warn: Final = warn
        self._told: dict[str, float] = {}
        self._turns: Final = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timeout: Final = timeout
        self._per_principal: Final = per_principal
        self._adopt(None)

    @property
    @abstractmethod
    def where(self) -> str:
        """The store's location for error texts, without a password."""

    async def birth(self, reader: str) -> ReaderBirth | None:
        """See ``SharedReplayStore.birth``."""
        async with self._at_work():
            return await self._birth_of(self._known_as(reader))

    async def admit_reader(self, reader: str, birth: ReaderBirth, *, replace: bool = False) -> ReaderBirth:
        """See ``SharedReplayStore.admit_reader``."""
        async with self._at_work():
            return await self._admit(self._known_as(reader), birth, replace=replace)

    async def claim(self, claim: Claim) -> Admission:
        """See ``ReplayStore.claim``; after an exception, it is unknown whether the claim was stored."""
        return await self._asked(claim)

    async def claim_many(self, claims: Sequence[Claim]) -> Sequence[Admission | BaseException]:
        """See ``BulkStore.claim_many``; each is atomic by itself."""
        return await asyncio.gather(*[self._asked(claim) for claim in claims], return_exceptions=True)

    def _asked(self, claim: Claim) -> asyncio.Future[Admission]:
        """Queue a claim, and return the future of its answer."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Admission] = loop.create_future()
        if claim.reference < self._clock() - self._max_lag:
            future.set_result(Admission.TOO_OLD)
            return future
        self._serve(loop)
        self._waiting.append(_Waiting(claim, future, loop.time()))
        if len(self._tasks) < self.flights:
            self._tasks.add(loop.create_task(self._fly()))
        return future

    async def start(self) -> None:
        """Open the store now; ConfigurationError says which setting keeps it from being trusted."""
        async with self._at_work(again=True):
            pass

    async def close(self) -> None:
        """Close the store after pending claims; a later claim opens it again."""
        self._serve(asyncio.get_running_loop())
        await asyncio.gather(*self._tasks, return_exceptions=True)
        async with self._opening:
            self._opened = False
            await self._close()
        if not (self._tasks or self._waiting):
            self._loop = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    async def _open(self) -> None:
        """Connect, and check that the store can be trusted."""

    @abstractmethod
    async def _judge(self, uses: Sequence[Use]) -> Sequence[Answer]:
        """Answer each claim, in order; claims of one batch count for each other."""

    @abstractmethod
    async def _birth_of(self, reader: str) -> ReaderBirth | None:
        """See ``birth``."""

    @abstractmethod
    async def _admit(self, reader: str, birth: ReaderBirth, *, replace: bool) -> ReaderBirth:
        """See ``admit_reader``."""

    @abstractmethod
    async def _close(self) -> None:
        """Disconnect."""

    @abstractmethod
    def _abandon(self) -> None:
        """Drop what belonged to a previous event loop."""

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve ``loop`` from now on; ConfigurationError while another one runs, whose claims would be lost."""
        if loop is self._loop:
            return
        with self._turns:
            if self._loop is not None and self._loop.is_running():
                raise ConfigurationError(
                    f"this {type(self).__name__} serves another event loop that is running: create a separate Watchword"
                    " in each thread, or close the store there first"
                )
            self._adopt(loop)

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
                    answers = await self._judge([self._use(waiting.claim) for waiting in batch])
                if len(answers) != len(batch):
                    raise StoreError("the store returned a wrong number of answers")  # noqa: TRY301
            except Exception as error:  # noqa: BLE001 - raised by every claim of the batch
                told = self._no_answer() if isinstance(error, TimeoutError) else error
                for waiting in batch:
                    waiting.tell(told)
            else:
                for waiting, answer in zip(batch, answers, strict=True):
                    waiting.tell(answer)
        # Here, and not when the task is done: a claim that arrives in between needs a new task.
        self._tasks.discard(asyncio.current_task())

    def _take(self) -> list[_Waiting]:
        """Take the next batch, without claims that were cancelled or have waited too long."""
        batch: list[_Waiting] = []
        since = asyncio.get_running_loop().time() - self._timeout
        while self._waiting and len(batch) < self.most:
            waiting = self._waiting.popleft()
            if waiting.since < since and not waiting.future.done():
                waiting.future.set_exception(self._no_answer())
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

    @asynccontextmanager
    async def _at_work(self, *, again: bool = False) -> AsyncIterator[None]:
        """Open the store if need be, and bound the time of the block."""
        self._serve(asyncio.get_running_loop())
        try:
            async with asyncio.timeout(self._timeout):
                await self._be_open(again=again)
                yield
        except TimeoutError:
            raise self._no_answer() from None

    def _no_answer(self) -> NoAnswerError:
        return NoAnswerError(
            f"{self.where}: no answer within {self._timeout:g} s; if it is up, but slow or far away, write a longer"
            " timeout under [replay]"
        )

    def _noted(self, birth: float, unknown: Collection[str]) -> None:
        """Warn once about each reader that is unknown to a store born at ``birth``."""
        for reader in unknown:
            if self._told.get(reader) == birth:
                continue
            self._told[reader] = birth
            if self._warn is not None:
                until = datetime.fromtimestamp(birth + self._max_skew, UTC).isoformat(timespec="seconds")
                name = self._name_of(reader)
                self._warn(
                    "replay.store_forgot",
                    store=type(self).__name__,
                    reader=name,
                    judged_if_issued_after=until,
                    remedy=how_to_admit(name),
                )

    def _longest(self, uses: Sequence[Use]) -> int:
        """Return for how many seconds after their issue these ids, and all others in the store, must be kept."""
        asked = max(use.lives - use.issued_at for use in uses)
        return max(self._lifetime, ceil(asked - _ROUNDING))

    def _known_as(self, reader: str) -> str:
        return f"{self._realm}/{reader}"  # a realm has no "/"

    def _name_of(self, known_as: str) -> str:
        return known_as[len(self._realm) + 1 :]

    def _use(self, claim: Claim) -> Use:
        mark, log, offset, stamp = b"", "", -1, None
        if claim.place is not None:
            position, stamp = claim.place
            log, offset = position.log, position.offset
            mark = _tag(claim.digest, _bytes(log), repr((offset, stamp)).encode())
        elif claim.arrival is not None:
            mark = _tag(claim.digest, claim.arrival)
        appended = claim.appended_after if stamp is None else stamp
        return Use(
            # The time of issue is part of an id's identity (docs/spec.md, section "Replay").
            key=_tag(_bytes(claim.scope), _bytes(claim.principal), claim.id, str(claim.issued_at).encode()),
            mark=mark,
            owner=_tag(_bytes(claim.principal)),
            issued_at=claim.issued_at,
            lives=claim.keep_until + GRACE,
            reader=self._known_as(claim.reader),
            log=log,
            offset=offset,
            appended=-inf if appended is None else appended,
        )


def refusal(use: Use, known: Born | None, *, birth: float, max_skew: float) -> Refusal | None:
    """Return why an id that a store does not know is not new for its reader; None if it is new.

    ``birth`` is the store's own: an id issued after it, by any clock, cannot have been claimed before.
    """
    if known is not None:
        is_new = use.issued_at > known.floor or _is_accepted(use, known)
        return None if is_new else Admission.TOO_OLD
    if use.issued_at > birth + max_skew:
        return None
    # A message appended after the birth but issued before it is a copy, or was published too late.
    return Admission.TOO_OLD if not use.log or use.appended > birth + max_skew else FORGOTTEN


def _is_accepted(use: Use, known: Born) -> bool:
    offset, appended = known.accepted.get(use.log, (-1, -inf)) if use.log else (-1, -inf)
    return 0 <= use.offset <= offset and use.appended <= appended


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _tag(*parts: bytes) -> bytes:
    # Lengths first, so that no byte can move from one part to the next. Hitting another principal's id would take a
    # second preimage of 128 bits; a collision of two own ids harms no one else.
    return sha256(b"".join(len(part).to_bytes(4) + part for part in parts)).digest()[:_TAG_BYTES]
