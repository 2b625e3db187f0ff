"""Encodes and decodes the entries ``mark`` and ``reader.*`` of a NATS KV bucket: its birth and its readers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from watchword.replay import ReaderBirth
from watchword.strict import base64url

if TYPE_CHECKING:
    from watchword_adapters.stores.nats_bucket import Entry

NONCE_BYTES: Final = 16
_ROOM: Final = 2048
"""Initial size of a mark in bytes; see ``Mark.encoded``."""


class Mark(NamedTuple):
    """A bucket's birth and server, a nonce unique to the birth, and what may have been purged.

    A part of the bucket holds the ids issued in ``width`` seconds. An id is kept for at least ``lifetime`` seconds; ids
    in parts before number ``since`` may be gone. ``canary`` is the sequence of an entry that was stored before any id
    of this birth, and that is purged with the ids if someone purges them but not the mark. ``words`` counts the
    operator's changes of readers. ``sequence`` and ``size`` are those of the mark's own entry.
    """

    birth: float
    server: str
    nonce: bytes
    width: int
    lifetime: float
    since: int
    canary: int
    words: int = 0
    sequence: int = 0
    size: int = _ROOM

    @property
    def floor(self) -> int:
        """The time of issue up to which ids may be gone, in seconds since the epoch."""
        return self.since * self.width - 1

    def encoded(self) -> bytes:
        """Return its text, a byte shorter than the one it replaces: a full bucket accepts no longer one."""
        fields = {
            "birth": self.birth,
            "server": self.server,
            "nonce": self.nonce.hex(),
            "width": self.width,
            "lifetime": self.lifetime,
            "since": self.since,
            "canary": self.canary,
            "words": self.words,
        }
        text = json.dumps(fields).encode()
        return text.ljust(self.size - 1 if self.size > len(text) else _ROOM)


def read_mark(entry: Entry | None) -> Mark | None:
    """Parse a mark; None if it is missing or malformed, and must be replaced."""
    if entry is None:
        return None
    try:
        told = json.loads(entry.value)
        mark = Mark(
            float(told["birth"]),
            str(told["server"]),
            bytes.fromhex(told["nonce"]),
            int(told["width"]),
            float(told["lifetime"]),
            int(told["since"]),
            int(told["canary"]),
            int(told["words"]),
            entry.sequence,
            len(entry.value),
        )
    except (ValueError, TypeError, KeyError):
        return None
    return mark if len(mark.nonce) == NONCE_BYTES and mark.width > 0 else None


def reader_key(reader: str) -> str:
    """Return the key of a reader's entry."""
    return f"reader.{base64url(reader.encode(errors='surrogatepass'))}"


def encoded_reader(birth: ReaderBirth, nonce: bytes) -> bytes:
    """Return the text of a reader's entry, valid for one birth of the bucket."""
    return json.dumps({"nonce": nonce.hex(), "floor": birth.floor, "accepted": dict(birth.accepted)}).encode()


def read_reader(entry: Entry | None, nonce: bytes) -> ReaderBirth | None:
    """Parse a reader's entry; None if it is of another birth, or malformed."""
    if entry is None:
        return None
    try:
        told = json.loads(entry.value)
        if told["nonce"] != nonce.hex():
            return None
        accepted = {str(log): (int(last), float(appended)) for log, (last, appended) in told["accepted"].items()}
        return ReaderBirth(floor=float(told["floor"]), accepted=accepted)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
