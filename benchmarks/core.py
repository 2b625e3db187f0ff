"""The core without a bus: signing and verifying one message at a time, beside bare Ed25519 in the same run."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from watchword import (
    Channel,
    MemoryKeys,
    MemoryReplayStore,
    Message,
    Policy,
    Position,
    Rejected,
    Signer,
    SigningKey,
    VerificationKey,
    Verifier,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MESSAGES = 1000
REPEATS = 5
VALUE_SIZES = (100, 512, 4096, 65_536)
_PLANNER = "agent://acme/planner"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured rate: the median of its repetitions, and their least and greatest."""

    name: str
    per_second: float
    least: float
    greatest: float


def measure() -> list[Figure]:
    """Run every measurement; repetitions are interleaved, so that a slow moment hits all alike."""
    runs: dict[str, Callable[[], float]] = {"ed25519 sign": _bare_sign(), "ed25519 verify": _bare_verify()}
    for size in VALUE_SIZES:
        runs[f"sign {size} B"] = _sign(size)
        runs[f"verify {size} B"] = _verify(size)
    runs["reject unsigned 512 B"] = _reject(signed=False)
    runs["reject forged 512 B"] = _reject(signed=True)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(REPEATS):
        for name, run in runs.items():
            rates[name].append(MESSAGES / run())
    return [Figure(name, median(found), min(found), max(found)) for name, found in rates.items()]


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _bare_sign() -> Callable[[], float]:
    key, data = Ed25519PrivateKey.generate(), b"x" * 300

    def work() -> None:
        for _ in range(MESSAGES):
            key.sign(data)

    return lambda: _seconds(work)


def _bare_verify() -> Callable[[], float]:
    key, data = Ed25519PrivateKey.generate(), b"x" * 300
    public, signature = key.public_key(), key.sign(data)

    def work() -> None:
        for _ in range(MESSAGES):
            public.verify(signature, data)

    return lambda: _seconds(work)


def _parts() -> tuple[Signer, Verifier]:
    key = SigningKey.generate()
    signer = Signer(realm="bench", principal=_PLANNER, key=key, clock=time.time)
    return signer, _verifier(key.verification_key(_PLANNER))


def _verifier(key: VerificationKey) -> Verifier:
    policy = Policy()
    replay = MemoryReplayStore(horizon=policy.horizon)
    return Verifier(realm="bench", keys=MemoryKeys([key]), replay=replay, policy=policy, clock=time.time)


def _message(size: int) -> Message:
    return Message(
        channel=Channel("kafka", "bench", "tasks"),
        value=b"x" * size,
        key=b"key",
        headers=(("content-type", b"application/json"),),
        partition=0,
    )


def _sign(size: int) -> Callable[[], float]:
    signer, _ = _parts()
    message = _message(size)

    async def work() -> None:
        for _ in range(MESSAGES):
            await signer.sign(message)

    return lambda: _seconds(lambda: asyncio.run(work()))


def _verify(size: int) -> Callable[[], float]:
    def run() -> float:
        signer, verifier = _parts()
        messages = asyncio.run(_signed(signer, _message(size)))

        async def work() -> None:
            for message in messages:
                await verifier.verify(message)

        return _seconds(lambda: asyncio.run(work()))

    return run


def _reject(*, signed: bool) -> Callable[[], float]:
    """Measure what an attacker's message costs: without an envelope, or with one whose signature does not hold."""
    known = SigningKey.generate().verification_key(_PLANNER)
    verifier = _verifier(known)
    signer = Signer(realm="bench", principal=_PLANNER, key=SigningKey.generate(), key_id=known.key_id, clock=time.time)
    messages = asyncio.run(_signed(signer, _message(512)))
    if not signed:
        messages = [replace(message, headers=message.headers[:1]) for message in messages]

    async def work() -> None:
        for message in messages:
            try:
                await verifier.verify(message)
            except Rejected:
                continue
            raise AssertionError("a forgery was verified")

    return lambda: _seconds(lambda: asyncio.run(work()))


async def _signed(signer: Signer, message: Message) -> list[Message]:
    now = time.time()
    return [
        replace(
            message,
            headers=(*message.headers, (await signer.sign(message)).header),
            position=Position("tasks/0", offset),
            appended_at=now,
        )
        for offset in range(MESSAGES)
    ]
