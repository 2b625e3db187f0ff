"""Base class for a client's raw messages, which the native engine can judge without converting them to Messages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Generic, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Iterable

    from watchword_native import Run

    from watchword.engine import Native
    from watchword.spi import Message

Raw = TypeVar("Raw")


class RawMessages(Sequence["Message"], ABC, Generic[Raw]):
    """A sequence of Messages; each is converted on first access and then cached."""

    def __init__(self, raws: Iterable[Raw]) -> None:
        self._raws: Final = list(raws)
        self._made: Final[list[Message | None]] = [None] * len(self._raws)

    @abstractmethod
    def message(self, raw: Raw) -> Message:
        """Return a raw message as a Message."""

    @abstractmethod
    def run(self, native: Native, now: float, max_age: float, max_skew: float, *, recalled: bool) -> Run:
        """See ``Runnable``."""

    def __len__(self) -> int:
        return len(self._raws)

    @overload
    def __getitem__(self, at: int) -> Message: ...
    @overload
    def __getitem__(self, at: slice) -> list[Message]: ...
    def __getitem__(self, at: int | slice) -> Message | list[Message]:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        made = self._made[at]
        if made is None:
            made = self._made[at] = self.message(self._raws[at])
        return made
