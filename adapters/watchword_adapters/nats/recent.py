"""A cache bounded in number and time."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_REMEMBERED: Final = 10_000

T = TypeVar("T")


class Recent(Generic[T]):
    """Up to ``limit`` values by name, each for ``seconds``; the oldest are dropped first."""

    def __init__(self, *, seconds: float, clock: Callable[[], float], limit: int = MAX_REMEMBERED) -> None:
        self._seconds = seconds
        self._clock = clock
        self._limit = limit
        self._values: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def put(self, name: str, value: T) -> None:
        """Store ``value`` under ``name``, for ``seconds`` from now."""
        self._values.pop(name, None)
        self._values[name] = (self._clock() + self._seconds, value)
        while len(self._values) > self._limit:
            self._values.popitem(last=False)

    def get(self, name: str) -> T | None:
        """Return the value under ``name``; None if it is missing or expired."""
        until, value = self._values.get(name, (0.0, None))
        if value is not None and self._clock() >= until:
            del self._values[name]
            return None
        return value
