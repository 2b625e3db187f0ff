"""Encodes and decodes NKeys: Ed25519 keys in base32, with a leading byte for their kind and a trailing CRC-16.

See github.com/nats-io/nkeys, strkey.go: public keys have 35 bytes and 56 characters, seeds 36 bytes and 58 characters.
"""

from __future__ import annotations

import base64
import binascii
from enum import IntEnum
from typing import Final

from watchword import ConfigurationError

_SEED: Final = 18 << 3
_PRIVATE: Final = 15 << 3
_KIND_BITS: Final = 0b1111_1000
_LARGEST: Final = 128
_RAW: Final = 32


class Kind(IntEnum):
    """The kind of an NKey, by its leading byte."""

    OPERATOR = 14 << 3
    ACCOUNT = 0
    USER = 20 << 3
    SERVER = 13 << 3
    CLUSTER = 2 << 3
    CURVE = 23 << 3

    @property
    def letter(self) -> str:
        """The first letter of a public key of this kind, and the second one of its seed."""
        return "OAUNCX"[list(Kind).index(self)]

    @property
    def told(self) -> str:
        """The kind's name in error texts."""
        return "curve key (for encryption)" if self is Kind.CURVE else self.name.lower()


def decode_public(text: str, *kinds: Kind) -> bytes:
    """Return the 32 bytes of a public key of one of these kinds; ConfigurationError says what it is instead."""
    wanted = " or ".join(f"{kind.told}'s public key ({kind.letter}...)" for kind in kinds)
    raw = _decoded(text, wanted)
    if raw[0] & _KIND_BITS in {_SEED, _PRIVATE}:
        raise ConfigurationError(f"a private NKey instead of the {wanted}: replace it, since others may have read it")
    found = _kind(raw[0])
    if found is None or len(raw) != 1 + _RAW:
        raise ConfigurationError(f"{text[:_RAW]!r} is not the {wanted}")
    if found not in kinds:
        raise ConfigurationError(f"{text} is the public key of {_article(found)}: write the {wanted}")
    return raw[1:]


def decode_seed(text: str) -> bytes:
    """Return the 32 bytes of a user's seed; ConfigurationError, which reveals nothing of it, names any other kind."""
    wanted = "user's seed (SU...)"
    raw = _decoded(text, wanted, secret=True)
    if raw[0] & _KIND_BITS != _SEED:
        found = _kind(raw[0])
        what = "not a seed" if found is None else f"the public key of {_article(found)}"
        raise ConfigurationError(f"this is {what}: write the {wanted}")
    found = _kind((raw[0] & 0b111) << 5 | raw[1] >> 3)
    if found is None or len(raw) != 2 + _RAW:
        raise ConfigurationError(f"this is not a {wanted}")
    if found is not Kind.USER:
        raise ConfigurationError(f"this is the seed of {_article(found)}, which cannot sign messages: write a {wanted}")
    return raw[2:]


def encode_public(kind: Kind, raw: bytes) -> str:
    """Return the text of a public key."""
    return _encoded(bytes([kind]) + raw)


def encode_seed(kind: Kind, raw: bytes) -> str:
    """Return the text of a seed."""
    return _encoded(bytes([_SEED | kind >> 5, (kind & 0b1_1111) << 3]) + raw)


def crc16(data: bytes) -> int:
    """Return the CRC-16/XMODEM: polynomial 0x1021, initial value 0."""
    return binascii.crc_hqx(data, 0)


def _encoded(raw: bytes) -> str:
    return base64.b32encode(raw + crc16(raw).to_bytes(2, "little")).rstrip(b"=").decode()


def _decoded(text: str, wanted: str, *, secret: bool = False) -> bytes:
    """Return the bytes before the CRC; accepts only their canonical encoding."""
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8)) if 0 < len(text) <= _LARGEST else b""
    except ValueError:
        raw = b""
    if len(raw) <= 2 or _encoded(raw[:-2]) != text:  # noqa: PLR2004 - the CRC's size
        shown = "this" if secret or text[:1] in {"S", "P"} else repr(text[:_RAW])  # it may be a mistyped seed
        raise ConfigurationError(f"{shown} is not an NKey, or is mistyped: write the {wanted}")
    return raw[:-2]


def _kind(byte: int) -> Kind | None:
    return Kind(byte) if byte in list(Kind) else None


def _article(kind: Kind) -> str:
    return f"{'an' if kind.letter in 'AO' else 'a'} {kind.told}"
