"""Encodes and decodes an agent's SVID as announced on the presence channel: its certificate, and those above it.

It is a separate message, signed with the key that it announces, so that a known key never vouches for another. Readers
have not seen the key before: it counts once the chain leads to the trust domain's bundle.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from watchword.presence import SVID_CONTENT_TYPE
from watchword.strict import from_base64, json_object, to_base64
from watchword_adapters.spiffe.certificates import MAX_CERTIFICATE_BYTES, MAX_CHAIN, NotVouchedForError

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADERS: Final = {"content-type": SVID_CONTENT_TYPE}
MAX_VALUE_BYTES: Final = MAX_CHAIN * MAX_CERTIFICATE_BYTES * 4 // 3 + 256


def to_value(chain: Sequence[bytes]) -> bytes:
    """Return the message value that announces these certificates, in DER, the workload's own first."""
    return json.dumps({"svid": [to_base64(one) for one in chain]}, separators=(",", ":")).encode()


def chain_of(value: bytes) -> list[bytes]:
    """Return the certificates in an announcement; NotVouchedForError if it is malformed."""
    if len(value) > MAX_VALUE_BYTES:
        raise NotVouchedForError(f"an announcement of {len(value)} bytes: at most {MAX_VALUE_BYTES}")
    try:
        shown = json_object(value).get("svid")
        if isinstance(shown, list) and all(isinstance(one, str) for one in shown):
            return [from_base64(one) for one in shown]
    except ValueError:
        pass
    raise NotVouchedForError('not an announcement of an SVID, whose value is {"svid": [...]}')
