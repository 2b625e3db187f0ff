"""Reads quickly what is like something read before: one sender's envelopes differ in a few fields of fixed size."""

from __future__ import annotations

from hashlib import sha256
from struct import Struct
from typing import TYPE_CHECKING, Final

from watchword.cbor import ARRAY, BYTES, head, of_bytes, of_int, of_text
from watchword.encoding import HASH, ID, INCLUSION, SIGNATURE, encode_names

if TYPE_CHECKING:
    from watchword.envelope import Envelope

_TIMES: Final = range(1 << 16, 1 << 32)
"""Seconds since the epoch that are written in four bytes."""

_INDEXES: Final = (("B", b"", range(24)), ("B", b"\x18", range(24, 1 << 8)), ("H", b"\x19", range(1 << 8, 1 << 16)))
"""How a number is packed, what its item begins with, and which numbers are written so."""

_BARE: Final = 3
"""Where the index stands among the values if there is no digest of key and headers."""


class Template:
    """The bytes that batched envelopes have in common, and between them fields in which any bytes may stand.

    Whatever it reads, the strict reader reads alike: the common bytes are those that a writer writes, and a number is
    taken only from the range that is written in as many bytes. What is otherwise it leaves to the strict reader.
    """

    def __init__(self, like: Envelope) -> None:
        common, size, index = like.common, len(like.claims_bytes), of_int(like.index)
        begin = b"\x83\x01" + head(BYTES, size)
        issuer = begin + like.claims_bytes[:1] + b"\x01" + of_text(common.issuer)
        recipient = b"" if common.recipient is None else b"\x03" + of_text(common.recipient)
        names = b"\x61c" + of_text(common.channel) + encode_names(common.covered)
        value = (b"" if common.partition is None else b"\x61p" + of_int(common.partition)) + b"\x61v" + HASH
        tree = head(ARRAY, 3) + of_int(common.size)
        path = head(ARRAY, len(like.path))
        proof = head(BYTES, len(tree + index + path) + len(like.path) * (len(HASH) + 32)) + tree
        width, marker, self._indexes = _INDEXES[len(index) - 1]
        bare = like.metadata_digest is None
        fields = [
            (issuer + recipient + b"\x06\x1a", "I"),
            (b"\x07" + ID, "16s"),
            *([(names + value, "32s")] if bare else [(names + b"\x61m" + HASH, "32s"), (value, "32s")]),
            (b"\x84" + of_bytes(common.protected) + INCLUSION + proof + marker, width),
            (path + HASH, "32s"),
            *[(HASH, "32s")] * (len(like.path) - 1),
            (b"\xf6" + SIGNATURE, "64s"),
        ]
        self.begin: Final = issuer
        self._fixed = tuple([fixed for fixed, _ in fields])
        self._unpack = Struct(">" + "".join(f"{len(fixed)}s{form}" for fixed, form in fields)).unpack
        self._claims = slice(len(begin), len(begin) + size)
        self._common, self._size = common, common.size
        self._index = _BARE if bare else _BARE + 1

    @staticmethod
    def of(envelope: Envelope) -> Template | None:
        """Return the template of an envelope; None where too little of it will come again."""
        common = envelope.common
        once = (common.expires_at, common.request_id, common.reply_to) != (None, None, None)
        if not common.size or once or envelope.value_digest is None or envelope.issued_at not in _TIMES:
            return None
        return Template(envelope)

    def read(self, raw: bytes, envelope: Envelope) -> bool:
        """Read an envelope of the template's size into ``envelope``; tell whether it is like the template."""
        fields = self._unpack(raw)
        if fields[::2] != self._fixed:
            return False
        values = fields[1::2]
        at = self._index
        issued_at, index = values[0], values[at]
        if issued_at not in _TIMES or index not in self._indexes or index >= self._size:
            return False
        claims = raw[self._claims]
        envelope.common = self._common
        envelope.id = values[1]
        envelope.issued_at = issued_at
        envelope.metadata_digest = None if at == _BARE else values[2]
        envelope.value_digest = values[at - 1]
        envelope.claims_bytes = claims
        envelope.leaf = sha256(b"\x00" + claims).digest()
        envelope.index = index
        envelope.path = values[at + 1 : -1]
        envelope.signature = values[-1]
        return True
