"""A second implementation, in Go, and this one read each other: all vectors, and messages over real brokers."""

import asyncio
import base64
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cbor2
import nats
import pytest
from aiokafka import AIOKafkaConsumer

import watchword
from tests.brokers.plugin import MakeStream, MakeTopic, TimestampType
from tests.support.patience import PATIENCE
from watchword import Watchword
from watchword.kafka import SigningProducer, VerifyingConsumer
from watchword.nats import VerifiedMsg, connect
from watchword_adapters.cli import main as command_line

FOLDER: Final = Path(__file__).parents[2] / "interop"
VECTORS: Final = FOLDER.parent / "tests" / "vectors" / "v1"
PYTHONIST, GOPHER = "agent://acme/pythonist", "agent://acme/gopher"
DIRECT, TREE = 1, 5
VALUES: Final = (b"0", None, b"", b"3", b"\xff")

Unique = Callable[[str], str]


@pytest.fixture(scope="session")
def go() -> str:
    """Give the Go command, where it is there and has its modules."""
    found = shutil.which("go")
    if found is None:
        pytest.skip("Go is not installed")
    got = subprocess.run([found, "mod", "download"], cwd=FOLDER, capture_output=True, text=True, check=False)  # noqa: S603
    if got.returncode:
        pytest.skip(f"Go's modules are not available: {got.stderr.strip()}")
    return found


