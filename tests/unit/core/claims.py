"""Claims for the tests of replay stores."""

from dataclasses import replace
from typing import Any, Final

from tests.unit.core.world import ALICE, ALICE_KEY, NOW
from watchword.guard import DEFAULT_BOUNDS
from watchword.spi import Claim, MemoryReplayStore, Position, ReplayStore

HORIZON: Final = 100.0


def claim(**fields: Any) -> Claim:
    """Return a claim on an id that was just issued."""
    given: dict[str, Any] = {
        "scope": "kafka://prod/tasks#group", "log": "log", "principal": ALICE, "key_id": ALICE_KEY.key_id,
        "id": b"1" * 16, "digest": b"d" * 32, "place": place(1), "issued_at": NOW, "reference": NOW,
        "keep_until": NOW + 10_000,
    }  # fmt: skip
    return Claim(**given | fields)


def make_room(memory: ReplayStore, per_principal: int) -> None:
    """Let a store remember more ids of each principal from now on."""
    assert isinstance(memory, MemoryReplayStore)
    memory._quota._bounds = replace(DEFAULT_BOUNDS, per_principal=per_principal)  # type: ignore[misc] # the test's


def numbered(number: int, **fields: Any) -> Claim:
    """Return the claim of one of many messages, each at an offset of its own."""
    raw = number.to_bytes(16)
    return claim(**{"id": raw, "digest": raw * 2, "place": place(number)} | fields)


def place(offset: int, stamp: float | None = 1.5, log: str = "tasks/0") -> tuple[Position, float | None]:
    """Return where the broker put something."""
    return Position(log, offset), stamp


def store(**options: Any) -> MemoryReplayStore:
    """Return a store with a short horizon."""
    horizon = options.pop("horizon", HORIZON)
    return MemoryReplayStore(horizon=horizon, bounds=replace(DEFAULT_BOUNDS, **options))
