"""Writes envelopes, and what is signed and digested (docs/spec.md, sections 3 to 6)."""

from __future__ import annotations

from binascii import b2a_base64
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from watchword.cbor import ARRAY, BYTES, MAP, head, of_bytes, of_int, of_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchword.claims import Claims

CONTEXT: Final = "watchword/1"
"""Domain separation: a signature made for anything else does not verify here."""

INCLUSION: Final = b"\xa1\x19\x01\x8c\xa1\x20\x81"
"""The unprotected header of a batched envelope, up to its one inclusion proof: {396: {-1: [ ... ]}} (RFC 9942)."""

TREE: Final = b"\x19\x01\x8b\x01"
"""The protected field that makes an envelope batched: {395: 1}, RFC9162_SHA256."""

HASH: Final = head(BYTES, 32)
ID: Final = head(BYTES, 16)
SIGNATURE: Final = head(BYTES, 64)

_SHORT: Final = 64
"""Bytes of a header's value that is likely to come again, as a content type does."""

_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


def sig_structure(protected: bytes, tree_size: int, payload: bytes) -> bytes:
    """Return COSE's Sig_structure (RFC 9052 section 4.4); ``tree_size`` is 0 for a direct signature."""
    external = head(ARRAY, 2) + of_text(CONTEXT) + of_int(tree_size)
    return head(ARRAY, 4) + of_text("Signature1") + of_bytes(protected) + of_bytes(external) + of_bytes(payload)


def encode_protected(algorithm: int, key_id: bytes, *, batched: bool = False) -> bytes:
    """Return the protected header."""
    fields = b"\x01" + of_int(algorithm) + b"\x04" + of_bytes(key_id)
    return head(MAP, 3) + fields + TREE if batched else head(MAP, 2) + fields


def encode_claims(claims: Claims) -> bytes:
    """Return the claims as deterministic CBOR; what is absent takes no room."""
    fields = [b"\x01" + of_text(claims.issuer)]
    if claims.recipient is not None:
        fields.append(b"\x03" + of_text(claims.recipient))
    if claims.expires_at is not None:
        fields.append(b"\x04" + of_int(claims.expires_at))
    fields += (b"\x06" + of_int(claims.issued_at), b"\x07" + ID + claims.id, b"\x61c" + of_text(claims.channel))
    if claims.covered:
        fields.append(encode_names(claims.covered))
    if claims.metadata_digest is not None:
        fields.append(b"\x61m" + HASH + claims.metadata_digest)
    if claims.partition is not None:
        fields.append(b"\x61p" + of_int(claims.partition))
    if claims.request_id is not None:
        fields.append(b"\x61q" + ID + claims.request_id)
    if claims.reply_to is not None:
        fields.append(b"\x61r" + of_text(claims.reply_to))
    if claims.value_digest is not None:
        fields.append(b"\x61v" + HASH + claims.value_digest)
    return head(MAP, len(fields)) + b"".join(fields)


def encode_names(covered: Sequence[str]) -> bytes:
    """Return the claim of covered header names; nothing where there are none."""
    return b"\x61h" + head(ARRAY, len(covered)) + b"".join(map(of_text, covered)) if covered else b""


def encode_direct(claims_bytes: bytes, protected: bytes, signature: bytes) -> bytes:
    """Return the header value (base64url without padding, ASCII) of a directly signed envelope."""
    return _armored(claims_bytes, protected, b"\xa0", signature)


def encode_batched(
    claims_bytes: bytes, protected: bytes, signature: bytes, *, size: int, index: int, path: Sequence[bytes]
) -> bytes:
    """Return the header value of one leaf of a signed tree; ``protected`` says that it is one."""
    proof = head(ARRAY, 3) + of_int(size) + of_int(index) + head(ARRAY, len(path)) + HASH + HASH.join(path)
    return _armored(claims_bytes, protected, INCLUSION + of_bytes(proof), signature)


def characters(claims_size: int, protected_size: int, path: int) -> int:
    """Return the most characters of an envelope with claims of that many bytes and a path of that many hashes."""
    proof = len(INCLUSION) + 3 + 1 + 2 * 3 + 1 + path * (len(HASH) + 32) if path else 1
    raw = 2 + 3 + claims_size + 1 + 2 + protected_size + proof + 1 + 2 + 64
    return (raw * 4 + 2) // 3


def _armored(claims_bytes: bytes, protected: bytes, unprotected: bytes, signature: bytes) -> bytes:
    raw = b"".join(
        (b"\x83\x01", of_bytes(claims_bytes), b"\x84", of_bytes(protected), unprotected, b"\xf6", of_bytes(signature))
    )
    return b2a_base64(raw, newline=False).rstrip(b"=").translate(_URL_SAFE)


def value_digest(value: bytes | None) -> bytes | None:
    """Return SHA-256 of a value; None for an absent one, which is not an empty one."""
    return None if value is None else sha256(value).digest()


def metadata_digest(key: bytes | None, pairs: Sequence[bytes]) -> bytes:
    """Return SHA-256 over the key and, in order, the pairs of every covered header.

    CBOR frames each part, so that no byte can move from one to another unseen.
    """
    return sha256(b"\x82" + of_bytes(key) + head(ARRAY, len(pairs)) + b"".join(pairs)).digest()


def encode_pair(name: str, value: bytes | None) -> bytes:
    """Return a header as it is digested."""
    if value is None or len(value) <= _SHORT:
        return _short_pair(name, value)
    return b"\x82" + of_text(name) + of_bytes(value)


@lru_cache(1024)
def _short_pair(name: str, value: bytes | None) -> bytes:
    return b"\x82" + of_text(name) + of_bytes(value)