@pytest.fixture(scope="session")
def bus(go: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the Go program that signs, sends, reads and verifies."""
    made = tmp_path_factory.mktemp("interop") / "bus"
    subprocess.run([go, "build", "-o", str(made), "./cmd/bus"], cwd=FOLDER, check=True)  # noqa: S603
    return made


@dataclass(frozen=True)
class Pair:
    """Two agents in one folder, one that speaks Python and one that speaks Go."""

    agent: Watchword
    bus: Path
    home: Path

    async def go_sends(self, broker: str, messages: Sequence[dict[str, Any]]) -> None:
        """Let Go sign messages for the agent that speaks Python, and send them."""
        settings = self._settings(channel=messages[0]["channel"], recipient=PYTHONIST)
        process = await asyncio.create_subprocess_exec(self.bus, "send", broker, settings, stdin=subprocess.PIPE)
        await asyncio.wait_for(process.communicate(json.dumps(messages).encode()), PATIENCE)
        assert process.returncode == 0

    @asynccontextmanager
    async def go_reads(self, broker: str, channel: str, count: int) -> AsyncIterator[Callable[[], Any]]:
        """Let Go read and judge messages; what is given gives what it says of them."""
        settings = self._settings(channel=channel, count=count)
        process = await asyncio.create_subprocess_exec(self.bus, "read", broker, settings, stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            assert await asyncio.wait_for(process.stdout.readline(), PATIENCE) == b"reading\n"

            async def judged() -> list[dict[str, Any]]:
                output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
                return [json.loads(line) for line in output.splitlines()]

            yield judged
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _settings(self, **more: Any) -> str:
        keys = json.loads((self.home / "agents.jwks").read_text())["keys"]
        (key_id,) = [key["kid"] for key in keys if key["principal"] == GOPHER]
        path = self.home / "go.json"
        given = {"principal": GOPHER, "private": "gopher.pem", "keys": "agents.jwks", "key_id": key_id, **more}
        path.write_text(json.dumps(given))
        return str(path)


@pytest.fixture
def pair(bus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """Give two agents with settings and keys of their own."""
    monkeypatch.chdir(tmp_path)
    for name in (PYTHONIST, GOPHER):
        assert command_line(["init", "--realm", "prod", "--principal", name]) == 0
    return Pair(watchword.load("watchword.toml"), bus, tmp_path)


def text(raw: bytes | None) -> str | None:
    """Return bytes as they stand in JSON."""
    return None if raw is None else base64.b64encode(raw).decode()


def tree_size(envelope: bytes) -> int:
    """Return how many leaves the tree has that an envelope stands in; 0 if it was signed alone."""
    proof = cbor2.loads(base64.urlsafe_b64decode(envelope + b"=="))[2]
    if not proof[1]:
        return 0
    (inclusion,) = proof[1][396][-1]
    size: int = cbor2.loads(inclusion)[0]
    return size


async def sizes_on_kafka(bootstrap: str, topic: str, count: int) -> list[int]:
    """Return the sizes of the trees in which the first records of a topic stand, as any consumer sees them."""
    async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        records = [await asyncio.wait_for(consumer.getone(), PATIENCE) for _ in range(count)]
    return [tree_size(dict(record.headers)["watchword"]) for record in records]


@asynccontextmanager
async def sizes_on_nats(url: str, subject: str, count: int) -> AsyncIterator[Callable[[], Any]]:
    """Give what returns the sizes of the trees in which messages stood, as any subscriber sees them."""
    client = await nats.connect(url)
    try:
        subscription = await client.subscribe(subject)
        await client.flush()

        async def sizes() -> list[int]:
            messages = [await subscription.next_msg(PATIENCE) for _ in range(count)]
            return [tree_size((message.headers or {})["watchword"].encode()) for message in messages]

        yield sizes
    finally:
        await client.close()


def expected_sizes(count: int) -> list[int]:
    """Return the sizes that this many messages have: one is signed alone, several as one tree."""
    return [0] if count == DIRECT else [count] * count


def test_go_passes_every_vector(go: str) -> None:
    """All of them, counted on both sides."""
    there = sum(len(json.loads(path.read_text())) for path in VECTORS.glob("*.json"))
    command = [go, "test", "-count=1", "-v", "./..."]
    run = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)  # noqa: S603
    assert run.returncode == 0, run.stdout[-4000:]
    counted = re.search(r"(\d+) vectors", run.stdout)
    assert counted is not None
    assert int(counted[1]) == there > 0


@pytest.mark.needs_kafka("duplicate_headers")
@pytest.mark.parametrize("count", [DIRECT, TREE])
@pytest.mark.parametrize("timestamps", ["LogAppendTime", "CreateTime"])
async def test_python_verifies_what_go_signed_on_kafka(
    pair: Pair, kafka_bootstrap: str, make_topic: MakeTopic, timestamps: TimestampType, count: int
) -> None:
    """A record alone and records in one tree, with keys, tombstones, null and repeated headers."""
    topic = await make_topic(timestamp_type=timestamps)
    headers = [["a", text(b"1")], ["é", None], ["a", text(b"")]]
    values = VALUES[:count]
    sent = [
        {
            "channel": f"kafka://prod/{topic}",
            "partition": 0,
            "key": text(b"k"),
            "value": text(value),
            "headers": headers,
        }
        for value in values
    ]
    await pair.go_sends(kafka_bootstrap, sent)
    async with VerifyingConsumer(
        topic, bootstrap_servers=kafka_bootstrap, auto_offset_reset="earliest", watchword=pair.agent
    ) as consumer:
        got = [await asyncio.wait_for(consumer.getone(), PATIENCE) for _ in values]
    assert tuple(record.value for record in got) == values
    assert {record.verified.principal for record in got} == {GOPHER}
    assert {record.key for record in got} == {b"k"}
    assert {record.headers for record in got} == {(("a", b"1"), ("é", None), ("a", b""))}
    assert await sizes_on_kafka(kafka_bootstrap, topic, count) == expected_sizes(count)


@pytest.mark.needs_kafka("duplicate_headers")
@pytest.mark.parametrize("count", [DIRECT, TREE])
@pytest.mark.parametrize("timestamps", ["LogAppendTime", "CreateTime"])
async def test_go_verifies_what_python_signed_on_kafka(
    pair: Pair, kafka_bootstrap: str, make_topic: MakeTopic, timestamps: TimestampType, count: int
) -> None:
    """As above, the other way round; a message for someone else comes last, and Go must not take it."""
    topic = await make_topic(timestamp_type=timestamps)
    values = VALUES[:count]
    headers: list[tuple[str, Any]] = [("a", b"1"), ("é", None), ("a", b"")]
    others = b"for someone else"
    async with SigningProducer(
        bootstrap_servers=kafka_bootstrap, watchword=pair.agent, recipient=lambda *_: GOPHER
    ) as producer:
        waiting = [await producer.send(topic, value, key=b"k", headers=headers) for value in values]
        await asyncio.gather(*waiting)
    async with SigningProducer(
        bootstrap_servers=kafka_bootstrap, watchword=pair.agent, recipient=lambda *_: PYTHONIST
    ) as producer:
        await producer.send_and_wait(topic, others)
    async with pair.go_reads(kafka_bootstrap, f"kafka://prod/{topic}", count + 1) as judged:
        *got, last = await judged()
    assert [one["value"] for one in got] == [text(value) for value in values]
    assert {one["key"] for one in got} == {text(b"k")}
    assert {one["verdict"]["Principal"] for one in got} == {PYTHONIST}
    assert [one["verdict"]["Headers"] for one in got] == [[["a", "MQ=="], ["é", None], ["a", ""]]] * count
    assert last["verdict"]["Reason"] == "wrong_recipient"
    assert last["value"] == text(others)
    assert await sizes_on_kafka(kafka_bootstrap, topic, count) == expected_sizes(count)


@pytest.mark.parametrize("count", [DIRECT, TREE])
async def test_python_verifies_what_go_signed_on_nats(pair: Pair, nats_url: str, unique: Unique, count: int) -> None:
    """Messages alone and in one tree, with a reply subject."""
    subject = unique("tasks")
    values = [value or b"" for value in VALUES[:count]]
    headers = [["B", text(b"2 3")], ["A", text(b"")]]
    sent = [
        {"channel": f"nats://prod/{subject}", "value": text(value), "headers": headers, "reply_to": "answers.here"}
        for value in values
    ]
    client = await connect(nats_url, watchword=pair.agent)
    async with client, sizes_on_nats(nats_url, subject, count) as sizes:
        subscription = await client.subscribe(subject)
        await client.flush()
        await pair.go_sends(nats_url, sent)
        got: list[VerifiedMsg] = [await subscription.next_msg(PATIENCE) for _ in values]
        assert await sizes() == expected_sizes(count)
    assert [message.data for message in got] == values
    assert {message.verified.principal for message in got} == {GOPHER}
    assert {message.reply for message in got} == {"answers.here"}
    assert [message.headers for message in got] == [{"A": "", "B": "2 3"}] * count


@pytest.mark.parametrize("count", [DIRECT, TREE])
async def test_go_verifies_what_python_signed_on_nats(pair: Pair, nats_url: str, unique: Unique, count: int) -> None:
    """As above, the other way round; a message for someone else comes last, and Go must not take it."""
    subject = unique("tasks")
    values = [value or b"" for value in VALUES[:count]]
    channel = f"nats://prod/{subject}"
    headers = {"A": "", "B": "2 3"}  # in the order of their names: Go's client keeps no other
    client = await connect(nats_url, watchword=pair.agent)
    async with (
        client,
        sizes_on_nats(nats_url, subject, count) as sizes,
        pair.go_reads(nats_url, channel, count + 1) as judged,
    ):
        for value in values:
            await client.publish(subject, value, reply="answers.here", headers=headers, recipient=GOPHER)
        await client.flush()
        await client.publish(subject, b"for someone else", recipient=PYTHONIST)
        await client.flush()
        *got, last = await judged()
        assert await sizes() == expected_sizes(count)
    assert [one["value"] for one in got] == [text(value) for value in values]
    assert {one["verdict"]["Principal"] for one in got} == {PYTHONIST}
    assert {one["verdict"]["ReplyTo"] for one in got} == {"answers.here"}
    assert [one["verdict"]["Headers"] for one in got] == [[["A", ""], ["B", "MiAz"]]] * count
    assert last["verdict"]["Reason"] == "wrong_recipient"


@pytest.mark.parametrize("algorithm", ["ml-dsa-44", "ml-dsa-65"])
async def test_both_verify_what_python_signed_by_ml_dsa(
    pair: Pair, nats_url: str, unique: Unique, algorithm: str
) -> None:
    """A message alone and messages in one tree, by a post-quantum key that the command line made."""
    subject, home = unique("tasks"), pair.home
    made = ["keygen", "--principal", PYTHONIST, "--algorithm", algorithm]
    assert command_line([*made, "--private", "new.pem", "--public", "new.jwk"]) == 0
    gophers = [key for key in json.loads((home / "agents.jwks").read_text())["keys"] if key["principal"] == GOPHER]
    (home / "agents.jwks").write_text(json.dumps({"keys": [*gophers, json.loads((home / "new.jwk").read_text())]}))
    settings = (home / "watchword.toml").read_text()
    (home / "watchword.toml").write_text(settings.replace("pythonist.pem", "new.pem"))
    agent = watchword.load("watchword.toml")
    client = await connect(nats_url, watchword=agent)
    values = [b"%d" % number for number in range(300)]
    async with client, pair.go_reads(nats_url, f"nats://prod/{subject}", 1 + len(values)) as judged:
        subscription = await client.subscribe(subject)
        await client.publish(subject, b"alone")
        await client.flush()
        await asyncio.gather(*[client.publish(subject, value) for value in values])
        got: list[VerifiedMsg] = [await subscription.next_msg(PATIENCE) for _ in range(1 + len(values))]
        assert {message.verified.principal for message in got} == {PYTHONIST}
        assert {message.data for message in got} == {b"alone", *values}
        there = await judged()
    assert {one["verdict"]["Principal"] for one in there} == {PYTHONIST}
    assert len(there) == 1 + len(values)


@pytest.mark.parametrize("count", [DIRECT, TREE])
async def test_python_verifies_what_go_signed_from_a_stream(
    pair: Pair, nats_url: str, make_stream: MakeStream, unique: Unique, count: int
) -> None:
    """What a stream has stored is judged by its position and stamp."""
    subject = unique("tasks")
    await make_stream(subject)
    values = [value or b"" for value in VALUES[:count]]
    sent: list[dict[str, Any]] = [{"channel": f"nats://prod/{subject}", "value": text(value)} for value in values]
    await pair.go_sends(nats_url, sent)
    client = await connect(nats_url, watchword=pair.agent)
    async with client:
        subscription = await client.jetstream().subscribe(subject, ordered_consumer=True)
        got = [await subscription.next_msg(PATIENCE) for _ in values]
    assert [message.data for message in got] == values
    assert {message.verified.principal for message in got} == {GOPHER}


@pytest.mark.parametrize("count", [DIRECT, TREE])
async def test_go_verifies_what_python_published_to_a_stream(
    pair: Pair, nats_url: str, make_stream: MakeStream, unique: Unique, count: int
) -> None:
    """A bystander of core NATS sees the id beside the envelope, and a reply subject that nobody signed."""
    subject = unique("tasks")
    await make_stream(subject)
    values = [value or b"" for value in VALUES[:count]]
    client = await connect(nats_url, watchword=pair.agent)
    async with (
        client,
        sizes_on_nats(nats_url, subject, count) as sizes,
        pair.go_reads(nats_url, f"nats://prod/{subject}", count) as judged,
    ):
        jetstream = client.jetstream()
        await asyncio.gather(*[jetstream.publish(subject, value, headers={"A": "1"}) for value in values])
        got = await judged()
        assert await sizes() == expected_sizes(count)
    assert [one["value"] for one in got] == [text(value) for value in values]
    assert {one["verdict"]["Principal"] for one in got} == {PYTHONIST}
    assert {one["verdict"]["ReplyTo"] for one in got} == {""}
    assert [one["verdict"]["Headers"] for one in got] == [[["A", "MQ=="]]] * count
