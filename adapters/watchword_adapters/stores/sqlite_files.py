"""Detects whether a SQLite file was replaced or restored from an older copy, by its inodes and a count file."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

_COUNT_BYTES: Final = 8

_Identity: TypeAlias = tuple[int, int] | None


class Files:
    """The database ``path`` with its write-ahead log and that log's index, and a count file next to them.

    The count is the least number of batches in the database. It is written after each batch and never synced, so a
    crash can only leave it too low; a database with fewer batches is an older copy that was put back.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with suppress(FileExistsError):
            # Only ours to write, since its content decides what a replay is. Never opened if it exists: closing
            # it would drop this process's other locks on it (SQLite, "How To Corrupt An SQLite Database File").
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._seen: list[_Identity] = []
        self._count: int | None = None

    def remember(self) -> None:
        """Record the files at these paths as the ones that are open."""
        self._seen = self._look()

    def are_others(self) -> bool:
        """Return True if the paths now lead to other files than those that are open here.

        Checking before a batch is early enough: the claims of the batch were issued before, so a process that finds
        another file after it finds one that was born later.
        """
        return self._look() != self._seen

    def least_batches(self) -> int | None:
        """Return the count file's value; None if there is none."""
        if self._count is None:
            return None
        held = os.pread(self._count, _COUNT_BYTES, 0)
        return int.from_bytes(held) if len(held) == _COUNT_BYTES else None

    def open_count(self) -> None:
        """Open the count file, if it exists."""
        with suppress(FileNotFoundError):
            self._count = os.open(f"{self._path}-count", os.O_RDWR)

    def write_count(self, batches: int) -> None:
        """Write the count, creating the file if need be."""
        if self._count is None:
            self._count = os.open(f"{self._path}-count", os.O_CREAT | os.O_RDWR, 0o600)
        os.pwrite(self._count, batches.to_bytes(_COUNT_BYTES), 0)

    def close(self) -> None:
        """Close the count file."""
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
