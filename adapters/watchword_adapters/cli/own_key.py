"""``watchword key public`` and ``key generate``: show, or create in a token, the key that an agent's settings name."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from watchword import Algorithm, ConfigurationError
from watchword.jwk import to_jwk
from watchword.keys import public_half
from watchword.settings import SignerSettings
from watchword.spi import Context, ShownBackend
from watchword_adapters.cli import OK
from watchword_adapters.cli.keygen import create
from watchword_adapters.cli.lines import warn
from watchword_adapters.config import signing_key
from watchword_adapters.settings_file import read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class _Named(NamedTuple):
    """An agent's principal, and the settings of its key."""

    principal: str
    signer: SignerSettings
    context: Context


_MADE_BY = {
    "aws_kms": "aws kms create-key --key-usage SIGN_VERIFY --key-spec ECC_NIST_P256",
    "file": "watchword keygen",
    "nkey": "nsc add user",
    "spiffe": "SPIRE",
    "transit": "vault write -f transit/keys/NAME type=ed25519",
}
"""The commands that create keys for the other signers."""


def run_public(config: Path, otherwise: Sequence[str], output: Path | None) -> int:
    """Print or write the public half of an agent's key; return the exit code."""
    named = _named(config, otherwise)
    if named.signer.source == "spiffe":
        raise ConfigurationError(
            'signer.source = "spiffe": there is no key to hand out: readers take it from the certificate that this'
            " agent announces"
        )
    _show(signing_key(named.signer, named.context), named, output)
    return OK


def run_generate(config: Path, algorithm: str, otherwise: Sequence[str], output: Path | None) -> int:
    """Create an agent's key in its token, and print or write the public half; return the exit code."""
    named = _named(config, otherwise)
    if output is not None and output.exists():  # checked first, else an unpublished key would be left in the token
        raise ConfigurationError(f"{output} exists: name another file, or remove it")
    if named.signer.source != "pkcs11":
        hint = _MADE_BY.get(named.signer.source, "the tool that its plug-in documents")
        raise ConfigurationError(f'signer.source = "{named.signer.source}": create its key with: {hint}')
    from watchword_adapters.signers.pkcs11 import generate  # noqa: PLC0415 - comes with an extra

    _show(generate(named.signer.options, named.context, Algorithm[algorithm]), named, output)
    return OK


def _named(config: Path, otherwise: Sequence[str]) -> _Named:
    settings = read_settings(config)
    if settings.principal is None or settings.signer is None:
        raise ConfigurationError(f"{config}: no principal, or no [signer], so this agent has no key")
    said: dict[str, Any] = settings.signer.model_dump()
    for one in otherwise:
        name, sign, value = one.partition("=")
        if not (name and sign):
            raise ConfigurationError(f"--with {one!r}: write NAME=VALUE, as version=2")
        said[name] = value
    context = Context(
        realm=settings.realm,
        directory=config.parent,
        clock=time.time,
        policy=settings.to_policy(),
        warn=warn,
        principal=settings.principal,
    )
    return _Named(settings.principal, SignerSettings.model_validate(said), context)


def _show(key: object, named: _Named, output: Path | None) -> None:
    if not isinstance(key, ShownBackend):
        raise ConfigurationError(f'signer.source = "{named.signer.source}": its plug-in does not expose a public key')
    text = json.dumps(to_jwk(public_half(key, named.principal)), indent=2) + "\n"
    if output is None:
        sys.stdout.write(text)
        return
    create(output, text.encode(), 0o644)
    sys.stdout.write(f"key {key.key_id.decode(errors='replace')} of {named.principal}\npublic: {output}\n")
