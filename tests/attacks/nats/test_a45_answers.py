"""A45 and A22 on a real nats-server: an answer belongs to the message whose handler gives it."""

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from nats import micro
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError

from tests.integration.nats.world import CLOUD, MALLORY, PLANNER, World, soon, unanswered, until, verified
from tests.support.patience import PATIENCE
from watchword import Mode, Reason, SigningError
from watchword_adapters.nats import WatchwordClient

Unique = Callable[[str], str]


async def respond(msg: Msg, _: WatchwordClient) -> None:
    """Answer by the message."""
    await msg.respond(msg.data)


async def publish(msg: Msg, client: WatchwordClient) -> None:
    """Answer by hand."""
    await client.publish(msg.reply, msg.data)


async def text(msg: Msg, client: WatchwordClient) -> None:
    """Answer by hand to a copy of the characters."""
    await client.publish("".join(msg.reply), msg.data)


async def later(msg: Msg, client: WatchwordClient) -> None:
    """Answer from a task that the handler starts."""
    await asyncio.create_task(publish(msg, client))


@pytest.mark.parametrize("answer", [respond, publish, later])
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("prefix", ["_INBOX", "_INBOX_alice", "replies.alice"])
async def test_a_bare_publish_to_the_reply_of_a_message_is_its_answer(
    world: World,
    unique: Unique,
    prefix: str,
    answer: Callable[[Msg, WatchwordClient], Awaitable[None]],
    *,
    same: bool,
) -> None:
    """A22: whatever inbox prefix the requester has, and whatever connection of the responder publishes it."""
    subject, agent = unique("a45"), world.agent(CLOUD)
    cloud = await world.client(agent)
    answering = cloud if same else await world.client(agent)

    async def handler(msg: Msg) -> None:
        await answer(msg, answering)

    await cloud.subscribe(subject, cb=handler)
    await cloud.flush()
    planner = await world.client(world.agent(PLANNER), inbox_prefix=prefix.encode())
    answers = await asyncio.gather(*[planner.request(subject, b"%d" % n, timeout=10) for n in range(5)])
    assert [answer.data for answer in answers] == [b"%d" % n for n in range(5)]
    assert {verified(answer).verified.principal for answer in answers} == {CLOUD}


@pytest.mark.parametrize("way", ["callback", "next_msg", "messages"])
@pytest.mark.parametrize("answer", [respond, publish, text])
async def test_a45_naming_anothers_inbox_silences_no_answer(
    world: World, unique: Unique, way: str, answer: Callable[[Msg, WatchwordClient], Awaitable[None]]
) -> None:
    """A45: a second request that names someone else's inbox takes no answer away, nor bends it."""
    first, second, agent = unique("first"), unique("second"), world.agent(CLOUD)
    cloud, hold, asked = await world.client(agent), asyncio.Event(), asyncio.Event()

    async def handler(msg: Msg) -> None:
        asked.set()
        await hold.wait()
        await answer(msg, cloud)

    async def serve() -> None:
        if way == "callback":
            await cloud.subscribe(first, cb=handler)
        else:
            subscription = await cloud.subscribe(first)
            await cloud.flush()
            ready.set()
            message = (
                await subscription.next_msg(timeout=None)
                if way == "next_msg"
                else await anext(aiter(subscription.messages))
            )
            await handler(message)
        ready.set()

    ready = asyncio.Event()
    seen: list[Msg] = []

    async def others(msg: Msg) -> None:
        seen.append(msg)

    serving = asyncio.create_task(serve())
    await cloud.subscribe(second, cb=others)
    await soon(ready.wait())
    await cloud.flush()
    planner, mallory = await world.client(world.agent(PLANNER)), await world.client(world.agent(MALLORY))
    eavesdropper = await world.plain()
    captured = asyncio.Queue[Msg]()
    await eavesdropper.subscribe(first, cb=captured.put)
    await eavesdropper.flush()
    asking = asyncio.create_task(planner.request(first, b"x", timeout=10))
    inbox = (await soon(captured.get())).reply
    await soon(asked.wait())
    await mallory.publish(second, b"mine", reply=inbox)
    await until(lambda: seen)
    hold.set()
    assert (await soon(asking)).data == b"x"
    await serving


async def test_an_answer_from_a_store_is_bound_by_its_inbox(world: World, unique: Unique) -> None:
    """A reply subject that was written down and read again is still answered; the first who named an inbox owns it."""
    subject, stored = unique("a45"), list[str]()
    cloud, planner = await world.client(world.agent(CLOUD)), await world.client(world.agent(PLANNER))
    mallory = await world.client(world.agent(MALLORY))

    async def handler(msg: Msg) -> None:
        stored.append(pickle.loads(pickle.dumps(msg.reply)))  # noqa: S301 - our own

    await cloud.subscribe(subject, cb=handler)
    await cloud.flush()
    asking = asyncio.create_task(planner.request(subject, b"x", timeout=10))
    await until(lambda: stored)
    assert type(stored[0]) is str
    await mallory.publish(subject, b"mine too", reply=stored[0])
    await until(lambda: len(stored) == 2)
    await cloud.publish(stored[0], b"late")
    assert (await soon(asking)).data == b"late"


