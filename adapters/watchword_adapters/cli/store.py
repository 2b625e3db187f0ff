"""``watchword store init``: the operator's word on a reader that a shared replay store does not know."""

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
from watchword_adapters.cli.text import escaped
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
"""Seconds that a time may lose on its way through a client that counts in microseconds."""


@dataclass(frozen=True, slots=True)
class Word:
    """What the operator says: of which reader, with which settings, at which servers of the bus."""

    reader: str
    config: Path
    servers: str | None
    accept_backlog: bool
    nothing_handled_before: bool

    @property
    def kind(self) -> str:
        """What kind of reader it is; ConfigurationError if its name names none."""
        parts = self.reader.split(":", 2)
        if parts[0] == "kafka" and self.reader != "kafka:":
            return "kafka"
        if parts[0] in {"js", "queue", "name"} and len(parts) == 3 and all(parts):  # noqa: PLR2004 - as _KINDS shows
            return parts[0]
        raise ConfigurationError(f"reader {self.reader[:128]!r}: write {_KINDS}, as the error or warning named it")


def run_init(word: Word, *, as_json: bool) -> int:
    """Let the store know the reader, and say so; return the exit code."""
    return asyncio.run(_init(word, as_json=as_json))


async def _init(word: Word, *, as_json: bool) -> int:
    kept = word.kind in {"js", "kafka"}
    spoken = word.accept_backlog or word.nothing_handled_before
    if word.accept_backlog and (word.nothing_handled_before or not kept):
        raise ConfigurationError(
            "--accept-backlog: without --nothing-handled-before, which says the contrary"
            if kept
            else f"--accept-backlog: core NATS keeps no backlog; leave it out for {word.kind}: readers"
        )
    agent = load(word.config, warn=warn, telemetry=False)
    verifier = agent.verifier
    store: Any = verifier.replay
    if not isinstance(store, SharedReplayStore):
        raise ConfigurationError(
            f'{word.config}: replay.store is none that processes share: write store = "sqlite", "redis" or "nats_kv"'
        )
    await verifier.start()
    try:
        with _of_store():
            known = await store.birth(word.reader)
        if known is None and kept and not spoken:
            raise ConfigurationError(
                f"{word.reader}: say what is to become of what it may have read: --accept-backlog (with --servers) lets"
                " what stands in its log now pass once, copies too; --nothing-handled-before says that it never read"
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
    """Ask the bus what stands in the log; what comes behind that is under the floor of now."""
    kafka, skew = word.kind == "kafka", agent.verifier.policy.max_skew
    settings = read_settings(word.config)
    if word.servers is None and (settings.kafka if kafka else settings.nats) is None:
        raise ConfigurationError(
            "--accept-backlog: where the log is must be said: [nats] or [kafka] in the settings, or --servers"
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
        # The client leaves last_ts out of its own StreamState.
        state = told["state"]
        return int(state["last_seq"]), datetime.fromisoformat(state["last_ts"]).timestamp()
    finally:
        await connection.close()


@contextmanager
def _of_store() -> Iterator[None]:
    """Tell what a store raises as what it is: something that does not answer, or an extra that is not there."""
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
    was = "" if known is None else ", in place of what was known of it"
    sys.stdout.write(f"{reader} is known from now on, with {since}{was}\n")
    for log, (last, _) in sorted(birth.accepted.items()):
        sys.stdout.write(f"accepted: {escaped(log)} up to {last}\n")
    if word.accept_backlog:
        sys.stdout.write(
            "What stands there passes once, copies of what was read before too. What is published from now on and\n"
        )
        sys.stdout.write(
            "was issued before the floor is dropped as stale: it could be a copy of what was read before.\n"
        )
    else:
        sys.stdout.write("This is for readers that never ran, or are stopped: what they read before can pass again.\n")


def _clock_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
