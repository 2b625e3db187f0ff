"""One process of such a world: ``python -m benchmarks.trust.member ROLE SETTINGS BUS ADDRESS PLACE [RATE]``.

A reader prints a line of JSON for each message that is delivered to it, and its counts when it is asked on standard
input. An agent sends at its rate, whatever others say; a forger writes to the control log what nobody signed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import nats
from aiokafka import AIOKafkaProducer

import watchword
from watchword import SigningError, VerifiedMessage
from watchword.kafka import SigningProducer, VerifyingConsumer
from watchword.nats import connect
from watchword.statements import CONTENT_TYPE, Contain, Statement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_PIECE: Final = 0.02
"""Seconds between two pieces of what is sent."""


class Place(NamedTuple):
    """The input of a process."""

    settings: Path
    bus: str
    address: str
    channel: str
    rate: float = 0.0


def say(**members: object) -> None:
    """Print a line."""
    sys.stdout.write(json.dumps(members) + "\n")
    sys.stdout.flush()


async def read(place: Place) -> None:
    """Print what is delivered."""
    agent = watchword.load(place.settings)
    asking = asyncio.create_task(_answer(agent))
    async for verified in _delivered(agent, place):
        say(at=time.time(), who=verified.principal, key=verified.key_id, text=(verified.value or b"").decode())
    await asking


async def _delivered(agent: watchword.Watchword, place: Place) -> AsyncIterator[VerifiedMessage]:
    if place.bus == "nats":
        client = await connect(place.address, watchword=agent)
        coming: asyncio.Queue[Any] = asyncio.Queue()
        for subject in place.channel.split(","):
            await client.subscribe(subject, cb=coming.put)
        await client.flush()
        say(ready=True)
        while True:
            msg = await coming.get()
            yield msg.verified
    consumer: Any = VerifyingConsumer(
        *place.channel.split(","),
        watchword=agent,
        bootstrap_servers=place.address,
        group_id=place.settings.stem,
        auto_offset_reset="earliest",
    )
    async with consumer:
        say(ready=True)
        async for record in consumer:
            yield record.verified


async def _answer(agent: watchword.Watchword) -> None:
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        scores = {who: agent.trust(who) for who in agent.verifier.trust.evidence()}
        say(counts=dict(agent.audit.counts), trust=scores)


async def send(place: Place) -> None:
    """Send at a rate; what the signer refuses is left out."""
    agent = watchword.load(place.settings)
    send_one: Callable[[bytes], Awaitable[Any]]
    if place.bus == "nats":
        client = await connect(place.address, watchword=agent)

        async def send_one(value: bytes) -> None:
            await client.publish(place.channel, value)
    else:
        producer = SigningProducer(watchword=agent, bootstrap_servers=place.address, linger_ms=2)
        await producer.start()

        async def send_one(value: bytes) -> None:
            await producer.send(place.channel, value)

    say(ready=True)
    await _at_rate(place.rate, send_one)


async def forge(place: Place) -> None:
    """Write to the control log what no operator signed: to be looked at, and to be believed by nobody."""
    value = Statement(1, "", 1, Contain("agent://acme/**", why="forged")).to_json()
    headers = {"content-type": CONTENT_TYPE, "watchword": "A" * 200}
    send_one: Callable[[bytes], Awaitable[Any]]
    if place.bus == "nats":
        client = await nats.connect(place.address)

        async def send_one(_: bytes) -> None:
            await client.publish(place.channel, value, headers=headers)
    else:
        producer = AIOKafkaProducer(bootstrap_servers=place.address, linger_ms=2)
        await producer.start()
        pairs = [(name, text.encode()) for name, text in headers.items()]

        async def send_one(_: bytes) -> None:
            await producer.send(place.channel, value, headers=pairs)

    say(ready=True)
    await _at_rate(place.rate, send_one)


async def _at_rate(rate: float, send_one: Callable[[bytes], Awaitable[Any]]) -> None:
    begun, sent = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - begun) * rate)
        for number in range(sent, due):
            try:
                await send_one(b"%d" % number)
            except SigningError as error:
                say(held=str(error))
        sent = due
        await asyncio.sleep(_PIECE)


ROLES: Final = {"reader": read, "agent": send, "forger": forge}


def main() -> None:
    """Play a role until this is killed."""
    logging.getLogger().addHandler(logging.NullHandler())
    role, settings, bus, address, channel, *rate = sys.argv[1:]
    asyncio.run(ROLES[role](Place(Path(settings), bus, address, channel, *map(float, rate))))


if __name__ == "__main__":
    main()
