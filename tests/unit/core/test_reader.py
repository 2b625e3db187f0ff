"""What the fast reader learns, and from whom."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.core.world import (
    ALICE_KEY,
    MALLORY,
    MALLORY_KEY,
    NOW,
    World,
    endings,
    kafka,
    nats,
    press,
    press_many,
    public,
)
from watchword import SigningKey, engine
from watchword.reader import LearningReader
from watchword.spi import Message
from watchword.verification import Verification


@pytest.fixture(autouse=True)
def python_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the Python engine read all: it is its reader that learns."""
    monkeypatch.setattr(engine, "native", lambda: None)


def learner(world: World) -> LearningReader:
    """Return the world's reader."""
    reader = world.verifier._envelopes
    assert isinstance(reader, LearningReader)
    return reader


def reads_quickly(world: World, message: Message) -> bool:
    """Return True if the message's envelope is like one that was learned."""
    case = Verification(message)
    learner(world).open(case, message.headers[-1][1] or b"")
    return case.lesson is None


def batch(**fields: Any) -> list[Message]:
    """Return three records of one signed tree."""
    return press_many([kafka(value=b"%d" % at, **fields) for at in range(3)])


def test_what_verified_is_learned_once() -> None:
    """Promise: the first message of a kind teaches, and the others are read by it."""
    world, messages = World(), batch()
    assert not reads_quickly(world, messages[0])
    assert endings(world, messages) == ["first"] * 3
    assert [reads_quickly(world, message) for message in messages] == [True] * 3
    later = press_many([kafka(value=b"%d" % at) for at in range(3)], c6=NOW + 1)
    assert [reads_quickly(world, message) for message in later] == [True] * 3
    assert endings(world, later) == ["first"] * 3


def test_trees_of_different_sizes_are_alike() -> None:
    """Promise: the first of a tree of 64 teaches how one of 33 to 64 is read, at any place with as long a path."""
    world = World()
    assert set(endings(world, press_many([kafka(value=b"%d" % at) for at in range(64)]))) == {"first"}
    others = press_many([kafka(value=b"%d" % at) for at in range(41)], c6=NOW + 1)
    assert [reads_quickly(world, message) for message in others] == [True] * 32 + [False] * 9, "paths are shorter there"
    assert set(endings(world, others)) == {"first"}


def test_a_direct_envelope_is_learned_beside_batched_ones() -> None:
    """Promise: what is signed alone is read quickly as well, and by a template of its own."""
    world, alone = World(), press(kafka(), c7=b"y" * 16)
    assert endings(world, [alone, *batch()]) == ["first"] * 4
    other = press(kafka(value=b"other"), c6=NOW + 1, c7=b"z" * 16)
    assert reads_quickly(world, other)
    assert endings(world, [other]) == ["first"]


FORGED = {
    "signature": lambda: press_many([kafka(value=b"1"), kafka()], key=MALLORY_KEY, c7=b"x" * 16),
    "value": lambda: [replace(message, value=b"other") for message in batch()],
    "unknown key": lambda: press_many([kafka(), kafka()], principal=MALLORY),
    "channel": lambda: [replace(message, channel=nats().channel) for message in batch()],
    "stale": lambda: batch(appended_at=NOW + 1000.0),
}


@pytest.mark.parametrize("how", FORGED)
def test_what_did_not_verify_teaches_nothing(how: str) -> None:
    """Promise (A21): an envelope of valid shape that is forged, altered, stale or elsewhere leaves no template."""
    world = World()
    messages = FORGED[how]()
    assert "first" not in endings(world, messages)
    assert not any(reads_quickly(world, message) for message in messages)


