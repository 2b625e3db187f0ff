"""A55: only what a principal alone can cause counts against it, and nothing that it does raises its score."""

from collections.abc import Callable
from dataclasses import replace
from math import exp, inf
from typing import Any

import pytest

from tests.unit.core.world import ALICE, ALICE_KEY, BOB, MALLORY, MALLORY_KEY, NOW, World, at_once, kafka, nats, press
from watchword import Alias, Allow, MemoryKeys, Policy, Rate, Rejected, VerifiedMessage, Watchword
from watchword.control import Control, Issued, Operator
from watchword.spi import Channel, Message, Position
from watchword.statements import Contain, Release, Saying, Statement, Verb
from watchword_adapters.testing import Clock

TASKS = "kafka://prod/tasks"
LATER = NOW + 100
"""When ALICE sends: long after the rules began to hold."""

ONE = pytest.approx(exp(-0.1))
"""The score after one fact."""


def world(*rules: Allow, **policy: Any) -> World:
    """Return a world whose rules have held for a while."""
    made = World(policy=Policy(allow=rules, **policy))
    made.now = LATER + 1.0
    return made


def sent(number: int = 0, *, at: float = LATER, **fields: Any) -> Message:
    """Return a record of ALICE's, sent and appended at this time."""
    bare = kafka(**{"position": Position("tasks/0", 10 + number), "appended_at": at + 0.5} | fields)
    return press(bare, c6=int(at), c7=number.to_bytes(16))


def judged(world: World, *messages: Message) -> list[str]:
    """Judge together, and return how each ended."""
    found = at_once(world.verifier.verify_many(messages))
    return [str(one.reason) if isinstance(one, Rejected) else type(one).__name__ for one in found]


def score(world: World) -> float:
    """Return how far ALICE is trusted."""
    return world.verifier.trust.score.score(ALICE)


NOT_HERS = Allow(BOB, (TASKS,))
HERS = Allow(ALICE, (TASKS,))
SLOW = Allow(ALICE, (TASKS,), Rate(1, 3600.0))


def test_what_she_does_herself_counts() -> None:
    """Promise: a message where she may not speak, one too many, and one sent while contained are each a fact."""
    forbidden = world(NOT_HERS)
    assert judged(forbidden, sent()) == ["not_permitted"]
    assert score(forbidden) == ONE
    hasty = world(SLOW)
    assert judged(hasty, sent(0), sent(1)) == ["VerifiedMessage", "rate_limited"]
    assert score(hasty) == 1.0, "two within two stretches of a rate may be as fast as it allows"
    assert judged(hasty, sent(2)) == ["rate_limited"]
    assert score(hasty) == ONE
    contained = world(HERS, contained=frozenset({ALICE}))
    assert judged(contained, sent()) == ["contained"]
    assert score(contained) == ONE


def test_good_messages_raise_nothing() -> None:
    """Promise: no volume of good traffic makes up for a fact, or stores up trust for later."""
    seen = world(HERS)
    judged(seen, sent(0, channel=Channel.parse("kafka://prod/other"), position=Position("other/0", 1)))
    before = score(seen)
    assert judged(seen, *(sent(number) for number in range(1, 200))) == ["VerifiedMessage"] * 199
    assert score(seen) == before
    fresh = world(HERS)
    judged(fresh, *(sent(number) for number in range(1, 200)))
    judged(fresh, sent(0, channel=Channel.parse("kafka://prod/other"), position=Position("other/0", 1)))
    assert score(fresh) == before


def test_who_is_contained_cannot_wait_it_out_by_good_messages() -> None:
    """Promise: the score rises with time alone, at the same pace for all."""
    quiet, busy = world(NOT_HERS), world(NOT_HERS)
    for one in (quiet, busy):
        judged(one, sent())
    busy.verifier.switch(Policy(allow=(HERS,)), busy.verifier.keys)
    busy.now = quiet.now = LATER + 1800.0
    judged(busy, *(sent(number, at=LATER + 1800) for number in range(1, 100)))
    assert score(quiet) == score(busy)


def _copied(message: Message) -> Message:
    return replace(message, position=Position("tasks/0", 99))


def _moved(message: Message) -> Message:
    return replace(message, channel=Channel.parse("kafka://prod/secrets"), position=Position("secrets/0", 5))


def _to_another_partition(message: Message) -> Message:
    return replace(message, partition=1, position=Position("tasks/1", 5))


def _altered(message: Message) -> Message:
    return replace(message, value=b'{"scale": 1000}')


