"""Reads the copies in a quarantine stream, and verifies the messages that they point at again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from nats import errors
from nats.js.api import DeliverPolicy
from nats.js.errors import APIError, NotFoundError

from watchword import ConfigurationError, Unavailable
from watchword.message import is_subject
from watchword.quarantine_copy import message_digest, read_copy
from watchword_adapters.nats.client import connect
from watchword_adapters.nats.message import ObservedMsg
from watchword_adapters.nats.temporary import temporary
from watchword_adapters.nats_rights import NotAllowed
from watchword_adapters.redriving import ANY, Choice, Redriven, Stored, judge, judged_copy, onlooker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from watchword import Watchword
    from watchword.quarantine_copy import Kept
    from watchword_adapters.nats.jetstream import VerifyingJetStream

LIMIT: Final = 1000
"""Default number of latest entries of the stream that are read."""

_BATCH: Final = 100
_SECONDS: Final = 5.0
"""Time limit for a batch of copies, in seconds."""

_STREAM: Final = re.compile(r"[!-~]{1,255}")
_NO_STREAM: Final = re.compile(r"[.*>/\\]")


async def copies(
    subject: str, *, watchword: Watchword, servers: str | list[str], limit: int = LIMIT, **options: Any
) -> list[Stored]:
    """Return the copies among the latest ``limit`` entries of the stream that covers ``subject``, oldest first.

    ``options`` are nats-py's connection options. ConfigurationError if no stream covers it; the client's errors.
    """
    client = await connect(servers, watchword=onlooker(watchword), **options)
    try:
        stream = client.jetstream()
        try:
            name = await client.jsm().find_stream_name_by_subject(subject)
        except NotFoundError:
            raise ConfigurationError(f"quarantine subject {subject!r}: no stream covers it") from None
        state = (await client.jsm().stream_info(name)).state
        start = max(1, state.first_seq, state.last_seq - limit + 1)
        return [_stored(msg) async for msg in _read(stream, name, subject, start, patience=_SECONDS)]
    finally:
        await client.close()


async def redrive(
    subject: str,
    *,
    watchword: Watchword,
    servers: str | list[str],
    only: Choice = ANY,
    limit: int = LIMIT,
    patience: float = 60.0,
    **options: Any,
) -> AsyncIterator[Redriven]:
    """Verify the messages that the copies point at again, one after the other, as ``watchword`` would now.

    Originals are read through temporary consumers, and nothing is acknowledged: the next redrive may yield the same
    results again. ``patience`` is the time limit for one message in seconds.
    """
    judging = judge(watchword)
    found = await copies(subject, watchword=watchword, servers=servers, limit=limit, **options)
    chosen = [(stored, stored.kept) for stored in found if stored.kept is not None and only.takes(stored)]
    client = await connect(servers, watchword=judging, **options)
    try:
        for stored, kept in chosen:
            try:
                ours = kept.channel.realm == watchword.realm
                msg = await _original(client.jetstream(timeout=patience), kept, patience) if ours else None
            except errors.Error as error:
                verdict = Unavailable("log", str(error) if isinstance(error, NotAllowed) else type(error).__name__)
                yield Redriven(id=stored.id, read="original", kept=kept, verdict=verdict)
                continue
            if msg is None or message_digest(msg.message) != kept.digest:
                yield await judged_copy(judging, stored, kept)
            else:
                yield Redriven(id=stored.id, read="original", kept=kept, verdict=msg.verdict)
    finally:
        await client.close()


async def _original(stream: VerifyingJetStream, kept: Kept, patience: float) -> ObservedMsg | None:
    """Read the message now at the copy's position; None if there is none, or it cannot be read."""
    position, channel = kept.position, kept.channel
    if position is None or channel.scheme != "nats" or not is_subject(channel.name):
        return None
    # The names become part of subjects that we publish to.
    if not _STREAM.fullmatch(position.log) or _NO_STREAM.search(position.log):
        return None
    try:
        reading = _read(stream, position.log, channel.name, position.offset, patience=patience, most=1)
        found = [msg async for msg in reading]
    except APIError:  # no such stream, or a WorkQueue, which deletes terminated messages and allows no second reader
        return None
    return found[0] if found and found[0].message.position == position else None


async def _read(
    stream: VerifyingJetStream, name: str, subject: str, start: int, *, patience: float, most: int | None = None
) -> AsyncIterator[ObservedMsg]:
    """Read a stream's messages on ``subject`` from sequence ``start`` on, through a temporary consumer."""
    deliver = DeliverPolicy.BY_START_SEQUENCE
    async with temporary(stream, name, subject, deliver_policy=deliver, opt_start_seq=start) as (bound, info):
        left = info.num_pending or 0
        left = left if most is None else min(left, most)
        while left > 0:
            batch = await bound.fetch(min(left, _BATCH), timeout=patience)
            left -= len(batch)
            for msg in batch:
                if isinstance(msg, ObservedMsg):
                    yield msg


def _stored(msg: ObservedMsg) -> Stored:
    message = msg.message
    identity = "" if message.position is None else str(message.position.offset)
    try:
        kept = read_copy(msg.data, None, message.headers)
    except ValueError as error:
        return Stored(id=identity, kept=None, fault=str(error), size=len(msg.data))
    return Stored(id=identity, kept=kept, size=len(msg.data))
