"""What a reader of NATS does when it is closed while it judges."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from tests.unit.kafka.fakes import REALM, Keys, alone
from watchword import Watchword
from watchword.signatures import CheckRunner
from watchword.spi import Channel, Message
from watchword_adapters.nats.headers import HeaderBlock
from watchword_adapters.nats.jetstream_reader import StreamReader
from watchword_adapters.nats.reader import Judged, Reader
from watchword_adapters.threads import Threads

BROKEN: Any = Msg(_client=None, subject="tasks", headers=HeaderBlock(fault="broken"))  # type: ignore[arg-type]


async def original(agent: Watchword) -> Any:
    """Return a message of the agent's own, as its client reads it."""
    header = (await agent.signer.sign(Message(channel=Channel("nats", REALM, "tasks"), value=b"1"))).header
    return Msg(_client=None, subject="tasks", data=b"1", headers=HeaderBlock((header,)))  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ["alone", "first", "many"])
async def test_a12_closing_forgets_nothing_that_is_being_judged(way: str) -> None:
    """A copy that is still judged when its subscription ends is checked against the memory; then that is freed."""
    keys = Keys()
    agent = alone(keys)
    raw, reader, check = await original(agent), Reader(agent, "sub:1"), Threads()

    async def copies() -> list[Msg | None]:
        if way == "many":
            return [*await reader.judge_many([raw, BROKEN, raw], check)]
        if way == "first":
            return [await reader.conclude(one) for one in await reader.judge_first([raw, raw], check)]
        return [await reader.judge(raw)]

    assert await reader.judge(raw) is not None
    keys.gate.clear()
    keys.question.clear()
    judging = asyncio.create_task(copies())
    await keys.question.wait()
    reader.close()
    keys.gate.set()
    assert not any(await judging)
    assert agent.audit.counts["delivered"] == 1
    assert agent.audit.counts["replayed"] == (1 if way == "alone" else 2)
    assert len(agent.verifier.replay) == 0  # type: ignore[arg-type]


async def test_a12_a_turn_that_comes_after_closing_leaves_nothing() -> None:
    """What could not be judged, and was passed over when its reader was closed already, is not remembered forever."""
    keys = Keys()
    agent = alone(keys)
    reader = Reader(agent, "sub:1")
    keys.failures = 1
    (judged,) = await reader.judge_first([await original(agent)], Threads())
    reader.close()
    assert await reader.conclude(judged) is None
    store: Any = agent.verifier.replay
    assert store._logs == {}


async def test_a14_nothing_is_judged_before_the_memory_is_whole() -> None:
    """While a stream is read again what arrives waits, alone and together."""
    agent = alone(Keys())
    reader = Reader(agent, "sub:1")
    reader.gate.hold()
    tasks = [
        asyncio.create_task(reader.judge(await original(agent))),
        asyncio.create_task(reader.judge_many([await original(agent)], Threads())),
    ]
    await asyncio.sleep(0.01)
    assert agent.audit.counts == {}
    reader.gate.release()
    await asyncio.wait(tasks, timeout=20)
    assert agent.audit.counts == {"delivered": 2}


async def test_an_ordered_consumer_is_expected_by_its_late_names() -> None:
    """What the predecessors of an ordered consumer sent may still be read; those of long ago are no more expected."""
    control: Any = None  # never used: nothing is refused
    reader = StreamReader(
        alone(Keys()),
        control,
        "js:1",
        stream="s",
        consumer="c0",
        acknowledged=False,
        exclusive=True,
        copies=None,
    )
    for number in range(1, 20):
        reader.rebind(f"c{number}")

    def expected(consumer: str) -> tuple[str, str] | None:
        raw: Any = Msg(_client=None, subject="tasks", reply=f"$JS.ACK.s.{consumer}.1.1.1.1.1")  # type: ignore[arg-type]
        return reader.expect(raw).consumer

    assert expected("c19") == ("s", "c19")
    assert expected("c12") == ("s", "c12")
    assert expected("c11") == expected("another") == ("s", "c19")


@pytest.mark.parametrize("way", ["alone", "many"])
async def test_a43_no_memory_is_built_while_it_is_asked(way: str) -> None:
    """What is being judged when a memory is to be built ends first; what comes later waits for the new one."""
    keys, log = Keys(), list[str]()
    agent = alone(keys)
    raw, reader, check = await original(agent), Reader(agent, "sub:1"), Threads()

    async def judge() -> None:
        given = [await reader.judge(raw)] if way == "alone" else await reader.judge_many([raw], check)
        log.append(f"judged {len([one for one in given if one is not None])}")

    async def build() -> None:
        async with reader.gate.alone():
            log.append("built")

    keys.gate.clear()
    keys.question.clear()
    judging = asyncio.create_task(judge())
    await keys.question.wait()
    building = asyncio.create_task(build())
    for _ in range(10):
        await asyncio.sleep(0)
    later = asyncio.create_task(judge())
    keys.gate.set()
    await asyncio.gather(judging, building, later)
    assert log == ["judged 1", "built", "judged 0"]


async def test_what_was_judged_before_its_consumer_was_gone_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of messages that are judged together those before the one that nobody can judge are not lost with it."""
    agent = alone(Keys())
    reader, first = Reader(agent, "sub:1"), Reader.judge_first
    raws = [await original(agent) for _ in range(3)]

    async def gone_behind_two(_: Reader, left: Sequence[Msg], check: CheckRunner) -> list[Judged]:
        if len(left) == 1:
            raise NotFoundError
        return await first(reader, left[:1], check)

    monkeypatch.setattr(Reader, "judge_first", gone_behind_two)
    assert len(await reader.judge_many(raws, Threads())) == 2
    with pytest.raises(NotFoundError):
        await reader.judge_many(raws[2:], Threads())