def _late(message: Message) -> Message:
    return replace(message, appended_at=LATER + 400.0)


def _unsigned(message: Message) -> Message:
    return replace(message, headers=message.headers[:-1])


@pytest.mark.parametrize("attack", [_copied, _moved, _to_another_partition, _altered, _late, _unsigned])
@pytest.mark.parametrize("rule", [HERS, NOT_HERS, SLOW], ids=["hers", "not hers", "slow"])
def test_a_captured_message_cannot_be_turned_against_her(attack: Callable[[Message], Message], rule: Allow) -> None:
    """Promise: sent again, copied elsewhere, altered or delayed, it moves her score no further than she did herself."""
    seen = world(rule)
    original = sent()
    judged(seen, original)
    before = score(seen)
    seen.now = LATER + 401.0
    seen_again = attack(original)
    assert judged(seen, *[replace(seen_again) for _ in range(20)]) != []
    assert score(seen) >= before


def test_a_redelivery_is_no_second_fact() -> None:
    """Promise: anyone who can have messages delivered again (a consumer's admin, a crash) makes nothing of it."""
    seen = world(NOT_HERS)
    original = sent()
    judged(seen, original)
    before = score(seen)
    seen.now += 10.0
    assert judged(seen, *[original] * 20) == ["not_permitted"] * 20
    assert score(seen) >= before


@pytest.mark.parametrize("name", [ALICE, BOB])
def test_what_is_forged_under_her_name_moves_nothing(name: str) -> None:
    """Promise: without her key nobody speaks against her, whatever key is used."""
    seen = world(NOT_HERS)
    bare = kafka(appended_at=LATER + 0.5)
    forged = press(bare, key=MALLORY_KEY, principal=name, c6=LATER)
    stolen = press(bare, key=ALICE_KEY, principal=MALLORY, c6=LATER)
    assert set(judged(seen, *[forged, stolen] * 10)) <= {"wrong_principal", "unknown_key", "bad_signature"}
    assert [seen.verifier.trust.score.score(who) for who in (ALICE, BOB, MALLORY)] == [1.0] * 3


def test_an_alias_makes_no_fact() -> None:
    """Promise: where others may copy her messages to, and the rules say she may not speak, nothing counts."""
    pair = Alias("kafka://prod/src.tasks", TASKS)
    seen = world(HERS, aliases=(pair,))
    copy = replace(sent(), channel=Channel.parse(pair.channel), position=Position("src.tasks/0", 5))
    assert judged(seen, copy) == ["not_permitted"]
    assert score(seen) == 1.0
    busy = world(Allow(ALICE, (pair.channel,), Rate(1, 3600.0)), aliases=(pair,))
    copies = [replace(copy, headers=sent(n).headers, position=Position("src.tasks/0", n)) for n in range(3)]
    assert judged(busy, *copies) == ["VerifiedMessage", "rate_limited", "rate_limited"]
    assert score(busy) == 1.0


def test_an_unsigned_partition_makes_no_fact() -> None:
    """Promise: with a shared store a partition may be unsigned, so anyone may have chosen it: nothing counts."""
    seen = World(policy=Policy(allow=(NOT_HERS,)), shared_replay=True)
    seen.now = LATER + 1.0
    unbound = press(kafka(appended_at=LATER + 0.5, partition=None), c6=LATER)
    message = replace(unbound, partition=0)
    assert judged(seen, message) == ["not_permitted"]
    assert score(seen) == 1.0


