"""``watchword jwks``: collects public keys into one JWK Set."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from watchword import ConfigurationError, MemoryKeys
from watchword.jwk import to_jwks
from watchword_adapters.keys.public_files import list_files, read_keys

if TYPE_CHECKING:
    from collections.abc import Sequence


def collect(paths: Sequence[Path]) -> str:
    """Return a JWK Set of all keys in ``paths``, each once; ConfigurationError if they conflict."""
    try:
        keys, _ = read_keys(list_files(paths))
    except OSError as error:
        raise ConfigurationError(f"{error.filename}: {error.strerror}") from None
    unique = list(dict.fromkeys(keys))
    MemoryKeys(unique)
    return to_jwks(unique)


def replace_file(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, readable by all; only a regular file is ever replaced."""
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{path}: not a regular file: write another path, or omit --output to write to a pipe")
    try:
        descriptor, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            Path(beside).chmod(0o644)
            Path(beside).replace(path)
        except OSError:
            Path(beside).unlink()
            raise
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
