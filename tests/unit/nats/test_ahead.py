"""What waits for a callback is judged together, and comes to what it would come to one by one."""

import asyncio
import time
from collections import Counter
from dataclasses import replace
from typing import Any, cast

import pytest
from nats.aio.msg import Msg
from nats.errors import BadSubscriptionError, SlowConsumerError

from tests.unit.kafka.fakes import REALM, SENDER, Keys, alone
from tests.unit.nats.subscribed import SUBJECT, Subscribed, tree
from watchword import Allow, Mode, Rate, Reason, VerificationKey
from watchword_adapters.nats import read_ahead
from watchword_adapters.nats.jetstream_reader import StreamReader
from watchword_adapters.nats.reader import Judged, Reader

ALL = [b"%d" % number for number in range(40)]


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
async def test_verdicts_are_those_of_one_by_one(mode: Mode) -> None:
    """Promise: the same is delivered in the same order, refused, audited and kept once, however much waits together."""
    honest = await tree(ALL[:8])
    mixed = [
        *honest[:3],
        (honest[3][0], b"altered"),
        (b"NATS/1.0\r\nbroken\r\n\r\n", b"broken"),
        honest[0],
        *honest[4:6],
        (b"NATS/1.0 503\r\n\r\n", b""),
        honest[5],
        (b"", b"unsigned"),
        *honest[6:],
    ]
    keys = Keys()
    bulk, single = Subscribed(alone(keys, mode)), Subscribed(alone(Keys(), mode))
    await bulk.arrive(*mixed)
    await bulk.handled()
    for one in mixed:
        await single.arrive(one)
        await single.handled()
    ends = [
        (
            there.values,
            there.agent.audit.counts,
            there.kept.copies,
            [str(getattr(getattr(msg, "verdict", None), "reason", None)) for msg in there.got],
        )
        for there in (bulk, single)
    ]
    assert ends[0] == ends[1]
    refused = Counter([Reason.ALTERED, Reason.MALFORMED, Reason.REPLAYED, Reason.REPLAYED, Reason.UNSIGNED])
    assert bulk.agent.audit.counts == Counter(delivered=7) + Counter(map(str, refused.elements()))
    assert len(bulk.got) == (7 if mode is Mode.ENFORCE else 12)
    assert bulk.errors == []
    assert keys.asked < 7


async def test_each_is_admitted_in_its_turn() -> None:
    """Promise: while a handler works its own request is the latest that was admitted, so that it answers that one."""
    agent = alone(Keys())
    told: list[tuple[str, bytes | None]] = []

    async def handler(msg: Msg) -> None:
        await asyncio.sleep(0)
        told.append(("handled", msg.data))

    telling = Reader(agent, "sub:1", admitted=lambda verified: told.append(("admitted", verified.value)))
    there = Subscribed(agent, handler=handler, reader=telling)
    await there.arrive(*await tree(ALL))
    await there.handled()
    assert told == [(what, value) for value in ALL for what in ("admitted", "handled")]


async def test_a44_a_refused_message_delays_none() -> None:
    """A quarantine that takes its time for a forgery holds up nothing, neither what came before nor what is behind."""
    there = Subscribed(alone(Keys()))
    putting, hold = asyncio.Event(), asyncio.Event()

    async def slowly(*_: object) -> bool:
        putting.set()
        await hold.wait()
        return True

    there.kept.put = slowly  # type: ignore[assignment, method-assign]  # a double
    honest = await tree(ALL[:4])
    await there.arrive(*honest[:2], (b"", b"unsigned"), *honest[2:])
    await asyncio.wait_for(putting.wait(), 20)
    await there.handled()
    assert there.values == ALL[:4]
    hold.set()


async def test_what_a_handler_raises_is_told_and_costs_no_other_message() -> None:
    """Promise: each error of a handler goes to the client's callback, and the messages behind are handed over."""
    failures = {b"3": ValueError("three"), b"7": KeyError("seven")}

    async def handler(msg: Msg) -> None:
        if msg.data in failures:
            raise failures[msg.data]

    there = Subscribed(alone(Keys()), handler=handler)
    await there.arrive(*await tree(ALL))
    await there.handled()
    assert there.values == ALL
    assert there.errors == list(failures.values())
    assert there.agent.audit.counts == {"delivered": len(ALL)}


