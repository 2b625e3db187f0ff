"""Messages of a queue group, honest and sent again."""

import time
from dataclasses import replace
from typing import Any

from tests.unit.core.world import ALICE, ALICE_KEY, BOB_KEY, REALM
from watchword import Reason, Rejected, Unavailable
from watchword.spi import Channel, Message, Position, Signer, Verifier


async def signed(principal: str = ALICE, **fields: Any) -> Message:
    """Return a message as the group gets it from core NATS, that is without a place."""
    key = ALICE_KEY if principal == ALICE else BOB_KEY
    signer = Signer(
        realm=REALM, principal=principal, key=key, key_id=key.key_id, algorithm=key.algorithm, clock=time.time
    )
    message = Message(channel=Channel("nats", REALM, "tasks"), value=b"scale up", reader="q:workers", **fields)
    signature = await signer.sign(message)
    return replace(message, headers=(signature.header,))


def at(message: Message, offset: int) -> Message:
    """Return the same bytes at a place in a log."""
    return replace(message, position=Position("tasks", offset))


async def ending(member: Verifier, message: Message) -> Reason | str:
    """Return how it ends for one member: "delivered", "redelivered", "unavailable", or the reason."""
    try:
        verified = await member.verify(message)
    except Rejected as rejected:
        return rejected.reason
    except Unavailable:
        return "unavailable"
    return "redelivered" if verified.redelivered else "delivered"
