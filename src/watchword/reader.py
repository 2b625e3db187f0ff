"""Parses envelopes for one verifier: strictly, or quickly if an envelope is like one that has verified.

One sender's envelopes differ only in a few fields of fixed size, so a template of a verified one parses the others. The
result is always that of the strict parser in ``envelope``. It checks no signature.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, TypeAlias

from watchword.cbor import ARRAY, BYTES, head, of_bytes, of_int, of_text
from watchword.encoding import encode_names
from watchword.envelope import MAX_TREE_SIZE, MIN_TREE_SIZE, Envelope, read_into, unarmored
from watchword.labels import (
    CHANNEL,
    DETACHED,
    DIRECT,
    ENVELOPE,
    HASH,
    INCLUSION,
    ISSUED_AT,
    ISSUER,
    MESSAGE_ID,
    METADATA,
    PARTITION,
    PROOF,
    RECIPIENT,
    VALUE,
)
from watchword.merkle import leaf_of

if TYPE_CHECKING:
    from watchword.engine import Native
    from watchword.envelope import Common
    from watchword.message import Message
    from watchword.verification import Verification

MAX_TEMPLATES: Final = 4096
"""The most templates, of two or three kilobytes each; beyond that all are dropped, which only costs time."""

_Shape: TypeAlias = tuple[str, int | None, int]

_TIMES: Final = range(1 << 16, 1 << 32)
"""Times, in seconds since the epoch, that are encoded in four bytes."""

_NUMBERS: Final = (("B", b"", range(24)), ("B", b"\x18", range(24, 1 << 8)), ("H", b"\x19", range(1 << 8, 1 << 16)))
"""Struct format, initial bytes and range of the numbers with each encoded length."""

_BARE: Final = 3
"""The index at which the proof begins among the values if there is no digest of key and headers."""


def _comes_once(common: Common) -> bool:
    """Return True if no other envelope will have the same common part."""
    return (common.expires_at, common.request_id, common.reply_to) != (None, None, None)


class Template:
    """The bytes that some envelopes have in common, and between them fields that may hold any bytes.

    What it accepts, the strict parser reads the same way: the common bytes are canonical, and a number is accepted only
    if its range is encoded in that many bytes. Everything else it leaves to the strict parser.
    """

    def __init__(self, like: Envelope) -> None:
        common, size = like.common, len(like.claims_bytes)
        begin = ENVELOPE + head(BYTES, size)
        issuer = begin + like.claims_bytes[:1] + ISSUER + of_text(common.issuer)
        recipient = b"" if common.recipient is None else RECIPIENT + of_text(common.recipient)
        names = CHANNEL + of_text(common.channel) + encode_names(common.covered)
        value = (b"" if common.partition is None else PARTITION + of_int(common.partition)) + VALUE
        bare = like.metadata_digest is None
        fields = [
            (issuer + recipient + ISSUED_AT + b"\x1a", "I"),
            (MESSAGE_ID, "16s"),
            *([(names + value, "32s")] if bare else [(names + METADATA, "32s"), (value, "32s")]),
            *self._proof(like, PROOF + of_bytes(common.protected)),
        ]
        self.begin: Final = issuer
        self._fixed = tuple([fixed for fixed, _ in fields])
        self._unpack = Struct(">" + "".join(f"{len(fixed)}s{form}" for fixed, form in fields)).unpack
        self._claims = slice(len(begin), len(begin) + size)
        self._common = common
        self._at = _BARE if bare else _BARE + 1
        self._batched = like.size > 0

    def _proof(self, like: Envelope, begin: bytes) -> list[tuple[bytes, str]]:
        """Return the fields of a proof after ``begin``; size and index may be any of the same encoded length."""
        length = len(like.signature)
        signature = (DETACHED + head(BYTES, length), f"{length}s")
        if not like.size:
            return [(begin + DIRECT + signature[0], signature[1])]
        size, index, nodes = of_int(like.size), of_int(like.index), len(like.path)
        path = head(ARRAY, nodes)
        proof = head(BYTES, 1 + len(size + index + path) + nodes * (len(HASH) + 32)) + head(ARRAY, 3)
        form, marker, sizes = _NUMBERS[len(size) - 1]
        index_form, index_marker, self._indexes = _NUMBERS[len(index) - 1]
        self._sizes = range(max(sizes.start, MIN_TREE_SIZE), min(sizes.stop, MAX_TREE_SIZE + 1))
        return [
            (begin + INCLUSION + proof + marker, form),
            (index_marker, index_form),
            (path + HASH, "32s"),
            *[(HASH, "32s")] * (nodes - 1),
            signature,
        ]

    @staticmethod
    def of(envelope: Envelope) -> Template | None:
        """Return the template of an envelope; None if too few others will be like it."""
        if _comes_once(envelope.common) or envelope.value_digest is None or envelope.issued_at not in _TIMES:
            return None
        return Template(envelope)

    def read(self, raw: bytes, envelope: Envelope) -> bool:
        """Parse an envelope of the template's size into ``envelope``; return False if it is not like the template."""
        fields = self._unpack(raw)
        if fields[::2] != self._fixed:
            return False
        values = fields[1::2]
        at, size, index = self._at, 0, 0
        issued_at = values[0]
        if issued_at not in _TIMES:
            return False
        path: tuple[bytes, ...] = ()
        if self._batched:
            size, index = values[at : at + 2]
            if size not in self._sizes or index not in self._indexes or index >= size:
                return False
            path = values[at + 2 : -1]
        claims = raw[self._claims]
        envelope.common = self._common
        envelope.id = values[1]
        envelope.issued_at = issued_at
        envelope.metadata_digest = None if at == _BARE else values[2]
        envelope.value_digest = values[at - 1]
        envelope.claims_bytes = claims
        envelope.leaf = leaf_of(claims)
        envelope.size = size
        envelope.index = index
        envelope.path = path
        envelope.signature = values[-1]
        return True


