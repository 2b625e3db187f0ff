"""The envelope, version 1: claims and their proof in one header (docs/spec.md is normative)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import cbor2

from watchword import cbor
from watchword.errors import Reason, Rejected
from watchword.merkle import root_of
from watchword.message import ENVELOPE_HEADER, is_principal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from watchword.cbor import Value
    from watchword.message import Header

VERSION: Final = 1
MAX_ENVELOPE_BYTES: Final = 4096
MAX_ENVELOPE_CHARACTERS: Final = (MAX_ENVELOPE_BYTES * 4 + 2) // 3
MAX_TREE_SIZE: Final = 4096
MAX_KEY_ID_BYTES: Final = 128
ID_BYTES: Final = 16
CONTEXT: Final = "watchword/1"
"""Domain separation: a signature made for anything else does not verify here."""

_ALG, _KID, _VDS, _VDP, _INCLUSION = 1, 4, 395, 396, -1  # RFC 9052 table 2, RFC 9942 section 5
_RFC9162_SHA256: Final = 1
_MAX_PATH: Final = 12
_HASH_BYTES: Final = 32
_TIME_LIMIT: Final = 1 << 33
_PARTITION_LIMIT: Final = 1 << 31
_PARTS: Final = 3  # version, claims, proof; and tree size, index, path
_COSE_PARTS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What the sender signed (CWT claims, RFC 8392, and our own): who, when, which id, where, over what."""

    issuer: str
    id: bytes
    issued_at: int
    channel: str
    recipient: str | None = None
    expires_at: int | None = None
    covered: tuple[str, ...] = ()
    metadata_digest: bytes | None = None
    partition: int | None = None
    request_id: bytes | None = None
    reply_to: str | None = None
    value_digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class Inclusion:
    """Where the claims stand in a signed tree (RFC 9162): ``size`` leaves, ``index`` and the path to the root."""

    size: int
    index: int
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A parsed envelope; nothing in it is verified. Bytes are kept as received: signatures are checked over them."""

    claims: Claims
    claims_bytes: bytes
    protected: bytes
    algorithm: int
    key_id: bytes
    signature: bytes
    inclusion: Inclusion | None = None

    def to_be_signed(self) -> bytes | None:
        """Return the bytes that the signature covers; None where the inclusion proof does not fit its tree."""
        if self.inclusion is None:
            return sig_structure(self.protected, 0, self.claims_bytes)
        root = root_of(self.claims_bytes, self.inclusion.index, self.inclusion.size, self.inclusion.path)
        return None if root is None else sig_structure(self.protected, self.inclusion.size, root)


def sig_structure(protected: bytes, tree_size: int, payload: bytes) -> bytes:
    """Return COSE's Sig_structure (RFC 9052 section 4.4); ``tree_size`` is 0 for a direct signature."""
    external = cbor2.dumps([CONTEXT, tree_size])
    return cbor2.dumps(["Signature1", protected, external, payload])


def encode_protected(algorithm: int, key_id: bytes) -> bytes:
    """Return the protected header of a direct signature."""
    return cbor2.dumps({_ALG: algorithm, _KID: key_id}, canonical=True)


def encode_claims(claims: Claims) -> bytes:
    """Return the claims as deterministic CBOR; what is absent takes no room."""
    fields: dict[int | str, object] = {
        1: claims.issuer,
        3: claims.recipient,
        4: claims.expires_at,
        6: claims.issued_at,
        7: claims.id,
        "c": claims.channel,
        "h": list(claims.covered) or None,
        "m": claims.metadata_digest,
        "p": claims.partition,
        "q": claims.request_id,
        "r": claims.reply_to,
        "v": claims.value_digest,
    }
    return cbor2.dumps({name: value for name, value in fields.items() if value is not None}, canonical=True)


def encode_direct(claims_bytes: bytes, protected: bytes, signature: bytes) -> bytes:
    """Return the header value (base64url without padding, ASCII) of a directly signed envelope."""
    raw = cbor2.dumps([VERSION, claims_bytes, [protected, {}, None, signature]])
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def value_digest(value: bytes | None) -> bytes | None:
    """Return SHA-256 of a value; None for an absent one, which is not an empty one."""
    return None if value is None else sha256(value).digest()


def metadata_digest(key: bytes | None, headers: Iterable[Header], covered: Collection[str]) -> bytes | None:
    """Return SHA-256 over the key and, in order, every header whose name is in ``covered``; None if there is neither.

    CBOR frames each part, so that no byte can move from one to another unseen.
    """
    if key is None and not covered:
        return None
    pairs = [[name, value] for name, value in headers if name in covered]
    return sha256(cbor2.dumps([key, pairs])).digest()


def is_envelope_name(name: str) -> bool:
    """Tell whether a header of this name is Watchword's own, in any letter case."""
    return len(name) == len(ENVELOPE_HEADER) and name.lower() == ENVELOPE_HEADER


