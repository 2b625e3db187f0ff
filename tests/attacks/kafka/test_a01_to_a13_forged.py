"""A01, A02, A03, A04, A05, A06, A10, A12, A13 on a real broker: what can be done with one captured record."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.integration.kafka.world import Captured, World, read, values, without_envelope

Attack = Callable[[Captured], Captured]

ATTACKS: dict[str, tuple[Attack, str]] = {
    "a01_signature_stripped": (without_envelope, "unsigned"),
    "a02_value_altered": (lambda r: replace(r, value=b"destroy everything"), "altered"),
    "a02_key_altered": (lambda r: replace(r, key=b"other"), "altered"),
    "a02_key_removed": (lambda r: replace(r, key=None), "altered"),
    "a02_header_altered": (lambda r: replace(r, headers=(("kind", b"x"), *r.headers[1:])), "altered"),
    "a02_header_removed": (lambda r: replace(r, headers=r.headers[1:]), "altered"),
    "a02_headers_reordered": (lambda r: replace(r, headers=(r.headers[1], r.headers[0], *r.headers[2:])), "altered"),
    "a03_second_covered_header": (lambda r: replace(r, headers=(*r.headers, ("kind", b"x"))), "altered"),
    "a04_tombstone_forged": (lambda r: replace(r, value=None), "altered"),
    "a04_value_emptied": (lambda r: replace(r, value=b""), "altered"),
    "a05_bytes_moved_between_key_and_value": (
        lambda r: replace(r, key=(r.key or b"") + (r.value or b"")[:1], value=(r.value or b"")[1:]),
        "altered",
    ),
    "a06_two_envelopes": (lambda r: replace(r, headers=(*r.headers, r.headers[-1])), "malformed"),
    "a06_envelope_in_other_case": (
        lambda r: replace(r, headers=(*r.headers, ("WatchWord", r.headers[-1][1]))),
        "malformed",
    ),
    "a06_half_an_envelope": (
        lambda r: replace(r, headers=(*r.headers[:-1], ("watchword", (r.headers[-1][1] or b"")[:100]))),
        "malformed",
    ),
    "a06_oversize_header_block": (lambda r: replace(r, headers=(*r.headers, ("pad", bytes(70_000)))), "malformed"),
    "a07_random_bytes_as_envelope": (
        lambda r: replace(r, headers=(*r.headers[:-1], ("watchword", os.urandom(200)))),
        "malformed",
    ),
    "a12_sent_again": (lambda r: r, "replayed"),
    "a13_to_another_partition": (lambda r: replace(r, partition=1), "wrong_partition"),
}


@pytest.mark.needs_kafka("duplicate_headers")
@pytest.mark.parametrize(("attack", "reason"), ATTACKS.values(), ids=list(ATTACKS))
async def test_forged_from_a_captured_record(world: World, attack: Attack, reason: str) -> None:
    """A record made from a captured one reaches a plain consumer, and no handler behind Watchword."""
    topic = await world.make_topic(2)
    order: dict[str, Any] = {"key": b"key", "headers": [("kind", b"order"), ("kind", b"urgent"), ("trace", b"1")]}
    await world.say(topic, b"scale to 3", **order)
    (original,) = await world.capture(topic)
    forged = attack(original)
    await world.inject(topic, [forged])
    await world.say(topic, b"honest")
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        got = await read(consumer, 2)
        assert await consumer.getmany(timeout_ms=300) == {}
    assert values(got) == [b"scale to 3", b"honest"]
    assert reader.audit.counts == {"delivered": 2, reason: 1}
    if forged.partition == 0:
        assert (await world.capture(topic, 2))[1].value == forged.value  # without the check it is there to handle


async def test_a13_to_another_topic_or_realm(world: World) -> None:
    """A record signed for one topic or cluster is worth nothing on another."""
    there, here = await world.make_topic(), await world.make_topic()
    await world.say(there, b"scale to 3")
    await world.inject(here, await world.capture(there))
    reader, stranger = world.reader(), world.reader(realm="staging")
    async with world.consumer(reader, here) as consumer:
        assert await consumer.getmany(timeout_ms=2_000) == {}
    async with world.consumer(stranger, there) as consumer:
        assert await consumer.getmany(timeout_ms=2_000) == {}
    assert reader.audit.counts == {"wrong_channel": 1}
    assert stranger.audit.counts == {"wrong_channel": 1}


async def test_a12_flood_of_replays_is_dropped_one_by_one(world: World) -> None:
    """The same bytes sent a hundred times are delivered once and dropped ninety-nine times, by getmany too."""
    topic = await world.make_topic()
    await world.say(topic, b"pay")
    await world.inject(topic, await world.capture(topic) * 99)
    await world.say(topic, b"last")
    reader = world.reader()
    got: list[bytes] = []
    async with world.consumer(reader, topic) as consumer:
        while got[-1:] != [b"last"]:
            for records in (await consumer.getmany(timeout_ms=20_000)).values():
                got += values(records)
    assert got == [b"pay", b"last"]
    assert reader.audit.counts == {"delivered": 2, "replayed": 99}
