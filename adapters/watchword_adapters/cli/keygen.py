"""``watchword keygen``: writes a new key pair to two files, the private key as PEM and the public one as a JWK."""

from __future__ import annotations

import json
import os
from pathlib import Path

from watchword import Algorithm, ConfigurationError, SigningKey
from watchword.jwk import to_jwk
from watchword_adapters.cli.lines import warn
from watchword_adapters.cli.names import check_typed, file_name
from watchword_adapters.signers.secret import Secret


def encrypting(variable: str | None, file: str | None) -> bytes | None:
    """Return the passphrase from a variable or a file; None if neither is named."""
    found = Secret.named("passphrase", variable=variable, file=file, directory=Path(), warn=warn)
    return None if found is None else found.read().encode()


def make_pair(
    principal: str,
    algorithm: str,
    private: Path | None,
    public: Path | None,
    *,
    passphrase: bytes | None = None,
    as_json: bool,
) -> str:
    """Write a new key pair and return the text to print; ConfigurationError, and no new file, if either file exists."""
    check_typed(principal)
    if private is None or public is None:
        name = file_name(principal, Path())
        if not name:
            raise ConfigurationError(f"no file name in principal {principal!r}: name files with --private and --public")
        private, public = private or Path(f"{name}.pem"), public or Path(f"{name}.jwk")
    key = SigningKey.generate(Algorithm[algorithm])
    owned = key.verification_key(principal)
    if public.exists():
        raise ConfigurationError(f"{public} exists: name another file, or remove it")
    create(private, key.to_pem(passphrase), 0o600)
    try:
        create(public, json.dumps(to_jwk(owned), indent=2).encode() + b"\n", 0o644)
    except ConfigurationError:
        private.unlink()
        raise
    kid = key.key_id.decode()
    if as_json:
        made = {"principal": principal, "kid": kid, "private": str(private), "public": str(public)}
        return json.dumps(made) + "\n"
    mode = "mode 0600" if passphrase is None else "mode 0600, encrypted"
    return (
        f"key {kid} of {principal}\n"
        f"private: {private} ({mode}; keep it, and name it in [signer])\n"
        f"public:  {public} (collect with 'watchword jwks')\n"
    )


def create(path: Path, content: bytes, mode: int) -> None:
    """Write a new file; it never overwrites one, so no key is lost, and it follows no symbolic link."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists: name another file, or remove it") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        path.unlink()
        raise ConfigurationError(f"{path}: {error.strerror}") from None
