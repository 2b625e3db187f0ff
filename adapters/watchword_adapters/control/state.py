"""What a process keeps of the control log over restarts: the statements that decide, as they were signed.

A file of JSON lines. The first says what it is and of which channel. Then come, in the order in which they were
heard, statements (as the messages that they are), how far the log was read, and how far the chains were known. A line
that a crash cut off is left out. Once most lines decide nothing any more the file is written anew, beside itself.
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
_SPARE: Final = 1000
"""Lines that decide nothing, and are not worth writing the file anew."""


class Place(NamedTuple):
    """How far a log was read: which one, and the position of what comes next."""

    identity: str
    position: int


class Known(NamedTuple):
    """What a file holds."""

    place: Place | None
    messages: list[Message]
    links: dict[OperatorKey, Link]


class StateFile:
    """The file of one channel in the directory that ``[replay] state`` names.

    ConfigurationError where it cannot be used, or others may write to it or its directory, and so take out of it that
    somebody is contained; OSError from what cannot be written.
    """

    def __init__(self, directory: Path, channel: str) -> None:
        self.path: Final = directory / f"control-{sha256(channel.encode()).hexdigest()[:16]}.jsonl"
        self._channel: Final = channel
        self._lines = 0

    def load(self) -> Known:
        """Read what is known; nothing, where there is no file yet."""
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
        lines.pop()  # the end of the last line, or what a crash left of one
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
            f"state: {self.path} is not what this channel's operators said: put it away to begin again"
        )

    def _is_header(self, line: bytes) -> bool:
        expected = {"watchword_control": _VERSION, "channel": self._channel}
        return bool(_members(line) == expected)

    def append(self, messages: Iterable[Message], place: Place | None, links: Mapping[OperatorKey, Link]) -> None:
        """Write statements that were heard, and how far that is; a restart of this process will find it."""
        new = b"".join(_lines_of(messages, place, links))
        if not self.path.exists():
            self.write((), None, {})
        with self.path.open("ab") as file:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
        self._lines += new.count(b"\n")

    def is_bloated(self, deciding: int) -> bool:
        """Return True if most of it decides nothing any more."""
        return self._lines > 2 * deciding + _SPARE

    def write(self, messages: Iterable[Message], place: Place | None, links: Mapping[OperatorKey, Link]) -> None:
        """Write the file anew."""
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
