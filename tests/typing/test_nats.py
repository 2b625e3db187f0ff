"""What a type checker says to those who use the NATS client: handlers of verified messages pass, others do not."""

from tests.typing.programs import Programs

HEAD = """
import asyncio
from typing import assert_type
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from watchword import VerifiedMessage, Watchword
from watchword.nats import DeliveredMsg, ObservedMsg, VerifiedMsg, WatchwordClient, connect

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


class TestNats(Programs):
    """Handlers annotated with VerifiedMsg, DeliveredMsg or nats-py's Msg fit every way in."""

    head, right, wrong = HEAD, RIGHT, WRONG
