"""Opens what is a regular file and nothing else, so that a pipe or device in its place cannot make a reader wait.

What a process keeps for itself must also be its own: whoever may write to it decides what the process remembers.
"""

from __future__ import annotations

import codecs
import errno
import os
import shlex
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)

_HAS_MODES: Final = os.name == "posix"
"""Whether the system says by owner and mode who may write."""


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """Open ``path`` for reading, following links (mounted secrets are links); OSError unless it is a regular file."""
    try:
        descriptor = os.open(path, _FLAGS)
    except ValueError:  # a zero byte in it
        raise OSError(errno.EINVAL, "is no path", repr(str(path))) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        kind = "is a directory" if stat.S_ISDIR(status.st_mode) else "is not a regular file"
        raise OSError(errno.EINVAL, kind, str(path))
    with os.fdopen(descriptor, "rb") as file:
        try:
            yield file, status
        except OSError as error:  # a failed read does not say of what
            if error.errno is not None:  # else it is one of ours, which says all
                error.filename = error.filename or str(path)
            raise


def check_ours(path: Path, status: os.stat_result) -> None:
    """Raise OSError, which says what to type, where others may write to a file or directory (root may anywhere)."""
    if not _HAS_MODES:
        return
    if status.st_uid not in {os.geteuid(), 0}:
        command = f"chown {os.geteuid()}"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        command = "chmod go-w"
    else:
        return
    beside = ", or name another directory in it" if stat.S_ISDIR(status.st_mode) else ""
    raise OSError(f"others may write to {path}: type {command} {shlex.quote(str(path))}{beside}")


def without_mark(data: bytes) -> bytes:
    """Return a text file's bytes without the byte-order mark that editors of Windows put before UTF-8."""
    return data.removeprefix(codecs.BOM_UTF8)
