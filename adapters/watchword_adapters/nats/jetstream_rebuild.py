"""Rebuilds the replay memory of a consumer read by one process, by rereading its stream (docs/replay.md)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nats.errors import ConnectionClosedError, Error
from nats.js import api
from nats.js.errors import NotFoundError

from watchword import ConfigurationError, Unavailable, WatchwordError
from watchword.endings import FIRST_DELAY, Outage, delay_after
from watchword.stream_life import StreamFacts
from watchword_adapters.nats._seam import BasePullSubscription, asked, manager_of
from watchword_adapters.nats.deliveries import Deliveries
from watchword_adapters.nats.message import sequence_of
from watchword_adapters.nats_rights import NotAllowed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from nats.aio.msg import Msg
    from nats.js import JetStreamContext, JetStreamManager

    from watchword.signatures import CheckRunner
    from watchword.stream_life import Beginning
    from watchword_adapters.nats.client import WatchwordClient
    from watchword_adapters.nats.jetstream_reader import StreamReader

_BATCH: Final = 500
_SECONDS: Final = 5.0
"""Time limit for a batch, in seconds; the server deletes an abandoned rebuild consumer after ten times that."""

_ANEW: Final = 60.0
"""Seconds by which a floor must exceed the last one that was logged to be logged too."""

MOST_DELETED: Final = 100_000
"""Most deleted messages that are listed; if there are more, every message may be gone."""


class _Look(NamedTuple):
    """The progress of a consumer at one time."""

    at: float
    created: str
    delivered: int
    number: int
    acknowledged: int
    subjects: tuple[str, ...]


class _State(NamedTuple):
    """What a stream has lost: messages before ``first``, and those ``deleted`` singly; None if too many to list.

    ``last`` is the highest sequence assigned, at ``last_at``; ``kept`` is the number of messages in the stream.
    """

    created: str
    begins_at: int
    first: int
    last: int
    last_at: float
    kept: int
    deleted: list[int] | None

    def last_gone(self, had: float, *, end: float = inf) -> int:
        """Return the highest lost sequence below ``end``, else 0; single deletions count only up to ``had``."""
        if not self.last or (not self.kept and self.last < self.begins_at):
            return 0  # the stream was never written to
        if not self.kept or self.deleted is None:
            return int(min(self.last, end - 1))
        front = min(self.first, end) - 1 if self.first > self.begins_at else 0
        return int(max([front, *(sequence for sequence in self.deleted if sequence <= had and sequence < end)]))


class StreamMemory:
    """Builds the memory of one consumer, for all subscriptions to it in this process."""

    def __init__(self, context: JetStreamContext, client: WatchwordClient, reader: StreamReader) -> None:
        self._context = context
        self._manager: Final = manager_of(context)
        self._client = client
        self._reader = reader
        self._looked: _Look | None = None
        self._told = -inf
        self._absence: Final = Outage(reader.watchword.verifier.policy.max_hold)
        self._is_gone = False

    async def look(self) -> None:
        """Read the consumer's progress, before the server can deliver to a new subscription."""
        try:
            self._looked = await self._look()
        except (Error, TimeoutError) as error:
            raise _unreadable(error) from error

    async def begin(self) -> None:
        """Load the verifier's memory with the messages in the stream before the consumer's next delivery.

        No subscription judges anything meanwhile. Unavailable if the stream cannot be read; nothing may be delivered
        then.
        """
        async with self._reader.gate.alone():
            if self._looked is None:
                await self.look()
            assert self._looked is not None  # noqa: S101 - for the type checker: look() has set it
            await self._begin(self._looked, again=False)

    async def begin_again(self, sequence: int) -> None:
        """Rebuild at the consumer's current position, after it redelivered ``sequence``; retries until it succeeds.

        NotFoundError if the consumer has been missing for ``max_hold``; nothing can be judged for it then.
        """

        async def begin() -> None:
            look = await self._look()
            await self._begin(look._replace(acknowledged=min(look.acknowledged, sequence - 1)), again=True)

        await self._alone(begin)

    async def widen(self, subject: str, sequence: int, number: int) -> None:
        """Rebuild from before ``sequence`` if the consumer now delivers ``subject``, which was not read so far.

        ``sequence`` and ``number`` are those of the delivery that shows it. Retries until it succeeds.
        """
        life = self._reader.life
        assert life is not None  # noqa: S101 - as in begin

        async def widen() -> None:
            look = await self._look()
            if life.reads(subject) or look.subjects == life.subjects:
                return
            self._reader.watchword.audit.note("replay.widened", log=life.log, position=sequence)
            look = look._replace(acknowledged=min(look.acknowledged, sequence - 1))
            if not life.was_reached(sequence):  # later messages are being delivered, and are judged in order
                look = look._replace(delivered=sequence - 1, number=number - 1)
            await self._begin(look, again=True)

        await self._alone(widen)

    async def catch_up(self, sequence: int, number: int, stamp: float) -> None:
        """Recall what was missed before a delivery; retries until it succeeds. NotFoundError as in ``begin_again``.

        Messages that were deleted before they could be read raise the floor; ``stamp`` is when the delivery was stored.
        """
        life = self._reader.life
        assert life is not None  # noqa: S101 - as in begin

        async def catch_up() -> None:
            missed, unread = life.missed_before(sequence, number), life.gone_before(sequence, number)
            if missed is not None:
                self._reader.watchword.audit.note("replay.missed", log=life.log, position=missed)
                await self._recall(_from(missed), upto=sequence - 1, acknowledged=missed - 1)
            if unread is not None:
                await self._heed(unread, sequence, stamp)
            if missed is not None or unread is not None:
                life.filled(sequence - 1)

        await self._alone(catch_up)

    async def _heed(self, first: int, sequence: int, stamp: float) -> None:
        """Raise the floor above messages that were lost from ``first`` on, before a delivery stored at ``stamp``."""
        reader, life = self._reader, self._reader.life
        assert life is not None  # noqa: S101 - as in begin
        delivered = sequence
        with suppress(NotFoundError):  # past deliveries of a deleted consumer can still be judged
            info = await self._manager.consumer_info(reader.stream, reader.consumer)
            delivered = max(sequence, 0 if info.delivered is None else info.delivered.stream_seq)
        state = await self._state()
        last_gone = state.last_gone(life.had, end=sequence)
        if last_gone >= first:
            gone, watchword = min(stamp, await self._followed(state, last_gone)), reader.watchword
            floor = watchword.verifier.policy.floor_at(-inf, cut=gone)
            watchword.verifier.raise_floor(reader.log, floor)
            self._warn_of(floor)
        stood = state.last_gone(life.had, end=delivered + 1) < sequence
        life.stood(delivered if stood else sequence)

    async def _alone(self, build: Callable[[], Awaitable[None]]) -> None:
        """Build while nothing is judged; retry until it succeeds.

        A missing consumer may be about to be recreated: nats-py does so with an ordered one.
        """
        failures = 0
        while True:
            try:
                async with self._reader.gate.alone():
                    await build()
            except ConnectionClosedError:
                raise
            except (WatchwordError, Error, TimeoutError) as error:
                if isinstance(error, NotFoundError) and not self._absence.holds(asyncio.get_running_loop().time()):
                    self._tell_of_end(error)
                    raise
                self._reader.watchword.audit.warn("replay.unreadable", log=self._reader.log, detail=str(error))
                await asyncio.sleep(delay_after(failures, FIRST_DELAY))
                failures += 1
            else:
                self._absence.over()
                self._is_gone = False
                return

    def _tell_of_end(self, error: NotFoundError) -> None:
        if not self._is_gone:
            self._is_gone = True
            self._reader.watchword.audit.warn(
                "replay.consumer_gone",
                log=self._reader.log,
                detail=error.description or "not found",
                cost="deliveries that only the stream could tell from copies are not handed over",
                remedy="subscribe again, to an existing consumer",
            )

    async def _begin(self, look: _Look, *, again: bool) -> None:
        reader, life = self._reader, self._reader.life
        assert life is not None  # noqa: S101 - for the type checker: only what reads alone has a memory here
        try:
            following = await _first(self._manager, reader.stream, look.acknowledged + 1, look.subjects)
            had = look.delivered if look.number else inf
            state = await self._state()
            facts = StreamFacts(
                origin=(state.created, look.created),
                subjects=look.subjects,
                delivered=look.delivered,
                number=look.number,
                acknowledged=look.acknowledged,
                next_at=None if following is None else following[1],
                last_gone_at=await self._gone(state, had),
                last=state.last,
                had=inf if again else had,
            )
            beginning = life.begin(facts, look.at) if again else life.bind(facts, look.at)
            if beginning is None:
                return
            await self._build(beginning, had)
        except (Error, TimeoutError) as error:
            life.forget()
            raise _unreadable(error) from error
        except BaseException:
            life.forget()
            raise
        if beginning.is_cut:
            self._told = -inf
            self._warn_of(beginning.floor)

    def _warn_of(self, floor: float) -> None:
        """Warn about a floor raised for lost messages, but not about each step while messages are being lost."""
        if floor > self._told + _ANEW:
            self._told = floor
            self._reader.watchword.audit.warn(
                "replay.cut",
                log=self._reader.log,
                until=floor,
                cost="messages issued before then are stale: the stream has lost messages of which they may be copies",
            )

    async def _build(self, beginning: Beginning, had: float) -> None:
        reader, clock = self._reader, asyncio.get_running_loop().time
        watchword = reader.watchword
        floor, begun = beginning.floor, clock()
        watchword.verifier.begin(reader.log, floor=floor)
        if not beginning.upto:
            return
        watchword.audit.note("replay.rebuilding", log=reader.log, position=beginning.upto, since=beginning.since)
        since = {
            "deliver_policy": api.DeliverPolicy.BY_START_TIME,
            "opt_start_time": datetime.fromtimestamp(beginning.since, UTC),
        }
        recalled = await self._recall(since, upto=beginning.upto, acknowledged=beginning.acknowledged)
        while (cut := await self._cut(beginning, had)) > floor:  # lost meanwhile, maybe before it could be read
            floor = cut + 2 * (clock() - begun)  # stay ahead of retention that continues to delete
            watchword.verifier.begin(reader.log, floor=floor)
            begun = clock()
            recalled = await self._recall(since, upto=beginning.upto, acknowledged=beginning.acknowledged)
        watchword.audit.note("replay.rebuilt", log=reader.log, position=beginning.upto, recalled=recalled)

    async def _look(self) -> _Look:
        now = self._reader.watchword.clock()
        info = await self._manager.consumer_info(self._reader.stream, self._reader.consumer)
        delivered, number = (
            (0, 0) if info.delivered is None else (info.delivered.stream_seq, info.delivered.consumer_seq)
        )
        acknowledged = delivered if not info.num_ack_pending or info.ack_floor is None else info.ack_floor.stream_seq
        subjects = tuple(info.config.filter_subjects or [info.config.filter_subject or ">"])
        return _Look(now, str(info.created), delivered, number, acknowledged, subjects)

    async def _cut(self, beginning: Beginning, had: float) -> float:
        """Return the floor required by what the stream has lost by now."""
        gone = await self._gone(await self._state(), had)
        policy = self._reader.watchword.verifier.policy
        return beginning.floor if gone is None else policy.floor_at(-inf, cut=gone)

    async def _gone(self, state: _State, had: float) -> float | None:
        """Return the latest time at which the last lost message can have been appended.

        Single deletions after what the consumer ``had`` do not count, since it has not delivered them; unless it has
        delivered nothing at all, for then it may have been recreated or reset.
        """
        last_gone = state.last_gone(had)
        return await self._followed(state, last_gone) if last_gone else None

    async def _followed(self, state: _State, sequence: int) -> float:
        """Return when the message after a sequence was appended; for the last one, when that itself was."""
        following = None
        if sequence < state.last:
            following = await _first(self._manager, self._reader.stream, sequence + 1, [">"])
        return state.last_at if following is None else following[1]

    async def _state(self) -> _State:
        manager, stream = self._manager, self._reader.stream
        answer = await asked(manager, f"STREAM.INFO.{stream}", {})
        state, count = answer["state"], answer["state"].get("num_deleted", 0)
        deleted: list[int] | None = []
        if count > MOST_DELETED:
            deleted = None
        elif count:
            detailed = await asked(manager, f"STREAM.INFO.{stream}", {"deleted_details": True})
            deleted = detailed["state"].get("deleted") or []
        return _State(
            created=str(answer["created"]),
            begins_at=max(1, answer["config"].get("first_seq", 1)),
            first=state["first_seq"],
            last=state["last_seq"],
            last_at=_seconds(state["last_ts"]),
            kept=state["messages"],
            deleted=deleted,
        )

    async def _recall(self, start: dict[str, Any], *, upto: int, acknowledged: int) -> int:
        """Read up to a sequence; what is not ``acknowledged`` may be redelivered at any time."""
        context, client, reader = self._context, self._client, self._reader
        assert reader.life is not None  # noqa: S101 - as in begin
        subjects = [*reader.life.subjects]
        config = api.ConsumerConfig(
            filter_subject=subjects[0] if len(subjects) == 1 else None,
            filter_subjects=subjects if len(subjects) > 1 else None,
            **start,
            ack_policy=api.AckPolicy.NONE,
            inactive_threshold=10 * _SECONDS,
            mem_storage=True,
            num_replicas=1,
        )
        made = await self._manager.add_consumer(reader.stream, config)
        inbox = client.new_inbox()
        raw = await client.open(inbox, reader=None)
        pull = BasePullSubscription(
            requests=client.requests,
            js=context,
            sub=raw,
            stream=reader.stream,
            consumer=made.name,
            deliver=inbox.encode(),
        )
        acknowledged = acknowledged if reader.acknowledged else upto
        recalled, outage = 0, Outage(reader.watchword.verifier.policy.max_hold)
        left, reached = made.num_pending or 0, 0
        try:
            while left > 0 and reached < upto:
                fetched = await pull.fetch(min(_BATCH, left), timeout=_SECONDS)
                left -= len(fetched)
                reached = sequence_of(fetched[-1])
                known = {sequence: msg for msg in fetched if (sequence := sequence_of(msg)) <= upto}
                over = [msg for sequence, msg in known.items() if sequence <= acknowledged]
                await _remember(reader, over, client.check, outage, unacked=False)
                waited_for = {sequence: msg for sequence, msg in known.items() if sequence > acknowledged}
                await _remember(reader, list(waited_for.values()), client.check, outage, unacked=True)
                reader.life.recalled(waited_for)
                recalled += len(known)
        finally:
            with suppress(Error, TimeoutError):
                await raw.unsubscribe()
                await self._manager.delete_consumer(reader.stream, made.name)
        return recalled


