"""How much of what was announced is asked for at once."""

import pytest

from watchword_adapters.nats.presence import together


@pytest.mark.parametrize(("largest", "count"), [(1 << 10, 100), (1 << 20, 16), (8 << 20, 2), (64 << 20, 1)])
def test_as_much_is_asked_for_as_a_server_holds_for_a_client(largest: int, count: int) -> None:
    """A55: a server drops a client for whom more than 64 MiB wait, so the larger messages may be, the fewer at once."""
    assert together(largest) == count
