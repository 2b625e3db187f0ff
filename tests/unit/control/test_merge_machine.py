"""What holds depends on what was said, and on nothing else: played in any order, with a thief and a stranger in it."""

from math import inf

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.control.world import (
    AGENTS,
    BOT,
    CONTROLLER,
    KEYS,
    ONCALL,
    OPERATORS,
    OTHER,
    PLANNER,
    SECURITY,
    Contain,
    GiveKey,
    Head,
    Release,
    Revoke,
    issued,
    key_of,
)
from watchword.control import Control, Issued, Operator, OperatorKey
from watchword.keys import thumbprint
from watchword.principals import covers
from watchword.statements import Saying, Unknown, Verb

STRANGER = ("agent://acme/nobody", "A" * 43)
PRINCIPALS = (PLANNER, CONTROLLER, OTHER, ONCALL, BOT)
WHO = (PLANNER, "agent://acme/**", "agent://*/planner", "**")
TIMES = (None, 50, 100)
NOW = 75.0

sayings = st.one_of(
    st.builds(GiveKey, st.builds(key_of, st.sampled_from(PRINCIPALS), st.sampled_from(list(AGENTS.values())))),
    st.builds(
        Revoke,
        st.sampled_from([thumbprint(key.public) for key in (*AGENTS.values(), *KEYS.values())]),
        st.integers(1, 9),
    ),
    st.builds(Contain, st.sampled_from(WHO), st.sampled_from(TIMES), st.sampled_from(["", "INC-7"])),
    st.builds(Release, st.sampled_from(WHO)),
    st.just(Head()),
    st.builds(Unknown, st.just("praise")),
)


