"""What operators, retention and other groups do to a topic, as one call each.

A broker answers a request to create, delete or alter a topic before it acts on it. These calls return once the broker
describes the topic as asked, so that no test meets the topic as it was before.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code
from aiokafka.structs import OffsetAndMetadata

from tests.support.patience import PATIENCE

_SET_ON_THE_TOPIC = 1


@asynccontextmanager
async def admin_of(bootstrap: str, **options: Any) -> AsyncIterator[AIOKafkaAdminClient]:
    """Open an administrator's client."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **options)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def create_topics(admin: AIOKafkaAdminClient, *topics: NewTopic) -> None:
    """Create topics."""
    answer: Any = await admin.create_topics(list(topics))
    for _, code, *_ in answer.topic_errors:
        if code:
            raise for_code(code)
    names = {topic.name for topic in topics}

    async def known() -> bool:
        return names.issubset(await admin.list_topics())

    await _until(known)


async def delete_topics(admin: AIOKafkaAdminClient, *names: str) -> None:
    """Delete topics, those that exist."""
    await admin.delete_topics(list(names))

    async def gone() -> bool:
        return set(names).isdisjoint(await admin.list_topics())

    await _until(gone)


async def delete_before(bootstrap: str, topic: str, offset: int, *, partition: int = 0) -> None:
    """Delete what stands before an offset, as retention does; -1 empties the partition."""
    async with admin_of(bootstrap) as admin:
        await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before_offset=offset)})


async def settings_of(admin: AIOKafkaAdminClient, topic: str, *, own: bool = False) -> dict[str, str]:
    """Return all settings of a topic, or only those that were set on it."""
    answer: Any
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    ((_, _, _, _, entries),) = answer.resources
    return {name: value for name, value, _, source, *_ in entries if source == _SET_ON_THE_TOPIC or not own}


async def alter_topic(bootstrap: str, topic: str, **configs: str) -> None:
    """Change settings of a topic, given with underscores for dots; the others stay."""
    changes = {name.replace("_", "."): value for name, value in configs.items()}
    async with admin_of(bootstrap) as admin:
        wanted = await settings_of(admin, topic, own=True) | changes
        altered: Any
        (altered,) = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, wanted)])
        for code, *_ in altered.resources:
            if code:
                raise for_code(code)

        async def altered_so() -> bool:
            return changes.items() <= (await settings_of(admin, topic)).items()

        await _until(altered_so)


async def _until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await is_so():  # noqa: ASYNC110 - a broker sets no event
            await asyncio.sleep(0.01)


async def commit_for(bootstrap: str, group: str, tp: TopicPartition, offset: int, metadata: str = "") -> None:
    """Commit any offset and metadata for a group that has no member now."""
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False) as plain:
        plain.assign([tp])
        await plain.commit({tp: OffsetAndMetadata(offset, metadata)})


async def committed_by(bootstrap: str, group: str, tp: TopicPartition) -> OffsetAndMetadata | None:
    """Return what a group has committed, metadata included; None if nothing."""
    async with admin_of(bootstrap) as admin:
        found = (await admin.list_consumer_group_offsets(group, partitions=[tp]))[tp]
    return None if found.offset == -1 else found


async def ends_of(bootstrap: str, tp: TopicPartition) -> tuple[int, int]:
    """Return the first offset of a log, and the one behind its last."""
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as plain:
        first = (await plain.beginning_offsets([tp]))[tp]
        return int(first), int((await plain.end_offsets([tp]))[tp])