async def test_an_outage_costs_one_try_each_and_delays_none_before_it() -> None:
    """A21: what was judged is handed over before anything is tried again; then each message is tried once, alone."""
    keys, order = Keys(), []
    agent = alone(keys)
    find = keys.find

    async def noted(principal: str, key_id: bytes) -> VerificationKey | None:
        order.append("asked")
        return await find(principal, key_id)

    async def handler(msg: Msg) -> None:
        order.append(msg.data.decode())

    keys.find = noted  # type: ignore[method-assign]  # a tap
    there = Subscribed(agent, handler=handler)
    keys.failures = 5
    await there.arrive(*await tree(ALL))
    await there.handled()
    assert there.values == ALL[5:]
    assert agent.audit.counts == {"delivered": len(ALL) - 5, "unavailable": 5, "undetermined": 5}
    assert order == ["asked"] * 6 + ["5", "asked", *[value.decode() for value in ALL[6:]]]


async def test_a_lone_message_is_judged_alone_and_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: what nothing waits behind takes the short way."""

    async def never(*_: object) -> list[Judged]:
        raise AssertionError

    monkeypatch.setattr(Reader, "judge_first", never)
    there = Subscribed(alone(Keys()))
    for one in await tree(ALL[:3]):
        await there.arrive(one)
        await there.handled()
    assert (there.values, there.errors) == (ALL[:3], [])


class Held:
    """A handler that holds the first message of a subscription until it is known how many were judged by then."""

    def __init__(self, there: Subscribed) -> None:
        self._begun, self._hold, self._there = asyncio.Event(), asyncio.Event(), there
        there.handler = self

    async def __call__(self, _: Msg) -> None:
        """Handle."""
        self._begun.set()
        await self._hold.wait()

    async def judged(self) -> int:
        """Wait until the first is handled, and tell how many were judged; then let all go."""
        await asyncio.wait_for(self._begun.wait(), 20)
        judged = self._there.agent.audit.counts.total()
        self._hold.set()
        await self._there.handled()
        return judged


async def test_what_comes_again_is_not_judged_before_its_turn() -> None:
    """A17: what a consumer was offered and did not get to comes again, and was delivered to nobody before."""
    agent, control = alone(Keys()), cast("Any", None)  # never used: nothing is refused
    stream = StreamReader(
        agent, control, "js:1", stream="s", consumer="c", acknowledged=True, exclusive=True, copies=None
    )
    there = Subscribed(agent, reader=stream)
    held = Held(there)
    for number, one in enumerate(await tree(ALL[:4]), start=1):
        await there.arrive(one, reply=b"$JS.ACK.s.c.1.%d.%d.%d.0" % (number, number, time.time_ns()))
    assert await held.judged() == 1
    assert there.values == ALL[:4]
    assert not any(msg.verified.redelivered for msg in there.got)


@pytest.mark.parametrize("rate", [None, Rate(1000, 1.0)])
async def test_a_rate_is_spent_in_each_messages_turn(rate: Rate | None) -> None:
    """A40: what waits for a handler spends a token when it is its turn, not all at the moment of the first."""
    agent = alone(Keys())
    allow = (Allow(SENDER, (f"nats://{REALM}/{SUBJECT}",), rate),)
    agent.verifier.policy = replace(agent.verifier.policy, allow=allow)
    there = Subscribed(agent)
    held = Held(there)
    await there.arrive(*await tree(ALL[:4]))
    assert await held.judged() == (4 if rate is None else 1)
    assert there.values == ALL[:4]


async def test_a_subscription_to_so_many_messages_judges_one_by_one() -> None:
    """Promise: it may end behind any of them, so nothing is judged that it may never hand over."""
    there = Subscribed(alone(Keys()), max_msgs=4)
    held = Held(there)
    await there.arrive(*await tree(ALL[:3]))
    assert await held.judged() == 1
    assert there.values == ALL[:3]


@pytest.mark.parametrize("limit", ["max_msgs", "unsubscribe"])
async def test_a45_a_limit_counts_what_was_delivered(limit: str) -> None:
    """A45: forged messages and copies use up no maximum, however long a verdict on them takes; then all ends."""
    keys = Keys()
    find = keys.find

    async def slowly(principal: str, key_id: bytes) -> VerificationKey | None:
        await asyncio.sleep(0)
        return await find(principal, key_id)

    async def put(*_: object) -> bool:
        await asyncio.sleep(0)
        return True

    async def handler(_: Msg) -> None:
        if limit == "unsubscribe" and len(there.got) == 1:
            await there.sub.unsubscribe(limit=9)
        await asyncio.sleep(0)

    keys.find = slowly  # type: ignore[method-assign]  # a tap
    there = Subscribed(alone(keys), handler=handler, max_msgs=9 if limit == "max_msgs" else 0)
    there.kept.put = put  # type: ignore[assignment, method-assign]  # a double
    honest = await tree(ALL[:12])
    await there.arrive(*[(b"", b"unsigned")] * 9, *honest[:4], honest[0], (b"", b"unsigned"), *honest[4:])
    await asyncio.wait([there.task], timeout=20)
    assert there.task.done()
    assert there.values == ALL[:9]
    assert there.sub.pending_msgs == there.sub.pending_bytes == 0
    assert 1 not in there.client._subs
    assert len(there.agent.verifier.replay) == 0  # type: ignore[arg-type]


async def test_a_limit_below_what_was_delivered_ends_at_once() -> None:
    """Promise: ``unsubscribe(limit)`` counts what came before it, and from within a handler lets that handler end."""
    ended: list[int] = []

    async def handler(_: Msg) -> None:
        if len(there.got) == 3:
            await there.sub.unsubscribe(limit=4)
            await there.sub.unsubscribe(limit=5)
        await asyncio.sleep(0)
        ended.append(len(there.got))

    there = Subscribed(alone(Keys()), handler=handler)
    await there.arrive(*await tree(ALL))
    await asyncio.wait([there.task], timeout=20)
    assert there.values == ALL[:5]
    assert ended == [1, 2, 3, 4, 5]
    await there.sub.unsubscribe(limit=5)
    with pytest.raises(BadSubscriptionError):
        await there.sub.unsubscribe(limit=9)


async def test_an_error_behind_the_last_message_is_told() -> None:
    """Promise: what the handler of the last message raises reaches the client's error callback."""

    async def handler(_: Msg) -> None:
        raise ValueError("last")

    there = Subscribed(alone(Keys()), handler=handler, max_msgs=1)
    await there.arrive(*await tree(ALL[:2]))
    await asyncio.wait([there.task], timeout=20)
    assert [str(error) for error in there.errors] == ["last"]


