"""A private key in a PEM file, encrypted or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from watchword import ConfigurationError, SigningKey
from watchword.keys import check_key_id
from watchword.settings import Section
from watchword_adapters.signers.secret import Secret, read_guarded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from watchword.spi import Context, Warn


class Options(Section):
    """``[signer]`` with ``source = "file"``: path of the PEM, relative to the settings file; and the key's id.

    ``passphrase_env`` or ``passphrase_file`` says where the passphrase of an encrypted one is.
    """

    key: str
    key_id: str | None = None
    passphrase_env: str | None = None
    passphrase_file: str | None = None


def from_options(options: Mapping[str, Any], context: Context) -> SigningKey:
    """Return the key of the file that ``key`` names."""
    chosen = context.validate(Options, options)
    key_id = None if chosen.key_id is None else chosen.key_id.encode()
    if key_id is not None:
        check_key_id(key_id)
    passphrase = passphrase_of(chosen, context.directory, context.warn)
    return read_private_key(context.directory / chosen.key, key_id=key_id, passphrase=passphrase, warn=context.warn)


def passphrase_of(chosen: Options, directory: Path, warn: Warn) -> Secret | None:
    """Return where the passphrase is; None if the settings name none."""
    return Secret.named(
        "passphrase", variable=chosen.passphrase_env, file=chosen.passphrase_file, directory=directory, warn=warn
    )


def read_private_key(
    path: Path, *, warn: Warn, key_id: bytes | None = None, passphrase: Secret | None = None
) -> SigningKey:
    """Read a PKCS#8 PEM; ConfigurationError if it is not one, others may write to it, or it cannot be decrypted."""
    secret = None if passphrase is None else passphrase.read().encode()
    pem = read_guarded("private key", path, remedy="make one with 'watchword keygen'", warn=warn)
    try:
        return SigningKey.from_pem(pem, key_id=key_id, passphrase=secret)
    except ConfigurationError as error:
        raise ConfigurationError(f"private key {path}: {error}") from None
