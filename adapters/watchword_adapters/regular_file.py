"""Opens regular files and nothing else, so that a pipe or device in their place cannot block the reader.

It also checks that a process's own files are writable only by its user: their content decides what it remembers.
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

HAS_MODES: Final = os.name == "posix"
"""True if the system has owners and modes that say who may write."""


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """Open ``path`` for reading, following links (mounted secrets are links); OSError unless it is a regular file."""
    try:
        descriptor = os.open(path, _FLAGS)
    except ValueError:  # a null byte in it
        raise OSError(errno.EINVAL, "is not a path", repr(str(path))) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        kind = "is a directory" if stat.S_ISDIR(status.st_mode) else "is not a regular file"
        raise OSError(errno.EINVAL, kind, str(path))
    with os.fdopen(descriptor, "rb") as file:
        try:
            yield file, status
        except OSError as error:  # a failed read does not name the file
            if error.errno is not None:  # otherwise it is one of ours, which says everything
                error.filename = error.filename or str(path)
            raise


def check_ours(path: Path, status: os.stat_result) -> None:
    """Raise OSError, with the command to type, if others than its owner and root may write to a file or directory."""
    if not HAS_MODES:
        return
    if status.st_uid not in {os.geteuid(), 0}:
        command = f"chown {os.geteuid()}"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        command = "chmod go-w"
    else:
        return
    beside = ", or write the path of a directory in it" if stat.S_ISDIR(status.st_mode) else ""
    raise OSError(f"others may write to {path}: type {command} {shlex.quote(str(path))}{beside}")


def without_mark(data: bytes) -> bytes:
    """Return a text file's bytes without the byte-order mark that Windows editors put before UTF-8."""
    return data.removeprefix(codecs.BOM_UTF8)
