"""A22 on a real nats-server: requests and answers, forged, swapped, replayed or echoed."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from tests.integration.nats.world import CLOUD, MALLORY, PLANNER, World, raw, resend, soon, unanswered, until, verified
from tests.support.patience import PATIENCE
from watchword import Allow, Mode, Reason
from watchword.spi import Channel, Message
from watchword_adapters.nats import WatchwordClient

Unique = Callable[[str], str]


async def serve(client: WatchwordClient, subject: str, answer: bytes = b"done") -> list[Msg]:
    """Answer requests on ``subject``; return those that reached the handler."""
    served: list[Msg] = []

    async def handler(msg: Msg) -> None:
        served.append(msg)
        await msg.respond(answer)

    await client.subscribe(subject, cb=handler)
    await client.flush()
    return served


async def listen(client: Client, subject: str) -> asyncio.Queue[Msg]:
    """Let the attacker see all that is said on ``subject``."""
    seen = asyncio.Queue[Msg]()
    await client.subscribe(subject, cb=seen.put)
    await client.flush()
    return seen


async def test_a22_answer_is_bound_to_the_request(world: World, unique: Unique) -> None:
    """An honest answer arrives, says who answered, and to which request; it never bears the request's headers."""
    subject = unique("a22")
    await serve(await world.client(world.agent(CLOUD)), subject)
    planner = await world.client(world.agent(PLANNER))
    answer = verified(await planner.request(subject, b"scale", timeout=10, headers={"secret": "s"}))
    assert (answer.data, answer.headers) == (b"done", None)
    assert (answer.verified.principal, answer.verified.recipient) == (CLOUD, PLANNER)
    assert answer.verified.in_reply_to is not None


async def test_a22_swapped_reply_subject_is_rejected(world: World, unique: Unique) -> None:
    """A request sent again with the attacker's inbox for an answer is never served, though a plain service would be."""
    subject, guard, attacker = unique("a22"), world.agent(CLOUD), await world.plain()
    seen = await listen(attacker, subject)
    served = await serve(await world.client(guard), subject)
    planner = await world.client(world.agent(PLANNER))
    asking = asyncio.create_task(planner.request(subject, b"scale", timeout=10))
    captured = await soon(seen.get())
    stolen = await listen(attacker, "stolen.*")
    await resend(attacker, captured, reply="stolen.answer")
    await resend(attacker, captured, reply="")
    await asking
    await planner.request(subject, b"honest", timeout=10)
    assert [msg.data for msg in served] == [b"scale", b"honest"]
    assert stolen.empty()
    assert guard.audit.counts == {"delivered": 2, Reason.WRONG_REPLY_TO: 2}


async def test_a22_forged_answers_are_ignored_until_the_genuine_one(world: World, unique: Unique) -> None:
    """Unsigned and echoed answers before the genuine one are audited; a plain client takes the first of them."""
    subject, guard, attacker = unique("a22"), world.agent(PLANNER), await world.plain()
    seen = await listen(attacker, subject)
    planner, cloud = await world.client(guard), await world.client(world.agent(CLOUD))
    request = await cloud.subscribe(subject)
    await cloud.flush()
    asking = asyncio.create_task(planner.request(subject, b"scale", timeout=15))
    captured = await soon(seen.get())
    await attacker.publish(captured.reply, b"forged")
    await attacker.publish(captured.reply, captured.data, headers=captured.headers)
    await attacker.flush()
    await until(lambda: guard.audit.counts.total() == 2)
    assert not asking.done()
    await (await soon(request.next_msg(timeout=None))).respond(b"genuine")
    assert (await soon(asking)).data == b"genuine"
    assert guard.audit.counts == {Reason.UNSIGNED: 1, Reason.WRONG_CHANNEL: 1, "delivered": 1}

    plain = await world.plain()
    naive = asyncio.create_task(plain.request(subject, b"scale", timeout=15))
    await attacker.publish((await soon(seen.get())).reply, b"forged")
    assert (await soon(naive)).data == b"forged"


