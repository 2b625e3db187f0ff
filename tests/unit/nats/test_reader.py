"""What a reader of NATS does when it is closed while it judges."""

import asyncio
from typing import Any

from nats.aio.msg import Msg

from tests.unit.kafka.fakes import REALM, Keys, watchword
from watchword import Channel, Message
from watchword_adapters.buses.nats.headers import HeaderBlock
from watchword_adapters.buses.nats.reader import Reader


async def test_a12_closing_forgets_nothing_that_is_being_judged() -> None:
    """A copy that is still judged when its subscription ends is held against the memory; then that is freed."""
    keys = Keys()
    agent = watchword(keys)
    header = (await agent.signer.sign(Message(channel=Channel("nats", REALM, "tasks"), value=b"1"))).header
    raw: Any = Msg(_client=None, subject="tasks", data=b"1", headers=HeaderBlock((header,)))  # type: ignore[arg-type]
    reader = Reader(agent, "sub:1")
    assert await reader.judge(raw) is not None
    keys.gate.clear()
    keys.question.clear()
    judging = asyncio.create_task(reader.judge(raw))
    await keys.question.wait()
    reader.close()
    keys.gate.set()
    assert await judging is None
    assert agent.audit.counts == {"delivered": 1, "replayed": 1}
    assert len(agent.verifier.replay) == 0  # type: ignore[arg-type]