async def test_several_answers_to_one_request_arrive(world: World, unique: Unique) -> None:
    """An inbox that the application made takes every answer: of several responders, and several of one."""
    subject, guard = unique("a45"), world.agent(PLANNER)
    planner = await world.client(guard)
    for principal in (CLOUD, MALLORY):
        client = await world.client(world.agent(principal))

        async def handler(msg: Msg, client: WatchwordClient = client) -> None:
            await msg.respond(b"one")
            await client.publish(msg.reply, b"two")
            await msg.respond(b"three")

        await client.subscribe(subject, cb=handler)
        await client.flush()
    inbox = planner.new_inbox()
    answers = await planner.subscribe(inbox)
    await planner.publish(subject, b"all of you", reply=inbox)
    got = [verified(await soon(answers.next_msg(timeout=None))) for _ in range(6)]
    for principal in (CLOUD, MALLORY):
        assert [msg.data for msg in got if msg.verified.principal == principal] == [b"one", b"two", b"three"]
    assert guard.audit.counts == {"delivered": 6}


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
async def test_passing_a_request_on_is_refused_with_the_way_that_works(
    world: World, unique: Unique, mode: Mode, caplog: pytest.LogCaptureFixture, *, copied: bool
) -> None:
    """A worker's answer to a forwarded request answers nothing that the requester asked: asking the worker does."""
    subject, work, agent = unique("a45"), unique("work"), world.agent(CLOUD, mode=mode)
    cloud, worker = await world.client(agent), await world.client(world.agent(MALLORY))
    planner, errors = await world.client(world.agent(PLANNER)), list[Exception]()

    async def handler(msg: Msg) -> None:
        if msg.data == b"ask":
            await msg.respond((await cloud.request(work, msg.data, timeout=10)).data)
            return
        try:
            await cloud.publish(work, msg.data, reply="".join(msg.reply) if copied else msg.reply)
        except SigningError as error:
            errors.append(error)

    await worker.subscribe(work, cb=works)
    await cloud.subscribe(subject, cb=handler)
    await worker.flush()
    await cloud.flush()
    assert (await planner.request(subject, b"ask", timeout=10)).data == b"worked"

    def turned_away() -> int:
        return len(errors) + planner.watchword.audit.counts[Reason.WRONG_RECIPIENT]

    await unanswered(planner.request(subject, b"forward", timeout=PATIENCE), turned_away)
    await unanswered(planner.request(subject, b"forward", timeout=PATIENCE), lambda: turned_away() == 2)
    if mode is Mode.ENFORCE:
        assert len(errors) == 2
        assert "nc.request(...)" in str(errors[0])
        assert "msg.respond(" in str(errors[0])
        assert "nats.call_uncovered" not in caplog.text
    else:
        assert errors == []
        assert caplog.text.count("nats.call_uncovered") == 1


async def works(msg: Msg) -> None:
    """Answer as a worker."""
    await msg.respond(b"worked")


async def test_one_can_ask_again_in_an_inbox_of_ones_own(world: World, unique: Unique) -> None:
    """A client that hears its own request may go on in the same inbox: it knows what it asked there."""
    subject, work = unique("a45"), unique("work")
    client, worker = await world.client(world.agent(PLANNER)), await world.client(world.agent(CLOUD))

    async def handler(msg: Msg) -> None:
        await client.publish(work, b"go on", reply=msg.reply)

    await worker.subscribe(work, cb=works)
    await client.subscribe(subject, cb=handler)
    await worker.flush()
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    await client.publish(subject, b"x", reply=inbox)
    assert (await soon(answers.next_msg(timeout=None))).data == b"worked"


async def test_an_endpoint_of_a_service_sees_who_asked_and_answers_them(world: World, unique: Unique) -> None:
    """A45: two endpoints, asked at once, one by a stranger in the other's inbox: each answer goes to its request."""
    name = unique("svc")
    cloud = await world.client(world.agent(CLOUD))
    service = await micro.add_service(cloud, name=name, version="1.0.0")
    who: list[Any] = []

    async def handler(request: Any) -> None:
        who.append(request._msg.verified.principal)
        await asyncio.sleep(0)
        await request.respond(request.data)

    for endpoint in ("one", "two"):
        await service.add_endpoint(name=endpoint, subject=f"{name}.{endpoint}", handler=handler)
    await cloud.flush()
    planner = await world.client(world.agent(PLANNER), inbox_prefix=b"_INBOX_planner")
    assert (await planner.request(f"{name}.one", b"x", timeout=10)).data == b"x"
    assert who == [PLANNER]
    await service.stop()


@pytest.mark.parametrize("pending", [True, False])
async def test_a22_an_inbox_takes_nothing_but_answers(world: World, unique: Unique, *, pending: bool) -> None:
    """A22: a message that an agent with a key signs for an inbox answers nothing, and is not delivered there."""
    subject, guard = unique("a45"), world.agent(PLANNER)
    planner, mallory = await world.client(guard), await world.client(world.agent(MALLORY))
    inbox = planner.new_inbox()
    answers = await planner.subscribe(inbox)
    await planner.flush()
    if pending:
        await planner.publish(subject, b"ask", reply=inbox)
        await planner.flush()
    await mallory.publish(inbox, b"unasked")
    await until(lambda: guard.audit.counts.total() or answers.delivered)
    with pytest.raises(NatsTimeoutError):
        await answers.next_msg(timeout=0.2)
    assert guard.audit.counts == {Reason.WRONG_REQUEST: 1}
