"""``watchword quarantine``: lists and shows copies, and verifies the messages that they point at again.

Anyone with write access to the quarantine may have written its contents: all output is capped and escaped.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from watchword import ConfigurationError, Reason
from watchword.quarantine_copy import UNDETERMINED
from watchword.strict import to_base64
from watchword_adapters.cli import OK
from watchword_adapters.cli.connecting import connection, each_explained, explained, silence
from watchword_adapters.cli.lines import warn, write_line
from watchword_adapters.cli.obeying import obeying
from watchword_adapters.cli.terminal import code_of, escaped
from watchword_adapters.config import load
from watchword_adapters.redriving import Choice
from watchword_adapters.settings_file import read_settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Iterable
    from pathlib import Path

    from watchword import Watchword
    from watchword.message import Header
    from watchword.quarantine_copy import Kept
    from watchword.settings import Settings
    from watchword_adapters.redriving import Redriven, Stored

NOT_VERIFIED: Final = "Not verified: anyone with write access to the quarantine may have forged this."
MAX_ROWS: Final = 200
"""Most rows of a table; the counts above it include all copies."""

_MAX_CELL: Final = 120
_MAX_SHOWN: Final = 16 * 1024
_REASONS: Final = frozenset({UNDETERMINED, *map(str, Reason)})


@dataclass(frozen=True, slots=True)
class Source:
    """Where the quarantine is: settings, and what overrides them: bus, servers, and topic or subject."""

    config: Path
    bus: str | None
    servers: str | None
    place: str | None
    limit: int


def run_list(source: Source, *, as_json: bool) -> int:
    """Print the copies; return the exit code."""
    found = asyncio.run(_copies(_open(source)))
    if as_json:
        for stored in found:
            write_line(_row(stored))
    else:
        _print_list(found)
    return OK


def run_show(identity: str, source: Source, *, as_json: bool) -> int:
    """Print one copy; return the exit code."""
    found = asyncio.run(_copies(_open(source)))
    stored = next((stored for stored in found if stored.id == identity), None)
    if stored is None:
        raise ConfigurationError(
            f"copy {identity[:64]!r}: not among the latest {source.limit}; use an id of 'quarantine list', or --limit"
        )
    fields = _fields(stored)
    if as_json:
        write_line(fields)
    else:
        _print_fields(fields)
    return OK


def run_redrive(
    source: Source,
    ids: Collection[str] | None,
    *,
    reasons: Collection[str] | None,
    channels: Collection[str] | None,
    everything: bool,
) -> int:
    """Print one verdict per line; return the exit code."""
    if bool(ids) == everything:
        raise ConfigurationError("redrive: write the ids of copies, or --all")
    unknown = sorted(set(reasons or ()) - _REASONS)
    if unknown:
        raise ConfigurationError(f"--reason {unknown[0][:64]!r}: use one of {', '.join(sorted(_REASONS))}")
    only = Choice(ids=ids or None, reasons=reasons or None, channels=channels or None)
    return asyncio.run(_redrive(_open(source), only, wanted=set(ids or ())))


async def _redrive(opened: _Opened, only: Choice, wanted: set[str]) -> int:
    code = OK
    async with (
        obeying(opened.agent, opened.settings, opened.directory),
        aclosing(each_explained("broker", _redriven(opened, only), opened.options)) as found,
    ):
        async for redriven in found:
            wanted.discard(redriven.id)
            write_line(redriven.to_json())
            code = max(code, code_of(redriven.verdict))
    if wanted:
        raise ConfigurationError(f"copy {min(wanted)[:64]!r}: not among the latest {opened.limit}, or not selected")
    return code


@dataclass(frozen=True, slots=True)
class _Opened:
    """A quarantine, from settings and arguments; ``options`` are the client's connection options."""

    agent: Watchword
    bus: str
    place: str
    limit: int
    options: dict[str, Any]
    settings: Settings
    directory: Path


def _open(source: Source) -> _Opened:
    silence()
    agent = load(source.config, warn=warn, telemetry=False)
    named = {bus: None if agent.quarantine is None else getattr(agent.quarantine, bus) for bus in ("kafka", "nats")}
    bus = source.bus or _only([bus for bus, place in named.items() if place is not None])
    place = source.place or named[bus]
    if place is None:
        raise ConfigurationError(f"quarantine: no {bus} in [quarantine]; add it there, or write --from NAME")
    settings, directory = read_settings(source.config), source.config.parent
    options = connection(bus, settings, directory, source.servers)
    return _Opened(agent, bus, place, source.limit, options, settings, directory)


def _only(buses: list[str]) -> str:
    if len(buses) != 1:
        raise ConfigurationError("quarantine: on which bus? write --bus kafka, or --bus nats")
    return buses[0]


