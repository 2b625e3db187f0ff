"""The core without a bus, on one CPU: both engines by batch size and value size, beside bare Ed25519 and SHA-256.

Each engine has a process of its own, as have the primitives, and the tree before the engines where it is available. All
of them take turns.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from watchword import Rejected, SigningKey
from watchword.spi import Signer

from . import before, cast
from .figures import Figure, Run, async_rate, on_one_core, rate, take_turns
from .processes import FailedError
from .stages import PYTHON, Stage, engine_in_use, engine_name, engines, ready

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from watchword.spi import Message, Verifier

BATCHES: Final = (1, 8, 64, 256)
SIZES: Final = (100, 512, 4096, 65_536, 1 << 20)
BATCH: Final = 64
SIZE: Final = 512
LARGEST: Final = SIZES[-1]
SIDES: Final = ("sign", "verify", "verify one")
REPEATS: Final = 5
_BYTES: Final = 64 << 20
_LEAST, _MOST = 128, 2048


class Case(NamedTuple):
    """What is measured; ``batch`` or ``size`` (bytes) is 0 for what knows none."""

    what: str
    batch: int = 0
    size: int = 0


Figures: TypeAlias = "Mapping[Case, Figure]"
ED25519_SIGN: Final = Case("ed25519 sign", size=SIZE)
ED25519_VERIFY: Final = Case("ed25519 verify", size=SIZE)
ROWS: Final = {
    f"sign_batch{BATCH}": Case("sign", BATCH, SIZE),
    f"verify_batch{BATCH}": Case("verify", BATCH, SIZE),
    "sign_one": Case("sign", 1, SIZE),
    "verify_one": Case("verify", 1, SIZE),
    "verify_lone": Case("verify one", 1, SIZE),
    "rebuild": Case("rebuild", BATCH, SIZE),
}
"""What both engines are compared by, as the report names it.

