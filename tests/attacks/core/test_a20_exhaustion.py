"""A20: memory filled on purpose: by one principal, by many, under invented keys, and in a rebuild."""

from dataclasses import replace

import pytest

from tests.unit.core.claims import make_room
from tests.unit.core.world import (
    ALICE,
    ALICE_KEY,
    MALLORY,
    MALLORY_KEY,
    NOW,
    REALM,
    Checks,
    at_once,
    ed_key,
    kafka,
    known_keys,
    press,
    press_many,
)
from tests.unit.core.world import ending as word
from watchword import MemoryKeys, Policy, Rejected, SigningKey
from watchword.guard import DEFAULT_BOUNDS
from watchword.spi import MemoryReplayStore, Message, Position, Verifier

ROOM = 20


def verifier(**bounds: int) -> Verifier:
    """Return a verifier that has little room."""
    policy = Policy()
    return Verifier(
        realm=REALM,
        keys=MemoryKeys(known_keys()),
        replay=MemoryReplayStore(horizon=policy.horizon, bounds=replace(DEFAULT_BOUNDS, **bounds)),
        policy=policy,
        clock=lambda: NOW + 1.0,
    )


def record(number: int, *, key: SigningKey = ALICE_KEY, principal: str = ALICE, at: int = NOW) -> Message:
    """Return one of many records, each with an id and an offset of its own."""
    found = kafka(exclusive=True, position=Position("tasks/0", number), appended_at=at + 0.5)
    return press(found, key=key, principal=principal, c6=at, c7=number.to_bytes(16))


def ending(judge: Verifier, message: Message) -> str:
    """Return how a message ends."""
    try:
        return "again" if at_once(judge.verify(message)).redelivered else "first"
    except Rejected as refused:
        return str(refused.reason)


def moved(message: Message, by: int = 100_000) -> Message:
    """Return a copy, written again further on in the log."""
    assert message.position is not None
    return replace(message, position=Position("tasks/0", message.position.offset + by))


def test_a20_a_principal_with_a_key_floods() -> None:
    """Promise: it is refused at its bound; nothing is forgotten; another principal does not notice."""
    judge = verifier(per_principal=ROOM)
    honest = record(0)
    assert ending(judge, honest) == "first"
    flood = [record(1000 + n, key=MALLORY_KEY, principal=MALLORY) for n in range(3 * ROOM)]
    assert [ending(judge, one) for one in flood] == ["first"] * ROOM + ["over_quota"] * 2 * ROOM
    assert ending(judge, moved(honest)) == "replayed"
    assert {ending(judge, moved(one)) for one in flood[:ROOM]} == {"replayed"}
    assert {ending(judge, moved(one)) for one in flood[ROOM:]} == {"over_quota"}
    assert [ending(judge, record(n)) for n in range(1, ROOM)] == ["first"] * (ROOM - 1)


def test_a20_what_was_refused_stays_out_when_there_is_room_again() -> None:
    """Promise: a message that was over quota is not brought back by a replay once older ids have left."""
    judge = verifier(per_principal=1)
    first, refused, later = record(0), record(1, at=NOW + 100), record(2, at=NOW + 400)
    assert [ending(judge, one) for one in (first, refused)] == ["first", "over_quota"]
    assert ending(judge, replace(moved(refused), appended_at=NOW + 400.0)) == "stale"
    assert ending(judge, later) == "first"


def test_a20_a_rebuild_that_finds_no_room() -> None:
    """Promise: what was delivered and cannot be remembered after a restart is stale, not new."""
    before, records = verifier(), [record(n) for n in range(2 * ROOM)]
    assert {ending(before, one) for one in records} == {"first"}
    after = verifier(per_principal=ROOM)
    after.begin("group#tasks/0", floor=NOW - 330.0)
    for one in records:
        at_once(after.recall(one))
    endings = {ending(after, moved(one)) for one in records}
    assert endings == {"replayed", "over_quota"}
    make_room(after.replay, 3 * ROOM)
    assert {ending(after, moved(one)) for one in records} == {"replayed", "stale"}
    assert ending(after, record(999, at=NOW + 1)) == "first"


@pytest.mark.parametrize("spoken_before", [True, False])
def test_a20_a_flood_of_invented_keys_silences_nobody(spoken_before: bool) -> None:  # noqa: FBT001
    """Promise: anyone who has no key cannot make a principal's honest messages stale by using its name."""
    judge = verifier(unverified=ROOM)
    if spoken_before:
        assert ending(judge, record(0)) == "first"
    for n in range(3 * ROOM):
        forged = record(1000 + n, key=ed_key(9, kid=b"invented-%d" % n), at=NOW + 20)
        assert ending(judge, forged) == "unknown_key"
    assert [ending(judge, record(n)) for n in range(1, ROOM)] == ["first"] * (ROOM - 1)


def test_a20_more_invented_keys_than_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: even then a key that has spoken is not held up, and one that has not for no longer than the skew."""
    monkeypatch.setattr("watchword.key_floors.MAX_RAISED", ROOM)
    judge = verifier(unverified=0)
    assert ending(judge, record(0)) == "first"
    for n in range(3 * ROOM):
        ending(judge, record(1000 + n, key=ed_key(9, kid=b"invented-%d" % n), at=NOW + 30))
    assert ending(judge, record(1)) == "first"
    newcomers = [record(2000 + n, key=MALLORY_KEY, principal=MALLORY, at=NOW + n) for n in (0, 30, 31)]
    judge.clock = lambda: NOW + 31.0  # type: ignore[misc] # time passes
    assert [ending(judge, one) for one in newcomers] == ["stale", "stale", "first"]


@pytest.mark.parametrize("check", [None, Checks()], ids=["inline", "checker"])
def test_a20_a_flood_signed_in_trees(check: Checks | None) -> None:
    """Promise: ids by the thousand under few signatures fill one's own room only, and nothing is forgotten for them."""
    judge = verifier(per_principal=ROOM)
    places = [kafka(exclusive=True, position=Position("tasks/0", 1000 + n)) for n in range(3 * ROOM)]
    flood = press_many(places, key=MALLORY_KEY, principal=MALLORY)
    honest = press_many([kafka(exclusive=True, position=Position("tasks/0", n)) for n in range(ROOM)])
    mixed = [message for n, own in enumerate(honest) for message in (own, *flood[3 * n : 3 * n + 3])]
    verdicts = [*map(word, at_once(judge.verify_many(mixed, check=check)))]
    assert verdicts[::4] == ["first"] * ROOM
    others = [verdict for at, verdict in enumerate(verdicts) if at % 4]
    assert others == ["first"] * ROOM + ["over_quota"] * 2 * ROOM
    copies = [moved(message) for message in (*honest, *flood)]
    assert [*map(word, at_once(judge.verify_many(copies, check=check)))] == [
        *["replayed"] * 2 * ROOM, *["over_quota"] * 2 * ROOM,
    ]  # fmt: skip
