"""Trust: what facts make of a score, who is kept out by it, and what a handler may report."""

import logging
from dataclasses import replace
from math import exp, inf, nan

import pytest

from tests.unit.core.world import ALICE, BOB, MALLORY, NOW, World, at_once, kafka, known_keys, nats, press
from watchword import Alias, Allow, ConfigurationError, Policy, Rejected, VerifiedMessage, Watchword
from watchword.spi import Channel, TrustScore
from watchword.trust import HALF_LIFE, LEAST, MAX_PRINCIPALS, MAX_REPORTED, MOST, Demerits, Fact, Trust
from watchword_adapters.redriving import judge
from watchword_adapters.testing import Clock

TASKS = "nats://prod/tasks.scale"


def agent(policy: Policy | None = None, *, clock: Clock | None = None, trust: TrustScore | None = None) -> Watchword:
    """Return BOB's process, which knows everybody."""
    return Watchword(
        realm="prod", principal=BOB, keys=known_keys(), policy=policy, clock=clock or Clock(NOW + 1.0), trust=trust
    )


def delivered(watchword: Watchword, number: int = 1, **fields: object) -> VerifiedMessage:
    """Return a message of ALICE's that was delivered."""
    verified = at_once(watchword.admit(press(nats(**fields), c7=bytes([number]) * 16)))
    assert isinstance(verified, VerifiedMessage)
    return verified


def test_nothing_counts_against_a_stranger() -> None:
    """Promise: trust begins at 1, for names that nobody has heard of as well."""
    assert agent().trust(ALICE) == 1.0


def test_a_fact_costs_and_time_forgives() -> None:
    """Promise: one fact makes 0.1 demerits, of which half is left after an hour, and in the end nothing."""
    clock = Clock(1000.0)
    score = Demerits(clock)
    score.add(ALICE, 1.0)
    assert score.score(ALICE) == pytest.approx(exp(-0.1))
    clock.advance(HALF_LIFE)
    assert score.score(ALICE) == pytest.approx(exp(-0.05))
    clock.advance(6 * HALF_LIFE)
    assert score.score(ALICE) == 1.0
    assert score.held() == {}


@pytest.mark.parametrize("each", [0.0, 0.0001, 0.01, 0.5, 1.0])
def test_a_flood_is_capped(each: float) -> None:
    """Promise: whatever happens in a second, it adds 0.1 at most, and the first fact as much at once."""
    clock = Clock(1000.0)
    score = Demerits(clock)
    for _ in range(min(round(10 / each), 20_000) if each else 1000):
        score.add(ALICE, 1.0)
        clock.advance(each)
    assert score.held()[ALICE][0] <= 0.1 * (1.0 + clock() - 1000.0)


def test_demerits_have_an_upper_bound() -> None:
    """Promise: after hours of facts it is 5 demerits, so a few hours are the longest anyone is kept out for."""
    clock = Clock(1000.0)
    score = Demerits(clock)
    for _ in range(1000):
        score.add(ALICE, 1.0)
        clock.advance(1.0)
    assert score.held()[ALICE][0] == pytest.approx(MOST, rel=0.01)
    assert score.held()[ALICE][0] <= MOST


def test_a_clock_that_steps_back_forgives_nothing() -> None:
    """Promise (A34): demerits stand still until the clock shows again what it showed; no time passes twice."""
    clock = Clock(10_000.0)
    score = Demerits(clock)
    score.add(ALICE, 1.0)
    before = score.score(ALICE)
    for _ in range(5):
        clock.advance(-5000.0)
        assert score.score(ALICE) == before
        score.add(ALICE, 1.0)
        clock.advance(5000.0)
        assert score.score(ALICE) == before
    clock.advance(1.0)
    score.add(ALICE, 1.0)
    assert score.held()[ALICE][0] == pytest.approx(0.2, rel=0.001)


def test_where_there_is_no_room_the_smallest_demerits_go() -> None:
    """Promise: memory is bounded, and many new names do not wash away what counts most."""
    clock = Clock(1000.0)
    score = Demerits(clock, max_principals=20)
    score.add(MALLORY, 1.0)
    clock.advance(1.0)
    score.add(MALLORY, 1.0)
    for number in range(100):
        score.add(f"agent://acme/{number}", 0.5)
        clock.advance(1.0)
        assert len(score.held()) <= 20
    assert score.score(MALLORY) == pytest.approx(exp(-0.2), rel=0.01)
    assert score.score("agent://acme/99") < 1.0


