"""Signs messages for an in-memory bus with the product's own signer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchword.spi import Message, Signer


async def signed(signer: Signer, message: Message, *, recipient: str | None = None) -> Message:
    """Return a message with its envelope; ``recipient`` is the principal that it is meant for."""
    made = await signer.sign(message, recipient=recipient)
    return replace(message, headers=(*message.headers, made.header))
