"""The bytes that frame an envelope, for its writer (``encoding``) and its readers (``envelope``, ``reader``).

Sections 3 and 4 of docs/spec.md give the layout. A claim's label is followed by its value; where the value has a fixed
length, the label includes the head of its byte string, and the value follows at once. Claims stand in the order in
which they are listed here, which is that of deterministic CBOR (RFC 8949 section 4.2.1).
"""

from typing import Final

from watchword.cbor import ARRAY, BYTES, MAP, NULL, head

CONTEXT: Final = "watchword/1"
"""Domain separation: a signature made for anything else does not verify here."""

HASH: Final = head(BYTES, 32)
ID: Final = head(BYTES, 16)

# The envelope: a list of version, claims and proof; the proof is a COSE_Sign1 (RFC 9052) of four parts.
ENVELOPE: Final = head(ARRAY, 3) + b"\x01"
PROOF: Final = head(ARRAY, 4)
DIRECT: Final = head(MAP, 0)
"""The unprotected header of a directly signed envelope: empty."""
INCLUSION: Final = b"\xa1\x19\x01\x8c\xa1\x20\x81"
"""The unprotected header of a batched envelope, up to its one inclusion proof: {396: {-1: [ ... ]}} (RFC 9942)."""
DETACHED: Final = bytes([NULL])
"""In place of the payload, which is the claims or the root of the tree."""

# The protected header.
ALGORITHM: Final = b"\x01"
KEY_ID: Final = b"\x04"
TREE: Final = b"\x19\x01\x8b\x01"
"""The protected field that makes an envelope batched: {395: 1}, RFC9162_SHA256."""

# The claims, of CWT (RFC 8392) and then our own.
ISSUER: Final = b"\x01"
RECIPIENT: Final = b"\x03"
EXPIRES_AT: Final = b"\x04"
ISSUED_AT: Final = b"\x06"
MESSAGE_ID: Final = b"\x07" + ID
CHANNEL: Final = b"\x61c"
COVERED: Final = b"\x61h"
METADATA: Final = b"\x61m" + HASH
PARTITION: Final = b"\x61p"
REQUEST_ID: Final = b"\x61q" + ID
REPLY_TO: Final = b"\x61r"
VALUE: Final = b"\x61v" + HASH
