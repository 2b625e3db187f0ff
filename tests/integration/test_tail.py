"""``watchword tail`` on real brokers: what it shows, and that it leaves no trace."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from aiokafka import AIOKafkaProducer

from tests.brokers.nats import wheel
from tests.brokers.plugin import MakeStream, MakeTopic
from tests.support.broker_tools import admin_of
from tests.support.patience import PATIENCE
from watchword import Watchword
from watchword_adapters.brokers import nats_server
from watchword_adapters.cli import main
from watchword_adapters.config import load
from watchword_adapters.kafka import SigningProducer
from watchword_adapters.nats import connect

PLANNER = "agent://acme/planner"
COMMAND = [sys.executable, "-m", "watchword_adapters.cli", "tail"]
Lines = list[dict[str, Any]]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the settings of an agent that knows its own key."""
    for name in [name for name in os.environ if name.upper().startswith("WATCHWORD_") and "TEST" not in name]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    assert main(["init", "-r", "prod", "-p", PLANNER]) == 0
    return tmp_path / "watchword.toml"


@contextmanager
def tailing(*arguments: str, expect: bytes = b"; Control-C ends it\n") -> Iterator[subprocess.Popen[bytes]]:
    """Run the command; what it must not miss comes after it said that it reads."""
    with subprocess.Popen(  # noqa: S603 - our own command
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - no threads here
    ) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            assert said.endswith(expect), said
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[bytes]) -> tuple[int, Lines]:
    """Wait for its end; return the exit code and the lines."""
    out, err = process.communicate(timeout=PATIENCE)
    assert err == b""
    return process.returncode, [json.loads(line) for line in out.splitlines()]


def judged(lines: Lines, settings: Path) -> Lines:
    """Return what ``watchword verify`` says of lines that were printed."""
    ran = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "watchword_adapters.cli", "verify", "--config", str(settings)],
        input="".join(json.dumps(line) + "\n" for line in lines).encode(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.stderr == b""
    return [json.loads(line) for line in ran.stdout.splitlines()]


async def on_nats(agent: Watchword, url: str, subject: str, *, stored: bool = False) -> None:
    """Publish a message that nobody signed, and one of the agent's."""
    stranger = await nats.connect(url)
    await stranger.publish(subject, b"forged")
    await stranger.flush()
    await stranger.close()
    client = await connect(url, watchword=agent)
    if stored:
        await client.jetstream().publish(subject, b"scale")
    else:
        await client.publish(subject, b"scale")
        await client.flush()
    await client.close()


def test_a_subject_is_read_along(settings: Path, nats_url: str, unique: Callable[[str], str]) -> None:
    """Each message is a line that verify reads, from all subjects that a wildcard covers; the table has each, too."""
    subject = unique("tasks")
    where = (f"nats://prod/{subject}.>", "--servers", nats_url, "--count", "2")
    with tailing(*where) as plain, tailing(*where, "--verify") as verifying, tailing(*where, "--live") as live:
        asyncio.run(on_nats(load(settings), nats_url, f"{subject}.scale"))
        code, lines = ended(plain)
        assert (code, {line["channel"] for line in lines}) == (0, {f"nats://prod/{subject}.scale"})
        verdicts = judged(lines, settings)
        assert [line["verdict"] for line in verdicts] == ["rejected", "verified"]
        assert ended(verifying) == (1, [line | {"channel": f"nats://prod/{subject}.scale"} for line in verdicts])
        out, _ = live.communicate(timeout=PATIENCE)
        assert live.returncode == 1
        for cell in ("1 rejected (unsigned), 1 verified", PLANNER, "unsigned"):
            assert cell.encode() in out


async def consumers(url: str, stream: str) -> int:
    """Count the consumers of a stream."""
    connection = await nats.connect(url)
    try:
        return (await connection.jetstream().stream_info(stream)).state.consumer_count
    finally:
        await connection.close()


async def test_a_stream_is_read_along(
    settings: Path, nats_url: str, make_stream: MakeStream, unique: Callable[[str], str]
) -> None:
    """It is shown with sequence and time, from its start too; nothing is acknowledged, and no consumer stays behind."""
    subject = unique("tasks")
    stream = await make_stream(subject)
    await on_nats(load(settings), nats_url, subject, stored=True)
    where = (f"nats://prod/{subject}", "--servers", nats_url, "--stream", stream, "--count", "2")
    for _ in range(2):
        with tailing(*where, "--from-start", "--verify") as process:
            code, lines = await asyncio.to_thread(ended, process)
            assert code == 1
            assert [(line["verdict"], line["offset"]) for line in lines] == [("rejected", 1), ("verified", 2)]
            assert not lines[1]["redelivered"]
    with tailing(*where) as process:
        await on_nats(load(settings), nats_url, subject, stored=True)
        code, lines = await asyncio.to_thread(ended, process)
        assert (code, [line["offset"] for line in lines]) == (0, [3, 4])
        assert all("appended_at" in line for line in lines)
    assert await consumers(nats_url, stream) == 0


@pytest.mark.usefixtures("settings")
async def test_a_work_queue_is_left_alone(nats_url: str, make_stream: MakeStream, unique: Callable[[str], str]) -> None:
    """Where reading would take from others, it is refused with another way; so is a stream that is not there."""
    subject = unique("work")
    stream = await make_stream(subject, retention="workqueue")
    for name in (stream, unique("none")):
        with tailing(
            f"nats://prod/{subject}", "--servers", nats_url, "--stream", name,
            expect=b"omit --stream to follow the subject\n",
        ) as process:  # fmt: skip
            code, lines = await asyncio.to_thread(ended, process)
            assert (code, lines) == (2, [])


async def test_a_topic_is_read_along(settings: Path, kafka_bootstrap: str, make_topic: MakeTopic) -> None:
    """All its partitions, from the end or the start, in no group and without a commit."""
    topic = await make_topic(2)
    agent = load(settings)

    async def send(partition: int) -> None:
        async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap) as stranger:
            await stranger.send_and_wait(topic, b"forged", partition=partition)
        async with SigningProducer(bootstrap_servers=kafka_bootstrap, watchword=agent) as producer:
            await producer.send_and_wait(topic, b"scale", partition=partition)

    await send(0)
    where = (f"kafka://prod/{topic}", "--servers", kafka_bootstrap)
    with tailing(*where, "--count", "2", "--verify") as process:
        await send(1)
        code, lines = await asyncio.to_thread(ended, process)
        assert code == 1
        assert [(line["verdict"], line["partition"], line["offset"]) for line in lines] == [
            ("rejected", 1, 0),
            ("verified", 1, 1),
        ]
    with tailing(*where, "--count", "4", "--from-start") as process:
        code, lines = await asyncio.to_thread(ended, process)
        assert code == 0
        verdicts = await asyncio.to_thread(judged, lines, settings)
        assert sorted(line["verdict"] for line in verdicts) == ["rejected", "rejected", "verified", "verified"]
    async with admin_of(kafka_bootstrap) as admin:
        assert not [group for group, *_ in await admin.list_consumer_groups() if topic in group]


