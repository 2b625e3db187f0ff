"""Reads a stream again for a consumer that one process reads alone, before anything is delivered (docs/replay.md)."""

# ruff: noqa: SLF001 - nats-py has no hooks: its subclasses must reach where the base reaches

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from nats.errors import Error
from nats.js import JetStreamContext, api
from nats.js.errors import NotFoundError

from watchword import Unavailable
from watchword.outage import Outage
from watchword.rebuild import anchor_without_record, floor_at, window_start
from watchword_adapters.nats.message import sequence_of

if TYPE_CHECKING:
    from nats.js import JetStreamManager

    from watchword import Message
    from watchword.proving import Checker
    from watchword_adapters.nats.client import WatchwordClient
    from watchword_adapters.nats.jetstream_reader import StreamReader

_BATCH: Final = 500
_SECONDS: Final = 5.0
"""Time that the server has for a batch; a consumer made for the rebuild is gone soon after that."""

_FIRST_DELAY: Final = 0.1
_LAST_DELAY: Final = 5.0


async def rebuild(
    context: JetStreamContext,
    client: WatchwordClient,
    reader: StreamReader,
    info: api.ConsumerInfo,
    stream: api.StreamInfo,
) -> None:
    """Let the verifier remember what stands in the stream before the first message that ``info`` has yet to deliver.

    Unavailable where the stream cannot be read; then nothing may be delivered.
    """
    watchword, policy = reader.watchword, reader.watchword.verifier.policy
    delivered = 0 if info.delivered is None else info.delivered.stream_seq
    acknowledged = delivered if not info.num_ack_pending or info.ack_floor is None else info.ack_floor.stream_seq
    subjects = info.config.filter_subjects or [info.config.filter_subject or ">"]
    has_delivered = info.delivered is not None and bool(info.delivered.consumer_seq)
    now = watchword.clock()
    try:
        following = await _first(context._jsm, info.stream_name, acknowledged + 1, subjects)
        anchor = anchor_without_record(policy, now) if following is None else following[1]
        # Earlier by the skew: the server halves its way to a time, which a clock that stepped back within it misleads.
        since = window_start(policy, anchor) - policy.max_skew
        # Nothing is delivered before this is over: what was, and is gone, was issued up to now and the skew.
        present = floor_at(policy, anchor, cut=watchword.clock())

        async def lowest() -> float:
            """Return the floor that what is gone by now calls for."""
            if not has_delivered:
                return floor_at(policy, anchor)
            first = await _first(context._jsm, info.stream_name, 1, [">"])
            if first is None:
                return present
            sequence, stored = first
            return floor_at(policy, anchor, cut=stored if sequence > 1 else None)

        floor = await lowest()
        watchword.verifier.begin(reader.log, floor=floor)
        if delivered < max(1, stream.state.first_seq):
            return
        watchword.audit.note("replay.rebuilding", log=reader.log, position=delivered, since=since)
        config = api.ConsumerConfig(
            filter_subject=subjects[0] if len(subjects) == 1 else None,
            filter_subjects=subjects if len(subjects) > 1 else None,
            deliver_policy=api.DeliverPolicy.BY_START_TIME,
            opt_start_time=datetime.fromtimestamp(since, UTC),
            ack_policy=api.AckPolicy.NONE,
            inactive_threshold=10 * _SECONDS,
            mem_storage=True,
            num_replicas=1,
        )
        clock, begun = asyncio.get_running_loop().time, asyncio.get_running_loop().time()
        recalled = await _recall(context, client, reader, config, acknowledged, delivered)
        while (least := await lowest()) > floor:  # it was cut meanwhile, maybe before it could be read
            floor = least + 2 * (clock() - begun)  # so that a retention which goes on cutting does not catch up
            watchword.verifier.begin(reader.log, floor=floor)
            begun = clock()
            recalled = await _recall(context, client, reader, config, acknowledged, delivered)
        watchword.audit.note("replay.rebuilt", log=reader.log, position=delivered, recalled=recalled)
    except (Error, TimeoutError) as error:
        detail = getattr(error, "description", None) or type(error).__name__
        raise Unavailable("replay", f"the stream cannot be read again: {detail}") from error


async def _first(jsm: JetStreamManager, stream: str, sequence: int, subjects: list[str]) -> tuple[int, float] | None:
    """Return the first message from ``sequence`` on, and when the server stored it; None if there is none."""
    found: list[tuple[int, float]] = []
    for subject in subjects:
        question = json.dumps({"seq": sequence, "next_by_subj": subject}).encode()
        with suppress(NotFoundError):
            answer = await jsm._api_request(f"{jsm._prefix}.STREAM.MSG.GET.{stream}", question, timeout=jsm._timeout)
            found.append((answer["message"]["seq"], _seconds(answer["message"]["time"])))
    return min(found, default=None)


async def _recall(  # noqa: PLR0917 - one step of the above
    context: JetStreamContext,
    client: WatchwordClient,
    reader: StreamReader,
    config: api.ConsumerConfig,
    acknowledged: int,
    delivered: int,
) -> int:
    """Read up to the sequence ``delivered``; what is not acknowledged may come again, however late."""
    made = await context._jsm.add_consumer(reader.stream, config)
    inbox = client.new_inbox()
    raw = await client.open(inbox, reader=None)
    pull = JetStreamContext.PullSubscription(context, raw, reader.stream, made.name, inbox.encode())
    recalled, outage = 0, Outage(reader.watchword.verifier.policy.max_hold)
    left, reached = made.num_pending or 0, 0
    try:
        while left > 0 and reached < delivered:
            fetched = await pull.fetch(min(_BATCH, left), timeout=_SECONDS)
            left -= len(fetched)
            reached = sequence_of(fetched[-1])
            known = [(sequence, reader.message(msg)) for msg in fetched if (sequence := sequence_of(msg)) <= delivered]
            for unacked in (False, True):
                passed = [
                    message
                    for sequence, message in known
                    if unacked is (reader.acknowledged and sequence > acknowledged)
                ]
                await _remember(reader, passed, client.check, outage, unacked=unacked)
            recalled += len(known)
    finally:
        with suppress(Error, TimeoutError):
            await raw.unsubscribe()
            await context._jsm.delete_consumer(reader.stream, made.name)
    return recalled


async def _remember(
    reader: StreamReader, messages: list[Message], check: Checker, outage: Outage, *, unacked: bool
) -> None:
    """Recall messages; one on whose key there is no verdict for too long is remembered by its claims."""
    verifier, delay = reader.watchword.verifier, _FIRST_DELAY
    while messages:
        recalled = await verifier.recall_many(messages, unacked=unacked, check=check)
        messages = messages[recalled:]
        if not messages:
            return
        if recalled:
            delay = _FIRST_DELAY
        if reader.watchword.observing or not outage.holds(asyncio.get_running_loop().time()):
            verifier.remember_unjudged(messages[0])
            messages = messages[1:]
        else:
            await asyncio.sleep(delay)
            delay = min(_LAST_DELAY, 2 * delay)


def _seconds(text: str) -> float:
    """Read a time of the server's, RFC 3339 with nanoseconds."""
    return datetime.fromisoformat(f"{text[:26].rstrip('Z')}+00:00").timestamp()
