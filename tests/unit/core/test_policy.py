"""Policy: limits with ceilings, who may speak where, how fast."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.unit.core.world import ALICE, BOB, World, endings, nats, press
from watchword import Alias, Allow, ConfigurationError, Mode, Policy, Rate
from watchword.patterns import Patterns
from watchword.policy import ChannelRule
from watchword.rates import RateLimiter
from watchword.spi import Channel

P = "agent://acme/planner"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_age", 0.5),
        ("max_age", 24 * 3600 + 1),
        ("max_skew", -1),
        ("max_skew", 301),
        ("max_hold", -1),
        ("max_hold", 601),
        ("max_lag", 0),
        ("max_lag", 91 * 24 * 3600),
        ("memory", 999_999),
        ("memory", (1 << 36) + 1),
        ("max_age", math.nan),
        ("max_skew", math.inf),
    ],
)
def test_limits_have_hard_ceilings(name: str, value: float) -> None:
    """Promise: an unsafe limit is an error at construction that names the range."""
    with pytest.raises(ConfigurationError, match=f"{name} of .* choose"):
        Policy(**{name: value})  # type: ignore[arg-type] # one table for all limits


def test_window_and_horizon() -> None:
    """Promise: window = max_age + 2 skew, and an id stays known for max_age + skew of log time."""
    policy = Policy(max_age=100, max_skew=7)
    assert (policy.window, policy.horizon) == (114, 107)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("200/s", Rate(200, 1)), ("30/m", Rate(30, 60)), ("5/h", Rate(5, 3600)), ("1000000/s", Rate(1_000_000, 1))],
)
def test_rates_are_read(text: str, rate: Rate) -> None:
    """Promise: a rate is a number and a unit."""
    assert Rate.parse(text) == rate


@pytest.mark.parametrize("text", ["", "0/s", "5", "5/d", "-1/s", "1.5/s", "1000001/s", "99999999/s", " 5/s", "5/s\n"])
def test_other_rates_are_refused(text: str) -> None:
    """Promise: anything else is one error that shows how to write it."""
    with pytest.raises(ConfigurationError, match="200/s"):
        Rate.parse(text)


@pytest.mark.parametrize(
    "uri",
    ["tasks", "amqp://prod/x", "kafka://prod/*.tasks", "kafka://prod/a**", "kafka://prod/>", "nats://prod/a.>.b", "nats://prod/a..b",
     "nats://prod/>.a", "nats://prod/task*", "nats://prod/a.b>", "nats://prod/a b", "kafka://prod/a b", "kafka://prod/..",
     "kafka://prod/" + "a" * 250],
)  # fmt: skip
def test_wrong_patterns_are_refused(uri: str) -> None:
    """Promise: a rule that could never match, or not as meant, is an error when it is made."""
    with pytest.raises(ConfigurationError, match="allow"):
        Allow(P, (uri,))


def test_a_rule_needs_a_principal_and_a_channel() -> None:
    """Promise: a rule for nobody or nothing is refused."""
    with pytest.raises(ConfigurationError, match="principal"):
        Allow("", ("nats://prod/a",))
    with pytest.raises(ConfigurationError, match="channel"):
        Allow(P, ())


@pytest.mark.parametrize(
    ("pattern", "uri", "covered"),
    [
        ("nats://prod/a.b", "nats://prod/a.b", True),
        ("nats://prod/a.b", "nats://prod/a.b.c", False),
        ("nats://prod/a.*", "nats://prod/a.b", True),
        ("nats://prod/a.*", "nats://prod/a", False),
        ("nats://prod/a.*", "nats://prod/a.b.c", False),
        ("nats://prod/*.b", "nats://prod/a.b", True),
        ("nats://prod/*.b", "nats://prod/a.c", False),
        ("nats://prod/a.>", "nats://prod/a.b.c", True),
        ("nats://prod/a.>", "nats://prod/a", False),
        ("nats://prod/>", "nats://prod/a", True),
        ("nats://prod/*.>", "nats://prod/a.b", True),
        ("nats://prod/*.>", "nats://prod/a", False),
        ("nats://prod/>", "nats://other/a", False),
        ("nats://prod/>", "kafka://prod/a", False),
        ("kafka://prod/a.b", "kafka://prod/a.b", True),
        ("kafka://prod/a.b", "kafka://prod/a-b", False),
        ("kafka://prod/a", "kafka://other/a", False),
        ("kafka://prod/a.*", "kafka://prod/a.b.c", True),
        ("kafka://prod/a.*", "kafka://prod/a.", True),
        ("kafka://prod/a.*", "kafka://prod/a", False),
        ("kafka://prod/a*", "kafka://prod/a", True),
        ("kafka://prod/*", "kafka://prod/a", True),
        ("kafka://prod/*", "kafka://other/a", False),
        ("kafka://prod/*", "nats://prod/a", False),
    ],
)
def test_patterns(pattern: str, uri: str, covered: bool) -> None:  # noqa: FBT001 - a table's column
    """Promise: '*' stands for one token, a final '>' for one or more, in subjects of one realm only."""
    rule = Allow(P, (pattern,))
    assert Policy(allow=(rule,)).rule_for(P, Channel.parse(uri)) is (rule if covered else None)


def test_what_is_remembered_of_rules_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise (A20): an agent that speaks on subjects without number fills no memory, and each answer stays right."""
    monkeypatch.setattr("watchword.policy.MOST_FOUND", 3)
    policy = Policy(allow=(Allow("agent://acme/*", ("nats://prod/a.*",)),))
    for number in [*range(10), *range(10)]:
        assert policy.rule_for(P, Channel("nats", "prod", f"a.{number}")) is policy.allow[0]
        assert policy.rule_for(P, Channel("nats", "prod", f"b.{number}")) is None
        assert len(policy._allowed._found) <= 3


