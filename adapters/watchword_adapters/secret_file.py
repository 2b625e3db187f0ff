"""Reads files with secrets: regular, of a bounded size, and writable by nobody else."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from watchword import ConfigurationError
from watchword_adapters.regular_file import open_regular, without_mark

if TYPE_CHECKING:
    from pathlib import Path

    from watchword.spi import Warn


def read_secret(path: Path, *, what: str, remedy: str, most: int, warn: Warn) -> bytes:
    """Return the text of a file of ``most`` bytes; ConfigurationError for another, or where others may write it.

    That others may read it is warned of, not refused: mounted secrets and checked-out test keys often are so. ``what``
    is what it holds, and ``remedy`` how to make one.
    """
    try:
        with open_regular(path) as (file, status):
            text = file.read(most + 1)
    except OSError as error:
        raise ConfigurationError(f"{what} {path}: {error.strerror}; {remedy}") from None
    if os.name == "posix" and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(f"{what} {path}: others may write it; run chmod 600, or replace the key")
    if os.name == "posix" and status.st_mode & stat.S_IROTH:
        warn("signer.key_readable_by_others", path=str(path), advice="chmod 600")
    if len(text) > most:
        raise ConfigurationError(f"{what} {path}: over {most} bytes")
    return without_mark(text)
