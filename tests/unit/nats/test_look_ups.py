"""Look-ups side by side: a source that takes its time holds up nobody whose key it has at hand."""

import asyncio
import gc
import time
from collections import deque
from itertools import count
from typing import Any

import pytest
from nats.aio.msg import Msg

from tests.support.patience import PATIENCE
from tests.unit.kafka.fakes import KEY, REALM, SENDER, Keys, signer, watchword
from tests.unit.nats.subscribed import Subscribed, tree
from watchword import Unavailable, VerificationKey
from watchword.errors import Pending
from watchword.key_budget import KeyBudget
from watchword.spi import Channel, Message, Signer
from watchword_adapters.nats import look_ups, read_ahead, reader
from watchword_adapters.nats.headers import HeaderBlock
from watchword_adapters.nats.look_ups import LookUps
from watchword_adapters.nats.reader import Reader, look_up_of
from watchword_adapters.threads import Threads


class Source:
    """A source that has nothing at hand but ``known``, and never answers for anything else."""

    def __init__(self, known: VerificationKey) -> None:
        self._known = known

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        if (principal, key_id) != (self._known.principal, self._known.key_id):
            await asyncio.Event().wait()
        return self._known


async def test_a21_a_key_that_was_found_is_asked_for_beside_any_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many look-ups under way as may be, a known key is still found, and an unknown one is Unavailable."""
    monkeypatch.setattr(look_ups, "FRESH", 0.0)
    known = KEY.verification_key(SENDER)
    finder = LookUps(KeyBudget(Source(known), clock=time.time, warnings=deque(), most=4))
    assert await finder.find(SENDER, known.key_id) == known
    for number in range(4):
        with pytest.raises(Pending):
            await finder.find("agent://test/stranger", b"%d" % number)
    with pytest.raises(Unavailable, match="4 look-ups for unknown keys are under way"):
        await finder.find("agent://test/stranger", b"one more")
    assert ("agent://test/stranger", b"one more") not in finder._known, "and costs no task"
    assert await finder.find(SENDER, known.key_id) == known


async def test_a38_a_look_up_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that never answers ends in an error, so that its messages do not wait forever."""
    monkeypatch.setattr(look_ups, "LONGEST", 0.01)
    finder = LookUps(KeyBudget(Source(KEY.verification_key(SENDER)), clock=time.time, warnings=deque()))
    with pytest.raises(Pending) as pending:
        await finder.find("agent://test/stranger", b"1")
    await asyncio.wait((look_up_of(pending.value).task,), timeout=20)
    with pytest.raises(TimeoutError):
        await finder.find("agent://test/stranger", b"1")


async def test_a21_what_is_shed_holds_nobody_up_behind_it() -> None:
    """In a bulk, strangers whose keys nobody may look for now cost one run, and the honest message behind is given."""
    agent = watchword(Keys(), shared=False)
    known, runs = KEY.verification_key(SENDER), []
    budget = agent.verifier.keys
    budget.source, budget._most = Source(known), 0  # type: ignore[misc]  # as if all were under way
    verify_many = agent.verifier.verify_many

    async def noted(messages: Any, *arguments: Any, **options: Any) -> list[Any]:
        verdicts = await verify_many(messages, *arguments, **options)
        runs.append(len(verdicts))
        return verdicts

    reader = Reader(agent, "sub:1")
    honest = [await raw_of(signer(), value) for value in (b"1", b"2")]
    strangers = [await raw_of(signer(f"agent://test/stranger-{number}"), b"x") for number in range(5)]
    budget._familiar[SENDER, known.key_id] = None
    agent.verifier.verify_many = noted  # type: ignore[method-assign]  # a tap
    given = await reader.judge_many([honest[0], *strangers, honest[1], *strangers[:1]], Threads())
    assert [msg.data for msg in given] == [b"1", b"2"]
    assert runs == [8]
    assert agent.audit.counts["unavailable"] == 6


async def test_a21_behind_what_was_shed_a_subscription_judges_in_bulk() -> None:
    """A flood does not bring a subscription to judge one message at a time, as an outage does."""
    agent, runs = watchword(Keys(), shared=False), list[int]()
    budget = agent.verifier.keys
    budget.source, budget._most = Source(KEY.verification_key(SENDER)), 0  # type: ignore[misc]  # as above
    verify_many = agent.verifier.verify_many

    async def noted(messages: Any, *arguments: Any, **options: Any) -> list[Any]:
        verdicts = await verify_many(messages, *arguments, **options)
        runs.append(len(verdicts))
        return verdicts

    agent.verifier.verify_many = noted  # type: ignore[method-assign]  # a tap
    there = Subscribed(agent)
    flood = await tree([b"%d" % number for number in range(4 * read_ahead.MOST)], "agent://test/stranger")
    await there.arrive(*flood)
    await there.handled()
    assert not there.values
    assert sum(runs) == len(flood)
    assert len(runs) <= 8


class Slow:
    """A source that finds keys only once the test calls ``answer``."""

    def __init__(self) -> None:
        self.told = asyncio.Event()

    async def answer(self, look_up: asyncio.Task[Any]) -> None:
        """Find them, and wait until what waited for them has come back."""
        self.told.set()
        come_back = asyncio.Event()
        look_up.add_done_callback(lambda _: come_back.set())
        await come_back.wait()

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        await self.told.wait()
        return await Keys().find(principal, key_id)