def test_what_was_held_is_taken_over() -> None:
    """Promise: a restart forgives nothing, and of two accounts the graver one holds; a time ahead counts as now."""
    clock = Clock(1000.0)
    score = Demerits(clock, max_principals=3)
    score.add(ALICE, 1.0)
    score.restore({ALICE: (0.01, 1000.0), BOB: (1.0, 1000.0 - HALF_LIFE), MALLORY: (99.0, inf)})
    assert score.score(ALICE) == pytest.approx(exp(-0.1))
    assert score.score(BOB) == pytest.approx(exp(-0.5))
    assert score.held()[MALLORY] == (MOST, 1000.0)
    score.restore({ALICE: (2.0, 1000.0), "agent://acme/other": (3.0, 1000.0)})
    assert score.score(ALICE) == pytest.approx(exp(-2.0))
    assert len(score.held()) == 3
    assert BOB not in score.held()


def test_who_falls_below_the_bar_stays_out_until_halfway_back() -> None:
    """Promise: between the bar and halfway to 1 a principal that was below stays out, and one that was not is in."""
    clock = Clock(1000.0)
    trust = Trust(Demerits(clock))
    for _ in range(8):
        trust.note(ALICE, Fact.REPORTED, bars={0.5})
        clock.advance(1.0)
    for _ in range(4):
        trust.note(BOB, Fact.REPORTED, bars={0.5})
        clock.advance(1.0)
    assert not trust.admits(ALICE, 0.5)
    assert trust.admits(BOB, 0.5)
    clock.advance(HALF_LIFE)
    assert 0.5 < trust.score.score(ALICE) < 0.75
    assert not trust.admits(ALICE, 0.5)
    assert trust.admits(ALICE, 0.3)  # it was never below that one
    assert not trust.admits(ALICE, 0.6)  # a bar that is raised lets nobody in
    clock.advance(HALF_LIFE)
    assert trust.score.score(ALICE) > 0.8
    assert trust.admits(ALICE, 0.5)
    assert trust.admits(ALICE, 0.6)
    assert trust.kept_out() == {}


def test_who_was_below_while_silent_is_out_too() -> None:
    """Promise: the bar counts when the fact does, not when the next message comes."""
    clock = Clock(1000.0)
    trust = Trust(Demerits(clock))
    trust.note(ALICE, Fact.REPORTED, bars={0.95})
    clock.advance(HALF_LIFE)
    assert trust.score.score(ALICE) > 0.95
    assert not trust.admits(ALICE, 0.95)
    assert trust.admits(ALICE, 0.9)


def test_lower_bars_let_in_before_higher_ones() -> None:
    """Promise: each rule has its own bar, and passing one's halfway says nothing about a higher one."""
    clock = Clock(1000.0)
    trust = Trust(Demerits(clock))
    for _ in range(20):
        trust.note(ALICE, Fact.REPORTED, bars={0.2, 0.6})
        clock.advance(1.0)
    assert trust.kept_out() == {ALICE: (0.2, 0.6)}
    trust.restore({ALICE: [0.2], BOB: [0.9]})
    clock.advance(2.1 * HALF_LIFE)
    assert 0.6 < trust.score.score(ALICE) < 0.8
    assert trust.admits(ALICE, 0.2)
    assert not trust.admits(ALICE, 0.6)
    assert trust.kept_out() == {ALICE: (0.6,), BOB: (0.9,)}


def test_a_score_that_is_no_number_lets_nobody_in() -> None:
    """Promise: a plug-in that answers nonsense does not open a door."""

    class Nonsense:
        def add(self, principal: str, weight: float) -> None: ...

        def score(self, principal: str) -> float:  # noqa: ARG002 - the same for all
            return nan

    policy = Policy(allow=(Allow(ALICE, (TASKS,), min_trust=0.1),))
    with pytest.raises(Rejected, match="not_trusted"):
        delivered(agent(policy, trust=Nonsense()))


@pytest.mark.parametrize("bar", [-0.1, 1.1, nan])
def test_a_bar_is_from_0_to_1(bar: float) -> None:
    """Promise: a bar that could not work as meant is an error that says what to choose."""
    with pytest.raises(ConfigurationError, match=r"min_trust of .*: choose 0 to 1"):
        Allow(ALICE, (TASKS,), min_trust=bar)


