"""A private key in a PEM file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from watchword import ConfigurationError, SigningKey
from watchword.envelope import MAX_KEY_ID_BYTES
from watchword.settings import Section
from watchword_adapters.secret_file import read_secret

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
    pem = read_secret(
        path, what="private key", remedy="make one with 'watchword keygen'", most=MAX_PEM_BYTES, warn=warn
    )
    try:
        return SigningKey.from_pem(pem, key_id=key_id)
    except ConfigurationError as error:
        raise ConfigurationError(f"private key {path}: {error}") from None