def _from(sequence: int) -> dict[str, Any]:
    return {"deliver_policy": api.DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": sequence}


def _unreadable(error: Exception) -> WatchwordError:
    """Return the error for a stream that cannot be reread; ConfigurationError for a missing right."""
    if isinstance(error, NotAllowed):
        return ConfigurationError(f"the stream is this reader's memory but cannot be reread: {error}")
    detail = getattr(error, "description", None) or type(error).__name__
    return Unavailable("replay", f"the stream cannot be reread: {detail}")


async def _first(
    manager: JetStreamManager, stream: str, sequence: int, subjects: Iterable[str]
) -> tuple[int, float] | None:
    """Return the first message from ``sequence`` on, and when the server stored it; None without one."""
    found: list[tuple[int, float]] = []
    for subject in subjects:
        with suppress(NotFoundError):
            answer = await asked(manager, f"STREAM.MSG.GET.{stream}", {"seq": sequence, "next_by_subj": subject})
            found.append((answer["message"]["seq"], _seconds(answer["message"]["time"])))
    return min(found, default=None)


async def _remember(
    reader: StreamReader, raws: list[Msg], check: CheckRunner, outage: Outage, *, unacked: bool
) -> None:
    """Recall messages; one whose key stays unavailable for too long is remembered by its claims."""
    verifier, failures = reader.watchword.verifier, 0
    while raws:
        recalled = await verifier.recall_many(Deliveries(reader, raws), unacked=unacked, check=check)
        raws = raws[recalled:]
        if not raws:
            return
        if recalled:
            failures = 0
        message = reader.message(raws[0])
        if reader.watchword.observes(message.channel) or not outage.holds(asyncio.get_running_loop().time()):
            verifier.remember_unjudged(message, comes_again=unacked)
            raws = raws[1:]
        else:
            await asyncio.sleep(delay_after(failures, FIRST_DELAY))
            failures += 1


def _seconds(text: str) -> float:
    """Parse the server's time, RFC 3339 with nanoseconds."""
    return datetime.fromisoformat(f"{text[:26].rstrip('Z')}+00:00").timestamp()