def test_below_the_bar_messages_are_not_trusted_and_prove_nothing() -> None:
    """Promise: not_trusted rejects where the rule asks for trust, nowhere else, and adds nothing to what counts."""
    clock = Clock(NOW + 1.0)
    rules = (Allow(ALICE, (TASKS,), min_trust=0.95), Allow(ALICE, ("nats://prod/logs",)))
    watchword = agent(Policy(allow=rules), clock=clock)
    assert watchword.report(delivered(watchword, 1))
    before = watchword.trust(ALICE)
    for number in range(2, 5):
        clock.advance(1.0)
        with pytest.raises(Rejected, match=r"not_trusted: trust 0\.90"):
            delivered(watchword, number)
    delivered(watchword, 5, channel=Channel.parse("nats://prod/logs"))
    assert watchword.trust(ALICE) == pytest.approx(before, rel=0.001)
    assert watchword.verifier.trust.evidence()[ALICE][1] == {"reported": 1}


def test_what_was_judged_ahead_is_judged_by_the_trust_of_now() -> None:
    """Promise: a message that waits to be handed over is not, once its principal has lost the trust that it needs."""
    world = World(policy=Policy(allow=(Allow(ALICE, ("kafka://prod/tasks",), min_trust=0.95),)))
    message = press(kafka())
    world.verify(message)
    assert at_once(world.verifier.reverify([message])) == [None]
    world.verifier.trust.note(ALICE, Fact.REPORTED)
    (verdict,) = at_once(world.verifier.reverify([message]))
    assert isinstance(verdict, Rejected)
    assert verdict.reason == "not_trusted"


def test_a_report_counts_once(caplog: pytest.LogCaptureFixture) -> None:
    """Promise: a handler's report lowers the score by its weight, once for each message, and is logged."""
    watchword = agent()
    message = delivered(watchword)
    with caplog.at_level(logging.WARNING, "watchword"):
        assert watchword.report(message, 0.5, why="asked for 1000\ninstances")
    assert watchword.trust(ALICE) == pytest.approx(exp(-0.05))
    assert not watchword.report(message)
    assert watchword.trust(ALICE) == pytest.approx(exp(-0.05))
    record, _ = caplog.records
    fields = record.watchword  # type: ignore[attr-defined] # what our own formatter adds
    assert fields["principal"] == ALICE
    assert (fields["id"], fields["weight"], fields["counts"]) == (message.id, 0.5, True)
    assert fields["why"] == "asked for 1000\\ninstances"
    assert watchword.audit.events["message.reported"] == 2


def test_reports_of_a_flood_are_folded(caplog: pytest.LogCaptureFixture) -> None:
    """Promise: reports fill no log; all are counted."""
    watchword = agent()
    message = delivered(watchword)
    with caplog.at_level(logging.WARNING, "watchword"):
        for _ in range(100):
            watchword.report(message)
    assert len(caplog.records) == 10
    assert watchword.audit.events["message.reported"] == 100


class Carrier:
    """What a client hands over."""

    def __init__(self, verified: object) -> None:
        self.verified = verified


def test_what_the_client_handed_over_may_be_reported() -> None:
    """Promise: a record or msg will do, for it carries the verified message."""
    watchword = agent()
    assert watchword.report(Carrier(delivered(watchword)))


@pytest.mark.parametrize("given", [None, ALICE, press(nats()), Carrier(None), Carrier("agent://acme/planner")])
def test_what_did_not_verify_cannot_be_reported(given: object) -> None:
    """Promise (A55): nobody is accused by a name, an id or a message that was not delivered here."""
    watchword = agent()
    with pytest.raises(ConfigurationError, match=r"give a message that verified.*\.verified"):
        watchword.report(given)


@pytest.mark.parametrize("weight", [0.0, -1.0, 1.01, inf, nan])
def test_a_report_weighs_at_most_1(weight: float) -> None:
    """Promise: no report counts for more than one fact, or for the principal."""
    watchword = agent()
    with pytest.raises(ConfigurationError, match=r"weight=.*more than 0 and at most 1"):
        watchword.report(delivered(watchword), weight)
    assert watchword.trust(ALICE) == 1.0


