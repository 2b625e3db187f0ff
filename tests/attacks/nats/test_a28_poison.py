"""A28, A30 and A31 on a real nats-server: what would kill or fool the client, and what must not be disclosed."""

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from nats.aio.client import Client
from nats.errors import Error

from tests.integration.nats.world import CLOUD, PLANNER, World, block, raw, soon, until
from watchword import Reason, SigningError

Unique = Callable[[str], str]

BROKEN = [
    b"\n",
    b"N",
    b"NATS/1.0",
    b"NATS/1.0\r\n",
    b"NATS/2.0\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"NATS/1.0\r\n: no name\r\n\r\n",
    b"NATS/1.0\r\nbl ank: x\r\n\r\n",
    b"NATS/1.0\r\nn\xffme: x\r\n\r\n",
    b"NATS/1.0\r\na: b\nc: d\r\n\r\n",
    b"NATS/1.0 \r\n\r\n",
    b"NATS/1.0 5\xff3\r\n\r\n",
]


@pytest.mark.parametrize("header", BROKEN)
async def test_a28_broken_header_block_is_malformed(world: World, unique: Unique, header: bytes) -> None:
    """A broken header block is audited and dropped, and the client hears what comes after it."""
    subject, guard, attacker = unique("a28"), world.agent(CLOUD), await world.plain()
    victim, planner = await world.client(guard), await world.client(world.agent(PLANNER))
    subscription = await victim.subscribe(subject)
    await victim.flush()
    await raw(attacker, subject, header, b"payload")
    await planner.publish(subject, b"honest")
    assert (await soon(subscription.next_msg(timeout=None))).data == b"honest"
    assert guard.audit.counts == {Reason.MALFORMED: 1, "delivered": 1}


async def test_a28_one_byte_header_block_ends_a_plain_client(world: World, unique: Unique) -> None:
    """The attack is real: a plain nats-py client says that it is connected, and hears nothing any more."""
    subject, attacker, plain = unique("a28"), await world.plain(), await world.plain()
    await plain.subscribe(subject)
    await plain.flush()
    reader = plain._reading_task
    assert reader is not None
    logging.disable(logging.CRITICAL)
    try:
        await raw(attacker, subject, b"\n", b"payload")
        await until(reader.done)
    finally:
        logging.disable(logging.NOTSET)
    assert plain.is_connected


@pytest.mark.parametrize("line", [b"503", b"404 No Messages", b"100 Idle Heartbeat", b"100 FlowControl Request"])
@pytest.mark.parametrize("payload", [b"", b"payload"])
async def test_a28_status_line_reaches_no_handler(world: World, unique: Unique, line: bytes, payload: bytes) -> None:
    """A forged status line, which a plain client hands to its callback, reaches no handler and stops nothing."""
    subject, guard, attacker = unique("a28"), world.agent(CLOUD), await world.plain()
    victim, planner = await world.client(guard), await world.client(world.agent(PLANNER))
    unprotected: list[object] = []
    delivered: list[bytes] = []

    async def took(msg: object) -> None:
        unprotected.append(msg)

    async def passed(msg: object) -> None:
        delivered.append(msg.data)  # type: ignore[attr-defined]  # a VerifiedMsg

    await attacker.subscribe(subject, cb=took)
    await victim.subscribe(subject, cb=passed)
    await victim.flush()
    await raw(attacker, subject, b"NATS/1.0 " + line + b"\r\n\r\n", payload)
    await until(lambda: unprotected)
    await planner.publish(subject, b"honest")
    await until(lambda: delivered)
    assert delivered == [b"honest"]
    assert guard.audit.counts == {"delivered": 1} | ({Reason.MALFORMED: 1} if payload else {})


async def test_a28_header_named_status_is_no_status(world: World, unique: Unique) -> None:
    """A header that is only called Status is a header: unsigned it changes nothing, signed it arrives."""
    subject = unique("a28")
    duel = await world.duel(subject)
    await duel.drops(raw(duel.attacker, subject, block(("Status", "503")), b""), Reason.UNSIGNED)
    await duel.capture(b"honest", headers={"Status": "503", "Description": "fine"})
    assert duel.delivered[-1].headers == {"Status": "503", "Description": "fine"}


