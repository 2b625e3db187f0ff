"""What operators say, and what of it holds."""

import json
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from tests.unit.control.world import (
    AGENTS,
    ALL,
    BOT,
    CONTROLLER,
    FIRST,
    FOURTH,
    KEYS,
    ONCALL,
    OPERATORS,
    OTHER,
    PLANNER,
    SECOND,
    THIRD,
    Contain,
    GiveKey,
    Head,
    Release,
    Revoke,
    issued,
    key_of,
)
from watchword import Algorithm, SigningKey
from watchword.control import Control, Issued, Link, Operator
from watchword.jwk import to_jwk
from watchword.keys import thumbprint
from watchword.principals import PrincipalIndex, covers, is_principal_pattern
from watchword.statements import MAX_BYTES, Statement, Unknown, Verb, digest_text, parse_statement

PLANNERS = thumbprint(AGENTS[PLANNER].public)


@pytest.fixture
def control() -> Control:
    """Give a control log that nobody has written to."""
    return Control(OPERATORS)


def told(control: Control) -> list[str]:
    """Take the notices, by their names, but for those of numbers that these tests do not care for."""
    names = [event for event, fields in control.notices if fields.get("number") != 1]
    control.notices.clear()
    return names


@pytest.mark.parametrize(
    "saying",
    [
        GiveKey(key_of(PLANNER)),
        GiveKey(key_of(PLANNER, SigningKey.generate())),
        Revoke(PLANNERS, 12),
        Contain("agent://acme/**", 99, "INC-7"),
        Contain(PLANNER),
        Release(PLANNER),
        Head(),
        Unknown("praise"),
    ],
)
def test_a_statement_is_read_as_it_was_written(saying: Any) -> None:
    """What one operator writes another reads."""
    one = Statement(3, digest_text(bytes(32)), 0 if isinstance(saying, Head) else 7, saying)
    assert parse_statement(one.to_json()) == one


WRONG: list[tuple[object, str]] = [
    ([], "not a JSON object"),
    ({"s": 1, "prev": "", "n": 1}, "one verb"),
    ({"s": 1, "prev": "", "n": 1, "head": {}, "release": {"who": PLANNER}}, "one verb"),
    ({"s": 1, "prev": "", "head": {}}, "one verb"),
    ({"s": 0, "prev": "", "n": 0, "head": {}}, '"s"'),
    ({"s": True, "prev": "", "n": 0, "head": {}}, '"s"'),
    ({"s": 1.0, "prev": "", "n": 0, "head": {}}, '"s"'),
    ({"s": 1, "prev": "A" * 43, "n": 0, "head": {}}, "prev"),
    ({"s": 2, "prev": "", "n": 0, "head": {}}, "prev"),
    ({"s": 2, "prev": 5, "n": 0, "head": {}}, "prev"),
    ({"s": 1, "prev": "", "n": 1, "head": {}}, '"n"'),
    ({"s": 1, "prev": "", "n": 0, "release": {"who": PLANNER}}, '"n"'),
    ({"s": 1, "prev": "", "n": (1 << 32) + 1, "release": {"who": PLANNER}}, '"n"'),
    ({"s": 1, "prev": "", "n": 0, "head": []}, "not an object"),
    ({"s": 1, "prev": "", "n": 0, "head": {"x": 1}}, "the members must be"),
    ({"s": 1, "prev": "", "n": 1, "contain": {"who": "a/**/b"}}, "who"),
    ({"s": 1, "prev": "", "n": 1, "contain": {"who": " "}}, "who"),
    ({"s": 1, "prev": "", "n": 1, "contain": {"who": 5}}, "who"),
    ({"s": 1, "prev": "", "n": 1, "contain": {"who": PLANNER, "until": -1}}, "until"),
    ({"s": 1, "prev": "", "n": 1, "contain": {"who": PLANNER, "why": "x" * 201}}, "why"),
    ({"s": 1, "prev": "", "n": 1, "contain": {"who": PLANNER, "why": "\x1b[2J"}}, "why"),
    ({"s": 1, "prev": "", "n": 1, "contain": {"who": PLANNER, "why": 5}}, "why"),
    ({"s": 1, "prev": "", "n": 1, "revoke": {"thumbprint": "short", "at": 1}}, "thumbprint"),
    ({"s": 1, "prev": "", "n": 1, "revoke": {"thumbprint": PLANNERS}}, "the members must be"),
    ({"s": 1, "prev": "", "n": 1, "key": {**to_jwk(key_of(PLANNER)), "kid": "mine"}}, "kid"),
    ({"s": 1, "prev": "", "n": 1, "key": {**to_jwk(key_of(PLANNER)), "revoked": 5}}, "revoked"),
    ({"s": 1, "prev": "", "n": 1, "key": {}}, "key"),
    ({"s": 1, "prev": "", "n": 1, "Praise!": {}}, "verb"),
]


