"""Shared parts of operators' commands: settings, control log, confirmation and output."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from math import isinf
from typing import TYPE_CHECKING, Any, NamedTuple

from watchword import ConfigurationError
from watchword.principals import is_principal_pattern
from watchword.settings import parse_duration
from watchword_adapters.cli.connecting import explained, silence
from watchword_adapters.cli.lines import warn
from watchword_adapters.cli.terminal import escaped
from watchword_adapters.config import control_parts, load
from watchword_adapters.control.desk import desk, followed
from watchword_adapters.settings_file import read_settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Mapping
    from pathlib import Path

    from watchword import Watchword
    from watchword.settings import Settings
    from watchword_adapters.control.desk import Desk
    from watchword_adapters.control.following import Following, Parts


class Opened(NamedTuple):
    """The settings of the operator, and what follows the control log."""

    settings: Settings
    agent: Watchword
    parts: Parts
    directory: Path

    @asynccontextmanager
    async def desk(self) -> AsyncGenerator[Desk]:
        """Yield a Desk, once the log has been read."""
        async with desk(self.agent, self.parts) as place:
            yield place

    @asynccontextmanager
    async def followed(self) -> AsyncGenerator[Following]:
        """Follow the log, and yield once it has been read."""
        async with followed(self.parts) as following:
            yield following


def opened(config: Path) -> Opened:
    """Read the settings; ConfigurationError if they name no control log.

    Nothing is stored in their state directory, which another process may be using.
    """
    silence()
    settings = read_settings(config)
    agent = load(config, warn=warn, telemetry=False)
    return Opened(settings, agent, replace(control_parts(agent, settings, config.parent), state=None), config.parent)


def finish(work: Coroutine[Any, Any, int]) -> int:
    """Run a command and return its exit code."""

    async def explain() -> int:
        with explained("control log"):
            return await work

    return asyncio.run(explain())


def check_pattern(who: str) -> None:
    """Raise ConfigurationError unless ``who`` is a principal or a pattern of principals."""
    if not is_principal_pattern(who):
        raise ConfigurationError(
            f'{who[:128]!r} is not a principal: write one; "*" may replace a whole part, and a final "**" the rest'
        )


def seconds(option: str, text: str) -> float:
    """Parse a duration given as an option; ConfigurationError if it is malformed."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigurationError(f"{option}: {error}") from None


def confirm(question: str, *, yes: bool) -> None:
    """Ask for confirmation unless ``yes``; ConfigurationError for a no, and without a terminal."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{question} There is no terminal to ask on: add --yes to confirm")
    sys.stderr.write(f"{escaped(question)} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise ConfigurationError("nothing was done")


def tell(members: Mapping[str, object], *lines: str, as_json: bool) -> None:
    """Print a result as a line of JSON or as lines of text, and flush."""
    sys.stdout.write("".join(f"{line}\n" for line in ([json.dumps(members)] if as_json else map(escaped, lines))))
    sys.stdout.flush()


def moment(at: float | None) -> str:
    """Format a time in seconds for people; an infinite one is "for good"."""
    if at is None:
        return ""
    if isinf(at):
        return "for good"
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
    except (OverflowError, ValueError, OSError):
        return f"{at:.0f} s since the epoch"