def test_a_topic_that_is_not_there(settings: Path, kafka_bootstrap: str, unique: Callable[[str], str]) -> None:
    """For a topic that does not exist the command ends at once with an error, where a consumer would wait for it."""
    assert settings.exists()
    with tailing(
        f"kafka://prod/{unique('none')}",
        "--servers",
        kafka_bootstrap,
        expect=b"does not exist on the broker, or this user may not see it\n",
    ) as process:
        assert ended(process) == (2, [])


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("bus", ["nats", "kafka"])
async def test_an_interrupt_and_a_closed_pipe_end_it(
    nats_url: str, make_topic: MakeTopic, kafka_bootstrap: str, unique: Callable[[str], str], bus: str
) -> None:
    """Control-C and a reader that has gone end it quietly and soon, though nothing comes in."""
    where = (
        (f"nats://prod/{unique('tasks')}", "--servers", nats_url)
        if bus == "nats"
        else (f"kafka://prod/{await make_topic()}", "--servers", kafka_bootstrap)
    )
    with tailing(*where) as process:
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(ended, process) == (130, [])
    for more in ((), ("--live",)):
        with tailing(*where, *more) as process:
            assert process.stdout is not None
            process.stdout.close()
            process.stdout = None
            _, errors = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
            assert (process.returncode, errors) == (141, b"")


def test_a_server_that_goes_away_is_told(settings: Path, unique: Callable[[str], str]) -> None:
    """A connection that is lost is exit code 3, for then something may have been missed."""
    assert settings.exists()
    with nats_server() as url:
        context = tailing(f"nats://prod/{unique('tasks')}", "--servers", url)
        process = context.__enter__()
    try:
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out) == (3, b"")
        assert b"broker unavailable: ConnectionClosedError" in err
    finally:
        context.__exit__(None, None, None)


def test_a_missing_right_is_told(settings: Path, tmp_path: Path, unique: Callable[[str], str]) -> None:
    """A user who may not subscribe gets an error, where NATS would stay silent; the login comes from the settings."""
    subject = unique("tasks")
    path = tmp_path / "server.conf"
    path.write_text('authorization { users: [{ user: u, password: x, permissions: { subscribe: "_INBOX.>" } }] }')
    server = wheel(tmp_path, "-c", str(path))
    try:
        tables = f'[nats]\nservers = ["{server.address}"]\nuser = "u"\npassword = "x"\n'
        settings.write_text(settings.read_text() + tables)
        refusal = f"this user may not subscribe to {subject}; permit it on the server (docs/nats-rights.md)\n"
        with tailing(f"nats://prod/{subject}", expect=refusal.encode()) as process:
            assert ended(process) == (2, [])
    finally:
        server.stop()
