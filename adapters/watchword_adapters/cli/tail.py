"""``watchword tail``: follows a channel, without effect on any group, stream or memory."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter, deque
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from watchword import ConfigurationError, Mode, Rejected, Unavailable, VerifiedMessage
from watchword.message import MAX_CHANNEL_BYTES
from watchword.patterns import PREFIX
from watchword.policy import ChannelRule
from watchword.spi import Channel
from watchword.wire_json import message_to_json, verdict_to_json
from watchword_adapters.cli import OK
from watchword_adapters.cli.connecting import connection, each_explained, silence
from watchword_adapters.cli.lines import warn, write_line
from watchword_adapters.cli.obeying import obeying
from watchword_adapters.cli.terminal import code_of, escaped, reader_has_gone
from watchword_adapters.config import load
from watchword_adapters.redriving import judge
from watchword_adapters.settings_file import read_settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
    from pathlib import Path

    from rich.table import Table

    from watchword import Watchword
    from watchword.spi import Message

MAX_ROWS: Final = 20
"""Most rows of the live table, the latest ones; the counts above it include all messages."""

_MAX_CELL: Final = 80
_LOOKS_EVERY: Final = 0.5

Verdict: TypeAlias = VerifiedMessage | Rejected | Unavailable


@dataclass(frozen=True, slots=True)
class Tail:
    """The arguments: a channel, settings and servers, what to show, and when to end."""

    channel: str
    config: Path
    servers: str | None
    stream: str | None
    from_start: bool
    verify: bool
    live: bool
    count: int | None


def run_tail(asked: Tail) -> int:
    """Print messages as they arrive; return the exit code, as of ``watchword verify`` if verdicts are shown."""
    silence()
    agent = load(asked.config, warn=warn, telemetry=False)
    messages = _messages(asked, agent)
    judging = judge(agent) if asked.verify or asked.live else None
    with _shown(asked) as show:
        return asyncio.run(_while_read(_heeding(asked, agent, _tail(asked, messages, judging, show))))


def _messages(asked: Tail, agent: Watchword) -> AsyncGenerator[Message]:
    """Check the arguments, and return the generator that reads the channel."""
    channel = _channel(asked, agent.realm)
    if channel.scheme == "kafka" and asked.stream is not None:
        raise ConfigurationError("--stream: Kafka has topics only; omit it")
    if channel.scheme == "nats" and asked.from_start and asked.stream is None:
        raise ConfigurationError("--from-start: a subject stores nothing; name the stream that does, by --stream NAME")
    options = connection(channel.scheme, read_settings(asked.config), asked.config.parent, asked.servers)
    begin = "start" if asked.from_start else "end"

    def ready() -> None:
        sys.stderr.write(f"watchword: reading {escaped(channel.uri)} from its {begin}; Control-C ends it\n")
        sys.stderr.flush()

    return each_explained("broker", _read(channel, asked, agent, options, ready), options)


def _channel(asked: Tail, realm: str) -> Channel:
    """Parse the channel; ConfigurationError says what to write in this realm."""
    uri = asked.channel
    try:
        channel = Channel.parse(uri)
    except ValueError:
        raise ConfigurationError(
            f"channel {uri[:128]!r}: write kafka://{realm}/<topic> or nats://{realm}/<subject>, with the realm of"
            f" {asked.config}; for servers use --servers"
        ) from None
    if channel.realm != realm or len(uri) > MAX_CHANNEL_BYTES:
        raise ConfigurationError(
            f"channel {uri[:128]!r}: {asked.config} is of realm {realm!r}: write {channel.scheme}://{realm}/..., or"
            " use other settings with --config"
        )
    if channel.scheme == "kafka" and channel.name.endswith(PREFIX):
        raise ConfigurationError(f"channel: {uri!r}: write a single topic; wildcards are for subjects")
    try:
        ChannelRule(uri, Mode.ENFORCE)  # which has the same kind of pattern
    except ConfigurationError as error:
        raise ConfigurationError(f"channel{str(error).removeprefix('channels')}") from None
    return channel


async def _read(
    channel: Channel, asked: Tail, agent: Watchword, options: dict[str, Any], ready: Callable[[], None]
) -> AsyncGenerator[Message]:
    found: AsyncGenerator[Message]
    if channel.scheme == "kafka":
        from watchword_adapters.kafka.tail import tail as of_topic  # noqa: PLC0415 - comes with an extra

        found = of_topic(channel.name, watchword=agent, from_start=asked.from_start, ready=ready, **options)
    else:
        from watchword_adapters.nats.tail import tail as of_subject  # noqa: PLC0415 - as above

        found = of_subject(
            channel.name, watchword=agent, stream=asked.stream, from_start=asked.from_start, ready=ready, **options
        )
    async with aclosing(found):
        async for message in found:
            yield message


async def _while_read(work: Any) -> int:
    """Run to the end, or until the reader of the output has gone: the next message may be far away."""
    task: asyncio.Task[int] = asyncio.create_task(work)
    while not (await asyncio.wait((task,), timeout=_LOOKS_EVERY))[0]:
        if reader_has_gone():
            task.cancel()
            await asyncio.wait((task,))
            raise BrokenPipeError
    return task.result()


async def _heeding(asked: Tail, agent: Watchword, work: Coroutine[Any, Any, int]) -> int:
    """If verdicts are shown, start once the control log has been read."""
    if not (asked.verify or asked.live):
        return await work
    try:
        async with obeying(agent, read_settings(asked.config), asked.config.parent):
            return await work
    finally:
        work.close()  # not started if the control log is out of reach


async def _tail(
    asked: Tail,
    messages: AsyncGenerator[Message],
    judging: Watchword | None,
    show: Callable[[Message, Verdict | None], None],
) -> int:
    code, left = OK, asked.count
    async with aclosing(messages):
        async for message in messages:
            verdict = None if judging is None else await _verdict(judging, message)
            code = max(code, code_of(verdict))
            show(message, verdict)
            left = None if left is None else left - 1
            if left == 0:
                break
    return code


async def _verdict(judging: Watchword, message: Message) -> Verdict:
    try:
        # Nothing is acknowledged here, so nothing must wait in memory for that.
        return await judging.verifier.verify(replace(message, delivered_by=None))
    except (Rejected, Unavailable) as verdict:
        return verdict


@contextmanager
def _shown(asked: Tail) -> Iterator[Callable[[Message, Verdict | None], None]]:
    """Yield a function that shows a message: as a line, or in a live table."""
    if asked.live:
        from rich.live import Live  # noqa: PLC0415 - slow to import, and only needed for a table

        table = LiveTable(asked.channel)
        with Live(get_renderable=table.render, refresh_per_second=4) as live:

            def show_row(message: Message, verdict: Verdict | None) -> None:
                table.add(message, verdict)
                live.refresh()

            yield show_row
    else:
        yield _show_line


def _show_line(message: Message, verdict: Verdict | None) -> None:
    if verdict is None:
        write_line(message_to_json(message))
        return
    offset = None if message.position is None else message.position.offset
    where = {"channel": message.channel.uri, "partition": message.partition, "offset": offset}
    write_line(verdict_to_json(verdict) | {name: value for name, value in where.items() if value is not None})


class LiveTable:
    """The latest messages, one per row, and the number of each verdict."""

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._rows: deque[tuple[str, ...]] = deque(maxlen=MAX_ROWS)
        self._counts: Counter[str] = Counter()

    def add(self, message: Message, verdict: Verdict | None) -> None:
        """Add a message and its verdict."""
        who, what, why = _cells(verdict)
        self._counts[what if not isinstance(verdict, Rejected) else f"{what} ({verdict.reason})"] += 1
        place = (
            message.channel.name if message.position is None else f"{message.channel.name}@{message.position.offset}"
        )
        self._rows.append((time.strftime("%H:%M:%S"), place, who, what, why))

    def render(self) -> Table:
        """Return the current table; untrusted text can neither move the cursor nor act as markup."""
        from rich.table import Table  # noqa: PLC0415 - as above
        from rich.text import Text  # noqa: PLC0415 - as above

        counts = ", ".join(f"{count} {what}" for what, count in self._counts.most_common()) or "nothing yet"
        table = Table(title=Text(f"{escaped(self._channel)}: {counts}"), title_justify="left")
        for name in ("time", "where", "who", "verdict", "reason"):
            table.add_column(name, overflow="fold")
        for row in self._rows:
            table.add_row(*(Text(escaped(cell[:_MAX_CELL])) for cell in row))
        return table


def _cells(verdict: Verdict | None) -> tuple[str, str, str]:
    """Return a message's author, the verdict and the reason; an unverified name is marked as claimed."""
    if isinstance(verdict, Rejected):
        who = "" if verdict.claimed_principal is None else f"claimed: {verdict.claimed_principal}"
        return who, "rejected", str(verdict.reason)
    if isinstance(verdict, Unavailable):
        return "", "unavailable", str(verdict)
    assert verdict is not None  # noqa: S101 - for the type checker: the table shows verdicts
    return verdict.principal, "verified", "redelivered" if verdict.redelivered else ""
