"""Going back over what the client gave last, without the client."""

from typing import Any

import pytest
from aiokafka import TopicPartition

from tests.unit.kafka.fakes import raw
from watchword_adapters.kafka.rewind import Rewind

P0 = TopicPartition("tasks", 0)


class Client:
    """A client that gives records up to a marker, and continues behind that."""

    def __init__(self, offsets: list[int], end: int) -> None:
        self.records = [raw(P0, at, b"v", []) for at in offsets]
        self.at, self.end = offsets[0], end
        self.sought: list[int] = []

    def position(self, _: TopicPartition) -> int:
        """See ``Inside``."""
        return self.at

    async def take(self, _: TopicPartition, most: int | None) -> list[Any]:
        """See ``Inside``."""
        left = [record for record in self.records if record.offset >= self.at]
        self.at = left[most].offset if most is not None and most < len(left) else self.end
        return left[:most]

    def seek(self, _: TopicPartition, offset: int) -> None:
        """See ``Inside``."""
        self.sought.append(offset)
        self.at = offset


@pytest.mark.parametrize("offset", [3, 4, 5, 6, 7])
async def test_a_seek_leads_where_it_was_to(offset: int) -> None:
    """Wherever one goes back to, on a record, a marker, or the end, that is the position; nothing is passed over."""
    client: Any = Client([3, 4, 6], end=8)  # 5 and 7 are markers
    rewind = Rewind(client, P0)
    assert [record.offset for record in await rewind.take(None)] == [3, 4, 6]
    assert rewind.position == 8
    rewind.seek(offset)
    assert rewind.position == offset
    found = await rewind.take(None) or await rewind.take(None)
    assert [record.offset for record in found] == [at for at in (3, 4, 6) if at >= offset]
    assert (rewind.position, client.sought) == (8, [])


async def test_a_seek_to_a_marker_can_be_sought_away_from() -> None:
    """Between two records the next seek goes back or on as ever."""
    client: Any = Client([3, 4, 6], end=8)
    rewind = Rewind(client, P0)
    await rewind.take(None)
    for offset in (7, 4, 7, 8, 7, 20):
        rewind.seek(offset)
        assert rewind.position == offset
    assert client.sought == [20]