``one`` has a signature for each message, and verifies as many at once as with batches; of ``lone`` ones only a single
one is there at a time. ``rebuild`` is what a reader recalls that starts over, once the broker has given it.
"""

_BEFORE: Final = "before"
_PRIMITIVES: Final = "primitives"
_TIMES: Final = 1000


def measure(*, small: bool) -> dict[str, Any]:
    """Measure, and return what goes into the report."""
    cpu = on_one_core()
    batches, sizes, repeats = ((1, BATCH), (SIZE, LARGEST), 1) if small else (BATCHES, SIZES, REPEATS)
    with ExitStack() as stack:
        stages = {
            engine: stack.enter_context(Stage(_ours, batches, sizes, small, engine=engine)) for engine in engines()
        }
        stages[_PRIMITIVES] = stack.enter_context(Stage(_primitives, sizes, small))
        told = {"before": Path(before.named()).name}
        try:
            old = Stage(_in_batches, small, engine=PYTHON, tree=stack.enter_context(before.tree()))
            stages[_BEFORE] = stack.enter_context(old)
            old.runs()
        except (before.NoTreeError, FailedError) as error:
            stages.pop(_BEFORE, None)
            told["before_left_out"] = str(error).strip().rpartition("\n")[2]
        found = take_turns(ready(stages), repeats)
    figures = {at: {case: figure for (where, case), figure in found.items() if where == at} for at in stages}
    own, alone = figures[engine_in_use()], figures[_PRIMITIVES]
    core = {
        "cpu": cpu,
        "repeats": repeats,
        "chunk": cast.CHUNK,
        "sign_batch64_per_s": own[ROWS["sign_batch64"]].per_second,
        "verify_batch64_per_s": own[ROWS["verify_batch64"]].per_second,
        "verify_one_batch64_per_s": own[Case("verify one", BATCH, SIZE)].per_second,
        "added_over_sha256": _added(own, alone, batches),
        "added_over_sha256_python": _added(figures[PYTHON], alone, batches),
        "figures": _rows({**alone, **own}),
        "figures_python": _rows(figures[PYTHON]),
        **told,
    }
    rows = {
        at: {row: by_case[case].to_json() for row, case in ROWS.items() if case in by_case}
        for at, by_case in figures.items()
        if at != _PRIMITIVES
    }
    return {
        "core": core,
        "engines": {"in_use": engine_name(), **rows},
        "ratios": _ratios(figures),
        "envelope_characters": asyncio.run(_envelope_characters()),
    }


def _rows(figures: Figures) -> list[dict[str, Any]]:
    return [case._asdict() | figure.to_json() for case, figure in figures.items()]


def _ratios(figures: Mapping[str, Figures]) -> dict[str, float | None]:
    """Compare; None is for what was not measured."""
    found: dict[str, float | None] = {}
    for suffix, engine in (("", engine_in_use()), ("_python", PYTHON)):
        for row, case in ROWS.items():
            if alone := {"sign": ED25519_SIGN, "verify": ED25519_VERIFY}.get(row.partition("_")[0]):
                found[f"{row}_over_ed25519{suffix}"] = figures[engine][case].over(figures[_PRIMITIVES][alone])
        found[f"rebuild_records_per_s{suffix}"] = figures[engine][ROWS["rebuild"]].per_second
    for row in (f"verify_batch{BATCH}", f"sign_batch{BATCH}"):
        old = figures.get(_BEFORE, {}).get(ROWS[row])
        found[f"python_over_before_{row}"] = None if old is None else figures[PYTHON][ROWS[row]].over(old)
    return found


def count(size: int, *, small: bool = False) -> int:
    """Return how many messages of this size make a repetition."""
    most = _MOST if not small else BATCH if size < LARGEST else 4
    return min(most, max(_LEAST, _BYTES // size))


def _ours(batches: Sequence[int], sizes: Sequence[int], small: bool) -> dict[Case, Run]:  # noqa: FBT001 - by position
    """Return what each engine does."""
    runs = _rejecting() | {Case("rebuild", BATCH, SIZE): _rebuilding(count(SIZE, small=small))}
    for size in sizes:
        for batch in batches:
            runs |= signing_and_verifying(batch, size, count(size, small=small))
    return runs


def _in_batches(small: bool) -> dict[Case, Run]:  # noqa: FBT001 - by position
    """Return what a tree without engines is measured by."""
    return signing_and_verifying(BATCH, SIZE, count(SIZE, small=small), ("sign", "verify"))


def _primitives(sizes: Sequence[int], small: bool) -> dict[Case, Run]:  # noqa: FBT001 - by position
    """Return one pass of SHA-256, and the signature itself, which none that each message pays alone can beat."""
    key, data = Ed25519PrivateKey.generate(), cast.value(SIZE)
    public, signature = key.public_key(), key.sign(data)

    def sign() -> None:
        for _ in range(_TIMES):
            key.sign(data)

    def verify() -> None:
        for _ in range(_TIMES):
            public.verify(signature, data)

    return {
        ED25519_SIGN: lambda: rate(_TIMES, sign),
        ED25519_VERIFY: lambda: rate(_TIMES, verify),
    } | {Case("sha256", size=size): _hashing(size, count(size, small=small)) for size in sizes}


def signing_and_verifying(batch: int, size: int, messages: int, whats: Sequence[str] = SIDES) -> dict[Case, Run]:
    """Return runs of ``messages`` of ``size`` bytes in trees of ``batch``: sign, verify in bulk, verify one by one."""
    bare = cast.messages(size, messages)
    made = asyncio.run(cast.signed(cast.signer(batch=batch), [*cast.messages(SIZE, cast.CHUNK), *bare]))
    runs: dict[str, Run] = {
        "sign": lambda: async_rate(messages, lambda: cast.signer(batch=batch).sign_many(bare)),
        "verify": _verifying(cast.verify_in_bulk, made),
        "verify one": _verifying(cast.verify_one_by_one, made),
    }
    return {Case(what, batch, size): runs[what] for what in whats}


def _verifying(
    verify: Callable[[Verifier, Sequence[Message]], Coroutine[Any, Any, None]], made: Sequence[Message]
) -> Run:
    def run() -> float:
        judge = cast.verifier()  # a fresh one each time: no root and no id is known, only that there is such a sender
        asyncio.run(verify(judge, made[: cast.CHUNK]))
        return async_rate(len(made) - cast.CHUNK, lambda: verify(judge, made[cast.CHUNK :]))

    return run


def _rebuilding(messages: int) -> Run:
    made = asyncio.run(cast.signed(cast.signer(batch=BATCH), cast.messages(SIZE, messages)))
    read = [replace(one, exclusive=True) for one in made]

    def run() -> float:
        judge = cast.verifier()
        return async_rate(messages, lambda: cast.recall(judge, read))

    return run


def _hashing(size: int, times: int) -> Run:
    values = cast.values(size, times)

    def work() -> None:
        for data in values:
            sha256(data).digest()

    return lambda: rate(times, work)


def _added(figures: Figures, alone: Figures, batches: Sequence[int]) -> dict[str, dict[str, float]]:
    """Return how often the time of one pass of SHA-256 over the largest value each side takes, by batch size."""
    one_pass = alone[Case("sha256", size=LARGEST)]
    return {
        what: {str(batch): one_pass.over(figures[Case(what, batch, LARGEST)]) for batch in batches} for what in SIDES
    }


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
