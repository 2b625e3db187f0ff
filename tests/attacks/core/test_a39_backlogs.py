"""A39: a log that the broker does not stamp, judged by the reader's own looks at its end, hours behind or not."""

from dataclasses import replace
from math import inf

import pytest

from tests.unit.core.world import (
    ALICE,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    MALLORY,
    MALLORY_KEY,
    NOW,
    REALM,
    World,
    at_once,
    ed_key,
    ending,
    endings,
    kafka,
    known_keys,
    press,
    public,
)
from watchword import Allow, MemoryKeys, Policy, Rate, SigningKey
from watchword.guard import DEFAULT_BOUNDS, MemoryReplayStore
from watchword.spi import Message, Position, Verifier

STRANGER = "agent://acme/stranger"
HOUR = 3600
DAY = 24 * HOUR


def record(
    number: int,
    between: tuple[float, float],
    *,
    issued: int,
    key: SigningKey = ALICE_KEY,
    principal: str = ALICE,
    offset: int | None = None,
) -> Message:
    """Return one of many records, found where looks at the log's end bound its time."""
    found = kafka(
        exclusive=True,
        position=Position("tasks/0", number if offset is None else offset),
        appended_at=None,
        created_at=float(issued),
        appended_between=between,
    )
    return press(found, key=key, principal=principal, c6=issued, c7=number.to_bytes(16))


def elsewhere(message: Message, offset: int, between: tuple[float, float]) -> Message:
    """Return a copy, written again further on."""
    return replace(message, position=Position("tasks/0", offset), appended_between=between)


def late_reader(behind: float, **options: object) -> World:
    """Return the world of a reader that comes to a record of NOW so many seconds later."""
    world = World(**options)  # type: ignore[arg-type] # passed on
    world.now = NOW + behind
    return world


@pytest.mark.parametrize(
    ("between", "issued", "expected"),
    [
        ((NOW, NOW + 1.0), NOW - 305, "first"),
        ((NOW + 0.5, NOW + 1.0), NOW - 305, "stale"),
        ((NOW, NOW + 1.0), NOW + 6, "first"),
        ((NOW, NOW + 0.5), NOW + 6, "from_future"),
        ((-inf, NOW + 7.0 * DAY), NOW - 7 * DAY, "first"),
        ((NOW, float("nan")), NOW, "from_future"),
        ((float("nan"), NOW), NOW, "stale"),
    ],
)
def test_a18_age_is_judged_by_when_it_can_have_been_appended(
    between: tuple[float, float], issued: int, expected: str
) -> None:
    """Promise: what is too old even at the earliest is stale, what is ahead even at the latest from_future."""
    assert endings(late_reader(7 * DAY), [record(1, between, issued=issued)]) == [expected]


def test_a18_an_unstamped_backlog_of_a_week() -> None:
    """Promise: a reader that was down for a week loses nothing honest, which the time of reading would lose."""
    world = late_reader(7 * DAY)
    backlog = [record(hour, (-inf, world.now), issued=NOW + hour * HOUR) for hour in range(7 * 24)]
    assert endings(world, backlog) == ["first"] * len(backlog)
    by_time_of_reading = [replace(one, appended_between=None) for one in backlog[:-1]]
    assert set(endings(late_reader(7 * DAY), by_time_of_reading)) == {"stale"}


def test_a16_a_brokers_stamp_comes_before_looks() -> None:
    """Promise: where the broker stamps, the reader's own clock has no say."""
    message = replace(record(1, (-inf, NOW + DAY), issued=NOW), appended_at=NOW + 400.0)
    assert endings(late_reader(DAY), [message]) == ["stale"]


# Keys and rates in a backlog


@pytest.mark.parametrize(
    ("earliest", "expected"), [(-inf, "first"), (NOW + 0.0, "first"), (NOW + 60.0, "key_not_valid")]
)
def test_a23_a_key_that_ended_signs_no_further_back_than_looks_allow(earliest: float, expected: str) -> None:
    """Promise: a key is judged when the message was issued, but never before it can have been appended."""
    world = late_reader(DAY, keys=[public(ALICE_KEY, ALICE, not_before=NOW - 10, not_after=NOW + 60)])
    message = record(1, (earliest, NOW + 100.0), issued=NOW + 50)
    assert endings(world, [message]) == [expected]


def test_a23_a_key_is_judged_when_it_signed() -> None:
    """Promise: without any look a message is judged at its issue: not before its key was valid, nor after it ended."""
    keys = [public(ALICE_KEY, ALICE, not_before=NOW, not_after=NOW + 60)]
    issued = {NOW - 1: "key_not_valid", NOW: "first", NOW + 59: "first", NOW + 60: "key_not_valid"}
    for number, (at, expected) in enumerate(issued.items()):
        world = late_reader(DAY, keys=keys)
        assert endings(world, [record(number, (-inf, world.now), issued=at)]) == [expected]


