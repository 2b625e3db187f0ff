"""A consumer process on whatever aiokafka it finds: prints as JSON whether it refused to start, or what it read."""

import asyncio
import json
import sys
from typing import Any

import aiokafka
from aiokafka.abc import ConsumerRebalanceListener

from tests.support.kafka_api import VerifiedRecord, VerifyingConsumer
from watchword import ConfigurationError, Watchword
from watchword.jwk import parse_jwks

SEEN: list[bytes | None] = []
REVOKED: list[int] = []


def load(value: bytes | None) -> bytes | None:
    """Note what a deserializer is shown."""
    SEEN.append(value)
    return value


class Listener(ConsumerRebalanceListener):
    """Counts how often partitions are taken away."""

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """See aiokafka."""
        if revoked:
            REVOKED.append(len(revoked))

    async def on_partitions_assigned(self, assigned: Any) -> None:
        """See aiokafka."""


async def main(bootstrap: str, topic: str, group: str, jwks: str) -> dict[str, Any]:
    """Read all that is there: a message, a forged one, many more, the last; handle the first for long."""
    watchword = Watchword(realm="test", keys=parse_jwks(jwks.encode()))
    told: dict[str, Any] = {"version": aiokafka.__version__}
    try:
        consumer = VerifyingConsumer(
            watchword=watchword,
            bootstrap_servers=bootstrap,
            group_id=group,
            value_deserializer=load,
            auto_offset_reset="earliest",
            auto_commit_interval_ms=20,
            heartbeat_interval_ms=100,
            max_poll_interval_ms=500,
        )
        consumer.subscribe([topic], listener=Listener())
        await consumer.start()
    except ConfigurationError as error:
        return told | {"refused": str(error)}
    try:
        return told | await read(consumer)
    finally:
        await consumer.stop()


async def read(consumer: VerifyingConsumer) -> dict[str, Any]:
    """Return what was read and noticed."""
    first = await consumer.getone()
    await asyncio.sleep(0.3)  # handled for fifteen intervals of auto-commit
    (tp,) = consumer.assignment()
    ahead = await consumer.committed(tp) or 0
    records = [first]
    while records[-1].value != b"end":
        records.append(await consumer.getone())
        await asyncio.sleep(0.02)  # at leisure, but steadily: longer in all than a silent member may stay
    return {
        "committed_while_handling": ahead,
        "values": [(record.value or b"").decode() for record in records],
        "unverified": sum(not isinstance(record, VerifiedRecord) for record in records),
        "deserialized_forged": b"forged" in SEEN,
        "revoked": len(REVOKED),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(*sys.argv[1:]))) + "\n")
