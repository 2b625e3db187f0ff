"""Driving quarantined messages again, on a real server."""

import json
import time
from typing import Any

import pytest
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import ConsumerConfig, DeliverPolicy, RetentionPolicy

from tests.brokers.plugin import MakeStream
from tests.integration.nats.quarantining import (
    UNDETERMINED,
    UNSIGNED,
    driven,
    held,
    message,
    pass_through,
    quarantine_on,
    short,
    told,
)
from tests.integration.nats.world import CLOUD, PLANNER, REALM, World
from watchword import ConfigurationError, Mode, Rejected, VerifiedMessage
from watchword.quarantine_copy import HeaderStyle, make_copy
from watchword.spi import Channel, Position
from watchword_adapters.nats import ObservedMsg
from watchword_adapters.nats import redrive as redriving
from watchword_adapters.redriving import Choice, Redriven


async def say(world: World, subject: str, *values: bytes, **options: Any) -> None:
    """Store signed messages."""
    js = (await world.client(world.agent(PLANNER))).jetstream()
    for value in values:
        await js.publish(subject, value, **options)


async def test_the_undetermined_are_delivered_when_the_key_is_there(world: World, make_stream: MakeStream) -> None:
    """What an outage left behind is read again at its sequence and verifies, each time it is driven (A38)."""
    stream, subject = await make_stream(), f"{await make_stream()}.copies"
    await say(world, f"{stream}.task", b"one", b"two", headers={"kind": "order"})
    world.keys.down = True
    assert await pass_through(world, stream, await quarantine_on(world, subject)) == [True, True]
    (first, _) = await driven(world, subject)
    assert told([first]) == [("original", "keys")]
    world.keys.down = False
    results = await driven(world, subject)
    assert told(results) == [("original", "one"), ("original", "two")]
    found = results[1].verdict
    assert isinstance(found, VerifiedMessage)
    assert (found.position, found.headers) == (Position(stream, 2), (("kind", b"order"),))
    assert told(await driven(world, subject)) == told(results)
    assert told(await driven(world, subject, only=Choice(ids={"2"}))) == [("original", "two")]


async def test_the_rejected_stay_rejected(world: World, make_stream: MakeStream) -> None:
    """A forgery is a forgery at its sequence too, and its value is not handed out."""
    stream, subject = await make_stream(), f"{await make_stream()}.copies"
    await (await world.plain()).jetstream().publish(f"{stream}.task", b"forged")
    assert await pass_through(world, stream, await quarantine_on(world, subject)) == [True]
    (result,) = await driven(world, subject)
    assert result.to_json() == {"copy": "1", "read": "original", "verdict": "rejected", "reason": "unsigned"}


async def test_a_replay_is_told_from_the_original(world: World, make_stream: MakeStream) -> None:
    """The guard knows what stands before the copy's sequence, so a redriven replay is still one (A29)."""
    stream, subject = await make_stream(duplicate_window=0.1), f"{await make_stream()}.copies"
    await say(world, f"{stream}.task", b"scale up")
    attacker = (await world.plain()).jetstream()
    genuine = await attacker.get_msg(stream, 1)
    headers = {name: value for name, value in (genuine.headers or {}).items() if name != "Nats-Msg-Id"}
    await attacker.publish(f"{stream}.task", genuine.data or b"", headers=headers)
    assert await pass_through(world, stream, await quarantine_on(world, subject)) == [True]
    assert told(await driven(world, subject)) == [("original", "replayed")]


async def test_what_was_deleted_is_judged_from_the_copy(world: World, make_stream: MakeStream) -> None:
    """Where the stream no longer has it (a TERM deletes on WorkQueue), a copy that is still fresh verifies."""
    subject = f"{await make_stream()}.copies"
    limits, work = await make_stream(), await make_stream(retention=RetentionPolicy.WORK_QUEUE)
    quarantine = await quarantine_on(world, subject)
    world.keys.down = True
    for stream in (limits, work):
        await say(world, f"{stream}.task", stream.encode())
        assert await pass_through(world, stream, quarantine) == [True]
    world.keys.down = False
    manager = (await world.plain()).jsm()
    await manager.delete_msg(limits, 1)
    await say(world, f"{limits}.task", b"another")
    assert told(await driven(world, subject)) == [("copy", limits), ("copy", work)]
    await manager.purge_stream(limits)
    assert told(await driven(world, subject))[0] == ("copy", limits)


async def test_another_message_at_that_sequence_is_not_taken_for_it(world: World, make_stream: MakeStream) -> None:
    """After a stream was recreated, what stands at the sequence now is not delivered in place of what stood there."""
    stream, subject = await make_stream(), f"{await make_stream()}.copies"
    await say(world, f"{stream}.task", b"another")
    meant = message(1, channel=Channel("nats", REALM, f"{stream}.task"), position=Position(stream, 1))
    assert await (await quarantine_on(world, subject)).put(meant, UNSIGNED)
    assert told(await driven(world, subject)) == [("copy", "unsigned")]


async def test_a_stale_core_message_stays_stale(world: World, make_stream: MakeStream) -> None:
    """Core NATS keeps nothing: its copy is judged at the present time, as a message that comes in now."""
    subject = f"{await make_stream()}.copies"
    quarantine = await quarantine_on(world, subject)
    for age in (0, 3600):
        signer = world.agent(PLANNER, clock=lambda age=age: time.time() - age).signer  # type: ignore[misc]  # bound early
        bare = message(None, value=b"fresh")
        signed = await signer.sign(bare)
        assert await quarantine.put(message(None, value=b"fresh", headers=(signed.header,)), UNDETERMINED)
    assert told(await driven(world, subject)) == [("copy", "fresh"), ("copy", "stale")]


