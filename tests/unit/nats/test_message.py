"""Ack subjects, bounded memory, and what a reader does when the bus is away."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.msg import Msg

from watchword_adapters.nats.message import Delivery, delivery_at
from watchword_adapters.nats.recent import Recent
from watchword_adapters.nats.requests import MAX_UNREAD_ANSWERS, Waiting


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.orders.worker.3.17.9.1763928000123456789.5",
        "$JS.ACK.hub.account.orders.worker.3.17.9.1763928000123456789.5",
        "$JS.ACK._.account.orders.worker.3.17.9.1763928000123456789.5.random",
    ],
)
def test_ack_subject_in_each_form(reply: str) -> None:
    """The forms without a domain, with one, and with a random tail say the same, as nats-py reads them."""
    delivery = delivery_at(reply)
    assert delivery == Delivery(("orders", "worker"), 17, 1763928000123456789, 3, 9, 5)
    metadata = Msg.Metadata._from_reply(reply)
    assert (metadata.stream, metadata.consumer, metadata.sequence.stream) == ("orders", "worker", 17)


@given(
    st.one_of(
        st.text(max_size=80),
        st.lists(st.text("0123456789٣x-", max_size=25), min_size=5, max_size=12).map(
            lambda tokens: ".".join(["$JS", "ACK", *tokens])
        ),
    )
)
def test_any_reply_gives_a_delivery_or_none(reply: str) -> None:
    """No reply subject raises anything; numbers are plain decimals of bounded length."""
    delivery = delivery_at(reply)
    assert delivery is None or delivery.sequence >= 0


def test_memory_is_bounded_in_number() -> None:
    """The oldest makes room, and naming one again makes it young."""
    recent = Recent[int](seconds=10, clock=lambda: 0.0, limit=2)
    for name, value in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        recent.put(name, value)
    assert [recent.get(name) for name in "abc"] == [3, None, 4]
    assert len(recent) == 2


def test_memory_is_bounded_in_time() -> None:
    """What is past its time is gone."""
    now = [0.0]
    recent = Recent[int](seconds=10, clock=lambda: now[0])
    recent.put("a", 1)
    now[0] = 9.9
    assert recent.get("a") == 1
    now[0] = 10.0
    assert recent.get("a") is None
    assert len(recent) == 0


async def test_a_flood_of_answers_is_cut_off() -> None:
    """Answers that a requester did not read yet take bounded room."""
    waiting = Waiting("tasks")
    for _ in range(MAX_UNREAD_ANSWERS + 100):
        waiting.arrived(Msg(_client=None))  # type: ignore[arg-type]  # never asked
    for _ in range(MAX_UNREAD_ANSWERS):
        await waiting.answer()
    unread = asyncio.ensure_future(waiting.answer())
    await asyncio.sleep(0)
    assert not unread.done()
    waiting.arrived(Msg(_client=None))  # type: ignore[arg-type]  # as above
    await unread


async def test_who_waits_is_told_when_the_time_is_up() -> None:
    """What came in time is still given, what comes later is not, and then there is no more waiting."""
    waiting, raw = Waiting("tasks"), Msg(_client=None)  # type: ignore[arg-type]  # never asked
    unread = asyncio.ensure_future(waiting.answer())
    await asyncio.sleep(0)
    waiting.over()
    with pytest.raises(TimeoutError):
        await unread
    waiting = Waiting("tasks")
    waiting.arrived(raw)
    waiting.over()
    waiting.arrived(raw)
    assert await waiting.answer() is raw
    with pytest.raises(TimeoutError):
        await waiting.answer()