async def test_a28_subject_that_is_not_text_does_not_end_the_client(world: World, unique: Unique) -> None:
    """A subject that is not UTF-8, which ends a plain client's reader, is malformed."""
    prefix, guard, attacker = unique("a28"), world.agent(CLOUD), await world.plain()
    victim, planner = await world.client(guard), await world.client(world.agent(PLANNER))
    subscription = await victim.subscribe(f"{prefix}.>")
    await victim.flush()
    for command in (f"PUB {prefix}.X 1\r\nx\r\n", f"PUB {prefix}.ok re.X 1\r\nx\r\n"):
        await attacker._send_command(command.encode().replace(b"X", b"\xff"))
    await attacker._flush_pending()
    await attacker.flush()
    await planner.publish(f"{prefix}.honest", b"honest")
    assert (await soon(subscription.next_msg(timeout=None))).data == b"honest"
    assert guard.audit.counts == {Reason.MALFORMED: 2, "delivered": 1}


async def test_a28_what_the_base_stumbles_over_does_not_end_the_client(
    world: World, unique: Unique, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else the base client raises while it reads a message is reported, counted, and survived."""
    errors: list[Exception] = []

    async def report(error: Exception) -> None:
        errors.append(error)

    guard = world.agent(CLOUD)
    victim, planner = await world.client(guard, error_cb=report), await world.client(world.agent(PLANNER))
    subscription = await victim.subscribe(subject := unique("a28"))
    await victim.flush()
    build = Client._build_message

    def stumble(self: Client, *received: Any) -> object:
        if received[3] == b"poison":
            raise ValueError("poison")
        return build(self, *received)

    monkeypatch.setattr(Client, "_build_message", stumble)
    for data in (b"poison", b"honest"):
        await planner.publish(subject, data)
    assert (await soon(subscription.next_msg(timeout=None))).data == b"honest"
    assert guard.audit.counts == {Reason.MALFORMED: 1, "delivered": 1}
    assert [str(error) for error in errors] == ["poison"]


async def test_a28_handler_that_raises_stops_nothing(world: World, unique: Unique) -> None:
    """A handler's own error goes to error_cb, and the next message is delivered."""
    errors: list[Exception] = []
    delivered: list[bytes] = []

    async def report(error: Exception) -> None:
        errors.append(error)

    async def handler(msg: object) -> None:
        delivered.append(msg.data)  # type: ignore[attr-defined]  # a VerifiedMsg
        raise ValueError("mine")

    victim = await world.client(world.agent(CLOUD), error_cb=report)
    planner = await world.client(world.agent(PLANNER))
    await victim.subscribe(subject := unique("a28"), cb=handler)
    await victim.flush()
    for data in (b"1", b"2"):
        await planner.publish(subject, data)
    await until(lambda: len(errors) == 2)
    assert delivered == [b"1", b"2"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "a\r\nb: c"),
        ("kind", "a\nb"),
        ("kind", " blank"),
        ("kind", "blank "),
        ("kind", "naïve"),
        ("kind", "\ud800"),
        ("kind", 7),
        ("ki nd", "x"),
        ("ki\r\nnd", "x"),
        ("kïnd", "x"),
        ("k{ind", "x"),
        ("", "x"),
        ("watchword", "forged"),
        ("Watchword", "forged"),
    ],
)
async def test_a30_header_that_nats_would_change_is_refused(
    world: World, unique: Unique, name: str, value: str
) -> None:
    """A header that the bus or a client would bend on the way is refused at signing, and nothing is sent."""
    planner, plain = await world.client(world.agent(PLANNER)), await world.plain()
    seen = await plain.subscribe(subject := unique("a30"))
    await plain.flush()
    with pytest.raises(SigningError):
        await planner.publish(subject, b"x", headers={name: value})
    await planner.publish(subject, b"honest")
    assert (await soon(seen.next_msg(timeout=None))).data == b"honest"


