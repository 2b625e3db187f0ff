"""Who speaks in the benchmarks, what they say, and how it is judged: all nine checks, ids in memory."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import replace
from itertools import cycle, islice
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from watchword import MemoryKeys, Policy, SigningKey, VerifiedMessage, Watchword
from watchword.message import ENVELOPE_HEADER
from watchword.quota import Bounds
from watchword.spi import Channel, MemoryReplayStore, Message, Position, Signer, Verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from watchword import Rejected, Unavailable, VerificationKey
    from watchword.message import Header

REALM: Final = "bench"
PRINCIPAL: Final = "agent://acme/planner-0001"
"""25 characters, like the topic: the length for which an envelope's size is reported."""

TOPIC: Final = "tasks.planning.region-001"
CHANNEL: Final = Channel("kafka", REALM, TOPIC)
HEADERS: Final = (("content-type", b"application/json"),)
CHUNK: Final = 128
"""Messages that are verified at once: two whole trees of the usual size."""

clock: Final = time.time

IDS: Final = 2_000_000
"""Room in the guard: so many ids, of one principal and in all, do not fit its defaults."""

_DIFFERENT: Final = 4 << 20
_SEED: Final = bytes(range(32))
"""Every process of a run derives the same keys; they protect nothing."""


def signing_key(number: int = 0) -> SigningKey:
    """Return the key of one of the speakers."""
    return SigningKey(Ed25519PrivateKey.from_private_bytes(number.to_bytes(4) + _SEED[4:]))


def principal(number: int = 0) -> str:
    """Name one of the speakers."""
    return f"{PRINCIPAL[:-4]}{number + 1:04}"


def signer(*, batch: int, number: int = 0, clock: Callable[[], float] = clock) -> Signer:
    """Return the signer of one of the speakers; ``batch`` is the most leaves of a tree."""
    return Signer(realm=REALM, principal=principal(number), key=signing_key(number), clock=clock, batch=batch)


def verifier(
    keys: Iterable[VerificationKey] | None = None, *, clock: Callable[[], float] = clock, as_who: str | None = None
) -> Verifier:
    """Return a verifier with an empty memory; by default it knows the first speaker."""
    policy = Policy()
    return Verifier(
        realm=REALM,
        principal=as_who,
        keys=MemoryKeys([signing_key().verification_key(principal())] if keys is None else keys),
        replay=MemoryReplayStore(horizon=policy.horizon, bounds=Bounds(per_principal=IDS, in_all=IDS, unverified=IDS)),
        policy=policy,
        clock=clock,
    )


def agent(*, batch: int, clock: Callable[[], float] = clock) -> Watchword:
    """Return what the first speaker plugs into a client."""
    judge = verifier(clock=clock, as_who=principal())
    return Watchword.of(verifier=judge, signer=signer(batch=batch, clock=clock))


def value(size: int, number: int = 0) -> bytes:
    """Return a JSON object of so many bytes, as agents send each other."""
    empty = len(json.dumps({"task": 10_000_000 + number, "note": ""}))
    return json.dumps({"task": 10_000_000 + number, "note": "x" * (size - empty)}).encode()


def values(size: int, count: int) -> list[bytes]:
    """Return so many values, which repeat where they would take much memory."""
    different = [value(size, number) for number in range(max(1, min(count, _DIFFERENT // size)))]
    return list(islice(cycle(different), count))


def messages(size: int, count: int, channel: Channel = CHANNEL) -> list[Message]:
    """Return messages with key, header and partition, to be signed."""
    return [
        Message(channel=channel, value=data, key=b"job-%05d" % number, headers=HEADERS, partition=0)
        for number, data in enumerate(values(size, count))
    ]


async def signed(speaker: Signer, bare: Sequence[Message], *, offset: int = 0) -> list[Message]:
    """Sign messages, and return them as a consumer of the first partition reads them."""
    now = clock()
    return [
        replace(
            one,
            headers=(*one.headers, proof.header),
            position=Position(f"{TOPIC}/0", at),
            appended_at=now,
        )
        for at, (one, proof) in enumerate(zip(bare, await speaker.sign_many(bare), strict=True), start=offset)
    ]


async def verify_in_bulk(judge: Verifier, messages: Sequence[Message]) -> None:
    """Verify as a consumer does that gets ``CHUNK`` messages at a time; all of them must hold."""
    for begin in range(0, len(messages), CHUNK):
        check(await judge.verify_many(messages[begin : begin + CHUNK]))


async def verify_one_by_one(judge: Verifier, messages: Sequence[Message]) -> None:
    """Verify one message after the other; all of them must hold."""
    for one in messages:
        await judge.verify(one)


async def recall(judge: Verifier, messages: Sequence[Message]) -> None:
    """Remember what passed in a log before, as a consumer does that starts over."""
    for begin in range(0, len(messages), CHUNK):
        part = messages[begin : begin + CHUNK]
        if await judge.recall_many(part, check=_each) != len(part):
            raise AssertionError("a message was not recalled")


async def _each(checks: Sequence[Callable[[], bool]]) -> Sequence[bool]:
    return [check() for check in checks]


async def with_lookalikes(channel: Channel, size: int, *, batch: int) -> list[list[Header]]:
    """Return the headers with one more of random characters, as long as an envelope in such a batch; for each of it."""
    (like,) = messages(size, 1, channel)
    if channel.scheme == "nats":
        like = replace(like, key=None, partition=None)
    lengths = [len(proof.header[1] or b"") for proof in await signer(batch=batch).sign_many([like] * batch)]
    return [[*HEADERS, (ENVELOPE_HEADER, secrets.token_urlsafe(length)[:length].encode())] for length in lengths]


def check(verdicts: Iterable[VerifiedMessage | Rejected | Unavailable]) -> None:
    """Make sure that what was measured is what was meant."""
    for verdict in verdicts:
        if not isinstance(verdict, VerifiedMessage):
            raise verdict
