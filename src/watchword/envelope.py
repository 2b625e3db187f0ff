"""Parses the envelope, version 1: claims and their proof in one header (docs/spec.md is normative).

Takes a header's value, and returns its fields as received; anything but an exact envelope is ``malformed``. It verifies
no signature; ``encoding`` writes envelopes.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from watchword.algorithms import LARGEST, limits_of
from watchword.cbor import ARRAY, BYTES, MAP, TEXT, UINT, read_head, read_int, read_string
from watchword.encoding import characters, sig_structure
from watchword.errors import Reason, Rejected
from watchword.labels import (
    ALGORITHM,
    CHANNEL,
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
from watchword.merkle import leaf_of, root_of
from watchword.message import ENVELOPE_HEADER, MAX_HEADERS, is_principal

VERSION: Final = 1
MAX_ENVELOPE_CHARACTERS: Final = characters(LARGEST.envelope)
"""For any algorithm; the limit in bytes depends on the algorithm that an envelope claims."""

MIN_TREE_SIZE: Final = 2
MAX_TREE_SIZE: Final = 4096
MAX_KEY_ID_BYTES: Final = 128
ID_BYTES: Final = 16

_MAX_PATH: Final = 12
_HASH_BYTES: Final = 32
_NODE_BYTES: Final = len(HASH) + _HASH_BYTES
_TIME_LIMIT: Final = 1 << 33
_PARTITION_LIMIT: Final = 1 << 31
_REQUIRED: Final = 4

_TO_BASE64: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
"""Maps base64url to base64; characters that only base64 has become one that neither has."""

_LAST: Final = {2: frozenset(b"AQgw"), 3: frozenset(b"AEIMQUYcgkosw048")}
"""The last characters allowed, by the text's length modulo 4: those whose four or two unused bits are zero."""


@dataclass(frozen=True, slots=True)
class Common:
    """What many envelopes from one sender have in common."""

    issuer: str
    channel: str
    recipient: str | None
    expires_at: int | None
    covered: tuple[str, ...]
    visible: frozenset[str]
    partition: int | None
    request_id: bytes | None
    reply_to: str | None
    protected: bytes
    algorithm: int
    key_id: bytes


@dataclass(slots=True, init=False)
class Envelope:
    """A parsed envelope; nothing in it is verified. Bytes are stored as received, since signatures cover them.

    ``leaf`` is the claims' hash in the tree, also used wherever a digest of the claims is needed. ``size`` is the
    tree's, or 0 for a direct signature. Readers fill in the caller's object, to save one object per message.
    """

    common: Common
    id: bytes
    issued_at: int
    metadata_digest: bytes | None
    value_digest: bytes | None
    claims_bytes: bytes
    leaf: bytes
    signature: bytes
    size: int
    index: int
    path: tuple[bytes, ...]

    def root(self) -> bytes | None:
        """Return what the signature covers: the root of the tree, or None if the inclusion proof does not fit.

        For a direct signature it is the claims' bytes.
        """
        if not self.size:
            return self.claims_bytes
        return root_of(self.leaf, self.index, self.size, self.path)

    def to_be_signed(self, root: bytes) -> bytes:
        """Return the bytes that were signed, given the ``root`` of this envelope."""
        return sig_structure(self.common.protected, self.size, root)


def is_envelope_name(name: str) -> bool:
    """Return True if this is the name of Watchword's own header, in any letter case."""
    return len(name) == len(ENVELOPE_HEADER) and name.lower() == ENVELOPE_HEADER


def parse(header: bytes) -> Envelope:
    """Read a header's value; Rejected (``malformed``) if it is not exactly an envelope of version 1."""
    envelope = Envelope()
    read_into(envelope, unarmored(header))
    return envelope


def read_into(envelope: Envelope, raw: bytes) -> None:
    """Read an envelope's bytes into ``envelope``; errors as for ``parse``."""
    try:
        _read(envelope, raw)
    except IndexError:
        raise _malformed("ends too early") from None
    except UnicodeDecodeError:
        raise _malformed("text that is not UTF-8") from None
    except ValueError as error:
        raise _malformed(str(error)) from None


