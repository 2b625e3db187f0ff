"""A run by itself: what it keeps and what it lets go, no matter who asks it, and in what order."""

from typing import Any

import cbor2
import pytest

from tests.support.beside import native_or_stand_in
from tests.unit.core.world import ALICE_EC_KEY, ALICE_KEY, NOW, bear, kafka, press, press_many, protected_of, raw_of
from watchword.spi import Message, Position

POLICY = (300.0, 5.0, False)
PLACES = [kafka(position=Position("tasks/0", at)) for at in range(3)]


def run_of(messages: list[Message], now: float = NOW + 1.0) -> Any:
    """Return a run over messages, at the present time ``now``."""
    return native_or_stand_in().Run(messages, now, *POLICY)


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ((None, None, None), True),
        ((NOW, NOW + 1, NOW + 2), True),
        ((NOW + 0.5, NOW + 0.6, NOW + 1.1), True),
        ((NOW + 0.6, None, None), False),
        ((None, NOW + 0.5, None), False),
        ((None, None, NOW + 1.0), False),
        ((None, None, NOW + 0.7), False),
    ],
)
def test_a_key_holds_within_its_time(limits: tuple[float | None, ...], kept: bool) -> None:  # noqa: FBT001 - a table
    """Promise (A08): validity is judged by the reference time, half a second behind NOW, revocation by the present."""
    run = run_of(press_many(PLACES))
    assert run.firsts() == [(0, 0)]
    run.key(0, 1, *limits)
    assert len(run.jobs()) == kept
    assert run.taken_back() == ([] if kept else [(0, None), (1, None), (2, None)])


def test_what_has_no_key_is_let_go() -> None:
    """Promise: no message is kept of a sender whose key was never given."""
    run = run_of(press_many(PLACES))
    assert run.jobs() == []
    assert run.taken_back() == [(0, None), (1, None), (2, None)]
    assert run.stretches() == []


@pytest.mark.parametrize("signature", ["good", "bad"])
def test_a_signature_decides_over_those_under_it(signature: str) -> None:
    """Promise (A25): messages that a bad signature covers are released, and listed in ``taken_back``."""
    tree, alone = press_many(PLACES), press(PLACES[0], key=ALICE_EC_KEY, c7=b"o" * 16)
    run = run_of([*tree[:2], alone, tree[2]])
    assert run.firsts() == [(0, 0), (2, 1)]
    run.key(0, 1, None, None, None)
    run.key(1, 2, None, None, None)
    assert [job[0] for job in run.jobs()] == [0, 1]
    run.settle([signature == "good", True])
    assert run.taken_back() == ([] if signature == "good" else [(0, False), (1, False), (3, False)])
    assert run.stretches() == ([(0, 2, 0), (2, 3, 1), (3, 4, 0)] if signature == "good" else [(2, 3, 1)])


def test_one_signature_under_other_words_is_another_one() -> None:
    """Promise (A08): a signature is checked against what its own message says of it."""
    message = press(PLACES[0])
    version, claims, (_, *proof) = cbor2.loads(raw_of(message))
    others = protected_of(ALICE_KEY, c4=b"alice-2")
    run = run_of([message, bear(PLACES[0], cbor2.dumps([version, claims, [others, *proof]]))])
    assert run.firsts() == [(0, 0), (1, 1)]
    run.key(0, 1, None, None, None)
    run.key(1, 1, None, None, None)
    assert [(job[0], job[1]) for job in run.jobs()] == [(0, protected_of(ALICE_KEY)), (1, others)]
    run.settle([True, False])
    assert run.taken_back() == [(1, False)]


def test_answers_that_do_not_fit_are_refused() -> None:
    """Promise: no message stays because answers were fewer than jobs."""
    run = run_of(press_many(PLACES))
    run.key(0, 1, None, None, None)
    run.jobs()
    with pytest.raises(ValueError, match=r"."):
        run.settle([])


def test_what_is_cut_off_is_left_alone() -> None:
    """Promise (A35): messages behind a cut are not verified, reported or kept."""
    run = run_of(press_many(PLACES))
    run.key(0, 1, None, None, None)
    run.cut(2)
    run.cut(3)
    run.jobs()
    run.settle([True])
    assert run.taken_back() == []
    assert run.stretches() == [(0, 2, 0)]


def test_what_is_released_is_nobodys() -> None:
    """Promise: a sender that is let go is so as a whole, but for its first message, which is judged elsewhere."""
    run = run_of(press_many(PLACES))
    run.key(0, 1, None, None, None)
    assert run.release(0) == [1, 2]
    assert run.jobs() == []
    assert (run.taken_back(), run.stretches()) == ([], [])