def test_prefixes_within_prefixes() -> None:
    """Promise: each pattern is found once, the longest prefix first, and all that a prefix covers is met."""
    names = ("a*", "a.b*", "a.b.c*", "a.b", "b*", "a.*")
    patterns = Patterns((f"kafka://prod/{name}", name) for name in names)
    assert list(patterns.covering("kafka://prod/a.b")) == ["a.b", "a.b*", "a.*", "a*"]
    assert list(patterns.covering("kafka://prod/a.b*")) == ["a.b*", "a.*", "a*"]
    assert sorted(patterns.meeting("kafka://prod/a.b*")) == ["a*", "a.*", "a.b", "a.b*", "a.b.c*"]
    assert sorted(patterns.meeting("kafka://prod/a.b")) == ["a*", "a.*", "a.b", "a.b*"]
    assert sorted(patterns.meeting("kafka://prod/c*")) == []


def calls_of(work: Callable[[], object]) -> int:
    """Return how many calls of Python functions, and steps of generators, some work takes."""
    calls = 0

    def count(_frame: object, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.slow
@pytest.mark.usefixtures("not_traced")
def test_thousands_of_rules_cost_a_message_nothing() -> None:
    """Promise: ten thousand rules, channels and aliases are read in time for each, and asked as ten are."""
    read, asked = dict[int, int](), dict[int, int]()
    for many in (10, 10_000):
        uris = tuple(f"nats://prod/t{number}.>" for number in range(many))
        last = Channel.parse(f"nats://prod/t{many - 1}.a.b")

        def make(uris: tuple[str, ...] = uris, many: int = many) -> Policy:
            return Policy(
                allow=(*(Allow(P, (uri,)) for uri in uris), Allow(P, uris, Rate(100_000, 1.0))),
                channels=tuple(ChannelRule(uri, Mode.OBSERVE) for uri in uris),
                aliases=tuple(Alias(f"nats://prod/{number}", "nats://prod/a") for number in range(many)),
            )

        policy = make()

        def ask(policy: Policy = policy, last: Channel = last, many: int = many) -> None:
            limiter = RateLimiter()
            for number in range(50):
                other = Channel("nats", "prod", f"other{number}")
                assert policy.rule_for(P, last) is policy.allow[many - 1]
                assert policy.rule_for(P, other) is None
                assert policy.observes(last)
                assert not policy.observes(other)
                assert policy.accepts(Channel("nats", "prod", f"{many - 1}"), "nats://prod/a")
                assert limiter.spend(policy.allow[-1], P, "log", at=0.0)

        # What changes one of its limits keeps the rules, and what they are found by.
        assert replace(policy, max_age=30.0).channels is policy.channels
        read[many] = (calls_of(make) + calls_of(ask)) // many  # rules are sorted when they are first asked for
        asked[many] = calls_of(ask)
    assert asked[10_000] < 1.5 * asked[10]
    assert read[10_000] < 1.5 * read[10]


def test_no_rule_lets_anybody_speak_and_one_rule_shuts_the_rest_out() -> None:
    """Promise: without rules any known principal may speak anywhere; with one, only as written."""
    message = press(nats(channel=Channel.parse("nats://prod/a")))
    rule = Allow(ALICE, ("nats://prod/b", "nats://prod/a"))
    for allow, wanted in (
        ((), "first"),
        ((rule,), "first"),
        ((Allow(BOB, rule.channels),), "not_permitted"),
        ((Allow(BOB, rule.channels), rule), "first"),
        ((Allow(ALICE, ("nats://prod/b",)),), "not_permitted"),
    ):
        assert endings(World(policy=Policy(allow=allow)), [message]) == [wanted]


def test_a_bucket_fills_in_reference_time() -> None:
    """Promise: a rate allows its count at once, then its pace, and saves up one period at most."""
    limiter, rule = RateLimiter(), Allow(P, ("nats://prod/a",), Rate(2, 10.0))
    assert [limiter.spend(rule, P, "log", at=100.0) for _ in range(3)] == [True, True, False]
    assert [limiter.spend(rule, P, "log", at=105.0) for _ in range(2)] == [True, False]
    assert [limiter.spend(rule, P, "log", at=1000.0) for _ in range(3)] == [True, True, False]


def test_time_that_steps_back_fills_nothing() -> None:
    """Promise (A34): a clock that steps back and forth gives no more than the rate."""
    limiter, rule = RateLimiter(), Allow(P, ("nats://prod/a",), Rate(1, 10.0))
    assert limiter.spend(rule, P, "log", at=100.0)
    assert not any(limiter.spend(rule, P, "log", at=at) for at in (50.0, 100.0, 60.0, 100.0))


def test_each_log_has_its_bucket_until_it_is_forgotten() -> None:
    """Promise: logs whose times pass out of step do not starve one another; no rate means no limit."""
    limiter, rule = RateLimiter(), Allow(P, ("nats://prod/a",), Rate(1, 10.0))
    assert limiter.spend(rule, P, "one", at=100.0)
    assert limiter.spend(rule, P, "two", at=50.0)
    assert not limiter.spend(rule, P, "one", at=100.0)
    limiter.forget("one")
    assert limiter.spend(rule, P, "one", at=100.0)
    assert not limiter.spend(rule, P, "two", at=50.0)
    assert all(limiter.spend(Allow(P, ("nats://prod/a",)), P, "one", at=0.0) for _ in range(100))
