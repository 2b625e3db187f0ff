"""What a subscription was given, as the verifier sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, overload

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from watchword_native import Run

    from watchword.engine import Native
    from watchword.spi import Message
    from watchword_adapters.nats.reader import Reader


class Deliveries(Sequence["Message"]):
    """Messages of one reader, as nats-py gives them; each is made a Message when somebody asks for it."""

    def __init__(self, reader: Reader, raws: Sequence[Msg]) -> None:
        self._reader: Final = reader
        self._raws: Final = list(raws)
        self._made: Final[list[Message | None]] = [None] * len(self._raws)

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
            made = self._made[at] = self._reader.message(self._raws[at])
        return made

    def run(self, native: Native, now: float, max_age: float, max_skew: float, *, recalled: bool) -> Run:
        """See ``Runnable``."""
        reader = self._reader
        place = (f"nats://{reader.watchword.realm}/", reader.name, reader.exclusive)
        found = [*map(reader.where, self._raws)]
        return native.Run.of_deliveries(self._raws, place, found, now, max_age, max_skew, recalled)
