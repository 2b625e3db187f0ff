"""A24: a compromised agent with a valid key: on channels that are not its own, at machine speed, contained."""

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
    ending,
    endings,
    kafka,
    nats,
    press,
    public,
    rejected,
)
from watchword import Allow, ConfigurationError, Policy, Rate, Reason, SigningKey
from watchword.spi import Channel, Message, Position

ALL = "agent://acme/**"
KEYS = {ALICE: ALICE_KEY, BOB: BOB_KEY, MALLORY: MALLORY_KEY}


def record(number: int, who: str = MALLORY, *, at: float = NOW, topic: str = "tasks", **fields: object) -> Message:
    """Return one of many records of an agent, appended when it was issued."""
    where: dict[str, object] = {"channel": Channel("kafka", "prod", topic), "position": Position(f"{topic}/0", number)}
    plain = kafka(**where | {"appended_at": at} | fields)
    return press(plain, key=KEYS[who], principal=who, c6=int(at), c7=f"{who[-4:]}{number:012}".encode())


def policy(*allow: Allow, **options: object) -> World:
    """Return a world with these rules."""
    return World(policy=Policy(allow=allow, **options))  # type: ignore[arg-type]  # one table


def test_a24_an_agent_at_machine_speed_takes_nothing_from_another_under_its_pattern() -> None:
    """Promise: under one rule for all, who floods is held to the rate, and the others have all of theirs."""
    world = policy(Allow(ALL, ("kafka://prod/*",), Rate(3, 60.0)))
    flood = endings(world, [record(number) for number in range(500)])
    assert flood == ["first"] * 3 + ["rate_limited"] * 497
    assert endings(world, [record(600 + number, ALICE) for number in range(4)]) == ["first"] * 3 + ["rate_limited"]


@pytest.mark.parametrize("step", [0.01, 0.5, 7.0])
def test_a24_a_valid_agent_gets_its_rate_and_no_more(step: float) -> None:
    """Promise: over any length of time it is given what the rate allows, to the message."""
    world = policy(Allow(MALLORY, ("kafka://prod/tasks",), Rate(20, 10.0)))
    times = [NOW + number * step for number in range(400)]
    world.now = times[-1] + 1.0
    given = endings(world, [record(number, at=at) for number, at in enumerate(times)]).count("first")
    allowed = min(400, 20 + 2 * (times[-1] - NOW))
    assert abs(given - allowed) <= 1


@pytest.mark.parametrize("topic", ["payments", "order", "orders-internal", "Orders.eu"])
def test_a24_a_prefix_opens_no_other_topic(topic: str) -> None:
    """Promise: who may write what begins with "orders." may write nothing that only looks alike."""
    world = policy(Allow(ALL, ("kafka://prod/orders.*",)))
    assert rejected(record(1, topic=topic), world).reason is Reason.NOT_PERMITTED
    assert endings(world, [record(2, topic="orders.eu")]) == ["first"]


@pytest.mark.parametrize("who", ["agent://acme2/x", "agent://acme", "agent://acme-evil/x", "agent:/acme/x", "x/acme/x"])
def test_a24_a_pattern_lets_no_other_name_in(who: str) -> None:
    """Promise: names that share letters, but not the parts, with a pattern are not permitted."""
    key = SigningKey.generate()
    world = World(policy=Policy(allow=(Allow(ALL, ("nats://prod/>",)),)), keys=[public(key, who)])
    assert rejected(press(nats(), key=key, principal=who), world).reason is Reason.NOT_PERMITTED


@pytest.mark.parametrize("name", ["agent://acme/*", "agent://acme/**", "agent://*/x", "agent://**/planner"])
def test_a24_an_agent_named_like_a_pattern_is_one_agent(name: str) -> None:
    """Promise: who gets a key for a name that reads like a pattern gains nothing of others by it, nor escapes one."""
    key = SigningKey.generate()
    message = press(nats(), key=key, principal=name)
    for allow in (Allow("agent://acme/planner", ("nats://prod/>",)), Allow("agent://other/**", ("nats://prod/>",))):
        assert (
            rejected(message, World(policy=Policy(allow=(allow,)), keys=[public(key, name)])).reason == "not_permitted"
        )
    contained = World(policy=Policy(contained=frozenset({"agent://*/*", "**"})), keys=[public(key, name)])
    assert rejected(message, contained).reason is Reason.CONTAINED


def test_a24_a_tighter_rule_for_one_agent_is_not_undone_by_a_wider_one() -> None:
    """Promise: whatever stands first in the file, the rule that names the agent holds it to its rate."""
    own, all_of_them = Allow(MALLORY, ("kafka://prod/tasks",), Rate(1, 3600.0)), Allow(ALL, ("kafka://prod/*",))
    for allow in ((own, all_of_them), (all_of_them, own)):
        assert endings(policy(*allow), [record(1), record(2), record(3, ALICE)]) == ["first", "rate_limited", "first"]


def test_a24_no_agent_makes_the_spending_of_another_be_forgotten() -> None:
    """Promise: times of issue ahead, which a sender may choose where the broker stamps nothing, free nobody's rate."""
    rule = Allow(ALL, ("kafka://prod/tasks",), Rate(1, 60.0))
    world = policy(rule, max_age=3600.0)
    world.now = NOW + 600.0
    unstamped: dict[str, Any] = {"appended_at": None, "appended_between": (NOW - 1.0, NOW + 600.0)}
    assert endings(world, [record(number, at=NOW + 0.0, **unstamped) for number in (1, 2)]) == ["first", "rate_limited"]
    table = world.verifier._rates._tables[rule, "group#tasks/0"]
    table.look_at = 0
    assert endings(world, [record(3, ALICE, at=NOW + 599.0, **unstamped)]) == ["first"]
    assert set(table.buckets) == {MALLORY, ALICE}
    assert table.passed == NOW - 1.0
    assert endings(world, [record(4, at=NOW + 0.0, **unstamped)]) == ["rate_limited"]


def test_a24_who_is_contained_by_a_pattern_is_cut_off() -> None:
    """Promise: a pattern in ``contained`` cuts off all that it matches, from the next message on, and says so."""
    world = policy(contained=frozenset({"agent://acme/*"}))
    verdict = rejected(press(nats()), world)
    assert verdict.reason is Reason.CONTAINED
    assert verdict.detail == "'agent://acme/*' is in [policy] contained"
    assert endings(policy(contained=frozenset({"agent://other/**"})), [press(nats())]) == ["first"]


@pytest.mark.parametrize("text", ["agent://acme/plan*", "agent://acme/**/x", "agent://acme/***", "", "a\nb", " "])
def test_a24_a_pattern_that_would_match_nobody_is_refused(text: str) -> None:
    """Promise: a containment or a rule that reads as if it covered someone, and does not, is an error at once."""
    with pytest.raises(ConfigurationError, match=r"^contained: principal .*(whole part|last '\*\*')"):
        Policy(contained=frozenset({text}))
    with pytest.raises(ConfigurationError, match=r"^allow: principal .*(whole part|last '\*\*')"):
        Allow(text, ("nats://prod/a",))


def test_a24_rules_that_are_gone_hold_nobody() -> None:
    """Promise: what was spent under a rule that a change of settings took away is not kept in memory."""
    one, four = (Policy(allow=(Allow(ALL, ("kafka://prod/*",), Rate(count, 60.0)),)) for count in (1, 4))
    world = policy(*one.allow)
    assert endings(world, [record(1), record(2)]) == ["first", "rate_limited"]
    for changed in (four, one):
        world.verifier.switch(changed, world.verifier.keys)
    assert ending(at_once(world.verifier.verify(record(3)))) == "first"
