"""A batch that is signed when it is sent, for only then are its topic and partition known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from watchword.message import ENVELOPE_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from watchword.message import Header


@dataclass(frozen=True, slots=True)
class Entry:
    """One message that waits in a batch; ``timestamp`` is in milliseconds, None for the time of signing."""

    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]


class SigningBatch:
    """Stands in for aiokafka's ``BatchBuilder``; made by ``SigningProducer.create_batch``.

    A message counts for its size with the largest envelope that it may get, so that what was accepted fits when it is
    signed.
    """

    def __init__(
        self,
        probe: Any,
        *,
        prepare: Callable[[Any, Any, Iterable[Header] | None], tuple[bytes | None, bytes | None, tuple[Header, ...]]],
        envelope_size: Callable[[Sequence[Header]], int],
        topic: str | None,
    ) -> None:
        self.topic: Final = topic
        self.entries: Final[list[Entry]] = []
        self._probe = probe
        self._prepare = prepare
        self._envelope_size = envelope_size
        self._closed = False

    def append(self, *, timestamp: int | None, key: Any, value: Any, headers: Iterable[Header] | None = None) -> Any:
        """Add a message; return its metadata (offset in the batch, size, timestamp), or None if full or closed."""
        if self._closed:
            return None
        key_bytes, value_bytes, all_headers = self._prepare(key, value, headers)
        worst = (ENVELOPE_HEADER, bytes(self._envelope_size(all_headers)))
        metadata = self._probe.append(
            timestamp=timestamp, key=key_bytes, value=value_bytes, headers=[*all_headers, worst]
        )
        if metadata is None:
            self.close()
            return None
        self.entries.append(Entry(timestamp, key_bytes, value_bytes, all_headers))
        return metadata

    def close(self) -> None:
        """Take no further message."""
        self._closed = True

    def closed(self) -> bool:
        """Tell whether no further message is taken."""
        return self._closed

    def size(self) -> int:
        """Return the size in bytes that the batch has at most once it is signed."""
        size: int = self._probe.size()
        return size

    def record_count(self) -> int:
        """Return the number of messages."""
        return len(self.entries)
