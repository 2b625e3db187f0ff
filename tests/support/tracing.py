"""Tracing as OpenTelemetry's instrumentation of aiokafka does it: methods wrapped on the client's own classes."""

from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

TRACEPARENT = "traceparent"


class Tracing:
    """Notes each record that a send hook and a receive hook are shown, and gives each send a trace context."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any, Any]] = []
        self.received: list[Any] = []

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Wrap `send`, `getone` and `getmany` until the end of the test."""
        send: Any
        getone: Any
        getmany: Any
        send, getone, getmany = AIOKafkaProducer.send, AIOKafkaConsumer.getone, AIOKafkaConsumer.getmany

        async def traced_send(producer: Any, *args: Any, **kwargs: Any) -> Any:
            if len(args) > 5:
                kwargs["headers"] = args[5]
                args = args[:5]
            headers = kwargs.get("headers")
            if headers is None:
                headers = kwargs["headers"] = []
            given = dict(zip(("topic", "value", "key"), args, strict=False)) | kwargs
            _ = producer.client._bootstrap_servers, producer.client._client_id
            number = len(self.sent)
            self.sent.append((given["topic"], given.get("value"), given.get("key")))
            headers.append((TRACEPARENT, b"00-%032x-%016x-01" % (1, number)))
            return await send(producer, *args, **kwargs)

        async def traced_getone(consumer: Any, *args: Any, **kwargs: Any) -> Any:
            record = await getone(consumer, *args, **kwargs)
            self._receive(consumer, record)
            return record

        async def traced_getmany(consumer: Any, *args: Any, **kwargs: Any) -> Any:
            records = await getmany(consumer, *args, **kwargs)
            for some in records.values():
                for record in some:
                    self._receive(consumer, record)
            return records

        patch.setattr(AIOKafkaProducer, "send", traced_send)
        patch.setattr(AIOKafkaConsumer, "getone", traced_getone)
        patch.setattr(AIOKafkaConsumer, "getmany", traced_getmany)

    def _receive(self, consumer: Any, record: Any) -> None:
        _ = consumer._client._bootstrap_servers, consumer._group_id
        self.received.append(record)

    def places(self) -> list[tuple[int, int]]:
        """Return partition and offset of what the receive hook was shown, in order."""
        return [(record.partition, record.offset) for record in self.received]
