"""How cost grows, on one CPU: with the batch, the value's size, how many speak, and how many ids are remembered."""

from __future__ import annotations

import asyncio
import os
import time
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from watchword.spi import Admission, Claim, Position

from . import cast
from .core import BATCH, SIZE, Case, count, signing_and_verifying
from .figures import Figure, Run, async_rate, on_one_core, take_turns

if TYPE_CHECKING:
    from watchword.spi import Message, Verifier

BATCHES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SIZES: Final = (64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1 << 20)
PRINCIPALS: Final = (1, 10, 100, 1000)
IDS: Final = (1000, 10_000, 100_000, 500_000)
REPEATS: Final = 3
_LEAST: Final = 2048
_SPEAKERS: Final = 100
_SPAN: Final = 200.0
"""Seconds over which the ids that are known were issued."""


def measure(*, small: bool) -> dict[str, Any]:
    """Measure, and return what goes into the report: microseconds a message, by what grows."""
    cpu, repeats = on_one_core(), 1 if small else REPEATS
    report = {
        "batch": _by_batch((1, BATCH) if small else BATCHES, repeats, small=small),
        "value_bytes": _by_size((256, 65_536) if small else SIZES, repeats, small=small),
        "principals": _by_principals((1, 10) if small else PRINCIPALS, repeats, small=small),
        "ids_held": _by_ids((100, 1000) if small else IDS, repeats, small=small),
    }
    return {
        "scaling": {"cpu": cpu, "repeats": repeats, "batch_elsewhere": BATCH, "value_bytes_elsewhere": SIZE} | report
    }


def _by_batch(batches: tuple[int, ...], repeats: int, *, small: bool) -> list[dict[str, Any]]:
    runs: dict[Case, Run] = {}
    for batch in batches:
        runs |= signing_and_verifying(batch, SIZE, count(SIZE, small=small))
    figures = take_turns(runs, repeats)
    return [{"batch": batch} | _sides(figures, batch, SIZE) for batch in batches]


def _by_size(sizes: tuple[int, ...], repeats: int, *, small: bool) -> list[dict[str, Any]]:
    runs: dict[Case, Run] = {}
    for size in sizes:
        runs |= signing_and_verifying(BATCH, size, count(size, small=small))
    figures = take_turns(runs, repeats)
    return [{"value_bytes": size} | _sides(figures, BATCH, size) for size in sizes]


def _sides(figures: dict[Case, Figure], batch: int, size: int) -> dict[str, Any]:
    whats = ("sign", "verify", "verify one")
    return {what.replace(" ", "_"): figures[Case(what, batch, size)].to_json() for what in whats}


def _by_principals(numbers: tuple[int, ...], repeats: int, *, small: bool) -> list[dict[str, Any]]:
    """Verify what so many write, each in trees of its own, mixed message by message."""
    figures = take_turns({number: _mixed(number, small=small) for number in numbers}, repeats)
    return [{"principals": number, "verify": figures[number].to_json()} for number in numbers]


def _mixed(principals: int, *, small: bool) -> Run:
    each = BATCH if small else max(BATCH, _LEAST // principals // BATCH * BATCH)
    bare = cast.messages(SIZE, each)

    async def make() -> list[list[Message]]:
        return [
            await cast.signed(cast.signer(batch=BATCH, number=number), bare, offset=number * each)
            for number in range(principals)
        ]

    messages = list(chain.from_iterable(zip(*asyncio.run(make()), strict=True)))
    keys = [cast.signing_key(number).verification_key(cast.principal(number)) for number in range(principals)]

    def run() -> float:
        judge = cast.verifier(keys)
        return async_rate(len(messages), lambda: cast.verify_in_bulk(judge, messages))

    return run


def _by_ids(numbers: tuple[int, ...], repeats: int, *, small: bool) -> list[dict[str, Any]]:
    """Verify while so many ids of others are known, and what is verified is added to them."""
    messages = count(SIZE, small=small)
    judges = {number: asyncio.run(_knowing(number)) for number in numbers}
    figures = take_turns({number: _adding(judge, messages) for number, judge in judges.items()}, repeats)
    return [{"ids_held": number, "verify": figures[number].to_json()} for number in numbers]


def _adding(judge: Verifier, messages: int) -> Run:
    bare = cast.messages(SIZE, messages)

    def run() -> float:
        made = asyncio.run(cast.signed(cast.signer(batch=BATCH), bare))
        return async_rate(messages, lambda: cast.verify_in_bulk(judge, made))

    return run


async def _knowing(ids: int) -> Verifier:
    judge, now = cast.verifier(), time.time()
    for number in range(ids):
        issued_at = int(now - _SPAN + _SPAN * number / ids)
        claim = Claim(
            scope=f"kafka://{cast.REALM}/{cast.TOPIC}#",
            log=f"#{cast.TOPIC}/0",
            principal=cast.principal(1 + number % _SPEAKERS),
            key_id=b"key",
            id=os.urandom(16),
            digest=os.urandom(32),
            place=(Position(f"{cast.TOPIC}/0", number), issued_at + 0.5),
            issued_at=issued_at,
            reference=issued_at + 0.5,
            keep_until=issued_at + 1e6,
        )
        if await judge.replay.claim(claim) is not Admission.FIRST:
            raise AssertionError("an id was not remembered")
    return judge