async def test_what_points_nowhere_is_only_judged(world: World, make_stream: MakeStream) -> None:
    """Anyone who writes to the quarantine can make us publish to no subject of theirs, and fail at nothing."""
    stream, name = await make_stream(), await make_stream()
    await say(world, f"{stream}.task", b"secret")
    there = message(1, channel=Channel("nats", REALM, f"{stream}.task"), position=Position(stream, 1))
    copy = make_copy(there, UNDETERMINED, now=1.0, style=HeaderStyle.WATCHWORD)
    lies = {
        "watchword-position": [f"{stream}@9", "NOWHERE@1", "a.b.>@1", "a b@1", "a%0D%0AQUIT@1", f"{stream}@0"],
        "watchword-channel": [
            f"nats://{REALM}/>",
            f"nats://{REALM}/other",
            "kafka://test/a",
            f"nats://x/{stream}.task",
        ],
    }
    plain = (await world.plain()).jetstream()
    await plain.publish(f"{name}.copies", b"no copy")
    for header, values in lies.items():
        for value in values:
            await plain.publish(f"{name}.copies", b"lie", headers=copy.nats_headers() | {header: value})
    results = await driven(world, f"{name}.copies")
    assert len(results) == 10
    assert all(isinstance(one.verdict, Rejected) and one.read == "copy" for one in results)
    assert (await held(world, f"{name}.copies"))[0].kept is None


async def test_a_copy_of_another_realm_is_not_read_here(world: World, make_stream: MakeStream) -> None:
    """A stream of that name in this account is not the one that the copy means, even where the message is the same."""
    stream, name = await make_stream(), await make_stream()
    subject, js = f"{name}.copies", (await world.plain()).jetstream()
    await say(world, f"{stream}.task", b"x")
    world.keys.down = True
    assert await pass_through(world, stream, await quarantine_on(world, subject)) == [True]
    world.keys.down = False
    copy = await js.get_msg(name, 1)
    there = {**(copy.headers or {}), "watchword-channel": f"nats://elsewhere/{stream}.task", "Nats-Msg-Id": "another"}
    await js.publish(subject, copy.data or b"", headers=there)
    assert told(await driven(world, subject)) == [("original", "x"), ("copy", "wrong_channel")]


async def test_an_outage_of_the_log_is_no_verdict(
    world: World, make_stream: MakeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server does not answer nothing is called rejected."""
    stream, subject = await make_stream(), f"{await make_stream()}.copies"
    await (await world.plain()).jetstream().publish(f"{stream}.task", b"forged")
    assert await pass_through(world, stream, await quarantine_on(world, subject)) == [True]
    (stored,) = await held(world, subject)

    def read(*arguments: Any, **options: Any) -> Any:
        return silent() if "most" in options else original(*arguments, **options)

    original = redriving._read
    monkeypatch.setattr(redriving, "_read", read)
    (result,) = await driven(world, subject)
    assert (result.id, short(result.verdict)) == (stored.id, "log")


async def silent() -> Any:
    """Give no answer in time."""
    for _ in range(1):
        raise NatsTimeoutError
    yield


async def test_the_latest_are_looked_at(world: World, make_stream: MakeStream) -> None:
    """A limit keeps a long quarantine readable; more than one fetch brings is read; a missing stream is named."""
    name = await make_stream()
    subject = f"{name}.copies"
    plain = (await world.plain()).jetstream()
    for number in range(120):
        await plain.publish(subject, b"%d" % number)
    assert [stored.id for stored in await held(world, subject, limit=3)] == ["118", "119", "120"]
    assert len(await held(world, subject)) == 120
    with pytest.raises(ConfigurationError, match="no stream covers"):
        await held(world, "nobody.covers.this")


async def test_reading_leaves_no_consumer_behind(world: World, make_stream: MakeStream) -> None:
    """Looking and redriving changes nothing in any stream."""
    stream, subject = await make_stream(), f"{await make_stream()}.copies"
    await say(world, f"{stream}.task", b"x")
    world.keys.down = True
    quarantine = await quarantine_on(world, subject)
    js = (await world.client(world.agent(CLOUD, mode=Mode.OBSERVE))).jetstream()
    bound = await js.pull_subscribe(
        f"{stream}.>", stream=stream, config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
    )
    (msg,) = await bound.fetch(1, timeout=10)
    assert isinstance(msg, ObservedMsg)
    assert await quarantine.put(msg.message, UNDETERMINED)
    await bound.unsubscribe()
    manager = (await world.plain()).jsm()
    before = [
        (await manager.stream_info(name)).state.consumer_count for name in (stream, subject.split(".", maxsplit=1)[0])
    ]
    world.keys.down = False
    assert told(await driven(world, subject)) == [("original", "x")]
    after = [
        (await manager.stream_info(name)).state.consumer_count for name in (stream, subject.split(".", maxsplit=1)[0])
    ]
    assert after == before


async def consumers(manager: Any, *streams: str) -> list[int]:
    """Return how many consumers each stream has."""
    return [(await manager.stream_info(name)).state.consumer_count for name in streams]


def test_a_result_as_json_has_the_value_of_the_verified_only() -> None:
    """Nothing of a message that did not verify is among the members."""
    kept = Redriven(id="1", read="copy", kept=None, verdict=UNDETERMINED)  # type: ignore[arg-type]  # not looked at
    assert json.loads(json.dumps(kept.to_json())) == {
        "copy": "1",
        "read": "copy",
        "verdict": "unavailable",
        "what": "keys",
    }
