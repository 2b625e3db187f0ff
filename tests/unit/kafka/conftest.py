from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.structs import TopicPartition

from tests.unit.kafka.fakes import FakeKafka
from watchword import Watchword


class Read(Protocol):
    """Begins to read."""

    def __call__(self, agent: Watchword, *tps: TopicPartition, **options: Any) -> FakeKafka:
        """Return a consumer of these partitions; ``options`` are its own."""
        ...


@pytest.fixture
async def read(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Read]:
    """Give consumers without a broker, and stop them in the end."""
    made: list[FakeKafka] = []

    async def send(
        client: AIOKafkaClient, node_id: Any, request: Any, *, group: ConnectionGroup = ConnectionGroup.DEFAULT
    ) -> Any:
        assert (group is ConnectionGroup.COORDINATION) == isinstance(request, OffsetFetchRequest)
        (kafka,) = (one for one in made if one.consumer._client is client)
        return await kafka.send(node_id, request)

    def begin(agent: Watchword, *tps: TopicPartition, **options: Any) -> FakeKafka:
        made.append(FakeKafka(agent, *tps, **options))
        return made[-1]

    monkeypatch.setattr(AIOKafkaClient, "send", send)
    monkeypatch.setattr(AIOKafkaClient, "get_random_node", lambda _: 0)
    yield begin
    for kafka in made:
        await kafka.consumer.stop()
