"""``watchword store init --accept-backlog`` on real brokers: it ends at what stands in the log."""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import nats
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic

from tests.brokers.broker import Broker
from tests.support.broker_tools import admin_of, create_topics
from watchword_adapters.cli import main


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return settings with a store that processes share."""
    for name in [name for name in os.environ if name.upper().startswith("WATCHWORD_") and "TEST" not in name]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    assert main(["keygen", "-p", "agent://acme/planner"]) == 0
    path = tmp_path / "watchword.toml"
    path.write_text(
        'realm = "prod"\n[[keys]]\nsource = "files"\npaths = ["planner.jwk"]\n'
        '[replay]\nstore = "sqlite"\npath = "ids"\n'
    )
    return path


def accepted(capsys: pytest.CaptureFixture[str], settings: Path, reader: str, servers: str) -> dict[str, Any]:
    """Accept a reader's backlog, and return what the command printed."""
    capsys.readouterr()
    arguments = ["store", "init", reader, "--accept-backlog", "--servers", servers, "--json", "--config", str(settings)]
    begun = time.time()
    assert main(arguments) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert begun < told["floor"] < time.time() + 6
    return told


def test_a_streams_backlog_ends_at_its_last_message(
    settings: Path, capsys: pytest.CaptureFixture[str], nats_broker: Broker, unique: Callable[[str], str]
) -> None:
    """By sequence and by the stream's own time, also where a purge has emptied it (N5)."""
    stream, servers = unique("orders"), nats_broker.address

    async def asked(work: Callable[[Any], Awaitable[Any]]) -> Any:
        connection = await nats.connect(servers)
        try:
            return await work(connection.jetstream())
        finally:
            await connection.close()

    async def fill(js: Any) -> Any:
        await js.add_stream(name=stream, subjects=[f"{stream}.>"])
        await js.add_consumer(stream, durable_name="worker")
        for _ in range(3):
            await js.publish(f"{stream}.a", b"")
        message = await js.get_msg(stream, seq=3)
        return message.time

    stamp = asyncio.run(asked(fill))
    assert isinstance(stamp, str | datetime)
    at = stamp if isinstance(stamp, datetime) else datetime.fromisoformat(stamp)
    told = accepted(capsys, settings, f"js:{stream}:worker", servers)
    assert told["accepted"] == {stream: [3, pytest.approx(at.timestamp(), abs=0.01)]}
    assert told["accepted"][stream][1] > at.timestamp()
    asyncio.run(asked(lambda js: js.purge_stream(stream)))
    assert accepted(capsys, settings, f"js:{stream}:worker", servers)["accepted"] == told["accepted"]
    for reader in (f"js:{stream}:nobody", "js:none:worker"):
        assert main(["store", "init", reader, "--accept-backlog", "--servers", servers, "--config", str(settings)]) == 2
        assert "not found: see js:STREAM:DURABLE" in capsys.readouterr().err
    asyncio.run(asked(lambda js: js.delete_stream(stream)))


def test_a_groups_backlog_ends_at_the_ends_of_its_logs(
    settings: Path, capsys: pytest.CaptureFixture[str], kafka_broker: Broker, unique: Callable[[str], str]
) -> None:
    """All partitions of the topics that it has committed on are in it, also those that it has not reached."""
    topic, group, servers = unique("tasks"), unique("group"), kafka_broker.address

    async def fill() -> None:
        async with admin_of(servers) as admin:
            await create_topics(admin, NewTopic(topic, 3, 1))
        async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
            for partition in (0, 0, 1):
                await producer.send_and_wait(topic, b"", partition=partition)
        async with AIOKafkaConsumer(bootstrap_servers=servers, group_id=group) as consumer:
            consumer.assign([TopicPartition(topic, 0)])
            await consumer.commit({TopicPartition(topic, 0): 1})

    asyncio.run(fill())
    told = accepted(capsys, settings, f"kafka:{group}", servers)
    floor = told["floor"]
    assert told["accepted"] == {f"{topic}/0": [1, floor], f"{topic}/1": [0, floor]}
    capsys.readouterr()
    reader = ["store", "init", f"kafka:{group}", "--accept-backlog", "--servers", servers, "--config", str(settings)]
    assert main(reader) == 0
    out = capsys.readouterr().out
    assert f"accepted: {topic}/0 up to 1\naccepted: {topic}/1 up to 0\n" in out
    assert "accepted once, including copies of what was read before" in out
    reader[2] = "kafka:nobody"
    assert main(reader) == 2
    assert "group nobody has committed nothing" in capsys.readouterr().err
