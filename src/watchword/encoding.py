"""Encodes envelopes, claims, and the bytes that are signed and digested (docs/spec.md, sections 3 to 6)."""

from __future__ import annotations

from binascii import b2a_base64
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from watchword import engine
from watchword.cbor import ARRAY, BYTES, MAP, head, of_bytes, of_int, of_text
from watchword.labels import (
    ALGORITHM,
    CHANNEL,
    CONTEXT,
    COVERED,
    DETACHED,
    DIRECT,
    ENVELOPE,
    EXPIRES_AT,
    HASH,
    INCLUSION,
    ISSUED_AT,
    ISSUER,
    KEY_ID,
    MESSAGE_ID,
    METADATA,
    PARTITION,
    PROOF,
    RECIPIENT,
    REPLY_TO,
    REQUEST_ID,
    TREE,
    VALUE,
)
from watchword.merkle import leaf_of, paths_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchword.message import Header

_KEPT: Final = 1024
"""The most bytes of header values that may be cached."""

_STRUCTURES: Final = 1024
"""Cached beginnings of Sig_structures, by recent key and tree size."""


def sig_structure(protected: bytes, tree_size: int, payload: bytes) -> bytes:
    """Return COSE's Sig_structure (RFC 9052 section 4.4); ``tree_size`` is 0 for a direct signature."""
    return _before_payload(protected, tree_size) + of_bytes(payload)


@lru_cache(_STRUCTURES)
def _before_payload(protected: bytes, tree_size: int) -> bytes:
    external = head(ARRAY, 2) + of_text(CONTEXT) + of_int(tree_size)
    return head(ARRAY, 4) + of_text("Signature1") + of_bytes(protected) + of_bytes(external)


def encode_protected(algorithm: int, key_id: bytes, *, batched: bool = False) -> bytes:
    """Return the protected header."""
    fields = ALGORITHM + of_int(algorithm) + KEY_ID + of_bytes(key_id)
    return head(MAP, 3) + fields + TREE if batched else head(MAP, 2) + fields


class Layout:
    """The common claims (of CWT, RFC 8392, and our own) of messages with the same destination and header names."""

    def __init__(
        self, *, issuer: str, channel: str, recipient: str | None, covered: Sequence[str], partition: int | None
    ) -> None:
        addressed = b"" if recipient is None else RECIPIENT + of_text(recipient)
        self._sender = ISSUER + of_text(issuer) + addressed
        self._channel = CHANNEL + of_text(channel) + encode_names(covered)
        self._partition = b"" if partition is None else PARTITION + of_int(partition)
        self._count = 4 + bool(addressed) + bool(covered) + bool(self._partition)
        self.parts: Final = self._count, self._sender, self._channel, self._partition

    def claims(  # noqa: PLR0917 - one caller, which is hot
        self,
        message_id: bytes,
        issued_at: int,
        metadata: bytes | None,
        value: bytes | None,
        expires_at: int | None = None,
        request_id: bytes | None = None,
        reply_to: str | None = None,
    ) -> bytes:
        """Return a message's claims as deterministic CBOR; absent claims are left out."""
        metadata_claim = b"" if metadata is None else METADATA + metadata
        value_claim = b"" if value is None else VALUE + value
        expiry = b"" if expires_at is None else EXPIRES_AT + of_int(expires_at)
        request = b"" if request_id is None else REQUEST_ID + request_id
        reply = b"" if reply_to is None else REPLY_TO + of_text(reply_to)
        count = self._count + sum(map(bool, (metadata_claim, value_claim, expiry, request, reply)))
        return b"".join(
            (
                head(MAP, count), self._sender, expiry, ISSUED_AT, of_int(issued_at), MESSAGE_ID, message_id,
                self._channel, metadata_claim, self._partition, request, reply, value_claim,
            )
        )  # fmt: skip


def encode_names(covered: Sequence[str]) -> bytes:
    """Return the claim of covered header names; empty if there are none."""
    return COVERED + head(ARRAY, len(covered)) + b"".join(map(of_text, covered)) if covered else b""


def encode_direct(claims: bytes, protected: bytes, signature: bytes) -> bytes:
    """Return the header value (base64url without padding, ASCII) of a directly signed envelope."""
    return _armored(ENVELOPE, of_bytes(claims), PROOF, of_bytes(protected), DIRECT, DETACHED, of_bytes(signature))


class SignedTree:
    """The claims of several messages under one signature, that of ``data``; a single one is signed directly.

    ``protected`` is the protected header: of a batch, or for a single message of a direct signature.
    """

    def __init__(self, claims: Sequence[bytes], protected: bytes) -> None:
        self._claims = claims
        self._protected = protected
        if len(claims) == 1:
            self.data = sig_structure(protected, 0, claims[0])
        else:
            root, self._paths = paths_of([*map(leaf_of, claims)])
            self.data = sig_structure(protected, len(claims), root)

    def values(self, signature: bytes) -> list[bytes]:
        """Return the header value of each, in order."""
        if len(self._claims) == 1:
            return [encode_direct(self._claims[0], self._protected, signature)]
        before = PROOF + of_bytes(self._protected) + INCLUSION
        tree = head(ARRAY, 3) + of_int(len(self._claims))
        after = DETACHED + of_bytes(signature)
        values: list[bytes] = []
        for index, path in enumerate(self._paths):
            proof = b"".join((tree, of_int(index), head(ARRAY, len(path)), HASH, HASH.join(path)))
            values.append(_armored(ENVELOPE, of_bytes(self._claims[index]), before, of_bytes(proof), after))
        return values


def overhead(protected: bytes, path: int, signature: int) -> int:
    """Return the most bytes that an envelope has besides its claims, with ``path`` hashes and ``signature`` bytes."""
    proof = len(INCLUSION) + 3 + 1 + 2 * 3 + 1 + path * (len(HASH) + 32) if path else 1
    return 2 + 3 + 1 + len(of_bytes(protected)) + proof + 1 + len(head(BYTES, signature)) + signature


def characters(size: int) -> int:
    """Return the length of ``size`` bytes in base64url without padding."""
    return (size * 4 + 2) // 3


def _armored(*parts: bytes) -> bytes:
    text = b2a_base64(b"".join(parts), newline=False)
    return text.replace(b"+", b"-").replace(b"/", b"_").rstrip(b"=")  # a third quicker than translate


def value_digest(value: bytes | None) -> bytes | None:
    """Return SHA-256 of a value; None for an absent one, which is not an empty one."""
    return None if value is None else _digest(value)


def metadata_digest(key: bytes | None, pairs: bytes) -> bytes:
    """Return SHA-256 over the key and, in order, every covered header, of ``encode_pairs``.

    CBOR frames each part, so that no byte can move from one to another unseen.
    """
    return _digest(b"\x82" + of_bytes(key) + pairs)


def _digest(data: bytes) -> bytes:
    """Return SHA-256, from the native engine if present: OpenSSL is slow when it was not called for some time."""
    native = engine.native()
    return sha256(data).digest() if native is None else native.sha256(data)


def encode_pairs(headers: Sequence[Header]) -> bytes:
    """Return headers as they are digested."""
    pairs = [b"\x82" + of_text(name) + of_bytes(value) for name, value in headers]
    return head(ARRAY, len(pairs)) + b"".join(pairs)


def may_be_kept(headers: Sequence[Header]) -> bool:
    """Return True if headers may be cached, to compare with the next message's: they are small and immutable."""
    kinds = {(type(one), *map(type, one)) for one in headers} | {(type(headers), str, bytes)}
    return kinds == {(tuple, str, bytes)} and sum([len(value or b"") for _, value in headers]) < _KEPT
