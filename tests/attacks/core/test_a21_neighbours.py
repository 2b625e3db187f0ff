"""A21: what is hostile among honest messages costs itself, and hardly any of those that are judged with it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cbor2
import pytest

from tests.support.beside import native_or_stand_in
from tests.unit.core.test_signatures import bent, path_of
from tests.unit.core.world import (
    World,
    at_once,
    bear,
    direct,
    ed_key,
    endings,
    kafka,
    press,
    press_many,
    raw_of,
)
from watchword import engine
from watchword.spi import Admission, Claim, MemoryReplayStore, Message, Position
from watchword.verification import Verification
from watchword.verifier import Verifier

STRANGE_KEY = ed_key(7, kid=b"strange")


@pytest.fixture
def singles(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return what was read, or offered to the guard, by itself, where there is a native engine."""
    found: list[object] = []
    read = Verifier._read

    def by_itself(self: Verifier, case: Verification, *options: Any, **named: Any) -> None:
        found.append(case.message.position)
        read(self, case, *options, **named)

    native = native_or_stand_in()
    monkeypatch.setattr(engine, "native", lambda: native)
    admit = MemoryReplayStore.admit

    def asked(self: MemoryReplayStore, claim: Claim) -> Admission:
        found.append(claim.place)
        return admit(self, claim)

    monkeypatch.setattr(Verifier, "_read", by_itself)
    monkeypatch.setattr(MemoryReplayStore, "admit", asked)
    return found


def placed(messages: Sequence[Message], begin: int = 0) -> list[Message]:
    """Return messages at places of their own in one log."""
    return [replace(one, position=Position("tasks/0", at), exclusive=True) for at, one in enumerate(messages, begin)]


def tree(count: int) -> list[Message]:
    """Return an honest tree."""
    return press_many([kafka(value=b"%d" % at) for at in range(count)])


STRANGERS: dict[str, Callable[[], Message]] = {
    "key": lambda: press(kafka(), key=STRANGE_KEY),
    "principal": lambda: press(kafka(), key=STRANGE_KEY, principal="agent://nobody"),
}
COPIES: dict[str, Callable[[Message], Message]] = {
    "value": lambda one: replace(one, value=b"altered"),
    "path": lambda one: bent(one, path=[bytes(32), *path_of(one)[1:]]),
    "copy": lambda one: one,
    "headers": lambda one: replace(one, headers=(*one.headers, ("x", None))),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_a21_a_stranger_costs_its_neighbours_nothing(kind: str, singles: list[object]) -> None:
    """A message under a key that nobody knows is remembered by its claims, and what comes with it stays together."""
    world, honest = World(), tree(64)
    messages = placed([*honest[:20], STRANGERS[kind](), *honest[20:]])
    assert endings(world, messages) == ["first"] * 20 + ["unknown_key"] + ["first"] * 44
    assert len(singles) <= 4


@pytest.mark.usefixtures("singles")
@pytest.mark.parametrize("recalled", [False, True])
def test_a21_claims_that_came_under_an_unknown_key_come_once(*, recalled: bool) -> None:
    """What was remembered by its claims, unacknowledged or not, is found among many that are judged together."""
    world, honest = World(), tree(64)
    claims = cbor2.loads(raw_of(honest[30]))[1]
    (stranger,) = placed([bear(kafka(value=b"30"), direct(claims, STRANGE_KEY))], 100)
    if recalled:
        at_once(world.verifier.recall(stranger, unacked=True))
    else:
        assert endings(world, [stranger, kafka()]) == ["unknown_key", "unsigned"]
    assert endings(world, placed(honest)) == ["first"] * 30 + ["replayed"] + ["first"] * 33


@pytest.mark.parametrize("place", [7, 200])
def test_a21_a_leaf_that_came_before_costs_few_of_its_tree(place: int, singles: list[object]) -> None:
    """Where one of many is known, those that stand further away are still admitted together."""
    world, honest = World(), placed(tree(64))
    before = replace(honest[7], position=Position("tasks/0", place))
    assert endings(world, [before]) == ["first"]
    singles.clear()
    found = endings(world, honest)
    assert found == ["first"] * 7 + ["again" if place == 7 else "replayed"] + ["first"] * 56
    assert len(singles) <= 8


@pytest.mark.parametrize("kind", COPIES)
def test_a21_a_copy_costs_few_of_its_tree(kind: str, singles: list[object]) -> None:
    """One altered or repeated leaf among a tree's is judged by itself, with few beside it."""
    honest = tree(64)
    found = endings(World(), placed([*honest, COPIES[kind](honest[7])]))
    assert found[:64] == ["first"] * 64
    assert found[64] in {"altered", "bad_signature", "replayed"}
    assert len(singles) <= 16
