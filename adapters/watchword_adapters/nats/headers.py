"""NATS header blocks, read strictly: plain nats-py hides duplicates, and a broken block ends its reader task."""

from __future__ import annotations

import os
import re
from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from watchword.message import Header

STATUS: Final = "Status"
DESCRIPTION: Final = "Description"
NO_RESPONDERS: Final = "503"
CONTROL: Final = "100"

_OWN: Final = frozenset({STATUS, DESCRIPTION})
_VERSION: Final = b"NATS/1.0"
_CRLF: Final = b"\r\n"
_BLANKS: Final = b" \t"
_NAME: Final = re.compile(rb"[!-9;-~]+")  # printable ASCII without blank and colon
_ARRIVAL_BYTES: Final = 16
_STATUS_LINE: Final = re.compile(rb" ([0-9]{3})(?: ([ -~]*))?")


class HeaderBlock(dict[str, str]):
    """The headers of one message: a dict for the client's own use, and what the dict cannot show.

    ``pairs`` holds every header in order, duplicates too, values as bytes with blanks and tabs taken off both ends
    and nothing else. ``fault`` says why the block is none; then nothing of it can be trusted. ``status`` is that of the
    status line, the only thing that ever becomes the dict's ``Status``: a header of that name cannot.
    """

    def __init__(
        self, pairs: tuple[Header, ...] = (), *, status: str | None = None, text: str = "", fault: str | None = None
    ) -> None:
        for name, value in pairs:
            if name not in _OWN:
                self[name] = (value or b"").decode("utf-8", "replace")
        self.pairs: Final = pairs
        self.fault: Final = fault
        self.status: Final = status
        if status is not None:
            self[STATUS] = status
            if text:
                self[DESCRIPTION] = text

    @cached_property
    def arrival(self) -> bytes:
        """What tells this copy of the message from every other one, in any process; see ``Message.arrival``."""
        return os.urandom(_ARRIVAL_BYTES)

    def refused(self, fault: str) -> HeaderBlock:
        """Return the block as one that cannot be read, and has no status."""
        return HeaderBlock(self.pairs, fault=fault)


def read_block(raw: bytes) -> HeaderBlock:
    """Read ``NATS/1.0[ status[ text]]``, ``name: value`` lines and the empty line at the end; never raises."""
    first, *lines = raw.split(_CRLF)
    if not first.startswith(_VERSION) or lines[-2:] != [b"", b""]:
        return HeaderBlock(fault="header block without version or end")
    pairs: list[Header] = []
    strays = raw.count(b"\r") != len(lines) or raw.count(b"\n") != len(lines)
    for line in lines[:-2]:
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name) or (strays and (b"\r" in value or b"\n" in value)):
            return HeaderBlock(tuple(pairs), fault="broken header line")
        pairs.append((name.decode("ascii"), value.strip(_BLANKS)))
    rest = first[len(_VERSION) :]
    if not rest:
        return HeaderBlock(tuple(pairs))
    status = _STATUS_LINE.fullmatch(rest)
    if status is None:
        return HeaderBlock(tuple(pairs), fault="broken status line")
    return HeaderBlock(tuple(pairs), status=status[1].decode(), text=(status[2] or b"").decode())


def block_size(headers: Mapping[str, str]) -> int:
    """Return the bytes that nats-py will write for ``headers`` (ASCII), which count against ``max_payload``."""
    return len(_VERSION) + 2 * len(_CRLF) + sum(len(name) + len(value) + 4 for name, value in headers.items())
