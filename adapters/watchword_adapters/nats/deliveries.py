"""The messages of one subscription as the verifier sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from watchword_adapters.raw_messages import RawMessages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats.aio.msg import Msg
    from watchword_native import Run

    from watchword.engine import Native
    from watchword.spi import Message
    from watchword_adapters.nats.reader import Reader


class Deliveries(RawMessages["Msg"]):
    """Messages of one reader, as received from nats-py."""

    def __init__(self, reader: Reader, raws: Sequence[Msg]) -> None:
        super().__init__(raws)
        self._reader: Final = reader

    def message(self, raw: Msg) -> Message:
        """See ``RawMessages``."""
        return self._reader.message(raw)

    def run(self, native: Native, now: float, max_age: float, max_skew: float, *, recalled: bool) -> Run:
        """See ``Runnable``."""
        reader = self._reader
        place = (f"nats://{reader.watchword.realm}/", reader.name, reader.exclusive)
        found = [*map(reader.where, self._raws)]
        return native.Run.of_deliveries(self._raws, place, found, now, max_age, max_skew, recalled)
