"""Messages of another time: signed by a clock that the test sets, and stamped by it where the broker does not stamp."""

import asyncio
import time

from tests.integration.kafka.world import PLANNER, REALM, Captured, World
from watchword import VerificationKey
from watchword.spi import Channel, Message

HOUR, DAY = 3_600, 86_400


class Clock:
    """A clock that stands still until the test moves it."""

    def __init__(self, at: float | None = None) -> None:
        self.at = float(int(time.time())) if at is None else at

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.at


def earlier(seconds: float) -> Clock:
    """Return a clock that is slow: the broker refuses timestamps that lie far ahead of its own."""
    return Clock(int(time.time()) - seconds)


async def issued(
    world: World, topic: str, at: float, *values: bytes, principal: str = PLANNER, apart: float = 0.0
) -> list[Captured]:
    """Return messages that were signed at a time in whole seconds, each so many seconds after the one before."""
    found: list[Captured] = []
    for number, value in enumerate(values):
        when = int(at + number * apart)
        signer = world.speaker(principal, clock=Clock(when)).signer
        message = Message(channel=Channel("kafka", REALM, topic), value=value, partition=0)
        signed = await signer.sign(message)
        found.append(Captured(value=value, headers=(signed.header,), timestamp_ms=when * 1000))
    return found


def key_of(world: World, principal: str) -> VerificationKey:
    """Return the public key that goes with what a principal signs."""
    return world.signing[principal].verification_key(principal)


async def passed(seconds: float) -> None:
    """Wait until the broker's clock, which nobody can set, has gone on by so much."""
    await asyncio.sleep(seconds)
