"""Stores the statements of the control log that are in force, as they were signed, across restarts.

A file of JSON lines. The first names the format and the channel. The others, in the order in which they were read, are
statements (as whole messages), how far the log was read, and how far each operator's chain was known. A line cut off by
a crash is ignored. Once most lines are obsolete, the file is rewritten next to itself and replaced.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from watchword import ConfigurationError
from watchword.control import Link
from watchword.wire_json import message_from_members, message_to_json
from watchword_adapters.regular_file import check_ours, open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from watchword.control import OperatorKey
    from watchword.spi import Message

_VERSION: Final = 1
SPARE_LINES: Final = 1000
"""Obsolete lines that are not worth rewriting the file."""


class Place(NamedTuple):
    """How far a log was read: its identity, and the position of the next entry."""

    identity: str
    position: int


class Known(NamedTuple):
    """The contents of a file."""

    place: Place | None
    messages: list[Message]
    links: dict[OperatorKey, Link]


class StateFile:
    """The file of one channel in the directory named by ``[replay] state``.

    ConfigurationError if it cannot be used, or if others may write to it or its directory and could remove a
    containment; OSError if it cannot be written.
    """

    def __init__(self, directory: Path, channel: str) -> None:
        self.path: Final = directory / f"control-{sha256(channel.encode()).hexdigest()[:16]}.jsonl"
        self._channel: Final = channel
        self._lines = 0

    def load(self) -> Known:
        """Read the file; empty if there is none yet."""
        known = Known(None, [], {})
        try:
            check_ours(self.path.parent, self.path.parent.stat())
            with open_regular(self.path) as (file, status):
                check_ours(self.path, status)
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return known
        except OSError as error:
            raise ConfigurationError(f"state: {self.path}: {error.strerror or error}") from None
        lines.pop()  # the end of the last line, or a line cut off by a crash
        if not lines or not self._is_header(lines[0]):
            raise self._foreign()
        place, self._lines = None, len(lines)
        for line in lines[1:]:
            match _members(line):
                case {"at": [str(identity), int(position)]}:
                    place = Place(identity, position)
                case {"of": [str(name), str(key)], "link": [int(number), str(digest), int(whole)]}:
                    known.links[name, key] = Link(number, digest, whole)
                case {"statement": dict(members)}:
                    try:
                        known.messages.append(message_from_members(members))
                    except ValueError:
                        raise self._foreign() from None
        return known._replace(place=place)

    def _foreign(self) -> ConfigurationError:
        return ConfigurationError(
            f"state: {self.path} does not hold this channel's statements: move it away to start again"
        )

    def _is_header(self, line: bytes) -> bool:
        expected = {"watchword_control": _VERSION, "channel": self._channel}
        return bool(_members(line) == expected)

    def append(self, messages: Iterable[Message], place: Place | None, links: Mapping[OperatorKey, Link]) -> None:
        """Append statements, and how far the log was read, for the next start of this process."""
        new = b"".join(_lines_of(messages, place, links))
        if not self.path.exists():
            self.write((), None, {})
        with self.path.open("ab") as file:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
        self._lines += new.count(b"\n")

    def is_bloated(self, deciding: int) -> bool:
        """Return True if most of its lines are obsolete."""
        return self._lines > 2 * deciding + SPARE_LINES

    def write(self, messages: Iterable[Message], place: Place | None, links: Mapping[OperatorKey, Link]) -> None:
        """Rewrite the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = self.path.with_suffix(f".{os.getpid()}")
        lines = [
            _line({"watchword_control": _VERSION, "channel": self._channel}),
            *_lines_of(messages, place, links),
        ]
        try:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
        self._lines = len(lines)


def _lines_of(messages: Iterable[Message], place: Place | None, links: Mapping[OperatorKey, Link]) -> Iterable[bytes]:
    for message in messages:
        yield _line({"statement": message_to_json(message)})
    for by, link in links.items():
        yield _line({"of": list(by), "link": list(link)})
    if place is not None:
        yield _line({"at": list(place)})


def _line(members: Mapping[str, object]) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode() + b"\n"


def _members(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
