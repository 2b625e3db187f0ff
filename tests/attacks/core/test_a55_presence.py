"""A55: what processes announce is shown, by who says it, and gives no liar more than one voice or any room."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.core.world import (
    ALICE,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    MALLORY,
    MALLORY_KEY,
    NOW,
    World,
    at_once,
    endings,
    nats,
    press,
)
from watchword import Rejected, SigningKey, VerifiedMessage
from watchword.control import Link
from watchword.presence import (
    CONTENT_TYPE,
    MAX_ACCUSED,
    MAX_BYTES,
    MAX_HEARD,
    Announcement,
    Evidence,
    Presence,
    Present,
    Reported,
    parse_announcement,
)
from watchword.spi import Channel, Message
from watchword.trust import MAX_PRINCIPALS

CHANNEL = Channel("nats", "prod", "watchword.presence")
VICTIM = "agent://acme/victim"
FULL = Announcement(
    instance="0123456789abcdef",
    number=7,
    version="1.2.3+local",
    buses=("kafka", "nats"),
    started=NOW - 100,
    known=True,
    place=("control 2026", 12),
    statements=3,
    heard={("agent://acme/oncall", "k" * 43): Link(9, "d" * 43, 8)},
    full=("key",),
    evidence={VICTIM: Evidence(0.5, {"reported": 2})},
    left_out=1,
)
KEYS = {ALICE: ALICE_KEY, BOB: BOB_KEY, MALLORY: MALLORY_KEY}


def said(instance: int = 1, number: int = 1, **members: Any) -> Announcement:
    """Return an announcement."""
    return replace(FULL, instance=f"{instance:016x}", number=number, **{"evidence": {}} | members)


def message(
    by: str, what: Announcement | bytes, *, at: int = NOW, key: SigningKey | None = None, kind: str = CONTENT_TYPE
) -> Message:
    """Return an announcement as it was signed and sent."""
    value = what if isinstance(what, bytes) else what.to_json()
    number = int.from_bytes(value[:8]) ^ hash((by, value, at)) & (2**63 - 1)
    bare = nats(channel=CHANNEL, value=value, headers=(("content-type", kind.encode()),))
    return press(bare, key=key or KEYS[by], principal=by, c6=at, c7=number.to_bytes(16))


class Reader:
    """One who reads announcements through all checks."""

    def __init__(self, **options: int) -> None:
        self.world = World()
        self.presence = Presence(**options)
        self.contained: set[str] = set()

    def hear(self, *messages: Message) -> list[str]:
        """Take messages in; return how each ended."""
        found = []
        for one in messages:
            self.world.now = max(self.world.now, NOW + 1.0)
            try:
                verified = at_once(self.world.verifier.verify(one))
            except Rejected as verdict:
                found.append(str(verdict.reason))
                continue
            self.presence.hear(verified)
            found.append("heard")
        return found

    def look(self, *, since: float = NOW - 30, names: tuple[str, ...] = ()) -> dict[str, Present]:
        """Return who was heard of."""
        found = self.presence.look(since=since, is_contained=self.contained.__contains__, names=names)
        assert [one.principal for one in found] == sorted(one.principal for one in found)
        return {one.principal: one for one in found}

    def reported(self, name: str = VICTIM) -> Reported | None:
        """Return what is reported of one."""
        return self.look()[name].reported


def accuse(score: float, name: str = VICTIM, **facts: int) -> dict[str, Any]:
    """Return evidence as a member."""
    return {"evidence": {name: Evidence(score, facts or {"reported": 1})}}


def test_what_is_announced_is_read() -> None:
    """Promise: a reader sees each process with what it says, whose key signed that, and when it was issued."""
    assert parse_announcement(FULL.to_json()) == FULL
    bare = said(place=None, heard={}, known=False)
    assert parse_announcement(bare.to_json()) == bare
    reader = Reader()
    assert reader.hear(message(ALICE, FULL), message(ALICE, said(2), at=NOW - 5)) == ["heard"] * 2
    present = reader.look()[ALICE]
    assert [(one.said.instance, one.issued_at, one.key_id) for one in present.instances] == [
        (FULL.instance, NOW, "alice-1"),
        (f"{2:016x}", NOW - 5, "alice-1"),
    ]
    assert (present.contained, present.reported) == (False, None)


@pytest.mark.parametrize(
    ("by", "number", "kind", "known"),
    [
        (("agent://acme/oncall", "k" * 43), 8, "revoke", True),
        (("agent://acme/oncall", "k" * 43), 9, "revoke", False),
        (("agent://acme/oncall", "k" * 43), 8, "key", False),
        (("agent://acme/oncall", "j" * 43), 1, "revoke", False),
    ],
    ids=["heard", "behind a gap", "no room for its kind", "another key"],
)
def test_whether_a_statement_is_known_everywhere_can_be_asked(
    by: tuple[str, str], number: int, kind: str, *, known: bool
) -> None:
    """Promise: a process counts as knowing only what it says it has heard without a gap, and had room for."""
    assert FULL.has_heard(by, number, kind) is known


def test_in_another_name_nobody_announces() -> None:
    """Promise: without its key no process of a principal is made up, and none of its words are replaced."""
    reader = Reader()
    reader.hear(message(ALICE, said(number=1)))
    forged = message(ALICE, said(number=99), key=MALLORY_KEY)
    moved = replace(message(ALICE, said(number=98)), channel=Channel("nats", "prod", "elsewhere"))
    altered = replace(message(ALICE, said(number=97)), value=said(number=96).to_json())
    unsigned = nats(channel=CHANNEL, value=said(number=95).to_json())
    assert "heard" not in reader.hear(forged, moved, altered, unsigned)
    assert [one.said.number for one in reader.look()[ALICE].instances] == [1]


def test_copies_and_delays_make_nobody_live() -> None:
    """Promise: what is sent again is a replay, what is held back is as old as it says, or stale."""
    reader = Reader()
    first = message(ALICE, said())
    assert reader.hear(first, first) == ["heard", "replayed"]
    reader.world.now = NOW + 200.0
    assert reader.hear(message(BOB, said())) == ["heard"]
    assert reader.look(since=NOW + 170) == {}
    assert set(reader.look(since=NOW)) == {ALICE, BOB}
    reader.world.now = NOW + 400.0
    assert reader.hear(message(MALLORY, said())) == ["stale"]


def test_the_latest_word_counts_in_any_order() -> None:
    """Promise: reordered, or within one second, what a process said last stands."""
    words = [message(ALICE, said(number=n), at=NOW + at) for n, at in ((1, -2), (2, -1), (3, -1), (1, -3))]
    for order in (words, words[::-1], words[2:] + words[:2]):
        reader = Reader()
        reader.hear(*order)
        (instance,) = reader.look()[ALICE].instances
        assert (instance.said.number, instance.issued_at) == (3, NOW - 1)


def test_a_clock_that_was_set_back_does_not_freeze_what_a_process_says() -> None:
    """Promise (A34): the number of its word decides, so a process whose clock was ahead is heard all the same."""
    reader = Reader()
    reader.hear(message(ALICE, said(number=1, **accuse(0.1)), at=NOW), message(ALICE, said(number=2), at=NOW - 20))
    (instance,) = reader.look()[ALICE].instances
    assert (instance.said.number, instance.issued_at) == (2, NOW - 20)


def test_a_principal_is_one_reporter_however_many_processes_it_has() -> None:
    """Promise: who announces a thousand processes neither makes the median nor hides what others say."""
    reader = Reader()
    reader.hear(message(ALICE, said(1, **accuse(0.9))), message(BOB, said(1, **accuse(0.8, not_permitted=3))))
    for number in range(100):
        reader.hear(message(MALLORY, said(number, **accuse(0.01))))
    assert reader.reported() == Reported((BOB, MALLORY, ALICE), 0.01, 0.8, 0.9, {"not_permitted": 1, "reported": 2})


def test_the_processes_of_a_reporter_speak_together() -> None:
    """Promise: each saw a part, so the least score counts, whichever was heard last."""
    for scores in ((0.3, 0.6), (0.6, 0.3)):
        reader = Reader()
        reader.hear(*(message(ALICE, said(n, **accuse(score))) for n, score in enumerate(scores)))
        assert reader.reported() == Reported((ALICE,), 0.3, 0.3, 0.3, {"reported": 1})


def test_what_it_says_of_itself_is_left_out() -> None:
    """Promise: an agent that reports itself, well or badly, changes nothing of what others say."""
    reader = Reader()
    reader.hear(message(MALLORY, said(1, **accuse(1.0, MALLORY))), message(ALICE, said(1, **accuse(0.2, MALLORY))))
    assert reader.reported(MALLORY) == Reported((ALICE,), 0.2, 0.2, 0.2, {"reported": 1})
    reader = Reader()
    reader.hear(message(MALLORY, said(1, **accuse(0.1, MALLORY))))
    assert reader.reported(MALLORY) is None


def test_who_is_contained_is_marked_and_not_listened_to() -> None:
    """Promise: a contained agent accuses nobody, and is seen as contained, present or not."""
    reader = Reader()
    reader.contained = {MALLORY}
    reader.hear(message(MALLORY, said(1, **accuse(0.1))), message(BOB, said(1, **accuse(0.7))))
    assert reader.reported() == Reported((BOB,), 0.7, 0.7, 0.7, {"reported": 1})
    assert [(name, one.contained) for name, one in reader.look(names=("agent://acme/gone",)).items()] == [
        (BOB, False),
        ("agent://acme/gone", False),
        (MALLORY, True),
        (VICTIM, False),
    ]


def test_old_words_accuse_nobody() -> None:
    """Promise: a process that has gone reports nothing any more."""
    reader = Reader()
    reader.hear(message(ALICE, said(1, **accuse(0.1)), at=NOW - 40))
    assert reader.look() == {}


def test_a_flood_takes_its_own_room_only() -> None:
    """Promise: memory is bounded, for one and for all, and made-up processes push out their maker's others."""
    reader = Reader(most_of_one=3, most_in_all=6)
    reader.hear(message(ALICE, said(1), at=NOW - 20), message(ALICE, said(2), at=NOW - 20), message(BOB, said(1)))
    for number in range(50):
        reader.hear(message(MALLORY, said(number, number=number), at=NOW - 10))
    found = reader.look()
    assert [len(found[name].instances) for name in (ALICE, BOB, MALLORY)] == [2, 1, 3]
    assert reader.presence.dropped == 47
    assert {one.said.number for one in found[MALLORY].instances} == {47, 48, 49}
    reader.hear(message(BOB, said(2)))
    assert [len(reader.look()[name].instances) for name in (ALICE, BOB, MALLORY)] == [2, 2, 2]
    assert reader.presence.dropped == 48
    reader.hear(message(MALLORY, said(49, number=100)))
    assert reader.presence.dropped == 48


