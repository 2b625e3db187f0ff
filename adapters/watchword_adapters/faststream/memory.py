"""What stands for a server in FastStream's tests: where messages lie, and whose handler reads them."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from watchword import ConfigurationError
from watchword.spi import Position

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence


class Logs:
    """Gives each message of a log a place of its own, which is what tells a copy from a redelivery."""

    def __init__(self) -> None:
        self._ends: Counter[str] = Counter()

    def append(self, log: str) -> Position:
        """Return the place of the next message of ``log``."""
        self._ends[log] += 1
        return Position(log, self._ends[log] - 1)


def broker_of(handler: Any, brokers: Sequence[Any]) -> Any:
    """Return the broker that a subscriber belongs to: its agent judges what the subscriber gets."""
    return next(broker for broker in brokers if handler in broker.subscribers)


def require_ours(brokers: Sequence[Any], kind: type) -> None:
    """Raise ConfigurationError unless each broker of a test is one of ours."""
    for broker in brokers:
        if not isinstance(broker, kind):
            raise ConfigurationError(
                f"a broker of {type(broker).__module__} neither signs nor verifies: test it with FastStream's own"
                f" Test{kind.__name__}, or make a {kind.__name__} of watchword.faststream"
            )


@contextmanager
def changed(config: Any, **values: Any) -> Generator[None]:
    """Give a configuration other values for a while."""
    before = {name: getattr(config, name) for name in values}
    try:
        for name, value in values.items():
            setattr(config, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)