async def test_a22_forged_answer_alone_is_no_answer(world: World, unique: Unique) -> None:
    """Where nobody but the attacker answers, the requester hears nothing."""
    subject, guard, attacker = unique("a22"), world.agent(PLANNER), await world.plain()
    seen = await listen(attacker, subject)
    planner = await world.client(guard)
    asking = asyncio.create_task(planner.request(subject, b"scale", timeout=PATIENCE))
    await attacker.publish((await soon(seen.get())).reply, b"forged")
    await unanswered(asking, guard.audit.counts.total)
    assert guard.audit.counts == {Reason.UNSIGNED: 1}


@pytest.mark.parametrize("stored", [False, True])
async def test_a22_a_flood_of_the_inbox_keeps_nobody_waiting(world: World, unique: Unique, *, stored: bool) -> None:
    """A28: a request ends with its time, however much that is no answer comes to its inbox, and however fast."""
    subject, guard, attacker = unique("a22"), world.agent(PLANNER), await world.plain()
    seen = await listen(attacker, subject)
    planner = await world.client(guard)
    asked = planner.jetstream().publish(subject, b"x", timeout=0.3) if stored else planner.request(subject, timeout=0.3)
    asking = asyncio.ensure_future(asked)
    reply = (await soon(seen.get())).reply

    async def flood() -> None:
        while not asking.done():
            for _ in range(100):
                await raw(attacker, reply, b"NATS/1.0\r\nbroken\r\n\r\n", b'{"stream": "S", "seq": 1}')
            await asyncio.sleep(0)

    flooding = asyncio.create_task(flood())
    with pytest.raises(NatsTimeoutError):
        await soon(asking)
    await flooding


async def test_a_request_ends_with_its_time_while_a_key_is_looked_for(world: World, unique: Unique) -> None:
    """A35: a key source that hangs holds no requester beyond its time-out; without one it waits, as with nats-py."""
    subject, forever = unique("a22"), cast("float", None)
    planner, cloud = await world.client(world.agent(PLANNER)), await world.client(world.agent(CLOUD))

    async def handler(msg: Msg) -> None:
        if msg.data == b"hang":
            world.keys.gate = asyncio.Event()
        await msg.respond(b"done")

    await cloud.subscribe(subject, cb=handler)
    await cloud.flush()
    for timeout in (forever, 3600):
        assert (await soon(planner.request(subject, b"x", timeout=timeout))).data == b"done"
    timers: Any = asyncio.get_running_loop()
    assert not [timer for timer in timers._scheduled if "over" in repr(timer) and not timer.cancelled()]
    world.keys.question.clear()
    with pytest.raises(NatsTimeoutError):
        await soon(planner.request(subject, b"hang", timeout=1))
    world.keys.gate.set()


async def test_a22_answer_swapped_between_two_requests_is_rejected(world: World, unique: Unique) -> None:
    """A signed answer to one request does not answer another: not on its inbox, nor signed for that inbox."""
    subject, guard, attacker = unique("a22"), world.agent(PLANNER), await world.plain()
    answers = await listen(attacker, "_INBOX.>")
    planner, cloud = await world.client(guard), await world.client(world.agent(CLOUD))
    requests = await cloud.subscribe(subject)
    await cloud.flush()
    asking = [asyncio.create_task(planner.request(subject, name, timeout=15)) for name in (b"one", b"two")]
    first, second = [verified(await soon(requests.next_msg(timeout=None))) for _ in asking]
    await cloud.answer(second.reply, b"to the first", None, first.verified)
    await first.respond(b"answer one")
    await soon(asking[0])
    while (captured := await soon(answers.get())).data != b"answer one":
        pass
    await resend(attacker, captured, subject=second.reply)
    await until(lambda: guard.audit.counts.total() == 3)
    await second.respond(b"answer two")
    assert [(await soon(task)).data for task in asking] == [b"answer one", b"answer two"]
    assert guard.audit.counts == {Reason.WRONG_REQUEST: 1, Reason.WRONG_CHANNEL: 1, "delivered": 2}