def test_a_flood_leaves_room_for_those_who_come_later() -> None:
    """Promise: what was pushed out is not counted any more, so others are heard as long as there is room."""
    reader = Reader(most_of_one=2, most_in_all=4)
    reader.hear(*(message(MALLORY, said(number)) for number in range(10)))
    assert [len(one.instances) for one in reader.look().values()] == [2]
    reader.hear(message(ALICE, said(1)), message(BOB, said(1)))
    assert [len(one.instances) for one in reader.look().values()] == [1, 2, 1]
    assert reader.presence.dropped == 8


def test_an_announcement_is_of_bounded_size() -> None:
    """Promise: however much there is to say, those with the least trust are named, and the rest is a number."""
    names = [f"agent://acme/{'ü' * 110}{number}" for number in range(MAX_ACCUSED + 5)]
    facts = dict.fromkeys(("not_permitted", "rate_limited", "contained", "reported"), 2**50)
    evidence = {name: Evidence(1 - number / 100, facts) for number, name in enumerate(names)}
    heard = {(name, f"{number:043}"): Link(2**50, "d" * 43, 2**50) for number, name in enumerate(names)}
    value = said(evidence=evidence, heard=heard).to_json()
    assert len(value) <= MAX_BYTES
    read = parse_announcement(value)
    assert set(read.evidence) == set(names[5:])
    assert read.left_out == 6
    assert len(read.heard) == MAX_HEARD
    assert MAX_ACCUSED < MAX_PRINCIPALS


