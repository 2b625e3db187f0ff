"""The files of the SQLite store from outside: whether it is still this file, and as new as it was."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

_COUNT_BYTES: Final = 8

_Identity: TypeAlias = tuple[int, int] | None


class Files:
    """The database ``path``, its write-ahead log and that one's index, which live together; and the count beside them.

    The count tells how many batches the database holds at least. It is written after each batch and never synced, so a
    crash can only leave it too low; a database that holds fewer is an older copy that somebody put back.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with suppress(FileExistsError):
            # Ours alone, for whoever may write to it decides what a replay is. Never opened where it exists: closing
            # it again would drop this process's other locks on it (SQLite, "How To Corrupt An SQLite Database File").
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._seen: list[_Identity] = []
        self._count: int | None = None

    def remember(self) -> None:
        """Take what is there for what is open."""
        self._seen = self._look()

    def are_others(self) -> bool:
        """Tell whether who opens the file by its name now does not find what is open here.

        Looked at before a batch, it is early enough: what is claimed in the batch was issued before, so whoever finds
        another file after it finds one that was born later.
        """
        return self._look() != self._seen

    def least_batches(self) -> int | None:
        """Return the count beside the database; None if there is none."""
        if self._count is None:
            return None
        held = os.pread(self._count, _COUNT_BYTES, 0)
        return int.from_bytes(held) if len(held) == _COUNT_BYTES else None

    def open_count(self) -> None:
        """Open the count; it need not be there."""
        with suppress(FileNotFoundError):
            self._count = os.open(f"{self._path}-count", os.O_RDWR)

    def write_count(self, batches: int) -> None:
        """Write the count, which makes it if need be."""
        if self._count is None:
            self._count = os.open(f"{self._path}-count", os.O_CREAT | os.O_RDWR, 0o600)
        os.pwrite(self._count, batches.to_bytes(_COUNT_BYTES), 0)

    def close(self) -> None:
        """Close the count."""
        if self._count is not None:
            os.close(self._count)
            self._count = None

    def _look(self) -> list[_Identity]:
        found: list[_Identity] = []
        for suffix in ("", "-wal", "-shm"):
            try:
                stat = os.stat(f"{self._path}{suffix}")  # noqa: PTH116 - three a batch
                found.append((stat.st_dev, stat.st_ino))
            except FileNotFoundError:
                found.append(None)
        return found
