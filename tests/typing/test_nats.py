"""What a type checker says to those who use the NATS client: handlers of verified messages pass, others do not."""

from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parents[2]

HEAD = """
import asyncio
from typing import assert_type
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from watchword import VerifiedMessage, Watchword
from watchword_adapters.nats import DeliveredMsg, ObservedMsg, VerifiedMsg, WatchwordClient, connect

async def told(msg: VerifiedMsg) -> None:
    print(msg.verified.principal, msg.data.decode())
    await msg.respond(b"done", headers={"kind": "answer"})

async def either(msg: DeliveredMsg) -> None:
    if msg.verified is not None:
        print(msg.verified.principal)

async def plain(msg: Msg) -> None:
    await msg.ack()
"""

RIGHT = {
    "subscribe takes handlers of verified messages, and of any": """
async def use(watchword: Watchword) -> None:
    nc = await connect("nats://localhost", watchword=watchword)
    for subject in ("a", "b"):
        await nc.subscribe(subject, cb=told)
        await nc.subscribe(subject, "workers", either)
        await nc.subscribe(subject, cb=plain)
""",
    "next_msg and messages give verified messages": """
async def use(nc: WatchwordClient) -> None:
    subscription = await nc.subscribe("a", max_msgs=3)
    msg = await subscription.next_msg(timeout=None)
    assert_type(msg, VerifiedMsg)
    assert_type(msg.verified, VerifiedMessage)
    await told(msg)
    await either(msg)
    async for each in subscription.messages:
        await told(each)
    await subscription.unsubscribe(limit=5)
""",
    "request gives a verified answer": """
async def use(nc: WatchwordClient) -> None:
    answer = await nc.request("a", b"x", timeout=1.0, recipient="agent://acme/cloud")
    assert_type(answer.verified.in_reply_to, str | None)
    await told(answer)
""",
    "streams give verified messages": """
async def use(nc: WatchwordClient) -> None:
    js = nc.jetstream(sole_reader=True)
    pull = await js.pull_subscribe("a", durable="worker")
    for msg in await pull.fetch(10, timeout=1.0):
        await told(msg)
        await msg.ack()
    push = await js.subscribe("a", cb=told, manual_ack=True)
    await js.subscribe("a", cb=plain)
    await told(await push.next_msg())
    async for msg in push.messages:
        await told(msg)
""",
    "what was observed is a message that says so": """
def show(msg: DeliveredMsg) -> str:
    assert_type(msg.verified, VerifiedMessage | None)
    if isinstance(msg, ObservedMsg) and msg.verified is None:
        return str(msg.verdict)
    return "verified"
""",
    "the client is nats-py's": """
def use(nc: WatchwordClient) -> tuple[Client, JetStreamContext]:
    return nc, nc.jetstream()
""",
}

WRONG = {
    "a handler of observed messages alone": (
        """
async def observed(msg: ObservedMsg) -> None:
    print(msg.verdict)

async def use(nc: WatchwordClient) -> None:
    await nc.subscribe("a", cb=observed)
""",
        'Argument "cb" to "subscribe" of "WatchwordClient" has incompatible type',
    ),
    "whatever was delivered is not verified": (
        """
def who(msg: DeliveredMsg) -> str:
    return msg.verified.principal
""",
        'Item "None" of "VerifiedMessage | None" has no attribute "principal"',
    ),
    "a plain message is not verified": (
        """
async def use(msg: Msg) -> None:
    await told(msg)
""",
        'Argument 1 to "told" has incompatible type "Msg"; expected "VerifiedMsg"',
    ),
}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return mypy's errors, one text per snippet, from a single run."""
    folder = tmp_path_factory.mktemp("snippets")
    sources = [*RIGHT.values(), *(source for source, _ in WRONG.values())]
    for number, source in enumerate(sources):
        (folder / f"snippet_{number}.py").write_text(HEAD + source)
    output, errors, _ = api.run(
        [
            "--strict",
            "--no-error-summary",
            f"--config-file={ROOT / 'pyproject.toml'}",
            f"--cache-dir={folder / 'cache'}",
            *(str(path) for path in sorted(folder.glob("*.py"))),
        ]
    )
    assert not errors, errors
    names = [*RIGHT, *WRONG]
    found = dict.fromkeys(names, "")
    for line in output.splitlines():
        path = line.partition(":")[0]
        found[names[int(Path(path).stem.removeprefix("snippet_"))]] += line + "\n"
    return found


@pytest.mark.parametrize("name", RIGHT)
def test_right_programs_pass(name: str, judged: dict[str, str]) -> None:
    """Promise: handlers annotated with VerifiedMsg, DeliveredMsg or nats-py's Msg fit every way in."""
    assert judged[name] == ""


@pytest.mark.parametrize("name", WRONG)
def test_wrong_programs_do_not(name: str, judged: dict[str, str]) -> None:
    """Promise: what would take an unverified message for a verified one is found before it runs."""
    assert WRONG[name][1] in judged[name]