def _read(envelope: Envelope, raw: bytes) -> None:
    if not raw.startswith(ENVELOPE):
        raise ValueError("not an envelope of version 1")
    claims_bytes, at = read_string(raw, len(ENVELOPE), BYTES)
    if not raw.startswith(PROOF, at):
        raise ValueError("proof is not a COSE_Sign1")
    protected, at = read_string(raw, at + 1, BYTES)
    algorithm, key_id, batched = _read_protected(protected)
    most, longest = limits_of(algorithm)
    if len(raw) > most:
        raise ValueError(f"envelope of {len(raw)} bytes: at most {most} with its algorithm")
    size, index = 0, 0
    path: tuple[bytes, ...] = ()
    if not batched:
        if not raw.startswith(DIRECT, at):
            raise ValueError("unprotected fields beside a direct signature")
        at += 1
    elif raw.startswith(INCLUSION, at):
        proof, at = read_string(raw, at + len(INCLUSION), BYTES)
        size, index, path = _read_inclusion(proof)
    else:
        raise ValueError("a batch needs exactly one inclusion proof")
    if not raw.startswith(DETACHED, at):
        raise ValueError("payload is not detached")
    signature, at = read_string(raw, at + 1, BYTES)
    if at != len(raw) or len(signature) > longest:
        raise ValueError("signature too long, or bytes after the end")
    _read_claims(envelope, claims_bytes, protected, algorithm, key_id)
    envelope.claims_bytes, envelope.leaf = claims_bytes, leaf_of(claims_bytes)
    envelope.signature, envelope.size, envelope.index, envelope.path = signature, size, index, path


def _read_claims(  # noqa: C901 - one step for each claim, in their order on the wire
    envelope: Envelope, data: bytes, protected: bytes, algorithm: int, key_id: bytes
) -> None:
    """Read the claims; their order is fixed, so a repeated or unknown claim is malformed."""
    count, at = read_head(data, 0, MAP)
    recipient = expires_at = metadata = partition = request_id = reply_to = value = None
    covered: tuple[str, ...] = ()
    found = _REQUIRED
    _expect(data, at, ISSUER, "issuer")
    raw, at = read_string(data, at + 1, TEXT)
    issuer = _read_principal(raw)
    if data.startswith(RECIPIENT, at):
        found += 1
        raw, at = read_string(data, at + 1, TEXT)
        recipient = _read_principal(raw)
    if data.startswith(EXPIRES_AT, at):
        found += 1
        expires_at, at = _read_number(data, at + 1, _TIME_LIMIT)
    _expect(data, at, ISSUED_AT, "time of issue")
    envelope.issued_at, at = _read_number(data, at + 1, _TIME_LIMIT)
    _expect(data, at, MESSAGE_ID, "id of 16 bytes")
    envelope.id = data[at + 2 : at + 18]
    _expect(data, at + 18, CHANNEL, "channel")
    channel, at = _read_name(data, at + 20)
    if data.startswith(COVERED, at):
        found += 1
        covered, at = _read_names(data, at + 2)
    if data.startswith(METADATA, at):
        found += 1
        metadata, at = data[at + 4 : at + 36], at + 36
    elif covered:
        raise ValueError("headers named but not digested")
    if data.startswith(PARTITION, at):
        found += 1
        partition, at = _read_number(data, at + 2, _PARTITION_LIMIT)
    if data.startswith(REQUEST_ID, at):
        found += 1
        request_id, at = data[at + 3 : at + 19], at + 19
    if data.startswith(REPLY_TO, at):
        found += 1
        reply_to, at = _read_name(data, at + 2)
    if data.startswith(VALUE, at):
        found += 1
        value, at = data[at + 4 : at + 36], at + 36
    if at != len(data) or found != count:
        raise ValueError("claims missing, unknown, unsorted or of another type")
    envelope.common = Common(
        issuer, channel, recipient, expires_at, covered, frozenset(covered), partition, request_id, reply_to,
        protected, algorithm, key_id,
    )  # fmt: skip
    envelope.metadata_digest, envelope.value_digest = metadata, value


