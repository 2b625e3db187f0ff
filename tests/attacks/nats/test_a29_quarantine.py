"""A28, A29: the quarantine on NATS takes what is poison, and is no way back in, no oracle and no amplifier."""

import pytest

from tests.brokers.plugin import MakeStream
from tests.integration.nats.quarantining import UNDETERMINED, UNSIGNED, held, message, pass_through, quarantine_on
from tests.integration.nats.world import CLOUD, PLANNER, REALM, World, block, raw, until
from watchword import Rate, Reason
from watchword.spi import Channel, QuarantineLimits
from watchword_adapters.nats.quarantine import NatsQuarantine


async def test_a29_copies_verify_on_no_subject(world: World, make_stream: MakeStream) -> None:
    """A copy on the live subject is unsigned; its envelope put back makes the original, which is a replay there."""
    stream, subject = await make_stream(), f"{await make_stream()}.copies"
    live = f"{stream}.task"
    attacker = await world.plain()
    js = attacker.jetstream()
    await (await world.client(world.agent(PLANNER))).jetstream().publish(live, b"scale up")
    genuine = await js.get_msg(stream, 1)
    envelope = {"watchword": (genuine.headers or {})["watchword"]}
    await js.publish(live, genuine.data or b"", headers=envelope)
    assert await pass_through(world, stream, await quarantine_on(world, subject)) == [True]

    copy = await js.get_msg(subject.split(".", maxsplit=1)[0], 1)
    assert copy.data == b"scale up"
    moved = {name: value for name, value in (copy.headers or {}).items() if name != "Nats-Msg-Id"}
    restored = {name.removeprefix("watchword-original-"): value for name, value in moved.items()}
    guard = world.agent(CLOUD)
    victim = await world.client(guard)
    delivered: list[bytes] = []

    async def hear(msg: object) -> None:
        delivered.append(msg.data)  # type: ignore[attr-defined]  # a VerifiedMsg

    await victim.subscribe(live, cb=hear)
    await victim.subscribe(subject, cb=hear)
    await victim.flush()
    for place, headers in ((live, moved), (live, envelope), (live, restored), (subject, moved), (subject, restored)):
        await attacker.publish(place, copy.data or b"", headers=headers)
    await attacker.flush()
    await until(lambda: sum(guard.audit.counts.values()) == 5)
    assert guard.audit.counts == {
        "delivered": 1,  # the captured message itself, once
        Reason.REPLAYED: 1,
        Reason.UNSIGNED: 2,
        Reason.WRONG_CHANNEL: 1,
    }
    assert delivered == [b"scale up"]


async def test_a29_a_flood_leaves_few_copies(world: World, make_stream: MakeStream) -> None:
    """Hundreds of forgeries leave no more copies than the cap; the rest is counted."""
    stream, subject = await make_stream(), f"{await make_stream()}.copies"
    attacker = await world.plain()
    for _ in range(300):
        await attacker.publish(f"{stream}.task", bytes(2000))
    await attacker.flush()
    quarantine = await quarantine_on(world, subject, limits=QuarantineLimits(rate=Rate(20, 3600.0), max_size=1024))
    assert await pass_through(world, stream, quarantine) == [True] * 20 + [False] * 280
    assert quarantine.counts == {"kept": 20, "capped_rejected": 280}
    assert [stored.size for stored in await held(world, subject)] == [0] * 20


async def test_a29_a_reader_of_its_own_quarantine_does_not_loop(world: World, make_stream: MakeStream) -> None:
    """Reading the quarantine with the client that fills it adds nothing to it."""
    name = await make_stream()
    subject = f"{name}.copies"
    quarantine = await quarantine_on(world, subject)
    assert await quarantine.put(message(), UNSIGNED)
    await (await world.plain()).jetstream().publish(subject, b"forged")
    assert await pass_through(world, name, quarantine) == [True, True]
    assert len(await held(world, subject)) == 2


async def test_a29_answers_and_what_servers_say_leave_no_copy(world: World, make_stream: MakeStream) -> None:
    """Inboxes of any client, its own prefix, ``$`` subjects and answers to copies: copying them might never end."""
    subject = f"{await make_stream()}.copies"
    client = await world.client(world.agent(CLOUD), inbox_prefix=b"alice")
    quarantine = NatsQuarantine(subject, watchword=client.watchword, client=client)
    for name in ("_INBOX.x.y", "alice.x.y", "$JS.EVENT.ADVISORY.API", "bob.x.watchword-copy.y"):
        assert await quarantine.put(message(channel=Channel("nats", REALM, name)), UNSIGNED)
    assert await held(world, subject) == []
    assert await quarantine.put(message(2, channel=Channel("nats", REALM, "alicent.x")), UNSIGNED)
    assert await quarantine.put(message(3, channel=Channel("nats", REALM, "$KV.x.y")), UNDETERMINED)
    assert len(await held(world, subject)) == 2


async def test_a29_nobody_keeps_a_copy_out(world: World, make_stream: MakeStream) -> None:
    """A copy's id is derived from its position and a secret: a guess sent first suppresses no evidence."""
    name = await make_stream()
    subject = f"{name}.copies"
    quarantine = await quarantine_on(world, subject)
    guess = NatsQuarantine(subject, watchword=world.agent(CLOUD), client=await world.plain())
    assert await guess.put(message(), UNSIGNED)
    assert await quarantine.put(message(), UNSIGNED)
    assert len(await held(world, subject)) == 2


@pytest.mark.parametrize(
    "poison",
    [
        b"x",
        b"NATS/1.0\r\nno colon\r\n\r\n",
        b"NATS/1.0 503\r\n\r\n",
        block(("watchword-reason", "stale"), ("watchword-reason", "forged"), ("x", b"\xff")),
    ],
    ids=["one byte", "no colon", "status", "odd"],
)
async def test_a28_poison_is_quarantined(world: World, make_stream: MakeStream, poison: bytes) -> None:
    """A broken header block leaves a copy that any client can read, with the payload that came with it."""
    stream, subject = await make_stream(), f"{await make_stream()}.copies"
    await raw(await world.plain(), f"{stream}.task", poison, b"payload")
    quarantine = await quarantine_on(world, subject)
    assert await pass_through(world, stream, quarantine) == [True]
    (stored,) = await held(world, subject)
    assert stored.kept is not None
    assert stored.kept.reason in {"malformed", "unsigned"}
    assert stored.kept.message.value == b"payload"
    plain = await (await world.plain()).jetstream().get_msg(subject.split(".", maxsplit=1)[0], 1)
    assert plain.data == b"payload"


async def test_a30_a_subject_cannot_write_headers(world: World, make_stream: MakeStream) -> None:
    """What stands in a subject is escaped, whatever it is: it begins no header line of its own."""
    subject = f"{await make_stream()}.copies"
    odd = Channel("nats", REALM, "a\r\nwatchword-reason: stale\u202e%41")
    assert await (await quarantine_on(world, subject)).put(message(channel=odd), UNSIGNED)
    (stored,) = await held(world, subject)
    assert stored.kept is not None
    assert (stored.kept.reason, stored.kept.channel) == ("unsigned", odd)
