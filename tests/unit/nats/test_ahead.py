"""What waits for a callback is judged together, and comes to what it would come to one by one."""

import asyncio
import time
from collections import Counter
from typing import Any, cast

import pytest
from nats.aio.msg import Msg
from nats.errors import SlowConsumerError

from tests.unit.kafka.fakes import Keys, watchword
from tests.unit.nats.subscribed import Subscribed, tree
from watchword import Mode, Reason, VerificationKey
from watchword_adapters.buses.nats import ahead
from watchword_adapters.buses.nats.jetstream_reader import StreamReader
from watchword_adapters.buses.nats.reader import Judged, Reader

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
    bulk, single = Subscribed(watchword(keys, mode)), Subscribed(watchword(Keys(), mode))
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
    agent = watchword(Keys())
    told: list[tuple[str, bytes | None]] = []

    async def handler(msg: Msg) -> None:
        await asyncio.sleep(0)
        told.append(("handled", msg.data))

    reader = Reader(agent, "sub:1", admitted=lambda verified: told.append(("admitted", verified.value)))
    there = Subscribed(agent, handler=handler, reader=reader)
    await there.arrive(*await tree(ALL))
    await there.handled()
    assert told == [(what, value) for value in ALL for what in ("admitted", "handled")]


async def test_a_refused_message_delays_none_before_it() -> None:
    """Promise: a quarantine that takes its time for a forgery holds up only what came behind that."""
    there = Subscribed(watchword(Keys()))
    putting, hold = asyncio.Event(), asyncio.Event()

    async def slowly(*_: object) -> bool:
        putting.set()
        await hold.wait()
        return True

    there.kept.put = slowly  # type: ignore[assignment, method-assign]
    honest = await tree(ALL[:4])
    await there.arrive(*honest[:2], (b"", b"unsigned"), *honest[2:])
    await asyncio.wait_for(putting.wait(), 20)
    assert there.values == ALL[:2]
    hold.set()
    await there.handled()
    assert there.values == ALL[:4]


async def test_what_a_handler_raises_is_told_and_costs_no_other_message() -> None:
    """Promise: each error of a handler goes to the client's callback, and the messages behind are handed over."""
    failures = {b"3": ValueError("three"), b"7": KeyError("seven")}

    async def handler(msg: Msg) -> None:
        if msg.data in failures:
            raise failures[msg.data]

    there = Subscribed(watchword(Keys()), handler=handler)
    await there.arrive(*await tree(ALL))
    await there.handled()
    assert there.values == ALL
    assert there.errors == list(failures.values())
    assert there.agent.audit.counts == {"delivered": len(ALL)}


async def test_an_outage_costs_one_try_each_and_delays_none_before_it() -> None:
    """A21: what was judged is handed over before anything is tried again; then each message is tried once, alone."""
    keys, order = Keys(), []
    agent = watchword(keys)
    find = keys.find

    async def noted(principal: str, key_id: bytes) -> VerificationKey | None:
        order.append("asked")
        return await find(principal, key_id)

    async def handler(msg: Msg) -> None:
        order.append(msg.data.decode())

    keys.find = noted  # type: ignore[method-assign]
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
    there = Subscribed(watchword(Keys()))
    for one in await tree(ALL[:3]):
        await there.arrive(one)
        await there.handled()
    assert (there.values, there.errors) == (ALL[:3], [])


@pytest.mark.parametrize("alone", [True, False])
async def test_a_shared_store_hears_of_no_delivery_before_its_turn(*, alone: bool) -> None:
    """A17: what another worker is given, because this one did not get to it, was delivered to nobody before."""
    begun, hold = asyncio.Event(), asyncio.Event()
    agent, control = watchword(Keys()), cast("Any", None)  # never used: nothing is refused

    async def handler(_: Msg) -> None:
        begun.set()
        await hold.wait()

    reader = StreamReader(
        agent, control, "js:1", stream="s", consumer="c", acknowledged=True, alone=alone, quarantine=None
    )
    there = Subscribed(agent, handler=handler, reader=reader)
    for number, one in enumerate(await tree(ALL[:4]), start=1):
        await there.arrive(one, reply=b"$JS.ACK.s.c.1.%d.%d.%d.0" % (number, number, time.time_ns()))
    await asyncio.wait_for(begun.wait(), 20)
    assert agent.audit.counts == {"delivered": 4 if alone else 1}
    hold.set()
    await there.handled()
    assert there.values == ALL[:4]
    assert not any(msg.verified.redelivered for msg in there.got)


@pytest.mark.parametrize(("most", "most_bytes", "runs"), [(16, 1 << 20, [16, 16, 8]), (256, 10, [10, 6, 6, 6, 6, 6])])
async def test_so_many_are_judged_together_at_most(
    monkeypatch: pytest.MonkeyPatch, most: int, most_bytes: int, runs: list[int]
) -> None:
    """A21: neither many messages nor large ones are judged in one go, before anything is handed over."""
    monkeypatch.setattr(ahead, "MOST", most)
    monkeypatch.setattr(ahead, "MOST_BYTES", most_bytes)
    agent, seen = watchword(Keys()), []
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

    there = Subscribed(watchword(Keys()), handler=handler)
    await there.arrive(*await tree(ALL))
    await asyncio.wait_for(there.sub.drain(), 20)  # type: ignore[no-untyped-call]
    assert ended == ALL
    assert len(there.agent.verifier.replay) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [40, 600])
async def test_max_msgs_are_all_handed_over(count: int) -> None:
    """Promise: a subscription to so many messages hands over each of them to a handler that waits, and then ends."""

    async def handler(_: Msg) -> None:
        await asyncio.sleep(0)

    values = [b"%d" % number for number in range(count)]
    there = Subscribed(watchword(Keys()), handler=handler, max_msgs=count)
    await there.arrive(*await tree(values))
    await asyncio.wait_for(there.task, 20)
    assert there.values == values
    assert len(there.agent.verifier.replay) == 0  # type: ignore[arg-type]


async def test_what_waits_counts_as_pending_until_its_turn() -> None:
    """Promise: what is judged ahead is in the client's counts, and under its limits, as if nobody had looked."""
    hold, begun = asyncio.Event(), asyncio.Event()

    async def handler(_: Msg) -> None:
        begun.set()
        await hold.wait()

    there = Subscribed(watchword(Keys()), handler=handler, pending_msgs_limit=6)
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

    there = Subscribed(watchword(Keys()), handler=handler)
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