async def test_nothing_of_a_key_overtakes_what_waits_for_that_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a key that is found just before its messages are put aside does not let later ones pass them."""
    agent, source = watchword(Keys(), shared=False), Slow()
    agent.verifier.keys.source = source
    there, park = Subscribed(agent), Reader.park
    sent = await tree([b"%d" % number for number in range(8)])

    async def found_meanwhile(reader: Reader, *arguments: Any) -> Any:
        if not source.told.is_set():
            source.told.set()
            await asyncio.wait((look_up_of(arguments[2]).task,))
            await there.arrive(*sent[4:])
        return await park(reader, *arguments)

    monkeypatch.setattr(Reader, "park", found_meanwhile)
    await there.arrive(*sent[:4])
    await there.handled()
    assert there.values == [b"%d" % number for number in range(8)]


@pytest.mark.parametrize("late", [1, 2, 4])
async def test_what_comes_back_comes_back_in_its_order(late: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: what is put aside when its key has been found stands behind what was put aside before, and came back."""
    agent, source = watchword(Keys(), shared=False), Slow()
    agent.verifier.keys.source = source
    there, park, parked = Subscribed(agent), Reader.park, count()
    sent = await tree([b"%d" % number for number in range(8)])

    async def found_meanwhile(reader: Reader, *arguments: Any) -> Any:
        if next(parked) == late:
            await source.answer(look_up_of(arguments[2]).task)
        return await park(reader, *arguments)

    monkeypatch.setattr(Reader, "park", found_meanwhile)
    await there.arrive(*sent)
    await there.handled()
    assert there.values == [b"%d" % number for number in range(8)]


async def test_what_is_in_hand_does_not_pass_what_comes_back_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a message that was taken before others came back has its turn behind them."""
    agent, source = watchword(Keys(), shared=False), Slow()
    agent.verifier.keys.source = source
    there, find = Subscribed(agent), LookUps.find
    sent = await tree([b"%d" % number for number in range(8)])

    async def found_meanwhile(look_ups: LookUps, *pair: Any) -> Any:
        if not source.told.is_set() and (waiting := [*look_ups._known.values()]):
            await source.answer(waiting[0].task)
        return await find(look_ups, *pair)

    await there.arrive(*sent[:4])
    while not there.reader._look_ups.parked:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0)
    monkeypatch.setattr(LookUps, "find", found_meanwhile)
    await there.arrive(*sent[4:])
    await there.handled()
    assert there.values == [b"%d" % number for number in range(8)]


class Delayed:
    """A source that finds its keys after ``seconds``, and nothing for strangers before ``told`` is set."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.told = asyncio.Event()

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        if principal != SENDER:
            await self.told.wait()
            return None
        await asyncio.sleep(self.seconds)
        return await Keys().find(principal, key_id)


async def test_no_message_of_a_known_key_is_lost_however_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a source that takes its time, and a handler too, cost no message of a key that was found before."""
    monkeypatch.setattr(reader, "MOST_PARKED", 4)
    monkeypatch.setattr(look_ups, "FRESH", 0.0)
    agent = watchword(Keys(), shared=False)
    agent.verifier.keys.source = Delayed(0.03)
    there = Subscribed(agent)
    sent = await tree([b"%d" % number for number in range(20)])
    await there.arrive(sent[0])
    await there.handled()
    await there.arrive(*sent[1:])
    await there.handled()
    assert there.values == [b"%d" % number for number in range(20)]
    assert agent.audit.counts == {"delivered": 20}


@pytest.mark.parametrize("seconds", [0.0, 0.03])
async def test_a21_strangers_that_wait_for_keys_cost_no_message_of_a_known_one(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: while as many as may be wait for invented keys, a message of a known key waits only for its own."""
    monkeypatch.setattr(reader, "MOST_PARKED", 4)
    agent, source = watchword(Keys(), shared=False), Delayed(seconds)
    agent.verifier.keys.source = source
    there = Subscribed(agent)
    sent = await tree([b"%d" % number for number in range(3)])
    await there.arrive(sent[0])
    await there.handled()
    for number in range(6):
        await there.arrive(*await tree([b"x"], f"agent://test/stranger-{number}"))
    await there.arrive(*sent[1:])
    async with asyncio.timeout(PATIENCE):
        while len(there.values) < 3:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
    assert there.values == [b"0", b"1", b"2"]
    assert agent.audit.counts["unavailable"] == 2, "strangers beyond the limit"
    source.told.set()
    await there.handled()


async def test_a32_an_error_that_no_message_waits_for_is_not_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: a look-up that fails after its reader has ended leaves no text of the source's in the log."""
    monkeypatch.setattr(look_ups, "FRESH", 0.0)  # so that nobody keeps it
    told = asyncio.Event()

    class Failing:
        async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:  # noqa: ARG002 - it fails
            await told.wait()
            raise ValueError("dsn=s3cret")

    agent = watchword(Keys(), shared=False)
    agent.verifier.keys.source = Failing()
    finder = LookUps(agent.verifier.keys)
    with pytest.raises(Pending) as pending:
        await finder.find(SENDER, b"1")
    task = look_up_of(pending.value).task
    told.set()
    await asyncio.wait((task,))
    del task, pending
    while finder._known:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0)
    gc.collect()
    assert "s3cret" not in caplog.text
    assert not caplog.records


async def raw_of(by: Signer, value: bytes) -> Any:
    """Return a message as the client reads it."""
    header = (await by.sign(Message(channel=Channel("nats", REALM, "tasks"), value=value))).header
    return Msg(_client=None, subject="tasks", data=value, headers=HeaderBlock((header,)))  # type: ignore[arg-type]
