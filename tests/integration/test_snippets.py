"""What stands in the documentation runs: each piece of Python, on real brokers, beside agents that talk."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import NewTopic
from aiokafka.errors import TopicAlreadyExistsError

import watchword
from tests.support.broker_tools import admin_of, create_topics
from tests.support.patience import PATIENCE
from tests.typing.snippets import CONTEXT, Snippet, snippets
from watchword.kafka import SigningProducer, VerifyingConsumer
from watchword.nats import WatchwordClient, connect
from watchword_adapters.cli import main as command_line

FOUND = snippets()
TOPICS = ("tasks", "agents.quarantine")


class DoneError(Exception):
    """The reader's own function has got what it wanted."""


async def handle(value: object, author: str = "") -> None:
    """Be content with the first message."""
    raise DoneError(value, author)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder as README's commands leave it."""
    monkeypatch.chdir(tmp_path)
    for name in ("planner", "controller"):
        assert command_line(["init", "--realm", "prod", "--principal", f"agent://acme/{name}"]) == 0
    return tmp_path


async def _make_topics(bootstrap: str) -> None:
    async with admin_of(bootstrap) as admin:
        for topic in TOPICS:
            with contextlib.suppress(TopicAlreadyExistsError):
                await create_topics(admin, NewTopic(topic, 1, 1))


@asynccontextmanager
async def talking(home: Path, bootstrap: str, servers: str) -> AsyncIterator[None]:
    """Let the controller say something every now and then, on both buses."""
    agent = watchword.load(home / "controller.toml")
    async with (
        SigningProducer(bootstrap_servers=bootstrap, watchword=agent) as producer,
        await connect(servers, watchword=agent) as client,
    ):

        async def talk() -> None:
            while True:
                await producer.send_and_wait("tasks", b'{"scale": 1}')
                await client.publish("tasks.scale", b'{"scale": 1}')
                await asyncio.sleep(0.05)

        task = asyncio.create_task(talk())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _given(name: str, stack: AsyncExitStack, given: dict[str, Any]) -> Any:
    """Return what a snippet takes for granted."""
    agent, bootstrap = given["agent"], given["BROKERS"]
    match name:
        case "producer":
            options: dict[str, Any] = {"transactional_id": "snippet", "bootstrap_servers": bootstrap}
            return await stack.enter_async_context(SigningProducer(watchword=agent, **options))
        case "consumer":
            consumer = VerifyingConsumer(
                "tasks", bootstrap_servers=bootstrap, group_id="snippet", enable_auto_commit=False, watchword=agent
            )
            await stack.enter_async_context(consumer)
            await consumer.getone()
            return consumer
        case "client":
            return await stack.enter_async_context(await connect(given["SERVERS"], watchword=agent))
        case _:
            return given[name]


@pytest.fixture
async def closed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Close the NATS clients that a snippet opens, for it ends before its program would."""
    opened: list[WatchwordClient] = []

    async def open_one(*arguments: Any, **options: Any) -> WatchwordClient:
        opened.append(await connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(watchword.nats, "connect", open_one)
    yield
    for client in opened:
        await client.close()


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("snippet", FOUND, ids=[snippet.name for snippet in FOUND])
async def test_what_a_reader_copies_runs(home: Path, kafka_bootstrap: str, nats_url: str, snippet: Snippet) -> None:
    """It comes to its end, or to a message in the reader's hands, on what README's commands have made."""
    context: dict[str, Any] = {}
    exec(CONTEXT, context)  # noqa: S102 - our own documentation
    program = snippet.program.replace("from context import", "from_context =")  # what it names is given to it
    program = program.replace("nats://localhost:4222", nats_url).replace("localhost:9092", kafka_bootstrap)
    lines = [line for line in program.splitlines() if not line.startswith("from_context")]
    space: dict[str, Any] = {**context}
    exec("\n".join(lines), space)  # noqa: S102 - as above
    given = {
        "agent": watchword.load(home / "watchword.toml"),
        "BROKERS": kafka_bootstrap,
        "SERVERS": nats_url,
        "group_id": "snippet",
        "handle": handle,
    }
    await _make_topics(kafka_bootstrap)
    async with AsyncExitStack() as stack, talking(home, kafka_bootstrap, nats_url):
        arguments = {name: await _given(name, stack, given) for name in snippet.arguments}
        with contextlib.suppress(DoneError):
            async with asyncio.timeout(PATIENCE):
                await space["main"](**arguments)
