"""Signer ``nkey``: the seed with which a NATS user authenticates signs the agent's messages too.

The same seed signs the server's challenge: a nonce that the server chooses, which is text. What Watchword signs begins
with a byte that no text begins with (docs/nkeys.md), so neither signature can be mistaken for the other.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from watchword import ConfigurationError, SigningKey
from watchword.keys import check_key_id
from watchword.settings import Section
from watchword_adapters.nkeys.encoding import Kind, decode_seed, encode_public
from watchword_adapters.nkeys.source import TEMPLATE
from watchword_adapters.nkeys.tokens import parse_token
from watchword_adapters.signers.secret import read_guarded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from watchword.spi import Context
    from watchword_adapters.nkeys.tokens import Token

_IN_FLIGHT: Final = 7.0
"""Seconds before the end of the JWT from which nothing is signed: the last messages are still to be appended."""

MAX_CREDS_BYTES: Final = 64 * 1024
_SEED: Final = re.compile(r"-{3,}BEGIN USER NKEY SEED-{3,}\s+(\S+)\s+-{3,}END USER NKEY SEED-{3,}", re.ASCII)
_TOKEN: Final = re.compile(r"-{3,}BEGIN NATS USER JWT-{3,}\s+(\S+)\s+-{3,}END NATS USER JWT-{3,}", re.ASCII)


class Options(Section):
    """``[signer]`` with ``source = "nkey"``: path of a ``.creds`` or of a seed, relative to the settings file.

    ``key_id`` is needed if the key is published under another id than the default.
    """

    key: str
    key_id: str | None = None


class Credentials(NamedTuple):
    """A user's private key, its public NKey, and its JWT; None if the file has only a seed."""

    private: Ed25519PrivateKey
    user: str
    token: Token | None


def from_options(options: Mapping[str, Any], context: Context) -> SigningKey:
    """Return the key in the file ``key``."""
    chosen = context.validate(Options, options)
    key_id = None if chosen.key_id is None else chosen.key_id.encode()
    if key_id is not None:
        check_key_id(key_id)
    path = context.directory / chosen.key
    found = read_credentials(path, context)
    token = found.token
    if token is None:
        return SigningKey(found.private, key_id=key_id)
    ends = None if token.expires_at is None else token.expires_at - _IN_FLIGHT
    _check_validity(path, token, ends, context.clock())
    _check_principal(path, token, context.principal)
    return SigningKey(found.private, key_id=key_id, not_after=ends)


def read_credentials(path: Path, context: Context) -> Credentials:
    """Read a ``.creds`` or a seed file; ConfigurationError, which reveals nothing of it, if it is neither."""
    remedy = "write the path of this user's .creds or seed"
    data = read_guarded("NATS user", path, remedy=remedy, most=MAX_CREDS_BYTES, warn=context.warn)
    try:
        text = data.decode("ascii").strip()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: neither a .creds nor a seed: not ASCII") from None
    seeds, tokens = _SEED.findall(text), _TOKEN.findall(text)
    if len(seeds) > 1 or len(tokens) > 1:
        raise ConfigurationError(f"{path}: more than one user in it: write one per file")
    try:
        private = Ed25519PrivateKey.from_private_bytes(decode_seed(seeds[0] if seeds else text))
        token = parse_token(tokens[0]) if tokens else None
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    user = encode_public(Kind.USER, private.public_key().public_bytes_raw())
    if token is not None and (token.kind, token.subject) != ("user", user):
        raise ConfigurationError(f"{path}: its JWT is for {token.subject}, but its seed is of {user}: reissue it")
    return Credentials(private, user, token)


def _check_validity(path: Path, token: Token, ends: float | None, now: float) -> None:
    if ends is not None and now >= ends:
        raise ConfigurationError(f"{path}: its JWT has expired, so readers reject what it signs: issue a new one")
    if token.not_before is not None and now < token.not_before:
        raise ConfigurationError(
            f"{path}: its JWT is not valid for another {token.not_before - now:.0f} s, and readers reject what it signs"
            " before: start it later, or issue one that is valid now"
        )


def _check_principal(path: Path, token: Token, principal: str | None) -> None:
    """Refuse a principal that resembles, but is not, the name that readers give this user without a table."""
    expected = TEMPLATE.format(account=token.account, user=token.subject)
    if principal is None:
        raise ConfigurationError(
            f'{path}: as whom does it sign? write principal = "{expected}", or its name in [[keys]] of the readers'
        )
    parts = principal.removeprefix("nats://").split("/")
    if principal != expected and {token.account, token.subject} & set(parts):
        raise ConfigurationError(f'{path}: this user is not {principal!r}: write principal = "{expected}"')
