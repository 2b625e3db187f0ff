"""The bounds of memory."""

import pytest

from tests.unit.core.claims import claim, numbered, place, store
from tests.unit.core.world import BOB, at_once
from watchword.quota import UNVERIFIED, Bounds, Quota
from watchword.spi import Admission

FIRST, REDELIVERED, REPLAYED, TOO_OLD, OVER_QUOTA = Admission


def test_one_principal_cannot_fill_the_store() -> None:
    """Promise (A20): a principal at its bound is refused, over all logs; others are served, nothing is forgotten."""
    memory = store(per_principal=5)
    answers = [at_once(memory.claim(numbered(n, log=f"log{n % 2}"))) for n in range(8)]
    assert answers == [FIRST] * 5 + [OVER_QUOTA] * 3
    assert at_once(memory.claim(claim(principal=BOB))) is FIRST
    assert at_once(memory.claim(numbered(0, log="log0"))) is REDELIVERED


def test_in_all_the_largest_holders_are_refused() -> None:
    """Promise (A20): once the store is full only principals below an equal share are served."""
    memory = store(per_principal=10, in_all=10)
    for n in range(10):
        assert at_once(memory.claim(numbered(n))) is FIRST
    assert at_once(memory.claim(numbered(99))) is OVER_QUOTA
    answers = [at_once(memory.claim(numbered(n, principal=BOB))) for n in range(8)]
    assert answers == [FIRST] * 5 + [OVER_QUOTA] * 3


@pytest.mark.parametrize("in_all", [1, 4, 50])
def test_never_more_than_twice_as_many(in_all: int) -> None:
    """Promise (A20): however many principals conspire, memory stays below twice the bound."""
    memory = store(per_principal=in_all, in_all=in_all)
    for who in range(3 * in_all):
        for n in range(in_all):
            at_once(memory.claim(numbered(n, principal=f"p{who}")))
    assert in_all <= len(memory) <= 2 * in_all


def test_what_nobody_verified_counts_apart() -> None:
    """Promise (A20): a flood of invented keys takes no room from those who sign."""
    memory = store(in_all=1, unverified=3)
    for n in range(9):
        memory.remember_unjudged(numbered(100 + n, principal=f"p{n}"))
    assert len(memory) == 0
    assert at_once(memory.claim(claim())) is FIRST
    copies = [numbered(100 + n, principal=f"p{n}", place=place(9)) for n in range(9)]
    assert [at_once(memory.claim(one)) for one in copies] == [REPLAYED] * 3 + [TOO_OLD] * 6


def test_a_principal_that_holds_nothing_leaves_nothing() -> None:
    """Promise: names that come and go take no memory for good."""
    quota = Quota(Bounds(per_principal=9, in_all=9, unverified=9))
    for n in range(100):
        owners = [quota.take(f"p{n}"), quota.take(f"p{n}")]
        assert quota.held() == {f"p{n}": 2}
        assert owners == [1, 1]
        for _ in owners:
            quota.release(1)
    assert (quota.held(), len(quota)) == ({}, 0)


def bounded(per_principal: int = 10, in_all: int = 100, unverified: int = 10) -> Quota:
    """Return a quota of round numbers."""
    return Quota(Bounds(per_principal=per_principal, in_all=in_all, unverified=unverified))


def told(quota: Quota) -> list[object]:
    """Return what the quota has to say, and forget it."""
    quota.warn()
    found: list[object] = [fields["what"] for _, fields in quota.warnings]
    assert all("memory in [replay]" in str(fields["remedy"]) for _, fields in quota.warnings)
    quota.warnings.clear()
    return found


def test_a_warning_comes_before_a_principals_bound_bites() -> None:
    """Promise (A50): at four fifths of a bound there is one warning, and the next only once half of it was free."""
    quota, owner = bounded(), 0
    for held in range(1, 11):
        taken = quota.take("p")
        assert taken is not None
        owner = taken
        assert told(quota) == (["ids of p"] if held == 9 else [])
    assert quota.take("p") is None
    for _ in range(20):  # around the bound, as slices leave and fill again
        quota.release(owner, 4)
        assert [quota.take("p") for _ in range(4)] == [owner] * 4
    assert told(quota) == []
    quota.release(owner, 5)
    assert [quota.take("p") for _ in range(5)] == [owner] * 5
    assert told(quota) == ["ids of p"]
    quota.release(owner, 10)
    assert quota.held() == {}
    assert [quota.take("q") for _ in range(9)] == [owner] * 9
    assert told(quota) == ["ids of q"], "under a number that was warned of before"


def test_room_that_is_made_in_time_needs_no_warning() -> None:
    """Promise: who can let ids go when a bound comes near is not warned."""
    quota = bounded()
    owners = [quota.take("p") for _ in range(9)]
    quota.release(owners[0] or 0, 3)
    assert (bool(quota.crossed), told(quota), bool(quota.crossed)) == (True, [], False)


def test_a_warning_comes_before_the_bound_in_all_bites() -> None:
    """Promise (A50): the same for all principals together; which of them it was does not matter."""
    quota = bounded(in_all=20)
    owners = [quota.take(f"p{n}") for n in range(20)]
    assert told(quota) == ["ids of all principals"]
    for owner in owners[:10]:
        quota.release(owner or 0)
    for n in range(6):
        quota.take(f"q{n}")
    assert told(quota) == ["ids of all principals"]


def test_a_warning_comes_before_the_bound_of_the_unverified_bites() -> None:
    """Promise (A50): the same for what nobody verified, once for each flood of invented keys."""
    quota = bounded()
    for _ in range(2):
        for _ in range(10):
            quota.take_unverified()
        assert told(quota) == ["messages whose keys are not known"]
        quota.release(UNVERIFIED, 10)


def test_warnings_that_nobody_logs_take_no_memory() -> None:
    """Promise: where nobody asks for them, a few stay."""
    quota = bounded(per_principal=1, in_all=1000)
    for n in range(900):
        quota.take(f"p{n}")
        quota.warn()
    assert len(quota.warnings) == 64