def test_a_message_of_another_realm_cannot_be_reported() -> None:
    """Promise: who is meant in another cluster is someone else."""
    other = Watchword(realm="other", keys=known_keys(), clock=Clock(NOW + 1.0))
    message = press(nats(channel=Channel.parse("nats://other/tasks")))
    with pytest.raises(ConfigurationError, match="realm 'other', not 'prod'"):
        agent().report(at_once(other.admit(message)))


def test_the_memory_of_reports_is_bounded() -> None:
    """Promise: what is remembered of reports and of facts has an end."""
    clock = Clock(1000.0)
    trust = Trust(Demerits(clock, max_principals=2))
    for number in range(MAX_REPORTED + 5):
        assert trust.note_report(ALICE, f"{number}", weight=1.0)
    assert len(trust._reported) == MAX_REPORTED
    for number in range(MAX_PRINCIPALS + 5):
        trust._counts[str(number)] = trust._counts[ALICE]
    trust._counts = dict(list(trust._counts.items())[-MAX_PRINCIPALS:])
    trust.note(BOB, Fact.REPORTED)
    assert len(trust._counts) == MAX_PRINCIPALS


def test_evidence_is_shown_while_it_counts() -> None:
    """Promise: score and counts of each principal that has demerits, from an earlier run too; others are left out."""
    clock = Clock(1000.0)
    score = Demerits(clock)
    score.restore({BOB: (1.0, 1000.0), MALLORY: (LEAST / 2, 1000.0)})
    trust = Trust(score)
    trust.note(ALICE, Fact.CONTAINED)
    trust.note(ALICE, Fact.NOT_PERMITTED)
    assert trust.evidence() == {ALICE: (exp(-0.1), {"contained": 1, "not_permitted": 1}), BOB: (exp(-1.0), {})}
    clock.advance(20 * HALF_LIFE)
    assert trust.evidence() == {}


def test_another_score_may_be_plugged_in() -> None:
    """Promise: what is given as ``trust`` hears of the facts and is asked."""

    class Strict:
        def __init__(self) -> None:
            self.seen: list[tuple[str, float]] = []

        def add(self, principal: str, weight: float) -> None:
            self.seen.append((principal, weight))

        def score(self, principal: str) -> float:
            return 0.0 if self.seen and principal == ALICE else 1.0

    score = Strict()
    watchword = agent(trust=score)
    assert watchword.report(delivered(watchword), 0.25)
    assert score.seen == [(ALICE, 0.25)]
    assert watchword.trust(ALICE) == 0.0
    assert watchword.verifier.trust.evidence() == {ALICE: (0.0, {"reported": 1})}


def test_driving_again_judges_by_the_same_trust_and_adds_nothing() -> None:
    """Promise: a redrive lets nobody in whom the process keeps out, and no fact counts a second time."""
    clock = Clock(NOW + 1.0)
    rules = (Allow(ALICE, (TASKS,), min_trust=0.95),)
    watchword = agent(Policy(allow=rules), clock=clock)
    watchword.report(delivered(watchword))
    judging = judge(watchword)
    with pytest.raises(Rejected, match="not_trusted"):
        at_once(judging.verifier.verify(press(nats(), c7=bytes([2]) * 16)))
    before = watchword.trust(ALICE)
    clock.advance(10.0)
    forbidden = press(nats(channel=Channel.parse("nats://prod/other")), c6=NOW + 11, c7=bytes([3]) * 16)
    with pytest.raises(Rejected, match="not_permitted"):
        at_once(judging.verifier.verify(forbidden))
    assert watchword.trust(ALICE) >= before


def test_clients_say_that_they_connected() -> None:
    """Promise: a listener learns of each client that has connected, and of its bus."""
    told: list[str] = []
    watchword = agent()
    watchword.connected("kafka")
    watchword.when_connected(told.append)
    watchword.connected("nats")
    assert told == ["nats"]


def test_aliases_that_were_taken_out_still_do_not_count() -> None:
    """Promise (A55): what a copy brought about before a change of settings counts no more after it."""
    pair = Alias("nats://prod/mirror", TASKS)
    watchword = agent(Policy(aliases=(pair,)))
    copied = at_once(watchword.admit(replace(press(nats()), channel=Channel.parse(pair.channel))))
    watchword.switch(Policy(), watchword.verifier.keys)
    assert not watchword.report(copied)
    assert watchword.trust(ALICE) == 1.0