def test_messages_that_were_held_back_make_no_fact() -> None:
    """Promise: who withholds her messages and lets them all go at once makes her no fast sender, in whatever order."""
    pace = Allow(ALICE, (TASKS,), Rate(1, 1.0))
    for order in (1, -1):
        seen = world(pace)
        held = [sent(number, at=LATER + number, appended_at=LATER + 4.0) for number in range(4)][::order]
        seen.now = LATER + 5.0
        assert judged(seen, *held) == ["VerifiedMessage"] + ["rate_limited"] * 3
        assert score(seen) == 1.0
    seen = world(pace)
    hasty = [sent(number, at=LATER + number // 4, appended_at=LATER + 4.0) for number in range(16)]
    seen.now = LATER + 5.0
    assert judged(seen, *hasty) == ["VerifiedMessage"] + ["rate_limited"] * 15
    assert score(seen) < 1.0


def test_without_the_brokers_stamp_nobody_is_a_fast_sender() -> None:
    """Promise: where only the reader knows when messages came, to slow it down or speed it up proves nothing."""
    seen = world(Allow(ALICE, ("nats://prod/tasks.>",), Rate(1, 3600.0)))
    messages = [press(nats(), c6=LATER, c7=number.to_bytes(16)) for number in range(3)]
    assert judged(seen, *messages) == ["VerifiedMessage", "rate_limited", "rate_limited"]
    assert score(seen) == 1.0


@pytest.mark.parametrize(
    "change",
    [
        {"allow": (NOT_HERS,)},
        {"allow": (SLOW,)},
        {"allow": (HERS,), "contained": frozenset({ALICE})},
    ],
    ids=["permission", "rate", "containment"],
)
def test_a_change_of_rules_is_not_her_doing(change: dict[str, Any]) -> None:
    """Promise: what she sent before the rules changed, or before this process began, counts for nothing."""
    seen = world(HERS)
    seen.verifier.switch(Policy(**change), seen.verifier.keys)
    judged(seen, *(sent(number) for number in range(3)))
    assert score(seen) == 1.0
    seen.now += 30.0
    after = [sent(10 + number, at=seen.now) for number in range(3)]
    seen.now += 1.0
    judged(seen, *after)
    assert score(seen) < 1.0
    started = World(policy=Policy(allow=(NOT_HERS,)))
    judged(started, sent(at=NOW), sent(1, at=NOW + 5))
    assert score(started) == 1.0


def test_a_flood_is_capped() -> None:
    """Promise: a thousand facts a second weigh no more than one, and a day of them no more than 5 demerits."""
    seen = world(NOT_HERS)
    judged(seen, *(sent(number) for number in range(1000)))
    assert score(seen) == ONE
    for second in range(1, 200):
        seen.now = LATER + 1.0 + second
        judged(seen, *(sent(1000 * second + number, at=LATER + second) for number in range(5)))
        assert score(seen) >= exp(-0.1 * (second + 1)) * 0.999
    assert score(seen) >= exp(-5.0)


def test_what_is_rejected_for_other_reasons_counts_for_nobody() -> None:
    """Promise: not_trusted is evidence of nothing, so nobody is kept out for being kept out."""
    seen = world(Allow(ALICE, (TASKS,), min_trust=0.99))
    seen.verifier.trust.score.add(ALICE, 1.0)
    before = score(seen)
    for number in range(50):
        seen.now += 1.0
        assert judged(seen, sent(number, at=seen.now - 1.0)) == ["not_trusted"]
    assert score(seen) >= before


def _agent(clock: Clock, policy: Policy) -> Watchword:
    known = World().verifier.keys
    return Watchword(realm="prod", principal=BOB, keys=known, policy=policy, clock=clock)


def test_reports_of_copies_and_redeliveries_count_for_nothing() -> None:
    """Promise: a handler that reports whatever it is given cannot be made to report one message twice."""
    clock = Clock(LATER + 1.0)
    pair = Alias("kafka://prod/src.tasks", TASKS)
    agent = _agent(clock, Policy(aliases=(pair,)))
    original = sent()
    first, again = (at_once(agent.admit(original)) for _ in range(2))
    assert isinstance(first, VerifiedMessage)
    assert not agent.report(again)
    assert agent.trust(ALICE) == 1.0
    assert agent.report(first)
    clock.advance(10.0)
    before = agent.trust(ALICE)
    moved = replace(sent(1), channel=Channel.parse(pair.channel), position=Position("src.tasks/0", 5))
    assert not any(agent.report(one) for one in (first, again, at_once(agent.admit(moved))))
    assert agent.trust(ALICE) == before


@pytest.mark.parametrize(
    "change",
    [
        Policy(),
        Policy(max_age=60.0, allow=(HERS,)),
        Policy(allow=(Allow(ALICE, (TASKS,), min_trust=0.97),)),
    ],
)
def test_a_change_of_settings_resets_no_score(change: Policy) -> None:
    """Promise (A56): anyone who can bring about a change of settings wins no trust by it, and none is let in by it."""
    clock = Clock(LATER + 1.0)
    agent = _agent(clock, Policy(allow=(Allow(ALICE, (TASKS,), min_trust=0.95),)))
    agent.report(at_once(agent.admit(sent())))
    before = agent.trust(ALICE)
    kept_out = agent.verifier.trust.kept_out()
    agent.switch(change, MemoryKeys())
    agent.switch(change, agent.verifier.keys)
    assert agent.trust(ALICE) == before
    assert agent.verifier.trust.kept_out() == kept_out == {ALICE: (0.95,)}


SAYS = Operator("agent://acme/oncall", frozenset(Verb), ("**",))
BY = SAYS.principal, "k" * 43


def say(control: Control, saying: Saying, rank: int) -> None:
    """Let an operator say something."""
    statement = Statement(rank, "" if rank == 1 else "d" * 43, rank, saying)
    assert control.hear(Issued(BY, rank.to_bytes(32), statement))


def obeying(*, at: float = LATER) -> tuple[World, Control]:
    """Return a world that hears of containments, and what it hears of them."""
    seen = world(HERS)
    seen.now = at
    control = Control((SAYS,), clock=lambda: seen.now)
    seen.verifier.obey(control)
    return seen, control


@pytest.mark.parametrize("who", [ALICE, "agent://acme/*"])
def test_a_containment_makes_no_fact_of_what_was_sent_before(who: str) -> None:
    """Promise: an operator's word counts only behind the time when it was known here, and clocks may differ."""
    seen, control = obeying()
    say(control, Contain(who), 1)
    seen.now = LATER + 20
    sent_before = [sent(n, at=LATER + second, appended_at=LATER + 9.0) for n, second in enumerate((0, 2, 4))]
    assert judged(seen, *sent_before) == ["contained"] * 3
    assert score(seen) == 1.0
    assert judged(seen, sent(9, at=LATER + 5)) == ["contained"]
    assert score(seen) == ONE


def test_a_containment_that_is_made_longer_was_known_all_the_time() -> None:
    """Promise: words that are repeated, or replaced by longer ones, let nobody send while contained for free."""
    seen, control = obeying()
    say(control, Contain(ALICE, until=int(LATER) + 60), 1)
    seen.now = LATER + 20
    say(control, Contain(ALICE), 2)
    assert control.containments(seen.now)[0].since == LATER
    seen.now = LATER + 21
    assert judged(seen, sent(0, at=LATER + 10)) == ["contained"]
    assert score(seen) == ONE


def test_a_containment_that_had_ended_begins_anew() -> None:
    """Promise: what was sent between two containments counts for nothing, however the first one ended."""
    for ending in (None, Release(ALICE)):
        seen, control = obeying()
        say(control, Contain(ALICE, until=int(LATER) + (10 if ending is None else 1000)), 1)
        seen.now = LATER + 11
        if ending is not None:
            say(control, ending, 2)
        seen.now = LATER + 40
        say(control, Contain(ALICE), 3)
        seen.now = LATER + 41
        assert judged(seen, sent(0, at=LATER + 20)) == ["contained"]
        assert score(seen) == 1.0


def test_of_several_containments_the_first_known_counts() -> None:
    """Promise: a second operator's word on who is contained already takes nothing back; one that has ended does."""
    seen, control = obeying()
    say(control, Contain(ALICE, until=int(LATER) + 100), 1)
    seen.now = LATER + 50
    say(control, Contain("agent://acme/**"), 2)
    assert control.contained_since(ALICE, lambda: LATER + 60) == LATER
    assert control.contained_since(ALICE, lambda: LATER + 100) == LATER + 50
    assert control.contained_since("agent://other/planner", lambda: LATER) == inf


def test_settings_that_contain_need_no_operators_word() -> None:
    """Promise: who stands in the settings was contained by them, whatever else is said of it later."""
    seen = world(HERS, contained=frozenset({ALICE}))
    control = Control((SAYS,), clock=lambda: seen.now)
    seen.verifier.obey(control)
    say(control, Contain(ALICE), 1)
    assert judged(seen, sent()) == ["contained"]
    assert score(seen) == ONE


def test_what_nobody_timed_makes_no_fact() -> None:
    """Promise: a control log without a clock contains, and accuses nobody."""
    seen = world(HERS)
    control = Control((SAYS,))
    seen.verifier.obey(control)
    say(control, Contain(ALICE), 1)
    say(control, Contain(ALICE, why="once more"), 2)
    assert judged(seen, sent()) == ["contained"]
    assert score(seen) == 1.0


def test_a_clock_that_was_set_back_accuses_nobody() -> None:
    """Promise (A34): a containment that was heard by a clock ahead counts once the clock shows that time again."""
    seen, control = obeying(at=LATER + 3600)
    say(control, Contain(ALICE), 1)
    seen.now = LATER
    assert judged(seen, sent(0, at=LATER - 1)) == ["contained"]
    assert score(seen) == 1.0
    say(control, Contain(ALICE, why="once more"), 2)
    assert control.contained_since(ALICE, lambda: LATER) == LATER
