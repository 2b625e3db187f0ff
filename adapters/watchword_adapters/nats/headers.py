"""Strict parser of NATS header blocks: nats-py hides duplicates, and a malformed block ends its reader task."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from watchword import engine

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterator, KeysView, Mapping

    from nats.aio.msg import Msg

    from watchword.message import Header

STATUS: Final = "Status"
DESCRIPTION: Final = "Description"
NO_RESPONDERS: Final = "503"
CONTROL: Final = "100"

_OWN: Final = frozenset({STATUS, DESCRIPTION})
_VERSION: Final = b"NATS/1.0"
_CRLF: Final = b"\r\n"
_WITHOUT_STATUS: Final = _VERSION + _CRLF
_BLANKS: Final = b" \t"
_NAME: Final = re.compile(rb"[!-9;-~]+")  # printable ASCII without space and colon
_ARRIVAL_BYTES: Final = 16
_STATUS_LINE: Final = re.compile(rb" ([0-9]{3})(?: ([ -~]*))?")


class HeaderBlock:
    """The headers of one message: a mapping as far as the client uses it, and what a mapping cannot represent.

    ``pairs`` holds every header in order, with duplicates; values are bytes without the spaces and tabs around them.
    ``fault`` says why the block is malformed; nothing in it can be trusted then. ``status`` is that of the status line,
    the only source of the mapping's ``Status``: a header of that name is left out. ``raw`` is the original block if it
    has no status line; None if the original must not be used.
    """

    pairs: tuple[Header, ...]
    fault: str | None
    status: str | None = None
    raw: bytes | None = None
    _shown: dict[str, str] | None = None
    _arrival: bytes | None = None

    def __init__(
        self, pairs: tuple[Header, ...] = (), *, status: str | None = None, text: str = "", fault: str | None = None
    ) -> None:
        self.pairs = pairs
        self.fault = fault
        if status is not None:
            self.status = status
            self._text = text

    @property
    def arrival(self) -> bytes:
        """A random id of this copy of the message, unique across processes; see ``Message.arrival``."""
        if self._arrival is None:
            self._arrival = os.urandom(_ARRIVAL_BYTES)
        return self._arrival

    def refused(self, fault: str) -> HeaderBlock:
        """Return the block marked as malformed, without a status."""
        return HeaderBlock(self.pairs, fault=fault)

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping())

    def __contains__(self, name: object) -> bool:
        return name in self._mapping()

    def __getitem__(self, name: str) -> str:
        return self._mapping()[name]

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return a value; the client reads each message's status."""
        return self.status or default if name == STATUS else self._mapping().get(name, default)

    def keys(self) -> KeysView[str]:
        """Return the header names."""
        return self._mapping().keys()

    def items(self) -> ItemsView[str, str]:
        """Return header names and values."""
        return self._mapping().items()

    def _mapping(self) -> dict[str, str]:
        if self._shown is None:
            shown = {name: (value or b"").decode("utf-8", "replace") for name, value in self.pairs if name not in _OWN}
            if self.status is not None:
                shown[STATUS] = self.status
                if self._text:
                    shown[DESCRIPTION] = self._text
            self._shown = shown
        return self._shown


class _Unread(HeaderBlock):
    """A block without a status line, parsed on first access: the native engine parses it itself."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def __getattr__(self, name: str) -> object:
        """Parse the block when its pairs or fault are first accessed."""
        if name not in {"pairs", "fault"}:
            raise AttributeError(name)
        assert self.raw is not None  # noqa: S101 - for the type checker: set by the constructor
        native = engine.native()
        pairs = None if native is None else native.read_block(self.raw)
        if pairs is None:  # malformed: the Python parser finds the fault
            self.pairs, self.fault = read_lines(self.raw)
        else:
            self.pairs, self.fault = pairs, None
        return self.__dict__[name]


def read_block(raw: bytes) -> HeaderBlock:
    """Parse ``NATS/1.0[ status[ text]]``, ``name: value`` lines and the final empty line; never raises."""
    if raw.startswith(_WITHOUT_STATUS):
        return _Unread(raw)
    first = raw.partition(_CRLF)[0]
    if not first.startswith(_VERSION):
        return HeaderBlock(fault=_NO_BLOCK)
    pairs, fault = read_lines(raw)
    status = _STATUS_LINE.fullmatch(first[len(_VERSION) :])
    if fault is not None or status is None:
        return HeaderBlock(pairs, fault=fault or "broken status line")
    return HeaderBlock(pairs, status=status[1].decode(), text=(status[2] or b"").decode())


_NO_BLOCK: Final = "header block without version or end"


def read_lines(raw: bytes) -> tuple[tuple[Header, ...], str | None]:
    """Parse a block after its first line; return the headers and the fault, or None."""
    lines = raw.split(_CRLF)[1:]
    if lines[-2:] != [b"", b""]:
        return (), _NO_BLOCK
    pairs: list[Header] = []
    strays = raw.count(b"\r") != len(lines) or raw.count(b"\n") != len(lines)
    for line in lines[:-2]:
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name) or (strays and (b"\r" in value or b"\n" in value)):
            return tuple(pairs), "broken header line"
        pairs.append((name.decode("ascii"), value.strip(_BLANKS)))
    return tuple(pairs), None


_NONE: Final = HeaderBlock()


def block_of(raw: Msg) -> HeaderBlock:
    """Return the header block of a message received by our client."""
    headers: object = raw.headers
    return headers if isinstance(headers, HeaderBlock) else _NONE


def block_size(headers: Mapping[str, str]) -> int:
    """Return the size of ``headers`` (ASCII) as nats-py writes them, which counts against ``max_payload``."""
    return len(_VERSION) + 2 * len(_CRLF) + sum(len(name) + len(value) + 4 for name, value in headers.items())
