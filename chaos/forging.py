"""What can be made without a key: unsigned, altered, with a garbled signature, signed with a key that nobody knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from watchword.spi import Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from watchword.spi import Channel, Signer

FORGED: Final = "forged"
"""How the value of each forged message begins."""

_UNKNOWN: Final = 4
"""Messages of a burst that are signed with a key that nobody knows."""


async def forged(
    signer: Signer, channel: Channel, count: int, envelope: Callable[[], bytes | None], partition: int | None = None
) -> AsyncIterator[tuple[bytes, bytes | None]]:
    """Yield the values (on Kafka keys as well) and envelopes of a burst; ``envelope`` gives a captured one."""
    for number in range(count):
        value = f"{FORGED} {number}".encode()
        header: bytes | None = None
        if number < _UNKNOWN:
            key = value if channel.scheme == "kafka" else None
            signed = await signer.sign(Message(channel=channel, value=value, key=key, partition=partition))
            header = signed.header[1]
        elif number % 3 and (captured := envelope()) is not None:
            header = garbled(captured) if number % 3 == 1 else captured
        yield value, header


def garbled(text: bytes) -> bytes:
    """Change one character in the last part of an envelope, where the signature stands."""
    return text[:-9] + (b"B" if text[-9:-8] == b"A" else b"A") + text[-8:]