async def test_a22_replayed_answer_is_dropped(world: World, unique: Unique) -> None:
    """An answer that is sent again to an inbox that still listens is delivered once."""
    subject, guard, attacker = unique("a22"), world.agent(PLANNER), await world.plain()
    await serve(await world.client(world.agent(CLOUD)), subject)
    planner = await world.client(guard)
    inbox = planner.new_inbox()
    answers = await listen(attacker, inbox)
    subscription = await planner.subscribe(inbox)
    await planner.publish(subject, b"scale", reply=inbox)
    assert (await soon(subscription.next_msg(timeout=None))).data == b"done"
    await resend(attacker, await soon(answers.get()))
    await planner.publish(subject, b"again", reply=inbox)
    assert (await soon(subscription.next_msg(timeout=None))).data == b"done"
    assert guard.audit.counts == {"delivered": 2, Reason.REPLAYED: 1}


async def test_a22_only_the_addressee_may_answer(world: World, unique: Unique) -> None:
    """A request addressed to one agent is not answered by another one, though it has a key."""
    subject, guard = unique("a22"), world.agent(PLANNER)
    planner, mallory = await world.client(guard), await world.client(world.agent(MALLORY))
    eavesdropper = await world.plain()
    seen = await listen(eavesdropper, subject)
    cloud = await world.client(world.agent(CLOUD))
    requests = await cloud.subscribe(subject)
    await cloud.flush()
    asking = asyncio.create_task(planner.request(subject, b"scale", timeout=15, recipient=CLOUD))
    captured = await soon(seen.get())
    request = verified(await soon(requests.next_msg(timeout=None)))
    await mallory.publish(captured.reply, b"forged")
    await mallory.answer(captured.reply, b"forged", None, request.verified)
    await mallory.flush()
    await until(lambda: guard.audit.counts.total() == 2)
    await request.respond(b"genuine")
    assert (await soon(asking)).data == b"genuine"
    assert guard.audit.counts == {Reason.WRONG_REQUEST: 1, Reason.NOT_PERMITTED: 1, "delivered": 1}


async def test_a22_policy_of_the_requests_channel_says_who_may_answer(world: World, unique: Unique) -> None:
    """A request to nobody in particular is answered by who may speak on its channel; the inbox needs no rule."""
    subject = unique("a22")
    guard = world.agent(PLANNER, allow=(Allow(CLOUD, (f"nats://prod/{subject}",)),))
    planner, mallory, cloud = [await world.client(agent) for agent in (guard, world.agent(MALLORY), world.agent(CLOUD))]
    await serve(mallory, subject, b"forged")
    await unanswered(planner.request(subject, b"scale", timeout=PATIENCE), guard.audit.counts.total)
    assert guard.audit.counts == {Reason.NOT_PERMITTED: 1}
    await serve(cloud, subject, b"genuine")
    assert (await planner.request(subject, b"scale", timeout=10)).data == b"genuine"


async def test_a22_unverified_sender_gets_no_answer(world: World, unique: Unique) -> None:
    """A service answers the verified only."""
    subject, attacker = unique("a22"), await world.plain()
    guard = world.agent(CLOUD)
    served = await serve(await world.client(guard), subject)
    with pytest.raises(NatsTimeoutError):
        await attacker.request(subject, b"forged", timeout=0.5)
    planner = await world.client(world.agent(PLANNER))
    await planner.request(subject, b"honest", timeout=10)
    assert [msg.data for msg in served] == [b"honest"]
    assert guard.audit.counts == {Reason.UNSIGNED: 1, "delivered": 1}


async def test_a22_unsigned_reply_subject_is_hidden(world: World, unique: Unique) -> None:
    """A reply subject that an attacker hung on a message without one is never answered."""
    duel = await world.duel(unique("a22"))
    signed = await duel.planner.watchword.signer.sign(
        Message(channel=Channel("nats", "prod", duel.subject), value=b"x")
    )
    headers = {"watchword": (signed.header[1] or b"").decode()}
    await duel.attacker.publish(duel.subject, b"x", reply="stolen.answer", headers=headers)
    await until(lambda: duel.delivered)
    assert duel.unprotected[0].reply == "stolen.answer"
    assert duel.delivered[0].reply == ""
    with pytest.raises(Exception, match="no reply subject"):
        await duel.delivered[0].respond(b"secret")


