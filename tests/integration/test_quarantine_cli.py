"""``watchword quarantine`` on real brokers, from the rejected message to its verdict."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import NewTopic

from tests.support.broker_tools import admin_of, create_topics
from watchword import Unavailable, Watchword
from watchword.spi import Channel, Message, Position
from watchword_adapters.cli import main
from watchword_adapters.config import load
from watchword_adapters.kafka import SigningProducer
from watchword_adapters.kafka.quarantine import KafkaQuarantine
from watchword_adapters.nats import connect
from watchword_adapters.nats.quarantine import NatsQuarantine

PLANNER = "agent://acme/planner"
UNDETERMINED = Unavailable("keys", "ConnectionError")
Lines = list[dict[str, object]]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unique: Callable[[str], str]) -> Path:
    """Return the settings of an agent that knows its own key and has a quarantine."""
    for name in [name for name in os.environ if name.upper().startswith("WATCHWORD_") and "TEST" not in name]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    assert main(["keygen", "-p", PLANNER]) == 0
    path = tmp_path / "watchword.toml"
    path.write_text(
        f"""realm = "prod"
principal = "{PLANNER}"
[signer]
key = "planner.pem"
[[keys]]
source = "files"
paths = ["planner.jwk"]
[quarantine]
kafka = "{unique("copies")}"
nats = "{unique("copies")}.all"
header_style = "spring"
"""
    )
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Lines]:
    """Run a command of the quarantine; return its exit code and what it printed."""
    capsys.readouterr()
    code = main(["quarantine", *arguments])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


async def on_kafka(agent: Watchword, bootstrap: str, topic: str) -> None:
    """Send an honest and a forged record, and quarantine both."""
    quarantine = KafkaQuarantine.from_settings(agent)
    assert quarantine is not None
    async with admin_of(bootstrap) as admin:
        await create_topics(admin, *(NewTopic(name, 1, 1) for name in (topic, quarantine.topic)))
    async with SigningProducer(watchword=agent, bootstrap_servers=bootstrap, enable_idempotence=True) as producer:
        await producer.send_and_wait(topic, b"scale", partition=0)
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as attacker:
        await attacker.send_and_wait(topic, b"forged", partition=0)
    async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as plain:
        quarantine.attach(plain)
        for _ in range(2):
            record = await asyncio.wait_for(plain.getone(), 20)
            message = Message(
                channel=Channel("kafka", "prod", topic),
                value=record.value,
                headers=tuple(record.headers),
                partition=0,
                position=Position(f"{topic}/0", record.offset),
            )
            assert await quarantine.put(message, UNDETERMINED)
        await quarantine.close()


def test_from_rejection_to_verdict_on_kafka(
    settings: Path, capsys: pytest.CaptureFixture[str], kafka_bootstrap: str, unique: Callable[[str], str]
) -> None:
    """What was quarantined is listed, shown, and judged again at its offset: one verdict a line, value included."""
    topic = unique("tasks")
    asyncio.run(on_kafka(load(settings), kafka_bootstrap, topic))
    where = ("--config", str(settings), "--bus", "kafka", "--servers", kafka_bootstrap)
    code, rows = run(capsys, "list", "--json", *where)
    assert code == 0
    assert [(row["copy"], row["reason"], row["position"]) for row in rows] == [
        ("0/0", "undetermined", f"{topic}/0@0"),
        ("0/1", "undetermined", f"{topic}/0@1"),
    ]
    code, (shown,) = run(capsys, "show", "0/0", "--json", *where)
    assert (code, shown["channel"], shown["value"]) == (0, f"kafka://prod/{topic}", "c2NhbGU=")
    code, verdicts = run(capsys, "redrive", "--all", *where)
    assert code == 1
    assert verdicts[0].items() >= {"copy": "0/0", "read": "original", "verdict": "verified"}.items()
    assert (verdicts[0]["principal"], verdicts[0]["value"]) == (PLANNER, "c2NhbGU=")
    assert verdicts[1] == {"copy": "0/1", "read": "original", "verdict": "rejected", "reason": "unsigned"}
    assert run(capsys, "redrive", "0/0", *where)[0] == 0


async def on_nats(agent: Watchword, url: str, stream: str) -> None:
    """Store an honest and a forged message, and quarantine both."""
    quarantine = NatsQuarantine.from_settings(agent)
    assert quarantine is not None
    client = await connect(url, watchword=agent)
    quarantine.attach(client)
    for name, subject in ((stream, f"{stream}.task"), (quarantine.subject.partition(".")[0], quarantine.subject)):
        await client.jsm().add_stream(name=name, subjects=[subject])
    await client.jetstream().publish(f"{stream}.task", b"scale")
    await client.answer(f"{stream}.task", b"forged", None, None)  # unsigned
    for sequence, value in ((1, b"scale"), (2, b"forged")):
        message = Message(
            channel=Channel("nats", "prod", f"{stream}.task"), value=value, position=Position(stream, sequence)
        )
        assert await quarantine.put(message, UNDETERMINED)
    await client.close()


def test_from_rejection_to_verdict_on_nats(
    settings: Path, capsys: pytest.CaptureFixture[str], nats_url: str, unique: Callable[[str], str]
) -> None:
    """What was quarantined is listed and judged; where a copy does not match its position, it is judged alone."""
    asyncio.run(on_nats(load(settings), nats_url, unique("tasks")))
    where = ("--config", str(settings), "--bus", "nats", "--servers", nats_url)
    code, rows = run(capsys, "list", "--json", *where)
    assert (code, [row["copy"] for row in rows]) == (0, ["1", "2"])
    code, verdicts = run(capsys, "redrive", "2", "1", *where)
    assert code == 1
    assert [(line["copy"], line["read"], line["verdict"]) for line in verdicts] == [
        ("1", "copy", "rejected"),  # a copy without the envelope
        ("2", "original", "rejected"),
    ]