def changed(path: str, value: object) -> bytes:
    """Return FULL with one member replaced, or left out where the value is Ellipsis."""
    members = json.loads(FULL.to_json())
    *way, last = path.split(".")
    table = members
    for name in way:
        table = table[name]
    table[last] = value
    if value is ...:
        del table[last]
    return json.dumps(members).encode()


WRONG: list[tuple[str, Any]] = [
    ("instance", "0123456789ABCDEF"), ("instance", 1), ("number", -1), ("number", True), ("number", 1.5),
    ("number", 2**53), ("version", "1 2"), ("version", None), ("buses", "kafka"), ("buses", ["a"] * 4),
    ("buses", ["\u202e"]), ("started", ...), ("left_out", "1"), ("control", []), ("evidence", ...),
    ("control.known", 1), ("control.place", ["a"]), ("control.place", ["a\n", 1]), ("control.place", ["a", -1]),
    ("control.place", ["a" * 257, 1]), ("control.statements", None), ("control.full", ["a b"]),
    ("control.heard", {}), ("control.heard", [["a", "b", 1, "c", 1]] * 33), ("control.heard", [["a"]]),
    ("control.heard", [[1, "b", 1, "c", 1]]), ("control.heard", [["a", 1, 1, "c", 1]]),
    ("control.heard", [["a", "b", -1, "c", 1]]), ("control.heard", [["a", "b", 1, "c", None]]),
    ("evidence", {"": [0.5, {}]}), ("evidence", {"a": [1.1, {}]}), ("evidence", {"a": [True, {}]}),
    ("evidence", {"a": ["0.5", {}]}), ("evidence", {"a": [0.5, []]}), ("evidence", {"a": [0.5, {"reported": -1}]}),
    ("evidence", {"a": 0.5}), ("evidence", {f"{n}": [0.5, {}] for n in range(MAX_ACCUSED + 1)}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_what_is_no_announcement_is_refused(path: str, value: object) -> None:
    """Promise: a malformed signed word is one clear error, and nothing of it is taken in."""
    assert parse_announcement(changed("later", "version")) == FULL
    with pytest.raises(ValueError, match=r"^[^\n]{5,120}$"):
        parse_announcement(changed(path, value))


def test_what_is_too_long_or_of_another_kind_is_refused() -> None:
    """Promise: its size is bounded, and a message that was signed for another purpose is no announcement."""
    with pytest.raises(ValueError, match="an announcement has at most"):
        parse_announcement(changed("later", "x" * MAX_BYTES))
    reader = Reader()
    with pytest.raises(ValueError, match="content-type is not application/vnd"):
        reader.hear(message(ALICE, said(), kind="application/json"))
    with pytest.raises(ValueError, match="not JSON"):
        reader.hear(message(ALICE, b""))
    assert reader.look() == {}


def test_facts_of_later_versions_are_left_out() -> None:
    """Promise: a word that this reader does not know is not shown as if it knew it."""
    read = parse_announcement(changed("evidence", {VICTIM: [0, {"reported": 1, "looked_at_me": 5}]}))
    assert read.evidence == {VICTIM: Evidence(0.0, {"reported": 1})}


def test_all_checks_hold_for_announcements() -> None:
    """Promise: rules of the policy say who may announce, like anything else."""
    assert isinstance(at_once(World().verifier.verify(message(ALICE, said()))), VerifiedMessage)
    assert endings(World(), [message(ALICE, said(), at=NOW - 400)]) == ["stale"]