@pytest.mark.parametrize("end", ["unsubscribe", "close"])
async def test_a_subscription_can_be_ended_while_a_key_is_looked_for(end: str) -> None:
    """Promise: an end that is asked for waits for no verdict."""
    keys = Keys()
    keys.gate.clear()
    there = Subscribed(alone(keys), max_msgs=2)
    await there.arrive(*await tree(ALL[:1]))
    await asyncio.wait_for(keys.question.wait(), 20)
    await (there.client.close() if end == "close" else there.sub.unsubscribe())
    await asyncio.wait([there.task], timeout=20)
    assert there.task.done()
    assert there.values == []
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing is judged any more"


async def test_strangers_behind_it_do_not_hold_a_message_up() -> None:
    """A21: where look-ups take their time, a message does not wait for the keys of all that stand behind it."""
    keys = Keys()
    find = keys.find

    async def slowly(principal: str, key_id: bytes) -> VerificationKey | None:
        if principal != SENDER:
            await asyncio.sleep(1.1 * read_ahead.PATIENCE)
        return await find(principal, key_id)

    keys.find = slowly  # type: ignore[method-assign]  # a tap
    there = Subscribed(alone(keys))
    held = Held(there)
    strange = [(await tree([b"x"], f"agent://test/stranger-{number}"))[0] for number in range(5)]
    await there.arrive(*await tree(ALL[:1]), *strange)
    assert await held.judged() == 1, "itself, and no stranger"
    assert there.values == ALL[:1]
    assert there.agent.audit.counts == {"delivered": 1, Reason.WRONG_PRINCIPAL: 5}


