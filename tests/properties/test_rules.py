"""Channels, patterns, rates and the folding of logs, for any input."""

from collections import Counter
from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from structlog.types import EventDict

from tests.unit.core.world import nats
from watchword import Allow, ConfigurationError, Mode, Policy, Rate, Reason, Rejected, SigningError
from watchword.audit import BURST, PERIOD
from watchword.message import is_principal
from watchword.policy import ChannelRule, RateLimiter
from watchword.spi import Audit, Channel

NAMES = st.builds(
    lambda tokens, rest: ".".join([*tokens, *rest]),
    st.lists(st.sampled_from(["a", "b", "*"]), max_size=3),
    st.sampled_from([["a"], ["b"], ["*"], [">"]]),
)
TOKENS = st.lists(st.sampled_from(["a", "b", "cc", "*", ">"]), min_size=1, max_size=4)
P = "agent://acme/p"


@given(
    st.text(max_size=40) | st.builds("{}://{}/{}".format, st.sampled_from(["kafka", "nats", "x"]), st.text(), st.text())
)
def test_a_channel_is_one_channel(uri: str) -> None:
    """Promise (A30): what is read as a channel is written as it was; what may be signed is read back as it is."""
    try:
        channel = Channel.parse(uri)
    except ValueError:
        return
    assert channel.uri == uri
    try:
        channel.check_signable()
    except SigningError:
        return
    assert uri.isascii()
    assert uri.isprintable()
    assert " " not in uri


def matches(pattern: list[str], subject: list[str]) -> bool:
    """Match as NATS documents it, recursively."""
    if not pattern:
        return not subject
    if not subject:
        return False
    if pattern == [">"]:
        return True
    return pattern[0] in {"*", subject[0]} and matches(pattern[1:], subject[1:])


@given(TOKENS, st.lists(st.sampled_from(["a", "b", "cc"]), min_size=1, max_size=5))
def test_patterns_match_as_nats_does(pattern: list[str], subject: list[str]) -> None:
    """Promise: a rule covers what a subscription of the same pattern would receive; what could not be is refused."""
    try:
        rule = Allow(P, ("nats://prod/" + ".".join(pattern),))
    except ConfigurationError:
        assert ">" in pattern[:-1]
        return
    found = Policy(allow=(rule,)).rule_for(P, Channel("nats", "prod", ".".join(subject)))
    assert found is (rule if matches(pattern, subject) else None)


SPOKEN = st.builds(
    Allow, st.sampled_from([P, "agent://acme/q"]), st.builds(lambda name: (f"nats://prod/{name}",), NAMES)
)


@given(st.lists(SPOKEN, max_size=8), st.lists(st.sampled_from(["a", "b", "cc"]), min_size=1, max_size=4))
def test_the_first_rule_that_covers_a_channel_holds(allow: list[Allow], subject: list[str]) -> None:
    """Promise: which rule lets a principal speak, and so at which rate, is a matter of their order alone."""
    channel = Channel("nats", "prod", ".".join(subject))
    wanted = next((one for one in allow if one.principal == P and covers(one.channels[0][12:], channel.name)), None)
    assert Policy(allow=tuple(allow)).rule_for(P, channel) is wanted


@given(st.lists(st.tuples(NAMES, st.sampled_from(Mode)), max_size=8, unique_by=lambda one: one[0]), NAMES)
def test_the_most_exact_rule_for_a_channel_holds(written: list[tuple[str, Mode]], asked: str) -> None:
    """Promise: a channel has the mode of the rule that says most of it, and all that a pattern covers has its own."""
    rules = tuple(ChannelRule(f"nats://prod/{name}", mode) for name, mode in written)
    policy = Policy(channels=rules)
    observes = policy.observes(Channel("nats", "prod", asked))
    subjects = [".".join(tokens) for length in range(1, 6) for tokens in product(("a", "b", "x"), repeat=length)]
    modes = {
        max(
            (rule for rule in rules if covers(rule.match[12:], one)), key=lambda rule: rule.exactness, default=policy
        ).mode
        for one in subjects
        if covers(asked, one)
    }
    assert not (observes and Mode.ENFORCE in modes)
    if not {"*", ">"} & set(asked.split(".")):
        assert modes == {Mode.OBSERVE if observes else Mode.ENFORCE}


def covers(pattern: str, subject: str) -> bool:
    """Match a pattern as it is written."""
    return matches(pattern.split("."), subject.split("."))


@given(st.text(max_size=300))
def test_names_of_agents(name: str) -> None:
    """Promise: no name with a control character, a blank at its ends or over 255 bytes is a principal."""
    if is_principal(name):
        assert name == name.strip(" ")
        assert 1 <= len(name.encode()) <= 255
        assert not any(ord(character) < 32 or ord(character) == 127 for character in name)


@given(st.integers(1, 5), st.lists(st.floats(-20, 100), min_size=1, max_size=60))
def test_a_rate_is_never_passed(count: int, times: list[float]) -> None:
    """Promise (A24, A34): however time moves, no more is spent than the burst and the pace over the highest time."""
    limiter, rule = RateLimiter(), Allow(P, ("nats://prod/a",), Rate(count, 10.0))
    spent = sum(limiter.spend(rule, "log", at) for at in times)
    elapsed = max(times) - times[0]
    assert spent <= count + elapsed * count / 10.0 + 1e-6


@given(
    st.lists(
        st.tuples(st.sampled_from([Reason.STALE, Reason.UNSIGNED]), st.floats(-1, 2) | st.floats(-15, 15)), max_size=80
    )
)
def test_folding_loses_no_count(steps: list[tuple[Reason, float]]) -> None:
    """Promise (A21): lines written and counts folded add up to the verdicts, at most a burst a kind and period."""
    now, since = 0.0, 0.0
    written: Counter[tuple[float, int, Reason]] = Counter()
    periods = 0
    with capture_logs() as logs:
        audit = Audit(clock=lambda: now)
        for reason, step in steps:
            now += step
            if not 0 <= now - since < PERIOD:
                since, periods = now, periods + 1
            before = _lines(logs)
            audit.refused(nats(), Rejected(reason))
            written[since, periods, reason] += _lines(logs) - before
        audit.flush()
    folded = sum(sum(line["counts"].values()) for line in logs if line["event"] == "message.refusals_folded")
    assert _lines(logs) + folded == sum(audit.counts.values()) == len(steps)
    assert all(1 <= count <= BURST for count in written.values())


def _lines(logs: list[EventDict]) -> int:
    return sum(line["event"] == "message.rejected" for line in logs)
