"""A consumer process that is killed while it handles: prints each record that it is given, and handles it forever."""

import asyncio
import json
import sys

from watchword import Watchword
from watchword.jwk import parse_jwks
from watchword_adapters.kafka import VerifiedRecord, VerifyingConsumer


async def main(bootstrap: str, topic: str, group: str, jwks: str) -> None:
    """Read one record, then another call's worth of nothing."""
    watchword = Watchword(realm="test", keys=parse_jwks(jwks.encode()))
    consumer = VerifyingConsumer(
        topic,
        watchword=watchword,
        bootstrap_servers=bootstrap,
        group_id=group,
        group_instance_id="victim",
        auto_offset_reset="earliest",
        auto_commit_interval_ms=20,
    )
    async with consumer:
        async for record in consumer:
            assert isinstance(record, VerifiedRecord)
            told = {"offset": record.offset, "id": record.verified.id, "value": (record.value or b"").decode()}
            sys.stdout.write(json.dumps(told | {"counts": watchword.audit.counts}) + "\n")
            sys.stdout.flush()
            if record.value == b"hang":
                await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