def test_a24_rates_are_spent_at_the_pace_of_issue() -> None:
    """Promise: a backlog of an hour at the allowed rate is not called too fast because it is read in a second."""
    rule = Allow(ALICE, ("kafka://prod/tasks",), Rate(2, 60.0))
    world = late_reader(2 * HOUR, policy=Policy(allow=(rule,)))
    backlog = [record(minute, (-inf, world.now), issued=NOW + 30 * minute) for minute in range(120)]
    assert endings(world, backlog) == ["first"] * 120
    burst = [record(200 + number, (-inf, world.now), issued=NOW + HOUR) for number in range(4)]
    assert endings(world, burst) == ["first", "first", "rate_limited", "rate_limited"]


# Log time


@pytest.mark.parametrize("recalled", [False, True])
def test_a39_what_one_reader_took_and_another_finds_stale(*, recalled: bool) -> None:
    """Promise: looks move the floor whatever the record is, so a third reader knows what a second one did not keep.

    The first read a delayed message without looks and delivered it. The second, whose looks are older than the log at
    that place, finds it stale and remembers no id. What it hands on is a floor above it.
    """
    delayed = record(1, (-inf, NOW + HOUR), issued=NOW - HOUR)
    assert endings(late_reader(HOUR), [delayed]) == ["first"]
    second, again = late_reader(HOUR), replace(delayed, appended_between=(NOW + 0.0, NOW + HOUR))
    if recalled:
        at_once(second.verifier.recall(again))
    else:
        assert endings(second, [again]) == ["stale"]
    floor = second.verifier.memory("group#tasks/0").floor()
    assert (floor, second.verifier.memory("group#tasks/0").lowest_needed()) == (NOW - Policy().horizon, None)
    third = late_reader(HOUR)
    third.verifier.begin("group#tasks/0", floor=floor)
    assert endings(third, [elsewhere(delayed, 2, (-inf, NOW + HOUR))]) == ["stale"]


def test_a39_no_stamp_and_no_other_log_is_moved_by_looks() -> None:
    """Promise: looks count for the log that they were made at, and where the broker stamps they do not count."""
    world = late_reader(HOUR)
    stamped = replace(record(1, (NOW + HOUR, NOW + HOUR), issued=NOW), appended_at=NOW + 0.5, value=b"altered")
    shared = replace(stamped, appended_at=None, exclusive=False)
    assert endings(world, [stamped, shared]) == ["altered", "stale"]
    assert world.verifier.memory("group#tasks/0").floor() == -inf


# From the future, and back


def test_a39_from_the_future_and_copied_when_its_time_has_come() -> None:
    """Promise: what was from the future is delivered at no second place; a copy of it is a replay from then on.

    Read again without looks (after a seek back, say) it is from the future no more. If its copy had been delivered
    meanwhile, one id would have been handed over at two places.
    """
    world = late_reader(1.0)
    early = record(1, (NOW + 0.0, NOW + 1.0), issued=NOW + 60)
    assert endings(world, [early]) == ["from_future"]
    world.now = NOW + 61.0
    copy = elsewhere(early, 2, (NOW + 59.0, NOW + 61.0))
    honest = record(3, (NOW + 59.0, NOW + 61.0), issued=NOW + 60)
    assert endings(world, [copy, honest]) == ["replayed", "first"]
    again = replace(early, appended_between=(-inf, NOW + 61.0))
    assert endings(world, [again, copy, again]) == ["first", "replayed", "again"]


def test_a39_from_the_future_in_a_rebuild() -> None:
    """Promise: the same where a rebuild met it first, and where its key becomes known late."""
    early = record(1, (NOW + 0.0, NOW + 1.0), issued=NOW + 60)
    copy = elsewhere(early, 2, (NOW + 59.0, NOW + 61.0))
    for keys in (known_keys(), []):
        world = late_reader(1.0, keys=keys)
        at_once(world.verifier.recall(early))
        world.keys.source = MemoryKeys(known_keys())
        world.now = NOW + 61.0
        assert endings(world, [copy]) == ["replayed"]


class Down:
    """A key source that fails."""

    async def find(self, principal: str, key_id: bytes) -> None:
        """See KeySource."""
        raise OSError(principal, key_id)


