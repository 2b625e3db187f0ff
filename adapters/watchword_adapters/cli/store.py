"""``watchword store init``: makes a reader known to a shared replay store, as the operator decides."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Final

from watchword import ConfigurationError, Unavailable, WatchwordError
from watchword.replay import ReaderBirth, SharedReplayStore
from watchword_adapters.cli import OK
from watchword_adapters.cli.connecting import connection, explained, silence
from watchword_adapters.cli.lines import warn
from watchword_adapters.cli.terminal import escaped
from watchword_adapters.config import load
from watchword_adapters.redriving import onlooker
from watchword_adapters.settings_file import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from watchword import Watchword

_KINDS: Final = "js:STREAM:DURABLE, queue:QUEUE:SUBJECT, name:NAME:SUBJECT or kafka:GROUP"
_TIMEOUT: Final = 5.0
_STAMP_ROUNDING: Final = 0.001
"""Seconds that a time may lose in a client that counts in microseconds."""


@dataclass(frozen=True, slots=True)
class Word:
    """The arguments: reader, settings, servers of the bus, and the operator's decision."""

    reader: str
    config: Path
    servers: str | None
    accept_backlog: bool
    nothing_handled_before: bool

    @property
    def kind(self) -> str:
        """The kind of reader; ConfigurationError for an unknown kind."""
        parts = self.reader.split(":", 2)
        if parts[0] == "kafka" and self.reader != "kafka:":
            return "kafka"
        if parts[0] in {"js", "queue", "name"} and len(parts) == 3 and all(parts):  # noqa: PLR2004 - as _KINDS shows
            return parts[0]
        raise ConfigurationError(f"reader {self.reader[:128]!r}: write {_KINDS}, as in the error or warning")


def run_init(word: Word, *, as_json: bool) -> int:
    """Make the reader known to the store, and report it; return the exit code."""
    return asyncio.run(_init(word, as_json=as_json))


async def _init(word: Word, *, as_json: bool) -> int:
    kept = word.kind in {"js", "kafka"}
    spoken = word.accept_backlog or word.nothing_handled_before
    if word.accept_backlog and (word.nothing_handled_before or not kept):
        raise ConfigurationError(
            "--accept-backlog: omit --nothing-handled-before, which says the opposite"
            if kept
            else f"--accept-backlog: core NATS stores no backlog; omit it for {word.kind}: readers"
        )
    agent = load(word.config, warn=warn, telemetry=False)
    verifier = agent.verifier
    store: Any = verifier.replay
    if not isinstance(store, SharedReplayStore):
        raise ConfigurationError(
            f'{word.config}: replay.store is not a shared store: write store = "sqlite", "redis" or "nats_kv"'
        )
    await verifier.start()
    try:
        with _of_store():
            known = await store.birth(word.reader)
        if known is None and kept and not spoken:
            raise ConfigurationError(
                f"{word.reader}: decide about what it may have read: --accept-backlog (with --servers) accepts"
                " what is in its log now once, including copies; --nothing-handled-before says that it has never read"
            )
        birth = known
        if known is None or spoken:
            birth = await _born(word, agent) if word.accept_backlog else ReaderBirth(floor=-inf)
            with _of_store():
                birth = await store.admit_reader(word.reader, birth, replace=spoken)
    finally:
        close = getattr(store, "close", None)
        if close is not None:
            await close()
    assert birth is not None  # noqa: S101 - known, or admitted
    _tell(word, known, birth, changed=known is None or spoken, as_json=as_json)
    return OK


async def _born(word: Word, agent: Watchword) -> ReaderBirth:
    """Return the entry with the log's present end as backlog; later messages must be above a floor of now."""
    kafka, skew = word.kind == "kafka", agent.verifier.policy.max_skew
    settings = read_settings(word.config)
    if word.servers is None and (settings.kafka if kafka else settings.nats) is None:
        raise ConfigurationError(
            "--accept-backlog: where is the log? write [nats] or [kafka] in the settings, or --servers"
            " nats://localhost:4222, or localhost:9092"
        )
    silence()
    options = connection("kafka" if kafka else "nats", settings, word.config.parent, word.servers)
    with explained("broker", options):
        if kafka:
            from watchword_adapters.kafka.admission import backlog_of  # noqa: PLC0415 - comes with an extra

            ends = await backlog_of(word.reader.partition(":")[2], **options)
            floor = _now() + skew
            return ReaderBirth(floor=floor, accepted={log: (last, floor) for log, last in ends.items() if last >= 0})
        _, stream, durable = word.reader.split(":", 2)
        last, stamp = await _end_of(stream, durable, agent, options)
        return ReaderBirth(floor=_now() + skew, accepted={stream: (last, stamp + _STAMP_ROUNDING)})


async def _end_of(stream: str, durable: str, agent: Watchword, options: dict[str, Any]) -> tuple[int, float]:
    """Return a stream's last sequence and the time of its last message."""
    from watchword_adapters.nats.client import connect  # noqa: PLC0415 - comes with an extra

    connection = await connect(watchword=onlooker(agent), **options)
    try:
        told: dict[str, Any] = {}
        for what, name in (("CONSUMER", f"{stream}.{durable}"), ("STREAM", stream)):
            answer = await connection.request(f"$JS.API.{what}.INFO.{name}", b"", timeout=_TIMEOUT)
            told = json.loads(answer.data)
            if "error" in told:
                raise ConfigurationError(
                    f"{what.lower()} {name}: {told['error'].get('description')}: see js:STREAM:DURABLE"
                )
        # nats-py's own StreamState omits last_ts.
        state = told["state"]
        return int(state["last_seq"]), datetime.fromisoformat(state["last_ts"]).timestamp()
    finally:
        await connection.close()


@contextmanager
def _of_store() -> Iterator[None]:
    """Raise a store's errors as Unavailable, or name the missing extra."""
    with explained("replay"):
        try:
            yield
        except ConfigurationError:
            raise
        except WatchwordError as error:
            raise Unavailable("replay", str(error)) from error
        except ModuleNotFoundError:
            raise
        except Exception as error:
            raise Unavailable("replay", f"{type(error).__name__}: {error}") from error


def _now() -> float:
    return datetime.now(UTC).timestamp()


def _tell(word: Word, known: ReaderBirth | None, birth: ReaderBirth, *, changed: bool, as_json: bool) -> None:
    if as_json:
        told = {
            "reader": word.reader,
            "known": known is not None,
            "changed": changed,
            "floor": birth.floor if isfinite(birth.floor) else None,
            "accepted": {log: list(one) for log, one in birth.accepted.items()},
        }
        sys.stdout.write(json.dumps(told) + "\n")
        return
    reader = escaped(word.reader)
    since = "no floor" if not isfinite(birth.floor) else f"a floor of {_clock_time(birth.floor)}"
    if not changed:
        sys.stdout.write(f"{reader} is known, with {since}; nothing was changed\n")
        return
    was = "" if known is None else ", which replaces its previous entry"
    sys.stdout.write(f"{reader} is known from now on, with {since}{was}\n")
    for log, (last, _) in sorted(birth.accepted.items()):
        sys.stdout.write(f"accepted: {escaped(log)} up to {last}\n")
    if word.accept_backlog:
        sys.stdout.write(
            "These are accepted once, including copies of what was read before. What is published from now on but\n"
        )
        sys.stdout.write(
            "was issued before the floor is dropped as stale: it could be a copy of what was read before.\n"
        )
    else:
        sys.stdout.write("This is for readers that never ran, or are stopped: what they read before can pass again.\n")


def _clock_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