def parse(header: bytes) -> Envelope:
    """Read a header's value; Rejected (``malformed``) for whatever is not exactly an envelope of version 1."""
    if len(header) > MAX_ENVELOPE_CHARACTERS:
        raise _malformed(f"envelope of {len(header)} characters")
    try:
        raw = base64.b64decode(header + b"=" * (-len(header) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise _malformed("not base64url") from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != header:  # '+', '/', padding and stray low bits decode too
        raise _malformed("not canonical base64url")
    try:
        return _envelope(cbor.decode(raw))
    except cbor.CborError as error:
        raise _malformed(str(error)) from None


def _malformed(detail: str) -> Rejected:
    return Rejected(Reason.MALFORMED, detail)


def _envelope(value: Value) -> Envelope:
    if not (isinstance(value, list) and len(value) == _PARTS and value[0] == VERSION):
        raise _malformed("not an envelope of version 1")
    _, claims_bytes, proof = value
    if not (isinstance(claims_bytes, bytes) and isinstance(proof, list) and len(proof) == _COSE_PARTS):
        raise _malformed("claims or proof of another type")
    protected, unprotected, payload, signature = proof
    if not (isinstance(protected, bytes) and isinstance(unprotected, dict) and payload is None):
        raise _malformed("proof is not a COSE_Sign1 with detached payload")
    if not (isinstance(signature, bytes) and len(signature) <= MAX_KEY_ID_BYTES):
        raise _malformed("signature of another type")
    algorithm, key_id, batched = _protected(cbor.decode(protected))
    if not batched and unprotected:
        raise _malformed("unprotected fields beside a direct signature")
    return Envelope(
        claims=_claims(cbor.decode(claims_bytes)),
        claims_bytes=claims_bytes,
        protected=protected,
        algorithm=algorithm,
        key_id=key_id,
        signature=signature,
        inclusion=_inclusion(unprotected) if batched else None,
    )


def _protected(value: Value) -> tuple[int, bytes, bool]:
    """Read algorithm and key id, and the mode, which the protected 395 alone decides."""
    if not (isinstance(value, dict) and value.keys() <= {_ALG, _KID, _VDS}):
        raise _malformed("protected header is not a map of 1, 4 and 395")
    algorithm, key_id = value.get(_ALG), value.get(_KID)
    if not (isinstance(algorithm, int) and isinstance(key_id, bytes) and 1 <= len(key_id) <= MAX_KEY_ID_BYTES):
        raise _malformed("algorithm or key id missing or of another type")
    if _VDS in value and value[_VDS] != _RFC9162_SHA256:
        raise _malformed("unknown tree algorithm")
    return algorithm, key_id, _VDS in value


def _inclusion(unprotected: dict[int | str, Value]) -> Inclusion:
    match unprotected:
        case {396: {-1: [bytes() as encoded], **more}, **others} if not more and not others:
            pass
        case _:
            raise _malformed("a batch needs exactly one inclusion proof")
    match cbor.decode(encoded):
        case [int() as size, int() as index, [*path]] if 2 <= size <= MAX_TREE_SIZE and 0 <= index < size:  # noqa: PLR2004 - a tree has two leaves
            hashes = tuple(node for node in path if isinstance(node, bytes) and len(node) == _HASH_BYTES)
        case _:
            raise _malformed("inclusion proof of another shape")
    if not 1 <= len(hashes) == len(path) <= _MAX_PATH:
        raise _malformed("inclusion path of another shape")
    return Inclusion(size, index, hashes)


_REQUIRED: Final = frozenset({1, 6, 7, "c"})
_KNOWN: Final = _REQUIRED | {3, 4, "h", "m", "p", "q", "r", "v"}


def _claims(value: Value) -> Claims:
    if not (isinstance(value, dict) and value.keys() >= _REQUIRED and value.keys() <= _KNOWN):
        raise _malformed("claims missing or unknown")
    read = _Reader(value)
    covered = read.names("h")
    claims = Claims(
        issuer=read.principal(1) or "",
        recipient=read.principal(3),
        expires_at=read.number(4, _TIME_LIMIT),
        issued_at=read.number(6, _TIME_LIMIT) or 0,
        id=read.raw(7, ID_BYTES) or b"",
        channel=read.text("c") or "",
        covered=covered,
        metadata_digest=read.raw("m", _HASH_BYTES),
        partition=read.number("p", _PARTITION_LIMIT),
        request_id=read.raw("q", ID_BYTES),
        reply_to=read.text("r"),
        value_digest=read.raw("v", _HASH_BYTES),
    )
    if covered and claims.metadata_digest is None:
        raise _malformed("headers named but not digested")
    return claims


class _Reader:
    """Typed access to the claims: absent is None, another type or size is malformed."""

    def __init__(self, fields: dict[int | str, Value]) -> None:
        self._fields = fields

    def number(self, name: int | str, limit: int) -> int | None:
        value = self._fields.get(name)
        if name in self._fields and not (isinstance(value, int) and 0 <= value < limit):
            raise _malformed(f"claim {name} is not a number below {limit}")
        return value if isinstance(value, int) else None

    def raw(self, name: int | str, size: int) -> bytes | None:
        value = self._fields.get(name)
        if name in self._fields and not (isinstance(value, bytes) and len(value) == size):
            raise _malformed(f"claim {name} is not {size} bytes")
        return value if isinstance(value, bytes) else None

    def text(self, name: int | str) -> str | None:
        value = self._fields.get(name)
        if name in self._fields and not (isinstance(value, str) and value):
            raise _malformed(f"claim {name} is not text")
        return value if isinstance(value, str) else None

    def principal(self, name: int | str) -> str | None:
        value = self.text(name)
        if value is not None and not is_principal(value):
            raise _malformed(f"claim {name} is not a principal")
        return value

    def names(self, name: int | str) -> tuple[str, ...]:
        value = self._fields.get(name, [])
        if not isinstance(value, list) or (name in self._fields and not value):
            raise _malformed(f"claim {name} is not a list of names")
        names = tuple(entry for entry in value if isinstance(entry, str))
        encoded = [entry.encode() for entry in names]
        in_order = all(one < other for one, other in pairwise(encoded))
        if len(names) != len(value) or not in_order or any(is_envelope_name(entry) for entry in names):
            raise _malformed(f"claim {name} is not a sorted set of header names")
        return names
