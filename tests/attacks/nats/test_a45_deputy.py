"""A45 on a real nats-server: nobody makes an agent act for them, with rights that only the agent has."""

import time
from collections.abc import Awaitable, Callable
from secrets import token_bytes

import pytest
from nats.aio.msg import Msg

from tests.brokers.plugin import MakeStream
from tests.integration.nats.world import CLOUD, MALLORY, PLANNER, World, block, raw, until
from tests.unit.core.world import nats as unsigned
from tests.unit.core.world import press
from watchword import Mode, Reason, SigningError
from watchword.spi import Channel
from watchword_adapters.nats import WatchwordClient

Unique = Callable[[str], str]

PURGE = "$JS.API.STREAM.PURGE."


def pressed(world: World, subject: str, reply: str) -> bytes:
    """Return the header block of a message of Mallory's that names ``reply``, which no signer of ours would sign."""
    message = unsigned(channel=Channel("nats", "prod", subject), reply_to=reply, value=b"ask", headers=())
    pressed = press(message, key=world.signing[MALLORY], principal=MALLORY, c6=int(time.time()), c7=token_bytes(16))
    return block(*[(name, value or b"") for name, value in pressed.headers])


async def stored_in(world: World, stream: str) -> int:
    """Return how many messages a stream has."""
    return (await (await world.plain()).jetstream().stream_info(stream)).state.messages


async def filled(world: World, make_stream: MakeStream, subject: str) -> str:
    """Make a stream of one message."""
    stream = await make_stream(subject)
    await (await world.plain()).jetstream().publish(subject, b"keep me")
    return stream


async def responds(msg: Msg, _: WatchwordClient) -> None:
    """Answer as most handlers do."""
    await msg.respond(b"{}")


async def publishes(msg: Msg, client: WatchwordClient) -> None:
    """Answer by hand."""
    if msg.reply:
        await client.publish(msg.reply, b"")


@pytest.mark.parametrize("answer", [responds, publishes])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
async def test_a45_an_answer_never_goes_to_the_server_itself(
    world: World,
    unique: Unique,
    make_stream: MakeStream,
    answer: Callable[[Msg, WatchwordClient], Awaitable[None]],
    mode: Mode,
    *,
    signed: bool,
) -> None:
    """A reply subject of JetStream's API, signed or not, does not make a responder empty a stream in either mode."""
    subject, stream = unique("a45"), await filled(world, make_stream, unique("kept"))
    cloud, served, failed = await world.client(world.agent(CLOUD, mode=mode)), [], []

    async def handler(msg: Msg) -> None:
        served.append(msg.data)
        try:
            await answer(msg, cloud)
        except Exception:
            failed.append(msg.data)
            raise

    await cloud.subscribe(subject, cb=handler)
    await cloud.flush()
    attacker = await world.plain()
    headers = pressed(world, subject, PURGE + stream) if signed else block(("a", "b"))
    await raw(attacker, subject, headers, b"ask", reply=PURGE + stream)
    mallory = await world.client(world.agent(MALLORY))
    await mallory.publish(subject, b"last")
    await until(lambda: b"last" in served)
    await cloud.flush()
    assert await stored_in(world, stream) == 1
    assert b"ask" not in failed, "a stranger makes no handler fail"
    assert cloud.watchword.audit.counts[Reason.WRONG_REPLY_TO if signed else Reason.UNSIGNED] == 1


@pytest.mark.parametrize("reply", ["$JS.API.STREAM.PURGE.X", "$SYS.REQ.USER.INFO", "$KV.bucket.key", "$SRV.PING", "$x"])
async def test_a45_a_reply_subject_of_the_server_is_not_signed(world: World, unique: Unique, reply: str) -> None:
    """The error says what a reply subject may be; nothing is sent."""
    planner = await world.client(world.agent(PLANNER))
    with pytest.raises(SigningError, match="new_inbox"):
        await planner.publish(unique("a45"), b"ask", reply=reply)


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
async def test_a45_a_stored_request_names_no_subject_of_the_server(
    world: World, unique: Unique, make_stream: MakeStream, mode: Mode
) -> None:
    """At a stream position, where the reply subject is not compared, what was signed is no subject of the server."""
    subject, stream = unique("a45"), await filled(world, make_stream, unique("kept"))
    await make_stream(subject)
    await raw(await world.plain(), subject, pressed(world, subject, PURGE + stream), b"ask")
    cloud = await world.client(world.agent(CLOUD, mode=mode))
    await (await world.client(world.agent(MALLORY))).publish(subject, b"last")
    pull = await cloud.jetstream().pull_subscribe(subject)
    fetched: list[Msg] = []
    while not fetched or fetched[-1].data != b"last":
        fetched += await pull.fetch(1, timeout=10)
    for msg in fetched[:-1]:
        await msg.respond(b"{}")
    assert cloud.watchword.audit.counts[Reason.WRONG_REPLY_TO] == 1
    assert await stored_in(world, stream) == 1


async def test_a45_an_answer_that_is_aimed_at_the_server_by_hand_is_refused(world: World) -> None:
    """A responder that gives an answer with a reply subject of the server's own gets an error, whatever it answers."""
    cloud = await world.client(world.agent(CLOUD))
    with pytest.raises(SigningError, match="order to the server"):
        await cloud.answer(f"{PURGE}X", b"", None, None)