async def test_a22_no_signature_for_an_unverified_request_while_observing(world: World, unique: Unique) -> None:
    """In observe mode services go on answering, but nobody unknown gets a signature of this agent for it."""
    subject, attacker = unique("a22"), await world.plain()
    await serve(await world.client(world.agent(CLOUD, mode=Mode.OBSERVE)), subject)
    stolen = await listen(attacker, f"{subject}.target")
    await attacker.publish(subject, b"sign this", reply=f"{subject}.target")
    answer = await soon(stolen.get())
    assert (answer.data, answer.headers) == (b"done", None)
    planner = await world.client(world.agent(PLANNER))
    assert verified(await planner.request(subject, b"scale", timeout=10)).verified.principal == CLOUD


async def test_a22_request_naming_an_application_subject_bends_no_other_message(world: World, unique: Unique) -> None:
    """What a verified request names as its reply subject does not turn our own messages there into answers."""
    subject, target = unique("a22"), unique("target")
    cloud = await world.client(world.agent(CLOUD))
    served = await serve(cloud, subject)
    mallory = await world.client(world.agent(MALLORY))
    duel = await world.duel(target, principal=PLANNER)
    await mallory.publish(subject, b"ask", reply=target)
    await until(lambda: served and duel.guard.audit.counts[Reason.WRONG_RECIPIENT])
    await cloud.publish(target, b"own")
    await until(lambda: duel.delivered)
    assert [msg.data for msg in duel.delivered] == [b"own"]
    assert duel.delivered[0].verified.in_reply_to is None


async def test_a28_forged_no_responders_does_not_end_a_request(world: World, unique: Unique) -> None:
    """Who sees a request cannot end it with a status line, as it ends a plain client's."""
    subject, guard, attacker = unique("a28"), world.agent(PLANNER), await world.plain()
    seen = await listen(attacker, subject)
    planner, cloud = await world.client(guard), await world.client(world.agent(CLOUD))
    requests = await cloud.subscribe(subject)
    await cloud.flush()
    asking = asyncio.create_task(planner.request(subject, b"scale", timeout=15))
    captured = await soon(seen.get())
    await raw(attacker, captured.reply, b"NATS/1.0 503\r\n\r\n")
    await raw(attacker, captured.reply, b"NATS/1.0 503\r\n\r\n", b"payload")
    await raw(attacker, captured.reply, b"NATS/1.0 404 Gone\r\n\r\n")
    await until(lambda: guard.audit.counts[Reason.MALFORMED] == 2)
    await (await soon(requests.next_msg(timeout=None))).respond(b"genuine")
    assert (await soon(asking)).data == b"genuine"

    plain = await world.plain()
    naive = asyncio.create_task(plain.request(subject, b"scale", timeout=15))
    await raw(attacker, (await soon(seen.get())).reply, b"NATS/1.0 503\r\n\r\n")
    with pytest.raises(NoRespondersError):
        await soon(naive)


async def test_a28_forged_no_responders_ends_none_of_many_requests(world: World, unique: Unique) -> None:
    """Requests that go out together share one PING behind them, and each is protected by it all the same."""
    subject, guard, attacker = unique("a28"), world.agent(PLANNER), await world.plain()
    seen = await listen(attacker, subject)
    planner, cloud = await world.client(guard), await world.client(world.agent(CLOUD))
    requests = await cloud.subscribe(subject)
    await cloud.flush()
    await planner.flush()
    before = planner._pongs_received
    asking = [asyncio.create_task(planner.request(subject, b"scale", timeout=15)) for _ in range(20)]
    captured = [await soon(seen.get()) for _ in asking]
    await until(lambda: planner._pongs_received > before)
    for msg in captured:
        await raw(attacker, msg.reply, b"NATS/1.0 503\r\n\r\n")
    await until(lambda: guard.audit.counts[Reason.MALFORMED] == len(asking))
    assert planner._pongs_received == before + 1
    for _ in asking:
        await (await soon(requests.next_msg(timeout=None))).respond(b"genuine")
    assert [(await soon(asked)).data for asked in asking] == [b"genuine"] * len(asking)


async def test_genuine_no_responders_is_told_at_once(world: World, unique: Unique) -> None:
    """Where the server itself says that nobody listens, the requester need not wait for its time-out."""
    planner = await world.client(world.agent(PLANNER))
    async with asyncio.timeout(PATIENCE):
        for _ in range(20):
            with pytest.raises(NoRespondersError):
                await planner.request(unique("nobody"), b"scale", timeout=3600)