@pytest.mark.parametrize(("members", "complaint"), WRONG)
def test_what_is_no_statement_is_refused(members: object, complaint: str) -> None:
    """Strictly: a reader that guesses would be led."""
    with pytest.raises(ValueError, match=complaint):
        parse_statement(json.dumps(members).encode())


@pytest.mark.parametrize("value", [b"{", b"\xff", b'{"s":1,"s":1,"prev":"","n":0,"head":{}}', b" " * (MAX_BYTES + 1)])
def test_what_is_no_json_is_refused(value: bytes) -> None:
    """And what is too long is not looked at."""
    with pytest.raises(ValueError, match=r".+"):
        parse_statement(value)


def test_containment_and_release(control: Control) -> None:
    """The higher rank decides; among equals containment does, and then the earlier end."""
    assert control.hear(issued(Contain(PLANNER, 100, "INC-7")))
    found = control.containment(PLANNER, lambda: 50)
    assert found is not None
    assert (found.who, found.until, found.why, found.by) == (PLANNER, 100, "INC-7", ONCALL)
    assert control.containment(PLANNER, lambda: 100) is None
    assert control.containment(CONTROLLER, lambda: 50) is None
    control.hear(issued(Release(PLANNER), THIRD))
    assert control.containment(PLANNER, lambda: 50) is not None, "a release of the same rank is no later word"
    control.hear(issued(Contain(PLANNER), THIRD))
    found = control.containment(PLANNER, lambda: 50)
    assert found is not None
    assert found.until == 100, "the earlier end"
    control.hear(issued(Contain(PLANNER, 60), FOURTH))
    assert [one.until for one in control.containments(50)] == [60], "the earlier of two ends"
    control.hear(issued(Release(PLANNER), THIRD, rank=2))
    assert control.containment(PLANNER, lambda: 50) is None
    control.hear(issued(Contain("**"), THIRD, rank=1))
    assert [one.until for one in control.containments(50)] == [inf]
    assert control.containment(OTHER, lambda: 50) is not None


def test_who_may_not_is_refused(control: Control) -> None:
    """A stranger, a verb that is not his, principals that are not his; operators cannot make one another."""
    everybody = [
        issued(Contain(PLANNER), ("agent://acme/nobody", "A" * 43)),
        issued(Release(PLANNER), FOURTH),
        issued(Contain("**"), FIRST),
        issued(Contain(OTHER), FOURTH),
        issued(GiveKey(key_of(OTHER)), FIRST),
        issued(GiveKey(key_of(BOT, SigningKey.generate())), THIRD),
    ]
    assert not any(control.hear(one) for one in everybody)
    assert told(control) == ["control.refused"] * len(everybody)
    assert control.hear(issued(Contain(PLANNER), FOURTH))


def test_an_operators_key_cannot_be_revoked_here(control: Control) -> None:
    """Only the settings' own sources can: operators cannot fight."""
    control.hear(issued(Revoke(FIRST[1], 1), THIRD))
    assert control.revoked_at(key_of(FIRST[0], KEYS[FIRST])) is None
    assert control.revoked_at(key_of(OTHER, KEYS[FIRST])) == 1, "it is known, and binds no operator"
    control.hear(issued(Revoke(PLANNERS, 9), THIRD))
    assert control.revoked_at(key_of(PLANNER)) == 9
    assert control.revoked_at(key_of(ONCALL, AGENTS[PLANNER])) is None
    assert control.revoked_at(key_of(OTHER, AGENTS[PLANNER])) == 9


