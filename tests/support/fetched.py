"""How much a consumer fetches: counted where every answer of a broker's comes in."""

from functools import wraps
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest


class Fetched:
    """Counts the bytes of records, and the answers that held any, of all consumers of this process."""

    def __init__(self) -> None:
        self.bytes = self.answers = 0

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Count until the end of the test."""
        send: Any = AIOKafkaClient.send

        @wraps(send)
        async def counted(client: Any, node_id: Any, request: Any, **options: Any) -> Any:
            response = await send(client, node_id, request, **options)
            if isinstance(request, FetchRequest):
                for _, partitions in response.topics:
                    for answer in partitions:
                        size = len(answer[-1] or b"")
                        self.bytes += size
                        self.answers += size > 0
            return response

        patch.setattr(AIOKafkaClient, "send", counted)

    def reset(self) -> None:
        """Start counting from zero."""
        self.bytes = self.answers = 0
