"""Topics for as long as a measurement takes."""

from __future__ import annotations

from aiokafka.admin import AIOKafkaAdminClient, NewTopic


class Topics:
    """The topics of a run, stamped by the broker; gone when it ends."""

    def __init__(self, bootstrap: str, *names: str) -> None:
        self._names = names
        self._admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)

    async def __aenter__(self) -> None:
        await self._admin.start()
        configs = {"message.timestamp.type": "LogAppendTime"}
        await self._admin.create_topics([NewTopic(name, 1, 1, topic_configs=configs) for name in self._names])

    async def __aexit__(self, *_: object) -> None:
        await self._admin.delete_topics(list(self._names))
        await self._admin.close()