async def _copies(opened: _Opened) -> list[Stored]:
    with explained("broker", opened.options):
        copies: Any
        if opened.bus == "kafka":
            from watchword_adapters.kafka.redrive import copies  # noqa: PLC0415 - comes with an extra
        else:
            from watchword_adapters.nats.redrive import copies  # noqa: PLC0415 - as above
        found: list[Stored] = await copies(opened.place, watchword=opened.agent, limit=opened.limit, **opened.options)
        return found


async def _redriven(opened: _Opened, only: Choice) -> AsyncGenerator[Redriven]:
    redrive: Any
    if opened.bus == "kafka":
        from watchword_adapters.kafka.redrive import redrive  # noqa: PLC0415 - comes with an extra
    else:
        from watchword_adapters.nats.redrive import redrive  # noqa: PLC0415 - as above
    results = redrive(opened.place, watchword=opened.agent, only=only, limit=opened.limit, **opened.options)
    async with aclosing(results) as found:
        async for redriven in found:
            yield redriven


def _row(stored: Stored) -> dict[str, object]:
    kept = stored.kept
    if kept is None:
        return {"copy": stored.id, "fault": stored.fault, "size": stored.size}
    return {
        "copy": stored.id,
        "reason": kept.reason,
        "time": kept.time,
        "channel": kept.channel.uri,
        "position": _position(kept),
        "claimed_principal": kept.principal,
        "size": stored.size,
    }


def _position(kept: Kept) -> str | None:
    return None if kept.position is None else f"{kept.position.log}@{kept.position.offset}"


def _fields(stored: Stored) -> dict[str, object]:
    kept = stored.kept
    if kept is None:
        return {"verified": False, **_row(stored)}
    return {
        "verified": False,
        **_row(stored),
        "detail": kept.detail,
        "appended_at": kept.appended_at,
        "reader": kept.reader,
        "reply_to": kept.message.reply_to,
        "complete": kept.complete,
        "sha256": kept.digest,
        "key": to_base64(kept.message.key),
        "headers": _headers(kept.message.headers),
        "value": to_base64(kept.message.value),
    }


def _headers(headers: Iterable[Header]) -> list[list[str | None]]:
    return [[name, to_base64(value)] for name, value in headers]


_MEANINGS: Final = {
    "copy": "position in the quarantine",
    "fault": "why it is not a copy of ours",
    "size": "bytes of the copy's value",
    "reason": "why it was not delivered",
    "detail": "details",
    "time": "of the rejection",
    "channel": "where the message was",
    "position": "log and offset; what redrive reads",
    "claimed_principal": "its author, as claimed",
    "appended_at": "the broker's timestamp, in seconds",
    "reader": "group or consumer that rejected it",
    "reply_to": "subject to answer on",
    "complete": "whether the copy has all of it",
    "sha256": "of key, headers and value",
    "key": "base64",
    "headers": "the message's own, base64",
    "value": "base64",
}


def _print_list(found: list[Stored]) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only needed for a table
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    console = Console(file=sys.stdout, highlight=False, emoji=False, markup=False)
    # Labels that others chose count under one name, or they could fill the screen.
    counts = Counter(_label(stored) for stored in found)
    console.print(f"{len(found)} copies: " + ", ".join(f"{count} {label}" for label, count in counts.most_common()))
    table = Table(title=NOT_VERIFIED, title_justify="left")
    columns = ("copy", "reason", "time", "channel", "position", "claimed_principal")
    for name in columns:
        table.add_column(name, overflow="fold")
    for stored in found[-MAX_ROWS:]:
        row = _row(stored) | {"reason": _label(stored)}
        # Text, not str: untrusted text must not be parsed as markup.
        table.add_row(*(Text(_cell(row.get(name))) for name in columns))
    console.print(table)


def _label(stored: Stored) -> str:
    if stored.kept is None:
        return "no copy"
    return stored.kept.reason if stored.kept.reason in _REASONS else "unknown reason"


def _cell(value: object) -> str:
    return "" if value is None else escaped(str(value)[:_MAX_CELL])


def _print_fields(fields: dict[str, object]) -> None:
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(title=NOT_VERIFIED, title_justify="left")
    table.add_column("field", no_wrap=True)
    table.add_column("value", overflow="fold", ratio=1)
    table.add_column("meaning", overflow="fold", max_width=24)
    for name, value in fields.items():
        if name in _MEANINGS and value is not None:
            shown = json.dumps(value) if isinstance(value, list) else str(value)
            cut = "" if len(shown) <= _MAX_SHOWN else f" ... ({len(shown)} characters; all of them with --json)"
            table.add_row(name, Text(escaped(shown[:_MAX_SHOWN]) + cut), _MEANINGS[name])
    Console(file=sys.stdout, highlight=False, emoji=False).print(table)
