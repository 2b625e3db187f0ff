"""What a NATS KV bucket of ids says of itself and of its readers: the texts under ``mark`` and ``reader.*``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from watchword.replay import ReaderBirth
from watchword.strict import base64url

if TYPE_CHECKING:
    from watchword_adapters.stores.nats_bucket import Entry

NONCE_BYTES: Final = 16
_ROOM: Final = 2048
"""Bytes of a mark to begin with; see ``Mark.encoded``."""


class Mark(NamedTuple):
    """When the bucket was born and on which server, a number that no other birth has, and what may have left it.

    A part of the bucket holds what was issued in ``width`` seconds. An id is kept for ``lifetime`` seconds at least;
    what was issued in a part before number ``since`` may be gone. ``canary`` is the sequence of an entry that was put
    before any id of this birth, and that goes with the ids where somebody purges them and not the mark. ``words``
    counts how often the operator spoke of a reader. ``sequence`` and ``size`` are those of the mark's own entry.
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
        """Up to when what was issued may be gone; seconds since the epoch."""
        return self.since * self.width - 1

    def encoded(self) -> bytes:
        """Return its text, a byte shorter than the one that it replaces: a bucket that is full takes no longer one."""
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
    """Read a mark; None where there is none that can be read, in whose place a new one is to be put."""
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
    """Return the key under which a reader is known."""
    return f"reader.{base64url(reader.encode(errors='surrogatepass'))}"


def encoded_reader(birth: ReaderBirth, nonce: bytes) -> bytes:
    """Return the text of a reader that is known under one birth of the bucket."""
    return json.dumps({"nonce": nonce.hex(), "floor": birth.floor, "accepted": dict(birth.accepted)}).encode()


def read_reader(entry: Entry | None, nonce: bytes) -> ReaderBirth | None:
    """Read what is known of a reader; None for what was known under another birth, or cannot be read."""
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