def _malformed(detail: str) -> Rejected:
    return Rejected(Reason.MALFORMED, detail)


def unarmored(header: bytes) -> bytes:
    """Read base64url (RFC 4648 section 5); one sequence of bytes has one text."""
    if len(header) > MAX_ENVELOPE_CHARACTERS:
        raise _malformed(f"envelope of {len(header)} characters")
    over = len(header) % 4
    try:
        raw = a2b_base64(header.translate(_TO_BASE64) + b"=" * (-over % 4), strict_mode=True)
    except Base64Error:
        raise _malformed("not base64url") from None
    if over and header[-1] not in _LAST[over]:
        raise _malformed("not canonical base64url")
    return raw


def _expect(data: bytes, at: int, wanted: bytes, what: str) -> None:
    if not data.startswith(wanted, at):
        raise ValueError(f"claims: no {what} in its place")


def _read_number(data: bytes, at: int, limit: int) -> tuple[int, int]:
    number, at = read_head(data, at, UINT)
    if number >= limit:
        raise ValueError(f"number not below {limit}")
    return number, at


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    raw, at = read_string(data, at, TEXT)
    if not raw:
        raise ValueError("empty name")
    return raw.decode(), at


def _read_principal(raw: bytes) -> str:
    text = raw.decode()
    if not is_principal(text):
        raise ValueError("not a principal")
    return text


def _read_names(data: bytes, at: int) -> tuple[tuple[str, ...], int]:
    """Read the covered header names, which must be a sorted, non-empty set."""
    count, at = read_head(data, at, ARRAY)
    if count > MAX_HEADERS:
        raise ValueError(f"{count} covered headers: at most {MAX_HEADERS}")
    raws: list[bytes] = []
    for _ in range(count):
        raw, at = read_string(data, at, TEXT)
        raws.append(raw)
    names = tuple(raw.decode() for raw in raws)
    in_order = all(one < other for one, other in pairwise(raws))
    if not names or not in_order or any(map(is_envelope_name, names)):
        raise ValueError("covered headers are not a sorted set of names")
    return names, at


def _read_protected(data: bytes) -> tuple[int, bytes, bool]:
    """Read algorithm, key id and mode; only the protected 395 (RFC 9942) decides the mode."""
    fields, at = read_head(data, 0, MAP)
    _expect(data, at, ALGORITHM, "algorithm")
    algorithm, at = read_int(data, at + 1)
    _expect(data, at, KEY_ID, "key id")
    key_id, at = read_string(data, at + 1, BYTES)
    rest = data[at:]
    batched = rest == TREE
    if at > len(data) or (rest and not batched) or fields != 2 + batched or not 1 <= len(key_id) <= MAX_KEY_ID_BYTES:
        raise ValueError("protected header is not a map of 1, 4 and maybe 395")
    return algorithm, key_id, batched


def _read_inclusion(proof: bytes) -> tuple[int, int, tuple[bytes, ...]]:
    if proof[0] != ARRAY + 3:
        raise ValueError("inclusion proof of another shape")
    size, at = read_head(proof, 1, UINT)
    index, at = read_head(proof, at, UINT)
    nodes, at = read_head(proof, at, ARRAY)
    if not (MIN_TREE_SIZE <= size <= MAX_TREE_SIZE and index < size and 1 <= nodes <= _MAX_PATH):
        raise ValueError("inclusion proof of another shape")
    end = at + nodes * _NODE_BYTES
    framed = proof[at::_NODE_BYTES] == HASH[:1] * nodes and proof[at + 1 :: _NODE_BYTES] == HASH[1:] * nodes
    if not framed or end != len(proof):
        raise ValueError("inclusion proof of another shape")
    path = tuple([proof[node : node + _HASH_BYTES] for node in range(at + len(HASH), end, _NODE_BYTES)])
    return size, index, path