def test_a39_from_the_future_in_an_outage() -> None:
    """Promise: an outage of keys makes its verdict no other, holds nothing up, and lets no copy in later."""
    world = late_reader(1.0)
    early = record(1, (NOW + 0.0, NOW + 1.0), issued=NOW + 60)
    world.keys.source = Down()
    honest = record(2, (NOW + 0.0, NOW + 1.0), issued=NOW)
    assert endings(world, [early, honest, honest]) == ["from_future", "keys"]
    world.keys.source = MemoryKeys(known_keys())
    world.now = NOW + 61.0
    assert endings(world, [elsewhere(early, 3, (NOW + 59.0, NOW + 61.0)), honest]) == ["replayed", "first"]


def test_a20_a_flood_from_the_future_costs_its_signer_only(signatures: list[bytes]) -> None:
    """Promise: forged, it costs a check of a signature and no memory; unknown, no floor; signed, its signer's room."""
    guard = MemoryReplayStore(horizon=Policy().horizon, bounds=replace(DEFAULT_BOUNDS, per_principal=4, unverified=4))
    world = late_reader(1.0)
    world.verifier = Verifier(
        realm=REALM, keys=world.keys, replay=guard, policy=world.policy, clock=lambda: world.now, principal=BOB
    )
    between = (NOW + 0.0, NOW + 1.0)
    forger, stranger = ed_key(9, kid=b"alice-1"), ed_key(9, kid=b"invented")
    forged = [record(100 + at, between, issued=NOW + 60, key=forger) for at in range(9)]
    assert endings(world, forged) == ["from_future"] * 9
    assert (len(signatures), len(guard)) == (9, 0)
    unknown = [record(200 + at, between, issued=NOW + 60, key=stranger, principal=STRANGER) for at in range(9)]
    assert endings(world, unknown) == ["from_future"] * 9
    assert len(guard) == 0
    signed = [record(300 + at, between, issued=NOW + 60, key=MALLORY_KEY, principal=MALLORY) for at in range(9)]
    assert endings(world, signed) == ["from_future"] * 9
    assert len(guard) == 4
    assert endings(world, [record(at, between, issued=NOW) for at in range(4)]) == ["first"] * 4
    theirs = record(400, between, issued=NOW, key=MALLORY_KEY, principal=MALLORY)
    assert endings(world, [theirs]) == ["over_quota"]
    world.now = NOW + 61.0
    copies = [elsewhere(one, 500 + at, (NOW + 60.0, NOW + 61.0)) for at, one in enumerate(signed)]
    assert set(endings(world, copies)) <= {"replayed", "over_quota", "stale"}, "none is let in for want of room"
    world.keys.source = MemoryKeys([public(stranger, STRANGER)])
    copies = [elsewhere(one, 600 + at, (NOW + 60.0, NOW + 61.0)) for at, one in enumerate(unknown)]
    assert endings(world, copies) == [*["replayed"] * 4, *["first"] * 4, "over_quota"], "no forgery took their room"


def test_a20_what_is_far_ahead_takes_no_memory() -> None:
    """Promise: a message that is ahead by more than the window is not remembered, so nobody fills memory forever."""
    world = late_reader(1.0)
    window = int(Policy().window)
    near, far = (record(at, (NOW + 0.0, NOW + 1.0), issued=NOW + 1 + window + at) for at in (0, 1))
    assert endings(world, [far]) == ["from_future"]
    assert world.verifier.ids_held == 0
    assert endings(world, [near]) == ["from_future"]
    assert world.verifier.ids_held == 1


def test_a39_what_was_ahead_leaves_with_its_time() -> None:
    """Promise: once log time has passed it, nothing is kept, and its claims are looked for no more."""
    world = late_reader(1.0)
    assert endings(world, [record(1, (NOW + 0.0, NOW + 1.0), issued=NOW + 60)]) == ["from_future"]
    later = NOW + 1000
    world.now = later + 1.0
    assert endings(world, [record(2, (later, later + 1.0), issued=later)]) == ["first"]
    guard = world.verifier._guard
    assert (len(guard), guard._logs["group#tasks/0"].ahead) == (1, -1)


def test_a16_what_can_be_told_for_good_is_not_remembered() -> None:
    """Promise: with a broker's stamp, or on a bus that keeps nothing, from_future stays so and takes no memory."""
    world = late_reader(1.0)
    early = record(1, (NOW + 0.0, NOW + 1.0), issued=NOW + 60, key=BOB_KEY)
    for one in (replace(early, appended_at=NOW + 1.0), replace(early, appended_between=None)):
        assert ending(at_once(world.verifier.verify_many([one]))[0]) == "from_future"
    assert (world.keys.asked, world.verifier.ids_held) == (0, 0)
