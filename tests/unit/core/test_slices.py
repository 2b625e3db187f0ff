"""Ids by slices of issue time: what leaves, and from where on a log would have to be read again."""

from collections import Counter
from math import inf
from typing import TYPE_CHECKING

import pytest

from tests.support import stand_in
from watchword import engine
from watchword.packed import OPEN, Bucket
from watchword.slices import Slices

if TYPE_CHECKING:
    from watchword_native import Entry

ANN, BEN, NOBODY = 1, 2, 0


def filled(*ids: tuple[int, int, int]) -> Slices:
    """Return slices of ten seconds with ids of (issue time, owner, offset); each is its own key."""
    slices = Slices(10)
    for issued_at, owner, offset in ids:
        slices.put(issued_at, offset, offset * 7, owner, offset, OPEN)
    return slices


@pytest.mark.parametrize("room", [1, 2, 50])
def test_ids_are_found_in_the_slice_of_their_issue(room: int) -> None:
    """Promise: packed or not, an id is found under its issue time, and nowhere else."""
    slices = Slices(10)
    for key in range(40):
        slices.put(key * 3, key, key * 7, ANN, key, room)
    assert [slices.find(key * 3, key) for key in range(40)] == [key * 7 for key in range(40)]
    assert slices.find(0, 39) is None
    assert slices.find(990, 1) is None
    assert slices._open < room
    assert slices.owners() == {ANN: 40}


def test_slices_leave_when_all_of_them_lies_below_a_floor() -> None:
    """Promise: an id stays at most a slice's length longer than it has to, and never leaves before that."""
    slices = filled((5, ANN, 1), (9, BEN, 2), (10, ANN, 3), (35, ANN, 4))
    assert slices.leave(9.9) is None
    assert slices.leave(10.0) == Counter({ANN: 1, BEN: 1})
    assert [slices.find(at, key) for at, key in ((5, 1), (10, 3))] == [None, 21]
    assert slices.leave(40.0) == Counter({ANN: 2})
    assert (slices.owners(), slices.lowest, slices.leave(inf)) == ({}, inf, None)


def test_many_leave_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: where very many ids may leave, no call takes long; what is left goes next."""
    monkeypatch.setattr("watchword.slices.AT_ONCE", 3)
    slices = filled(*[(at, ANN, at) for at in range(0, 100, 5)])
    assert [slices.leave(inf) for _ in range(6)] == [{ANN: 4}] * 5 + [None]


def test_the_lowest_offset_stays_until_its_slice_leaves() -> None:
    """Promise: whether an id is kept, was let go, or found no room, the slice knows from where on it lies."""
    slices = filled((25, ANN, 8), (21, BEN, 5), (31, ANN, 9))
    assert slices.lowest == 5
    for offset in (6, 4, 7):
        slices.note(22, offset)
    assert slices.lowest == 4
    for offset in (3, 2, 12):
        slices.note(99, offset)
    assert slices.lowest == 2
    slices.put(95, 50, 1, ANN, 50, OPEN)
    assert slices.lowest == 2
    assert list(slices.let_go({ANN: inf, BEN: inf})) == [(2, {ANN: 1, BEN: 1}), (1, {ANN: 1}), (1, {ANN: 1})]
    assert (slices.owners(), slices.lowest) == ({}, 2)
    slices.note(22, 1)
    assert slices.lowest == 1
    slices.put(22, 51, 1, ANN, 51, OPEN)
    assert slices.lowest == 1
    assert slices.leave(90.0) == {ANN: 1}
    assert slices.lowest == 2
    assert slices.leave(100.0) == {}
    assert slices.lowest == inf


def test_ids_are_let_go_below_their_owners_floors() -> None:
    """Promise: each owner's floor lets its own ids go, and nobody else's; others stay as they were."""
    slices = filled((5, ANN, 1), (6, BEN, 2), (7, NOBODY, 3), (15, ANN, 4), (25, ANN, 5))
    floors = {ANN: 25.0, BEN: 9.0}
    assert next(slices.let_go(floors)) == (3, {ANN: 1})
    assert [slices.find(at, key) for at, key in ((5, 1), (6, 2), (7, 3))] == [None, 14, 21]
    assert list(slices.let_go(floors)) == [(1, {ANN: 1})], "it continues where it stopped"
    assert list(slices.let_go(floors)) == [(2, {})], "and begins again when it was through"
    assert slices.owners() == {ANN: 1, BEN: 1, NOBODY: 1}
    assert list(slices.let_go({})) == []
    assert list(slices.let_go({BEN: 10.0})) == [(2, {BEN: 1})]
    assert slices.find(7, 3) == 21


def test_whether_anything_would_leave() -> None:
    """Promise: a floor that frees nothing is not raised in vain."""
    slices = filled((15, ANN, 1))
    assert [slices.holds_below(floor) for floor in (19.0, 20.0)] == [False, True]
    list(slices.let_go({ANN: inf}))
    assert not slices.holds_below(inf)


def test_only_slices_that_are_there_are_looked_into() -> None:
    """Promise (A20): times of issue that are far apart cost no more than others; the signer chooses them."""
    slices, make = filled((12, ANN, 1)), (engine.native() or stand_in).Entries
    looked: list[int] = []

    class Counted(dict[int, Bucket]):
        def __contains__(self, number: object) -> bool:
            looked.append(1)
            assert len(looked) < 9, "each second between them"
            return super().__contains__(number)

    slices._buckets = Counted(slices._buckets)  # type: ignore[assignment,arg-type] # buckets of one engine
    assert slices.holds_any(make([(5, 1, 0, None)]), 0, 1 << 33)
    assert not slices.holds_any(make([(5, 2, 0, None)]), 0, 1 << 33)
    assert not slices.holds_any(make([(5, 1, 0, None)]), 20, 1 << 33)


@pytest.mark.parametrize("room", [1, 3, 50])
def test_what_is_put_at_once_is_packed_as_what_is_put_one_by_one(room: int) -> None:
    """Promise: ids that are put together are found, within one slice or over several, and no more wait to be packed."""
    slices, make = Slices(10), (engine.native() or stand_in).Entries
    rows: list[Entry] = [(at * 3, at, at * 7, at) for at in range(10)]
    slices.put_all(make(rows[:3]), 0, 6, ANN, room)
    slices.note(35, 9)  # a slice without a bucket
    slices.put_all(make(rows[3:]), 9, 27, ANN, room)
    assert [slices.find(issued_at, key) for issued_at, key, _, _ in rows] == [mark for _, _, mark, _ in rows]
    assert slices.holds_any(make([(39, 3, 0, None), (0, 4, 0, None)]), 0, 39)
    assert not slices.holds_any(make([(39, 3, 0, None)]), 30, 39)
    assert slices._open < room
