"""Helpers of the in-memory test brokers: message positions, a handler's broker, and temporary configuration."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from watchword import ConfigurationError
from watchword.spi import Position

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence


class Logs:
    """Assigns each message of a log its own position, which tells a copy from a redelivery."""

    def __init__(self) -> None:
        self._ends: Counter[str] = Counter()

    def append(self, log: str) -> Position:
        """Return the position of the next message of ``log``."""
        self._ends[log] += 1
        return Position(log, self._ends[log] - 1)


def broker_of(handler: Any, brokers: Sequence[Any]) -> Any:
    """Return the broker of a subscriber, whose agent judges what the subscriber receives."""
    return next(broker for broker in brokers if handler in broker.subscribers)


def require_ours(brokers: Sequence[Any], kind: type) -> None:
    """Raise ConfigurationError unless every broker of a test is one of ours."""
    for broker in brokers:
        if not isinstance(broker, kind):
            raise ConfigurationError(
                f"a broker of {type(broker).__module__} neither signs nor verifies: test it with FastStream's own"
                f" Test{kind.__name__}, or create a {kind.__name__} of watchword.faststream"
            )


@contextmanager
def changed(config: Any, **values: Any) -> Generator[None]:
    """Set attributes of a configuration temporarily."""
    before = {name: getattr(config, name) for name in values}
    try:
        for name, value in values.items():
            setattr(config, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)