class NativeReader:
    """Parses with the native engine; a sender's common part is parsed in full until a message has verified."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self._known: dict[bytes, Common] = {}

    def open(self, case: Verification, header: bytes) -> None:
        """Parse a header's value into ``case``."""
        found = self._native.read_envelope(header)
        common = None if found is None else self._known.get(found[0])
        if found is None or common is None:
            read_into(case, unarmored(header))
            case.lesson = None if found is None else found[0]
            return
        case.common = common
        (
            _, case.id, case.issued_at, case.metadata_digest, case.value_digest, case.claims_bytes, case.leaf,
            case.signature, case.size, case.index, case.path,
        ) = found  # fmt: skip

    def learn(self, case: Verification, identity: bytes) -> None:
        """Learn the common part of a message that was found to be authentic."""
        if not _comes_once(case.common):
            if len(self._known) >= MAX_TEMPLATES:
                self._known.clear()
            self._known[identity] = case.common


class LearningReader:
    """A strict parser that learns templates from verified messages only, so that no stranger can add one."""

    def __init__(self) -> None:
        self._templates: dict[_Shape, tuple[int, dict[bytes, Template]]] = {}
        self._count = 0

    def open(self, case: Verification, header: bytes) -> None:
        """Parse a header's value into ``case``."""
        raw = unarmored(header)
        if not self._familiar(case.message, raw, case):
            read_into(case, raw)
            case.lesson = raw

    def learn(self, case: Verification, raw: bytes) -> None:
        """Learn a template from a message that was found to be authentic, if none fits it yet."""
        message = case.message
        if self._familiar(message, raw, Envelope()):  # learned meanwhile
            return
        template = Template.of(case)
        if template is None:
            return
        if self._count >= MAX_TEMPLATES:
            self._templates.clear()
            self._count = 0
        shape = (message.channel.uri, message.partition, len(raw))
        end, by_issuer = self._templates.setdefault(shape, (len(template.begin), {}))
        if end == len(template.begin):
            self._count += template.begin not in by_issuer
            by_issuer[template.begin] = template

    def _familiar(self, message: Message, raw: bytes, envelope: Envelope) -> bool:
        known = self._templates.get((message.channel.uri, message.partition, len(raw)))
        if known is None:
            return False
        template = known[1].get(raw[: known[0]])
        return template is not None and template.read(raw, envelope)