class Merge(RuleBasedStateMachine):
    """The log is a list that its broker may reorder, repeat and cut; beside it stands what ought to hold."""

    said = Bundle("said")

    @initialize()
    def begin(self) -> None:
        """Start with nothing."""
        self.operators = {one.principal: one for one in OPERATORS}
        self.control = Control(OPERATORS)
        self.heard: list[Issued] = []
        self.lapsed: set[OperatorKey] = set()

    @rule(
        target=said,
        saying=sayings,
        by=st.sampled_from([*KEYS, STRANGER]),
        rank=st.integers(1, 2),
        number=st.integers(1, 9),
    )
    def say(self, saying: Saying, by: OperatorKey, rank: int, number: int) -> Issued:
        """Say something; the thief of a key says what he likes, of any rank and number, and a stranger tries."""
        return issued(saying, by, rank=rank, number=number, previous="" if number == 1 else "B" * 43, at=float(number))

    @rule(one=said)
    def hear(self, one: Issued) -> None:
        """Hear it: once, again, sooner or later than others, or never."""
        self.control.hear(one)
        self.heard.append(one)

    @rule(by=st.sampled_from(list(KEYS)))
    def lapse(self, by: OperatorKey) -> None:
        """Find that a key has no authority any more."""
        self.control.lapse(by)
        self.lapsed.add(by)

    @rule(
        principal=st.sampled_from([ONCALL, SECURITY, BOT]),
        may=st.frozensets(st.sampled_from(Verb), min_size=1),
        over=st.sampled_from([("**",), ("agent://acme/**",), ("agent://acme/*", OTHER), (PLANNER,)]),
    )
    def change(self, principal: str, may: frozenset[Verb], over: tuple[str, ...]) -> None:
        """Change what an operator may, as the settings do; the log is read again behind it."""
        self.operators[principal] = Operator(principal, may, over)
        self.control.switch(self.operators.values())
        for one in self.heard:
            self.control.hear(one)

    @rule(principal=st.sampled_from([ONCALL, SECURITY, BOT]))
    def dismiss(self, principal: str) -> None:
        """Take an operator out of the settings; the log is read again, for what was refused may count now."""
        self.operators.pop(principal, None)
        self.control.switch(self.operators.values())
        for one in self.heard:
            self.control.hear(one)

    @rule(data=st.data(), cut=st.booleans())
    def restart(self, data: st.DataObject, cut: bool) -> None:  # noqa: FBT001 - as drawn
        """Begin again with what was kept, and with the log in another order, or with none of it."""
        kept, links = list(self.control.deciding()), {by: self.control.link(by) for by in self.control.speakers}
        self.control = Control(self.operators.values())
        for by in self.lapsed:
            self.control.lapse(by)
        for one in kept:
            self.control.hear(one)
        for by, link in links.items():
            self.control.resume(by, link)
        if not cut:
            for one in data.draw(st.permutations(self.heard)):
                self.control.hear(one)

    # The model: brute force over all that was heard.

    def counting(self) -> list[Issued]:
        """Return what counts of it."""
        return [one for one in self.heard if self.counts(one)]

    def counts(self, one: Issued) -> bool:
        """Return True if a statement counts."""
        operator, saying = self.operators.get(one.by[0]), one.statement.saying
        if operator is None or one.by in self.lapsed or one.statement.verb not in set(operator.may):
            return False
        match saying:
            case GiveKey(key):
                return key.principal not in self.operators and any(covers(a, key.principal) for a in operator.over)
            case Contain(who, _, _) | Release(who):
                return any(covers(a, who) for a in operator.over)
        return True

    @invariant()
    def containments_are_the_best(self) -> None:
        """Of each text the highest rank decides, then containment, then the earlier end, then the digest."""
        best: dict[str, Issued] = {}
        for one in self.counting():
            saying = one.statement.saying
            if isinstance(saying, Contain | Release):

                def key(said: Issued) -> tuple[int, bool, float, bytes]:
                    words = said.statement.saying
                    is_contain = isinstance(words, Contain)
                    until = words.until if isinstance(words, Contain) and words.until is not None else inf
                    return said.statement.rank, is_contain, -until if is_contain else 0, said.digest

                best[saying.who] = max(one, best.get(saying.who, one), key=key)
        expected = {
            who: (one.statement.saying.until, one.statement.saying.why)
            for who, one in best.items()
            if isinstance(one.statement.saying, Contain)
            and (one.statement.saying.until is None or one.statement.saying.until > NOW)
        }
        found = {
            one.who: (None if one.until == inf else int(one.until), one.why) for one in self.control.containments(NOW)
        }
        assert found == expected
        for principal in PRINCIPALS:
            contained = self.control.containment(principal, lambda: NOW)
            assert (contained is not None) == any(covers(who, principal) for who in expected)

    @invariant()
    def keys_are_those_given_to_one(self) -> None:
        """See that a key counts if it was given to one principal only."""
        given: dict[str, dict[str, bytes]] = {}
        for one in self.counting():
            if isinstance(one.statement.saying, GiveKey):
                key = one.statement.saying.key
                given.setdefault(thumbprint(key.public), {})[key.principal] = key.key_id
        expected = {(next(iter(owners)), dead) for dead, owners in given.items() if len(owners) == 1}
        assert {(key.principal, thumbprint(key.public)) for key in self.control.keys} == expected
        for owner, dead in expected:
            found = self.control.find(dead[:16].encode())
            assert found is not None
            assert found.principal == owner

    @invariant()
    def revocations_are_the_earliest(self) -> None:
        """Whatever comes later, the earliest time holds; for the keys that the operator is over."""
        for principal in PRINCIPALS:
            for key in AGENTS.values():
                dead = thumbprint(key.public)
                times = [
                    one.statement.saying.at
                    for one in self.counting()
                    if isinstance(one.statement.saying, Revoke)
                    and one.statement.saying.thumbprint == dead
                    and any(covers(a, principal) for a in self.operators[one.by[0]].over)
                    and principal not in self.operators
                ]
                found = self.control.revoked_at(key_of(principal, key))
                assert found == min(times, default=None)

    @invariant()
    def ranks_go_up(self) -> None:
        """See that a new statement of an operator who has read all of the log beats what is there."""
        for one in self.counting():
            entry = one.statement.entry
            if entry is not None and not isinstance(one.statement.saying, Revoke):
                assert self.control.rank(entry) >= one.statement.rank


TestMerge = pytest.mark.slow(pytest.mark.usefixtures("not_traced")(Merge.TestCase))