def test_a_forger_does_not_displace_what_was_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise (A21): however many forged envelopes come, honest ones are read as quickly as before."""
    monkeypatch.setattr("watchword.reader.MAX_TEMPLATES", 3)
    world, messages = World(), batch()
    assert endings(world, messages) == ["first"] * 3
    flood = press_many([kafka(value=b"x" * at, headers=(("a" * at, b""),)) for at in range(20)], key=MALLORY_KEY)
    assert set(endings(world, flood)) == {"wrong_principal"}
    assert all(reads_quickly(world, message) for message in messages)


@pytest.mark.parametrize(
    "message",
    [
        *press_many([kafka(value=None), kafka(value=None)])[:1],
        *press_many([kafka(), kafka()], c4=NOW + 60)[:1],
        *press_many([nats(reply_to="_INBOX.1"), nats()])[:1],
    ],
    ids=["tombstone", "expiring", "request"],
)
def test_what_will_hardly_come_again_is_not_learned(message: Message) -> None:
    """Promise: tombstones, requests and what expires are read strictly each time."""
    world = World()
    assert endings(world, [message]) == ["first"]
    assert not reads_quickly(world, message)


def test_templates_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: at the bound all are forgotten and learned again; no verdict changes."""
    monkeypatch.setattr("watchword.reader.MAX_TEMPLATES", 5)
    world, one_of_each = World(), list[Message]()
    for count in range(40):
        messages = press_many(
            [nats(value=b"%d" % at, headers=(("a" * count, b""),)) for at in range(2)], c6=NOW + count % 6
        )
        assert endings(world, [replace(message, reader=str(count)) for message in messages]) == ["first"] * 2
        one_of_each.append(messages[0])
        assert 1 <= sum(reads_quickly(world, message) for message in one_of_each) <= 5


def pair(principal: str, key: SigningKey, name: str) -> list[Message]:
    """Return two records of one signed tree that bear a header of that name."""
    return press_many(
        [kafka(value=b"%d" % at, headers=((name, b""),)) for at in range(2)], key=key, principal=principal
    )


@pytest.mark.parametrize(("other", "quick"), [("agent://b", True), ("agent://bb", False)])
def test_issuers_whose_envelopes_are_of_one_size(other: str, *, quick: bool) -> None:
    """Promise: each issuer has a template of its own; if their lengths differ one is read strictly; all verify."""
    one = "agent://a"
    world = World(keys=[public(ALICE_KEY, one), public(MALLORY_KEY, other)])
    ours = pair(one, ALICE_KEY, "a" * 15)
    theirs = pair(other, MALLORY_KEY, "a" * (22 - len(other)))  # mallory's key id is two longer than alice's
    assert len({len(message.headers[-1][1] or b"") for message in (*ours, *theirs)}) == 1
    for messages in (ours, theirs):
        assert endings(world, messages) == ["first"] * 2
    assert [reads_quickly(world, message) for message in (*ours, *theirs)] == [True, True, quick, quick]
    assert endings(world, [*theirs, *ours]) == ["again"] * 4


def test_envelopes_that_displace_each_other_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: two shapes of one length and one sender take the place of one template, however often they change."""
    monkeypatch.setattr("watchword.reader.MAX_TEMPLATES", 3)
    world = World()
    other = press_many([nats(value=b"%d" % at) for at in range(2)], c6=NOW + 1)
    assert endings(world, other) == ["first"] * 2
    for number in range(9):
        name = "ab"[number % 2]
        messages = press_many([kafka(value=b"%d" % at, headers=((name, b""),)) for at in range(2)], c6=NOW - number)
        assert endings(world, messages) == ["first"] * 2
    assert all(reads_quickly(world, message) for message in other)


def test_what_was_learned_meanwhile_is_not_learned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: of several like messages in one bulk the first teaches; the second displaces nothing."""
    monkeypatch.setattr("watchword.reader.MAX_TEMPLATES", 2)
    world, like, other = World(), batch()[:2], press(kafka(), c7=b"y" * 16)
    reader, cases = learner(world), [Verification(message) for message in (like[0], other, like[1])]
    for case in cases:
        reader.open(case, case.message.headers[-1][1] or b"")
    for case in cases:
        assert case.lesson is not None
        reader.learn(case, case.lesson)
    assert all(reads_quickly(world, message) for message in (*like, other))
