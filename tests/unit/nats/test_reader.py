"""What a reader of NATS does when it is closed while it judges."""

import asyncio
from typing import Any

from nats.aio.msg import Msg

from tests.unit.kafka.fakes import REALM, Keys, watchword
from watchword import Channel, Message
from watchword_adapters.buses.nats.headers import HeaderBlock
from watchword_adapters.buses.nats.jetstream_reader import StreamReader
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


async def test_an_ordered_consumer_is_expected_by_its_late_names() -> None:
    """What the predecessors of an ordered consumer sent may still be read; those of long ago are no more expected."""
    control: Any = None  # never used: nothing is refused
    reader = StreamReader(
        watchword(Keys()), control, "js:1", stream="s", consumer="c0", acknowledged=False, alone=True, quarantine=None
    )
    for number in range(1, 20):
        reader.rebind(f"c{number}")

    def expected(consumer: str) -> tuple[str, str] | None:
        raw: Any = Msg(_client=None, subject="tasks", reply=f"$JS.ACK.s.{consumer}.1.1.1.1.1")  # type: ignore[arg-type]
        return reader.expect(raw, reader.message(raw)).consumer

    assert expected("c19") == ("s", "c19")
    assert expected("c12") == ("s", "c12")
    assert expected("c11") == expected("another") == ("s", "c19")
