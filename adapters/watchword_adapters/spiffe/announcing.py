"""What an agent announces of its SVID on the presence channel: its certificate, and those above it.

It is a message of its own, signed by the key that it shows, so that one whose key is known already never vouches for
another. Who reads it has not seen the key before: it counts once the chain leads to the trust domain's bundle.
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
    """Return the value of the message that shows these certificates, in DER, the workload's own first."""
    return json.dumps({"svid": [to_base64(one) for one in chain]}, separators=(",", ":")).encode()


def chain_of(value: bytes) -> list[bytes]:
    """Return the certificates that a message shows; NotVouchedForError where it is none of these."""
    if len(value) > MAX_VALUE_BYTES:
        raise NotVouchedForError(f"an announcement of {len(value)} bytes: at most {MAX_VALUE_BYTES}")
    try:
        shown = json_object(value).get("svid")
        if isinstance(shown, list) and all(isinstance(one, str) for one in shown):
            return [from_base64(one) for one in shown]
    except ValueError:
        pass
    raise NotVouchedForError('no announcement of an SVID: its value is {"svid": [...]}')