@pytest.mark.parametrize(("most", "most_bytes", "runs"), [(16, 1 << 20, [16, 16, 8]), (256, 10, [10, 6, 6, 6, 6, 6])])
async def test_so_many_are_judged_together_at_most(
    monkeypatch: pytest.MonkeyPatch, most: int, most_bytes: int, runs: list[int]
) -> None:
    """A21: neither many messages nor large ones are judged in one go, before anything is handed over."""
    monkeypatch.setattr(read_ahead, "MOST", most)
    monkeypatch.setattr(read_ahead, "MOST_BYTES", most_bytes)
    agent, seen = alone(Keys()), []
    admit_many = agent.admit_many

    async def counted(messages: Any, *args: Any, **options: Any) -> Any:
        seen.append(len(messages))
        return await admit_many(messages, *args, **options)

    monkeypatch.setattr(agent, "admit_many", counted)
    there = Subscribed(agent)
    await there.arrive(*await tree(ALL))
    await there.handled()
    assert there.values == ALL
    assert seen == runs


async def test_draining_waits_for_every_handler() -> None:
    """Promise: ``drain`` returns when the handlers of all that came have ended, however it was judged."""
    ended = []

    async def handler(msg: Msg) -> None:
        await asyncio.sleep(0.001)
        ended.append(msg.data)

    there = Subscribed(alone(Keys()), handler=handler)
    await there.arrive(*await tree(ALL))
    await asyncio.wait_for(there.sub.drain(), 20)  # type: ignore[no-untyped-call]  # nats-py leaves it untyped
    assert ended == ALL
    assert len(there.agent.verifier.replay) == 0  # type: ignore[arg-type]


async def test_what_waits_counts_as_pending_until_its_turn() -> None:
    """Promise: what is judged ahead is in the client's counts, and under its limits, as if nobody had looked."""
    hold, begun = asyncio.Event(), asyncio.Event()

    async def handler(_: Msg) -> None:
        begun.set()
        await hold.wait()

    there = Subscribed(alone(Keys()), handler=handler, pending_msgs_limit=6)
    messages = await tree([b"abc"] * 9)
    await there.arrive(*messages[:6])
    await asyncio.wait_for(begun.wait(), 20)
    assert there.agent.audit.counts == {"delivered": 6}
    assert (there.sub.pending_msgs, there.sub.pending_bytes) == (5, 15)
    await there.arrive(*messages[6:])
    assert [type(error) for error in there.errors] == [SlowConsumerError] * 2
    hold.set()
    await there.handled()
    assert len(there.got) == 7
    assert (there.sub.pending_msgs, there.sub.pending_bytes) == (0, 0)


@pytest.mark.parametrize("end", ["unsubscribe", "close", "cancel"])
@pytest.mark.parametrize("inside", [True, False])
async def test_ending_half_way_hands_nothing_more_over_and_hangs_nothing(end: str, *, inside: bool) -> None:
    """Promise: a subscription that ends while some are judged ahead ends as nats-py's does, and frees its memory."""
    begun = asyncio.Event()

    async def ended() -> None:
        if end == "unsubscribe":
            await there.sub.unsubscribe()
        elif end == "close":
            await there.client.close()
        else:
            raise asyncio.CancelledError

    async def handler(_: Msg) -> None:
        begun.set()
        if inside:
            await ended()
        await asyncio.sleep(60)

    there = Subscribed(alone(Keys()), handler=handler)
    await there.arrive(*await tree(ALL))
    await asyncio.wait_for(begun.wait(), 20)
    if not inside:
        if end == "cancel":
            there.task.cancel()
        else:
            await ended()
    await asyncio.wait([there.task], timeout=20)
    assert there.task.done()
    assert there.values == ALL[:1]
    there.reader.close()
    assert len(there.agent.verifier.replay) == 0  # type: ignore[arg-type]
