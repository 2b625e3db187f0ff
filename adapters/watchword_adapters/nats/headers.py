"""NATS header blocks, read strictly: plain nats-py hides duplicates, and a broken block ends its reader task."""

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
_NAME: Final = re.compile(rb"[!-9;-~]+")  # printable ASCII without blank and colon
_ARRIVAL_BYTES: Final = 16
_STATUS_LINE: Final = re.compile(rb" ([0-9]{3})(?: ([ -~]*))?")


class HeaderBlock:
    """The headers of one message: a mapping as far as the client uses it, and what a mapping cannot show.

    ``pairs`` holds every header in order, duplicates too, values as bytes with blanks and tabs taken off both ends
    and nothing else. ``fault`` says why the block is none; then nothing of it can be trusted. ``status`` is that of the
    status line, the only thing that ever becomes the mapping's ``Status``: a header of that name cannot. ``raw`` is a
    block without a status line as it came; None where it is not to be read as it came.
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
        """What tells this copy of the message from every other one, in any process; see ``Message.arrival``."""
        if self._arrival is None:
            self._arrival = os.urandom(_ARRIVAL_BYTES)
        return self._arrival

    def refused(self, fault: str) -> HeaderBlock:
        """Return the block as one that cannot be read, and has no status."""
        return HeaderBlock(self.pairs, fault=fault)

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping())

    def __contains__(self, name: object) -> bool:
        return name in self._mapping()

    def __getitem__(self, name: str) -> str:
        return self._mapping()[name]

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return a value; the client asks each message for its status."""
        return self.status or default if name == STATUS else self._mapping().get(name, default)

    def keys(self) -> KeysView[str]:
        """Return the names."""
        return self._mapping().keys()

    def items(self) -> ItemsView[str, str]:
        """Return names and values."""
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
    """A block without a status line, which is read when somebody asks: the native engine reads it by itself."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def __getattr__(self, name: str) -> object:
        """Read the block, when its pairs or fault are first asked for."""
        if name not in {"pairs", "fault"}:
            raise AttributeError(name)
        assert self.raw is not None  # noqa: S101 - for the type checker: it has been set
        native = engine.native()
        pairs = None if native is None else native.read_block(self.raw)
        if pairs is None:  # what is wrong is for Python to say
            self.pairs, self.fault = read_lines(self.raw)
        else:
            self.pairs, self.fault = pairs, None
        return self.__dict__[name]


def read_block(raw: bytes) -> HeaderBlock:
    """Read ``NATS/1.0[ status[ text]]``, ``name: value`` lines and the empty line at the end; never raises."""
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
    """Read what stands behind the first line of a block; tell what is wrong with it, if anything is."""
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
    """Return the headers of a message that our client read."""
    headers: object = raw.headers
    return headers if isinstance(headers, HeaderBlock) else _NONE


def block_size(headers: Mapping[str, str]) -> int:
    """Return the bytes that nats-py will write for ``headers`` (ASCII), which count against ``max_payload``."""
    return len(_VERSION) + 2 * len(_CRLF) + sum(len(name) + len(value) + 4 for name, value in headers.items())