NO_SUBJECTS = ["a b", "a\r\nPUB x 0", "naïve", "a..b", "a.*", "a.>"]


@pytest.mark.parametrize(
    ("where", "subject"), [(where, name) for where in ("subject", "reply") for name in NO_SUBJECTS] + [("subject", "")]
)
async def test_a30_subject_that_is_none_is_refused(world: World, unique: Unique, subject: str, where: str) -> None:
    """Wildcards, empty tokens, blanks, line ends and non-ASCII in a subject or reply subject are refused."""
    skips = "skip_subject_validation" in inspect.signature(Client.connect).parameters  # from 2.16 on
    planner = await world.client(world.agent(PLANNER), **({"skip_subject_validation": True} if skips else {}))
    to, reply = (subject, "") if where == "subject" else (unique("a30"), subject)
    with pytest.raises(SigningError):
        await planner.publish(to, b"x", reply)
    await planner.flush()


async def test_a30_values_arrive_byte_by_byte(world: World, unique: Unique) -> None:
    """Whatever may be signed arrives as it was: inner blanks, colons, every printable character."""
    duel = await world.duel(unique("a30"))
    value = "a:  b " + "".join(map(chr, range(0x21, 0x7F)))
    await duel.capture(b"\x00\xff\r\n", headers={"all": value})
    assert duel.delivered[0].headers == {"all": value}


async def test_a31_neither_payload_nor_key_is_told(world: World, unique: Unique) -> None:
    """Payload and header values stand in no log line, error or repr."""
    duel = await world.duel(unique("a31"))
    with structlog.testing.capture_logs() as lines:
        await duel.drops(duel.attacker.publish(duel.subject, b"S3CRET", headers={"s": "S3CRET"}), Reason.UNSIGNED)
        await duel.capture(b"S3CRET", headers={"s": "S3CRET"})
    assert lines
    assert "S3CRET" not in repr(lines)
    assert "S3CRET" not in repr(duel.delivered[-1])
    assert "S3CRET" not in repr(duel.delivered[-1].verified)


async def test_payload_and_headers_over_the_limit_are_refused_before_sending(world: World, unique: Unique) -> None:
    """Too large a sum is a clear error, where a plain client loses its connection for good."""
    planner, plain = await world.client(world.agent(PLANNER)), await world.plain()
    subject = unique("large")
    with pytest.raises(SigningError, match="accepts 1048576"):
        await planner.publish(subject, b"x" * (planner.max_payload - 100))
    await planner.flush()
    assert planner.is_connected
    seen = await plain.subscribe(subject)
    await plain.flush()
    most = planner.max_payload - 1000  # room for an envelope in a batch, though this one is alone
    await planner.publish(subject, b"x" * most)
    assert len((await soon(seen.next_msg(timeout=None))).data) == most


@pytest.mark.parametrize("payload", ["text", None, 7])
async def test_payload_that_is_no_bytes_is_refused(world: World, unique: Unique, payload: bytes) -> None:
    """Text is not sent by guess."""
    planner = await world.client(world.agent(PLANNER))
    with pytest.raises(SigningError, match="encode it"):
        await planner.publish(unique("payload"), payload)


async def test_a28_flood_of_broken_blocks_leaves_the_client_alive(world: World, unique: Unique) -> None:
    """Thousands of broken messages between honest ones lose none of the honest."""
    duel = await world.duel(unique("a28"))
    for number in range(2000):
        head = BROKEN[number % len(BROKEN)]
        command = f"HPUB {duel.subject} {len(head)} {len(head)}\r\n".encode()
        if head != b"\n" and b"\xff" not in head and len(head) > 8:  # the duel's own plain handler must live
            await duel.attacker._send_command(command + head + b"\r\n")
    await duel.attacker._flush_pending()
    await duel.attacker.flush()
    await asyncio.gather(*(duel.planner.publish(duel.subject, b"honest") for _ in range(100)))
    await until(lambda: len(duel.delivered) == 100)
    with pytest.raises(Error):
        await duel.delivered[0].respond(b"no reply subject")
