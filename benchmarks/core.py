"""The core without a bus, on one CPU: signing and verifying by batch size and value size, beside bare Ed25519."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from watchword import Rejected, SigningKey
from watchword.spi import Signer

from . import cast
from .figures import Figure, Run, async_rate, on_one_core, rate, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from watchword.spi import Message, Verifier

BATCHES: Final = (1, 8, 64, 256)
SIZES: Final = (100, 512, 4096, 65_536, 1 << 20)
BATCH: Final = 64
SIZE: Final = 512
LARGEST: Final = SIZES[-1]
REPEATS: Final = 5
_BYTES: Final = 64 << 20
_LEAST, _MOST = 128, 2048
_PRIMITIVES: Final = 1000


class Case(NamedTuple):
    """What is measured; ``batch`` or ``size`` (bytes) is 0 for what knows none."""

    what: str
    batch: int = 0
    size: int = 0


Figures: TypeAlias = dict[Case, Figure]
ED25519_SIGN: Final = Case("ed25519 sign", size=SIZE)
ED25519_VERIFY: Final = Case("ed25519 verify", size=SIZE)


def measure(*, small: bool) -> dict[str, Any]:
    """Measure, and return what goes into the report."""
    cpu = on_one_core()
    batches, sizes, repeats = ((1, BATCH), (SIZE, LARGEST), 1) if small else (BATCHES, SIZES, REPEATS)
    runs = bare_ed25519() | _rejecting()
    for size in sizes:
        runs[Case("sha256", size=size)] = _hashing(size, count(size, small=small))
        for batch in batches:
            runs |= signing_and_verifying(batch, size, count(size, small=small))
    figures = take_turns(runs, repeats)
    sign, verify, alone = (figures[Case(what, BATCH, SIZE)] for what in ("sign", "verify", "verify one"))
    core = {
        "cpu": cpu,
        "repeats": repeats,
        "chunk": cast.CHUNK,
        "sign_batch64_per_s": sign.per_second,
        "verify_batch64_per_s": verify.per_second,
        "verify_one_batch64_per_s": alone.per_second,
        "added_over_sha256": {what: _added(figures, what, batches) for what in ("sign", "verify", "verify one")},
        "figures": [case._asdict() | figure.to_json() for case, figure in figures.items()],
    }
    ratios = {
        "verify_batch64_over_ed25519": verify.over(figures[ED25519_VERIFY]),
        "sign_batch64_over_ed25519": sign.over(figures[ED25519_SIGN]),
    }
    return {"core": core, "ratios": ratios, "envelope_characters": asyncio.run(_envelope_characters())}


def count(size: int, *, small: bool = False) -> int:
    """Return how many messages of this size make a repetition."""
    most = _MOST if not small else BATCH if size < LARGEST else 4
    return min(most, max(_LEAST, _BYTES // size))


def bare_ed25519() -> dict[Case, Run]:
    """Return the primitive itself, which no signature that each message pays alone can beat."""
    key, data = Ed25519PrivateKey.generate(), cast.value(SIZE)
    public, signature = key.public_key(), key.sign(data)

    def sign() -> None:
        for _ in range(_PRIMITIVES):
            key.sign(data)

    def verify() -> None:
        for _ in range(_PRIMITIVES):
            public.verify(signature, data)

    return {
        ED25519_SIGN: lambda: rate(_PRIMITIVES, sign),
        ED25519_VERIFY: lambda: rate(_PRIMITIVES, verify),
    }


def signing_and_verifying(batch: int, size: int, messages: int) -> dict[Case, Run]:
    """Return runs of ``messages`` of ``size`` bytes in trees of ``batch``: sign, verify in bulk, verify one by one."""
    bare = cast.messages(size, messages)
    made = asyncio.run(cast.signed(cast.signer(batch=batch), [*cast.messages(SIZE, cast.CHUNK), *bare]))
    return {
        Case("sign", batch, size): lambda: async_rate(messages, lambda: cast.signer(batch=batch).sign_many(bare)),
        Case("verify", batch, size): _verifying(cast.verify_in_bulk, made),
        Case("verify one", batch, size): _verifying(cast.verify_one_by_one, made),
    }


def _verifying(
    verify: Callable[[Verifier, Sequence[Message]], Coroutine[Any, Any, None]], made: Sequence[Message]
) -> Run:
    def run() -> float:
        judge = cast.verifier()  # a fresh one each time: no root and no id is known, only that there is such a sender
        asyncio.run(verify(judge, made[: cast.CHUNK]))
        return async_rate(len(made) - cast.CHUNK, lambda: verify(judge, made[cast.CHUNK :]))

    return run


def _hashing(size: int, times: int) -> Run:
    values = cast.values(size, times)

    def work() -> None:
        for data in values:
            sha256(data).digest()

    return lambda: rate(times, work)


def _added(figures: Figures, what: str, batches: Sequence[int]) -> dict[str, float]:
    """Return how often the time of one pass of SHA-256 over the largest value this takes, by batch size."""
    one_pass = figures[Case("sha256", size=LARGEST)]
    return {str(batch): one_pass.over(figures[Case(what, batch, LARGEST)]) for batch in batches}


def _rejecting() -> dict[Case, Run]:
    """Return what an attacker's messages cost: without an envelope, and with one whose signature does not hold."""
    known = cast.signing_key()
    forger = Signer(
        realm=cast.REALM,
        principal=cast.principal(),
        key=SigningKey.generate(),
        key_id=known.key_id,
        clock=cast.clock,
        batch=1,
    )
    forged = asyncio.run(cast.signed(forger, cast.messages(SIZE, _LEAST)))
    unsigned = [replace(one, headers=one.headers[:-1]) for one in forged]
    return {
        Case("reject unsigned", size=SIZE): lambda: _refuse(unsigned),
        Case("reject forged", batch=1, size=SIZE): lambda: _refuse(forged),
    }


def _refuse(messages: Sequence[Message]) -> float:
    judge = cast.verifier()

    async def work() -> None:
        if not all(isinstance(verdict, Rejected) for verdict in await judge.verify_many(messages)):
            raise AssertionError("a forgery was verified")

    return async_rate(len(messages), work)


async def _envelope_characters() -> dict[str, int]:
    """Measure the header's value for names of 25 characters, a key, one covered header and a partition."""
    bare = cast.messages(SIZE, BATCH)
    direct = await cast.signer(batch=1).sign(bare[0])
    batched = await cast.signer(batch=BATCH).sign_many(bare)
    return {"direct": len(direct.header[1] or b""), f"batch{BATCH}": max(len(one.header[1] or b"") for one in batched)}
