"""``watchword who``: shows which processes announced themselves, and what they report of others."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from watchword import ConfigurationError, Rejected, Unavailable
from watchword.presence import SVID_CONTENT_TYPE, Presence, is_of_type
from watchword.settings import parse_duration
from watchword_adapters.cli import OK, UNAVAILABLE
from watchword_adapters.cli.connecting import connection, each_explained, explained, silence
from watchword_adapters.cli.lines import warn
from watchword_adapters.cli.obeying import obeying
from watchword_adapters.cli.terminal import escaped
from watchword_adapters.config import load, open_presence
from watchword_adapters.redriving import judge
from watchword_adapters.settings_file import read_settings

if TYPE_CHECKING:
    from pathlib import Path

    from watchword import Watchword
    from watchword.presence import Instance, Present, Reported
    from watchword.settings import Settings

DAY: Final = 24 * 3600.0
_TURNS: Final = 3
"""Announcements that a process may miss before it is no longer shown."""

_SPARE: Final = 2.0
"""Seconds that an announcement may be in transit."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The arguments: settings, servers, how far back (None: three announcements), and the output format."""

    config: Path
    servers: str | None
    since: str | None
    as_json: bool


class Found:
    """The result: present processes, and the number of dropped messages by reason."""

    def __init__(self) -> None:
        self.presence: Final = Presence()
        self.dropped: Final[Counter[str]] = Counter()
        self.is_unavailable = False

    def to_json(self, present: tuple[Present, ...], now: float) -> dict[str, object]:
        """Return the result as JSON members."""
        return {"principals": [_members(one, now) for one in present], "dropped": dict(self.dropped)}


def run_who(asked: Asked) -> int:
    """Read announcements and show them; return the exit code."""
    silence()
    agent = load(asked.config, warn=warn, telemetry=False)
    settings = read_settings(asked.config)
    channel = settings.to_presence()
    if channel is None or settings.control is None:
        raise ConfigurationError(
            f'{asked.config}: no channel for announcements: write presence = "nats://{settings.realm}/<subject>" or'
            f' "kafka://{settings.realm}/<topic>" under [control]'
        )
    back = _since(asked.since, settings.control.announce_every)
    return asyncio.run(_who(asked, agent, settings, back))


def _since(told: str | None, every: float) -> float:
    """Return how far to look back, in seconds."""
    if told is None:
        return _TURNS * every
    try:
        back = parse_duration(told)
    except ValueError as error:
        raise ConfigurationError(f"--since: {error}") from None
    if not 1.0 <= back <= DAY:
        raise ConfigurationError('--since: write 1 s to 24 h, as "30s" or "24h": announcements are stored for a day')
    return back


async def _who(asked: Asked, agent: Watchword, settings: Settings, back: float) -> int:
    control = agent.verifier.control
    assert control is not None  # noqa: S101 - for the type checker: there is [control]
    async with obeying(agent, settings, asked.config.parent):
        found, place = Found(), Place(agent, settings, asked.config.parent, asked.servers)
        await hear(found, judge(agent), place, since=agent.clock() - back)
    now, policy = agent.clock(), agent.verifier.policy

    def is_contained(principal: str) -> bool:
        return principal in policy.contained or control.containment(principal, agent.clock) is not None

    named = {*policy.contained, *(one.who for one in control.containments(now) if "*" not in one.who)}
    present = found.presence.look(since=now - back - policy.max_skew, is_contained=is_contained, names=named)
    if asked.as_json:
        sys.stdout.write(json.dumps(found.to_json(present, now)) + "\n")
    else:
        _tell(present, found, now)
    return UNAVAILABLE if found.is_unavailable else OK


class Place(NamedTuple):
    """Where announcements are read: an agent, its settings, and servers that override these, or None."""

    agent: Watchword
    settings: Settings
    directory: Path
    servers: str | None = None


async def hear(found: Found, judging: Watchword, place: Place, *, since: float) -> None:
    """Read and verify announcements; those that fail are counted."""
    settings, channel = place.settings, place.settings.to_presence()
    assert channel is not None  # noqa: S101 - for the type checker: the command has checked
    assert settings.control is not None  # noqa: S101 - as above
    options = connection(channel.scheme, settings, place.directory, place.servers)
    with explained("broker", options):
        reading = open_presence(place.agent, settings, place.directory, channel, **options)
    messages = reading.read(since=since, listen=settings.control.announce_every + _SPARE)
    async with reading, aclosing(each_explained("broker", messages, options)) as coming:
        async for message in coming:
            if is_of_type(message, SVID_CONTENT_TYPE):
                continue
            try:
                # Nothing is acknowledged here, so nothing must wait in memory for that.
                verified = await judging.verifier.verify(replace(message, delivered_by=None))
                found.presence.hear(verified)
            except Rejected as verdict:
                found.dropped[str(verdict.reason)] += 1
            except Unavailable:
                found.dropped["unavailable"] += 1
                found.is_unavailable = True
            except ValueError:
                found.dropped["no_announcement"] += 1
    if found.presence.dropped:
        found.dropped["no_room"] = found.presence.dropped


def _members(one: Present, now: float) -> dict[str, Any]:
    return {
        "principal": one.principal,
        "contained": one.contained,
        "instances": [_instance(instance, now) for instance in one.instances],
        "reported": None if one.reported is None else _reported(one.reported),
    }


def _instance(one: Instance, now: float) -> dict[str, Any]:
    said = one.said
    return {
        "instance": said.instance,
        "seconds_ago": _ago(one, now),
        "key_id": one.key_id,
        "version": said.version,
        "buses": list(said.buses),
        "started": said.started,
        "control": {
            "known": said.known,
            "place": None if said.place is None else list(said.place),
            "statements": said.statements,
            "full": list(said.full),
            "heard": [
                {"operator": name, "key": key, "number": link.number, "digest": link.digest, "whole": link.whole}
                for (name, key), link in said.heard.items()
            ],
        },
    }


def _reported(one: Reported) -> dict[str, Any]:
    scores = {"least": one.least, "median": one.median, "greatest": one.greatest}
    return {"reporters": list(one.reporters), **scores, "facts": dict(one.facts)}


def _ago(one: Instance, now: float) -> int:
    return max(0, int(now) - one.issued_at)


def _tell(present: tuple[Present, ...], found: Found, now: float) -> None:
    lines: list[str] = []
    for one in present:
        mark = " (contained)" if one.contained else ""
        lines.append(f"{one.principal}{mark}")
        if not one.instances:
            lines.append("  not present")
        for instance in one.instances:
            said = instance.said
            log = (
                f"control log at {said.place[1]}" if said.place is not None and said.known else "control log not known"
            )
            lines.append(
                f"  {said.instance}: {_ago(instance, now)} s ago, key {instance.key_id}, version {said.version}, on"
                f" {' and '.join(said.buses) or 'no bus'}, {log}"
            )
        if one.reported is not None:
            lines.append(f"  {_report(one.reported)}")
    if not present:
        lines.append("no announcements")
    sys.stdout.write("".join(f"{escaped(line)}\n" for line in lines))
    if found.dropped:
        told = ", ".join(f"{count} {reason}" for reason, count in found.dropped.most_common())
        sys.stderr.write(f"watchword: left out: {told}\n")


def _report(one: Reported) -> str:
    count = len(one.reporters)
    facts = ", ".join(f"{fact} by {seen}" for fact, seen in one.facts.items()) or "no fact named"
    return (
        f"trust {one.least:.2f} to {one.greatest:.2f}, median {one.median:.2f}, of"
        f" {count} reporter{'' if count == 1 else 's'}: {facts}"
    )
