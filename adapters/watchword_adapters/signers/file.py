"""A private key in a PEM file."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Final

from watchword import ConfigurationError, SigningKey
from watchword.envelope import MAX_KEY_ID_BYTES
from watchword.settings import Section
from watchword_adapters.regular_file import open_regular, without_mark

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from watchword.spi import Context, Warn

MAX_PEM_BYTES: Final = 16 * 1024


class Options(Section):
    """``[signer]`` with ``source = "file"``: path of the PEM, relative to the settings file; and the key's id."""

    key: str
    key_id: str | None = None


def from_options(options: Mapping[str, Any], context: Context) -> SigningKey:
    """Return the key of the file that ``key`` names."""
    chosen = context.validate(Options, options)
    key_id = None if chosen.key_id is None else chosen.key_id.encode()
    if key_id is not None and not 1 <= len(key_id) <= MAX_KEY_ID_BYTES:
        raise ConfigurationError(f"key_id of {len(key_id)} bytes: use 1 to {MAX_KEY_ID_BYTES}")
    return read_private_key(context.directory / chosen.key, key_id=key_id, warn=context.warn)


def read_private_key(path: Path, *, warn: Warn, key_id: bytes | None = None) -> SigningKey:
    """Read an unencrypted PKCS#8 PEM; ConfigurationError where it is none, or where others may write the file.

    That others may read it is warned of, not refused: mounted secrets and checked-out test keys often are so.
    """
    try:
        with open_regular(path) as (file, status):
            pem = file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"private key {path}: {error.strerror}; make one with 'watchword keygen'") from None
    if os.name == "posix" and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(f"private key {path}: others may write it; run chmod 600, or replace the key")
    if os.name == "posix" and status.st_mode & stat.S_IROTH:
        warn("signer.key_readable_by_others", path=str(path), advice="chmod 600")
    if len(pem) > MAX_PEM_BYTES:
        raise ConfigurationError(f"private key {path}: over {MAX_PEM_BYTES} bytes, so no PEM key")
    try:
        return SigningKey.from_pem(without_mark(pem), key_id=key_id)
    except ConfigurationError as error:
        raise ConfigurationError(f"private key {path}: {error}") from None
