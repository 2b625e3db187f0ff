"""What operators, retention and other groups do to a topic, as one call each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code
from aiokafka.structs import OffsetAndMetadata

_SET_ON_THE_TOPIC = 1


@asynccontextmanager
async def admin_of(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """Open an administrator's client."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def delete_before(bootstrap: str, topic: str, offset: int, *, partition: int = 0) -> None:
    """Delete what stands before an offset, as retention does; -1 empties the partition."""
    async with admin_of(bootstrap) as admin:
        await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before_offset=offset)})


async def alter_topic(bootstrap: str, topic: str, **configs: str) -> None:
    """Change settings of a topic, given with underscores for dots; the others stay."""
    async with admin_of(bootstrap) as admin:
        answer: Any
        altered: Any
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        ((_, _, _, _, entries),) = answer.resources
        held = {name: value for name, value, _, source, *_ in entries if source == _SET_ON_THE_TOPIC}
        wanted = held | {name.replace("_", "."): value for name, value in configs.items()}
        (altered,) = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, wanted)])
        for code, *_ in altered.resources:
            if code:
                raise for_code(code)


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
