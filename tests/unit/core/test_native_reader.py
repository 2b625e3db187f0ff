"""What the native reader learns, and from whom."""

from typing import Any

import pytest

from tests.support.beside import native_or_stand_in
from tests.unit.core.world import (
    ALICE_KEY,
    MALLORY,
    MALLORY_KEY,
    NOW,
    World,
    ed_key,
    kafka,
    nats,
    press,
    press_many,
    rejected,
)
from watchword import Reason, engine
from watchword.reader import NativeReader
from watchword.spi import Message
from watchword.verification import Verification


@pytest.fixture(autouse=True)
def native_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reader has the native engine's interface, and judges by no run what comes alone."""
    monkeypatch.setattr("watchword.verifier.SEVERAL", 2)
    native = native_or_stand_in()
    monkeypatch.setattr(engine, "native", lambda: native)


def reader(world: World) -> NativeReader:
    """Return the world's reader."""
    found = world.verifier._envelopes
    assert isinstance(found, NativeReader)
    return found


def is_known(world: World, message: Message) -> bool:
    """Return True if what the message has in common with others was learned."""
    case = Verification(message)
    reader(world).open(case, message.headers[-1][1] or b"")
    return case.lesson is None


def test_what_verified_is_learned() -> None:
    """Promise: the first message of a sender teaches, whether alone or in a tree; each keeps what is its own."""
    world, (one, two) = World(), press_many([kafka(value=b"1"), kafka(value=b"2")], c7=b"1" * 16)
    assert not is_known(world, one)
    assert world.verify(one).value == b"1"
    assert (is_known(world, one), is_known(world, two)) == (True, True)
    assert not is_known(world, press(kafka())), "its protected header says that it is signed directly"
    for name, value in (("index", 1), ("size", 2)):
        case = Verification(two)
        reader(world).open(case, two.headers[-1][1] or b"")
        assert getattr(case, name) == value


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (press(kafka(), key=ed_key(9, kid=ALICE_KEY.key_id)), Reason.BAD_SIGNATURE),
        (press(kafka(), key=MALLORY_KEY), Reason.WRONG_PRINCIPAL),
        (press(kafka(), c6=NOW - 1000), Reason.STALE),
    ],
)
def test_a_stranger_teaches_nothing(message: Message, reason: Reason) -> None:
    """Promise (A25): only what verified is learned from."""
    world = World()
    assert rejected(message, world).reason is reason
    assert not is_known(world, message)


@pytest.mark.parametrize("changes", [{"c4": NOW + 60}, {"r": "_INBOX.1"}])
def test_what_comes_once_is_not_learned(changes: dict[str, Any]) -> None:
    """Promise: requests and what expires are read in full each time."""
    world = World()
    message = press(nats(reply_to=changes.get("r")), **changes)
    assert not world.verify(message).redelivered
    assert not is_known(world, message)


def test_what_is_learned_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: at the bound all is forgotten and learned again; no verdict changes."""
    monkeypatch.setattr("watchword.reader.MAX_TEMPLATES", 3)
    world = World()
    messages = [press(nats(headers=(("a" * (1 + n), b""),)), c7=n.to_bytes(16)) for n in range(10)]
    for message in messages:
        assert not world.verify(message).redelivered
        assert 1 <= sum(is_known(world, one) for one in messages) <= 3
    assert world.verify(press(nats(), key=MALLORY_KEY, principal=MALLORY)).principal == MALLORY