def test_a_revocation_reaches_those_that_its_operator_is_over(control: Control) -> None:
    """The same public key under another principal is not theirs to revoke."""
    control.hear(issued(Revoke(PLANNERS, 9), FIRST))
    control.hear(issued(Revoke(PLANNERS, 5), SECOND))
    control.hear(issued(Revoke(PLANNERS, 7), FIRST, rank=3))
    assert control.revoked_at(key_of(PLANNER)) == 5
    assert control.revoked_at(key_of(OTHER, AGENTS[PLANNER])) is None
    control.lapse(SECOND)
    assert control.revoked_at(key_of(PLANNER)) == 7


def test_the_earliest_end_of_a_key_holds_whatever_source_it_comes_from(control: Control) -> None:
    """A key that is given once more with an end ends in files, too: so it is rotated out."""
    key = key_of(PLANNER)
    assert control.limited(key) is key
    control.hear(issued(GiveKey(replace(key, not_after=50))))
    named = replace(key, key_id=b"another name")
    assert [control.limited(one).not_after for one in (key, named, replace(key, not_after=60))] == [50, 50, 50]
    assert control.limited(replace(key, not_after=40)).not_after == 40
    assert control.limited(key_of(OTHER, AGENTS[PLANNER])).not_after is None
    assert control.limited(key_of(CONTROLLER)).not_after is None
    control.hear(issued(GiveKey(replace(key, not_after=70)), rank=2))
    assert control.limited(key).not_after == 70
    control.hear(issued(Revoke(PLANNERS, 9), FIRST))
    assert control.limited(key).revoked_at == 9
    assert control.limited(replace(key, revoked_at=5)).revoked_at == 5


