"""What a sender signs of a message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from watchword.message import maker_of


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


make_claims: Final = maker_of(Claims)
"""Makes Claims of its fields by position."""
