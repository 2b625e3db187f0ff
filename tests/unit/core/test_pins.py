"""Pins: found by key and by place, oldest first."""

from typing import TYPE_CHECKING

import pytest

from watchword.pins import Pins

if TYPE_CHECKING:
    from watchword_native import Entry


def entry(key: int, offset: int | None, issued_at: int = 100) -> "Entry":
    """Return an id with a mark of its own."""
    return issued_at, key, key * 10, offset


@pytest.mark.parametrize("together", [True, False])
def test_pins_are_found_by_key_and_by_place(together: bool) -> None:  # noqa: FBT001 - drawn by name
    """Promise: added together or one by one, they are the same, and each goes with what its key or place names."""
    pins, entries = Pins(), [entry(1, 7), entry(2, 8), entry(3, 9)]
    if together:
        pins.put_all(entries, 5, 10.0)
    else:
        for one in entries:
            pins.put(one, 5, one[0] + 10.0)
    assert (len(pins.by_key), pins.owners(), pins.places(), pins.lowest) == (3, [5, 5, 5], {7, 8, 9}, 7)
    assert [pins.mark(key) for key in (1, 2, 3, 4)] == [10, 20, 30, None]
    assert pins.holds_any({4, 2})
    assert not pins.holds_any({4})
    assert (pins.at(8), pins.at(10)) == ((2,), ())
    assert pins.pop(2) == ((100, 2, 20, 8), 5, 110.0)
    assert pins.pop(2) is None
    assert (2 in pins.by_key, 3 in pins.by_key, pins.at(8), pins.places()) == (False, True, (), {7, 9})


def test_a_place_may_have_several() -> None:
    """Promise: where a stream was recreated, one place has what both gave it; without a place there is none."""
    pins = Pins()
    pins.put_all([entry(1, 7), entry(2, 7)], 5, 10.0)
    pins.put_all([entry(3, 7)], 6, 10.0)
    pins.put_all([entry(4, None)], 6, 10.0)
    pins.put(entry(5, None), 6, 110.0)
    assert pins.at(7) == (1, 2, 3)
    assert pins.pop(2) == ((100, 2, 20, 7), 5, 110.0)
    assert pins.at(7) == (1, 3)
    assert pins.pop(4) == ((100, 4, 40, None), 6, 110.0)
    assert (len(pins.by_key), pins.places()) == (3, {7})


def test_those_that_came_first_go_first() -> None:
    """Promise: what need not be kept goes; one that outstays its neighbours only delays their leaving."""
    pins = Pins()
    assert [*pins.pop_over(1e9)] == []
    pins.put(entry(1, 1), 5, 110.0)
    pins.put(entry(2, 2), 6, 130.0)
    pins.put(entry(3, 3), 7, 120.0)
    assert [*pins.pop_over(110.0)] == []
    assert [*pins.pop_over(125.0)] == [5]
    assert (pins.places(), pins.owners()) == ({2, 3}, [6, 7])
    assert [*pins.pop_over(130.5)] == [6, 7]
    assert (len(pins.by_key), pins.lowest) == (0, float("inf"))