def test_what_is_remembered_of_keys_is_bounded(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of keys takes no memory."""
    monkeypatch.setattr("watchword.control.REMEMBERED_KEYS", 3)
    control.hear(issued(Revoke(PLANNERS, 9), FIRST))
    for number in range(10):
        assert control.limited(replace(key_of(PLANNER), key_id=b"%d" % number)).revoked_at == 9
    assert len(control._limited[1]) <= 3


def test_a_stolen_key_takes_its_words_with_it(control: Control) -> None:
    """Whatever it said, however high the rank; what others said about the same holds again."""
    control.hear(issued(Contain(PLANNER), FIRST))
    control.hear(issued(Release(PLANNER), SECOND, rank=1 << 32))
    control.hear(issued(Revoke(PLANNERS, 1), SECOND))
    control.hear(issued(GiveKey(key_of(CONTROLLER)), SECOND))
    assert control.containment(PLANNER, lambda: 0) is None
    assert (control.rank(("contain", PLANNER)), len(control.keys)) == (1 << 32, 1)
    assert control.limited(key_of(PLANNER)).revoked_at == 1
    assert control.lapse(SECOND) == 3
    assert told(control) == ["control.lapsed"]
    assert control.containment(PLANNER, lambda: 0) is not None
    assert (control.rank(("contain", PLANNER)), control.keys) == (1, ())
    assert control.limited(key_of(PLANNER)).revoked_at is None
    assert not control.hear(issued(Release(PLANNER), SECOND, rank=1 << 32))
    assert control.lapse(SECOND) == 0
    assert control.speakers == (FIRST,)


def test_a_key_of_two_counts_for_neither(control: Control) -> None:
    """One public key for two principals would let each speak for the other."""
    key = AGENTS[PLANNER]
    control.hear(issued(GiveKey(key_of(PLANNER)), THIRD))
    assert control.find(key.key_id) == key_of(PLANNER)
    control.hear(issued(GiveKey(key_of(CONTROLLER, key)), THIRD))
    assert control.find(key.key_id) is None
    assert control.find(b"unknown") is None
    assert told(control) == ["control.key_of_two"]


def test_gaps_and_forks_are_told(control: Control) -> None:
    """A gap or a fork is reported once; statements that only arrive out of order are not reported."""
    one = issued(Contain(PLANNER), number=1)
    two = issued(Contain(CONTROLLER), number=2, previous=digest_text(one.digest))
    three = issued(Release(PLANNER), number=3, rank=2, previous=digest_text(two.digest))
    control.hear(one)
    control.hear(three)
    control.look(0)
    control.look(9)
    assert told(control) == []
    control.look(10)
    control.look(20)
    assert control.notices[0][1] | {"operator": "", "operator_key": ""} == {
        "operator": "", "operator_key": "", "first": 2, "last": 2,
    }  # fmt: skip
    assert told(control) == ["control.gap"]
    control.hear(two)
    control.look(40)
    assert (told(control), control.link(FIRST)) == ([], Link(3, digest_text(three.digest), 3))
    control.hear(issued(Contain(CONTROLLER, 5), number=2, previous=digest_text(one.digest)))
    control.hear(issued(Head(), number=4, previous=digest_text(one.digest)))
    assert told(control) == ["control.forked"] * 2
    assert control.link(THIRD) == Link(0, "", 0)


def test_a_chain_goes_on_where_it_was_known(control: Control) -> None:
    """After a restart, of which only the deciding statements were kept."""
    last = issued(Head(), number=8, previous="C" * 43)
    control.hear(issued(Contain(PLANNER), number=3, previous="C" * 43))
    control.resume(FIRST, Link(7, "C" * 43, 7))
    control.resume(SECOND, Link(7, "C" * 43, 7))
    control.hear(last)
    control.look(0)
    control.look(99)
    assert (told(control), control.link(FIRST).whole, control.speakers) == ([], 8, (FIRST,))
    control.resume(FIRST, Link(2, "D" * 43, 2))
    assert control.link(FIRST).number == 8


def test_a_long_chain_takes_no_more_room(control: Control) -> None:
    """Links far behind are forgotten; a gap among them was reported before."""
    previous = ""
    for number in (*range(1, 10), *range(11, 5_000)):
        one = issued(Head(), number=number, previous=previous or ("" if number == 1 else "E" * 43), at=number)
        control.hear(one)
        previous = digest_text(one.digest)
        control.look(number)
    assert told(control) == ["control.gap"]
    assert (control.link(FIRST).whole, control.last_head) == (4_999, 4_999)


def heads(count: int, **fields: Any) -> list[Issued]:
    """Return a chain of heads, a second apart."""
    made: list[Issued] = []
    for number in range(1, count + 1):
        previous = digest_text(made[-1].digest) if made else ""
        made.append(issued(Head(**fields), number=number, previous=previous, at=float(number)))
    return made


def test_a_copy_of_a_head_is_no_sign_of_life(control: Control) -> None:
    """Promise (A52): only a head that nobody has heard before says that nothing is withheld up to it."""
    chain = heads(3)
    for one in chain:
        control.hear(one)
    assert control.last_head == 3
    for one in chain:
        control.hear(one._replace(appended_at=99.0, said_at=99.0))
    assert control.last_head == 3


def test_a_head_says_how_far_others_spoke(control: Control) -> None:
    """Promise (A52): a head that names unheard statements vouches for nothing, and what is missing is reported."""
    said = issued(Contain(PLANNER), SECOND)
    (head,) = heads(1, of=((" ".join(SECOND), 1), (" ".join(OTHER), 7)))
    control.hear(head)
    before: float | None = control.last_head
    assert before is None
    control.look(0)
    assert told(control) == []
    control.look(10)
    assert [fields["operator"] for _, fields in control.notices] == [SECOND[0]]
    assert [(fields["first"], fields["last"]) for _, fields in control.notices] == [(1, 1)]
    control.hear(said)
    following = issued(head.statement.saying, number=2, previous=digest_text(head.digest), at=5.0)
    control.hear(following)
    assert control.last_head == 5.0
    assert control.attended() == Head(((" ".join(FIRST), 2), (" ".join(SECOND), 1)))
    assert (
        parse_statement(replace(following.statement, saying=control.attended()).to_json()).saying == control.attended()
    )
    control.lapse(SECOND)
    assert control.attended() == Head(((" ".join(FIRST), 2),))
    last = issued(head.statement.saying, number=3, previous=digest_text(following.digest), at=6.0)
    control.hear(last)
    assert control.last_head == 6, "a key without authority is missed by nobody"


def test_whoever_attends_makes_nobody_a_speaker(control: Control) -> None:
    """Promise (A52): a thief of that key can invent others; he takes no memory by that, nor a place in what is kept."""
    for number in range(1, 40):
        invented = tuple((f"{ONCALL} {number * 100 + at:043}", 1) for at in range(60))
        control.hear(issued(Head(invented), number=number, previous="" if number == 1 else "E" * 43, at=1.0))
    assert control.speakers == (FIRST,)
    assert control.attended() == Head(((" ".join(FIRST), 39),))
    assert len(control._awaited) == 1024
    assert control.last_head is None
    control.lapse((ONCALL, f"{100:043}"))
    assert len(control._awaited) == 1023


def test_the_longest_head_fits_in_a_statement() -> None:
    """However operators are called."""
    principals = [f"{number:02}{chr(34) * 253}" for number in range(20)]
    control = Control([Operator(one, frozenset(Verb), ("**",)) for one in principals])
    for one in principals:
        control.hear(issued(Head(), (one, "E" * 43)))
    written = Statement(2, "E" * 43, 0, control.attended()).to_json()
    assert len(control.attended().of) == 12
    assert parse_statement(written).saying == control.attended()


def test_what_does_not_count_has_its_place_in_the_chain(control: Control) -> None:
    """Else it would be missed forever, and no head that knows of it would vouch for anything."""
    assert not control.hear(issued(GiveKey(key_of(ONCALL, SigningKey.generate())), SECOND))
    assert control.link(SECOND).number == 1


@pytest.mark.parametrize(
    "of", [[], {"": 1}, {"a": 1}, {f"{ONCALL} x": 1}, {" ".join(FIRST): 0}, {" ".join(FIRST): "1"}]
)
def test_a_head_that_names_no_chain(of: object) -> None:
    """It is malformed."""
    with pytest.raises(ValueError, match='"of"'):
        parse_statement(json.dumps({"s": 1, "prev": "", "n": 0, "head": {"of": of}}).encode())


def test_words_of_a_later_version_are_told(control: Control) -> None:
    """They count in the chain, and mean nothing."""
    assert control.hear(issued(Unknown("praise"), FOURTH))
    assert (told(control), list(control.deciding()), control.last_head) == (["control.unknown_verb"], [], None)


def test_no_kind_crowds_out_another() -> None:
    """If a kind of statement is full, more are refused with one report; known ones may change, a lapse makes room."""
    control = Control(OPERATORS, most={"key": 1, "revoke": 1, "contain": 1})
    assert control.hear(issued(Contain(PLANNER), SECOND))
    assert not control.hear(issued(Contain(CONTROLLER)))
    assert not control.hear(issued(Contain("**"), THIRD))
    assert control.hear(issued(Release(PLANNER), SECOND, rank=2))
    assert control.hear(issued(Revoke(PLANNERS, 1)))
    assert control.hear(issued(GiveKey(key_of(PLANNER))))
    assert told(control) == ["control.full"]
    control.lapse(SECOND)
    assert control.hear(issued(Contain(CONTROLLER)))
    assert control.changes


def test_operators_who_change_are_judged_anew(control: Control) -> None:
    """What they said is kept, but for what they may say no more."""
    control.hear(issued(Contain(PLANNER), FOURTH, number=5, previous="F" * 43))
    control.hear(issued(Contain(CONTROLLER), FIRST))
    control.switch([Operator(ONCALL, frozenset({Verb.KEY}), ("**",)), Operator(BOT, ALL, ("**",))])
    assert [one.who for one in control.containments(0)] == [PLANNER]
    assert control.link(FOURTH) == Link(
        5, digest_text(issued(Contain(PLANNER), FOURTH, number=5, previous="F" * 43).digest), 0
    )
    assert told(control) == ["control.refused"]


PATTERNS: list[tuple[str, str, bool]] = [
    ("**", "anything", True),
    ("**", "a/b/c", True),
    ("agent://acme/**", "agent://acme/planner", True),
    ("agent://acme/**", "agent://acme/team/planner", True),
    ("agent://acme/**", "agent://acme", False),
    ("agent://acme/**", "agent://acmes/planner", False),
    ("agent://acme/*", "agent://acme/planner", True),
    ("agent://acme/*", "agent://acme/team/planner", False),
    ("agent://*/planner", "agent://acme/planner", True),
    ("agent://*/planner", "agent://acme/controller", False),
    ("agent://acme/planner", "agent://acme/planner", True),
    ("agent://acme/planner", "agent://acme/planner/x", False),
    ("agent://acme/*", "agent://acme/**", False),
    ("agent://acme/**", "agent://acme/*", True),
    ("agent://acme/planner", "agent://acme/*", False),
    ("*", "**", False),
    ("a/b", "a", False),
]


@pytest.mark.parametrize(("pattern", "other", "expected"), PATTERNS)
def test_patterns_of_principals(pattern: str, other: str, *, expected: bool) -> None:
    """``*`` is one part, a last ``**`` one or more."""
    assert covers(pattern, other) is expected
    if "*" not in other:
        index = PrincipalIndex[int]()
        index.put("agent://acme/controllers", 1)
        index.put("agent://acme/controllers/**", 1)
        index.put(pattern, 7)
        index.put(pattern, 8)
        assert ((pattern, 8) in list(index.find(other))) is expected
        assert (len(index), dict(index.items())[pattern]) == (3, 8)
        index.drop(pattern)
        index.drop(pattern)
        assert (list(index.find(other)), len(index)) == ([], 2)


def test_a_pattern_may_go_while_it_is_looked_up() -> None:
    """Another thread changes what operators say: a look-up continues without what was removed meanwhile."""
    index = PrincipalIndex[int]()
    for number, pattern in enumerate(("agent://**", "agent://acme/**", "agent://acme/*")):
        index.put(pattern, number)
    finding = index.find("agent://acme/planner")
    assert next(finding)[0] == "agent://acme/*"
    index.put("agent://acme/planner", 9)
    index._values.pop("agent://acme/**")  # what dropping does first
    assert list(finding) == [("agent://**", 0)]


def test_a_pattern_is_a_principal_with_stars() -> None:
    """The rest is the last part."""
    assert is_principal_pattern("agent://acme/**")
    assert not is_principal_pattern("agent://**/x")
    assert not is_principal_pattern("")


def test_a_pattern_that_another_thread_is_dropping_matches_nothing() -> None:
    """Promise: a look-up while a containment ends gets a whole answer."""
    index: PrincipalIndex[int] = PrincipalIndex()
    index.put("agent://acme/*", 1)
    index.put("agent://other/*", 2)
    index._values.pop("agent://acme/*")  # as in the middle of drop()
    assert list(index.find("agent://acme/planner")) == []
    assert index.get("agent://acme/*") is None
    assert index.get("agent://other/*") == 2


def test_a_key_that_decided_nothing_lapses_without_a_word(control: Control) -> None:
    """Promise: only lost statements are reported; a key that has only published heads loses none."""
    assert control.hear(issued(Head(), FIRST))
    control.notices.clear()
    assert control.lapse(FIRST) == 0
    assert not control.notices


@pytest.mark.parametrize("algorithm", [Algorithm.ML_DSA_44, Algorithm.ML_DSA_65])
def test_a_post_quantum_key_is_given_and_revoked(algorithm: Algorithm) -> None:
    """Promise: the largest public key fits a statement, with the longest name, and is dead by its thumbprint."""
    key = SigningKey.generate(algorithm).verification_key("agent://acme/" + "x" * 242)
    statement = issued(GiveKey(replace(key, not_before=1, not_after=2**33 - 1))).statement
    assert len(statement.to_json()) < 4096
    assert parse_statement(statement.to_json()) == statement
    control = Control(OPERATORS)
    control.hear(issued(GiveKey(key)))
    assert [*control.keys] == [key]
    control.hear(issued(Revoke(thumbprint(key.public), 50), THIRD))
    assert control.limited(key).revoked_at == 50
