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
from watchword.policy import ChannelRule
from watchword.rates import RateLimiter
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


WHO = st.builds(
    lambda parts, last: "/".join([*parts, last]),
    st.lists(st.sampled_from(["a", "b", "*"]), max_size=2),
    st.sampled_from(["a", "b", "*", "**"]),
)
SPEAKER = st.builds("/".join, st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3))
SUBJECT = st.builds(".".join, st.lists(st.sampled_from(["a", "b", "cc"]), min_size=1, max_size=4))
TOPIC = st.text("ab.", min_size=1, max_size=4).filter(lambda name: name not in {".", ".."})
WHERE = st.builds("nats://prod/{}".format, NAMES) | st.builds(
    "kafka://prod/{}{}".format, st.text("ab.", max_size=3), st.just("*")
) | st.builds("kafka://prod/{}".format, TOPIC)  # fmt: skip
SPOKEN = st.builds(Allow, WHO, st.lists(WHERE, min_size=1, max_size=3).map(tuple))
CHANNELS = st.builds(Channel, st.just("nats"), st.just("prod"), SUBJECT) | st.builds(
    Channel, st.just("kafka"), st.just("prod"), TOPIC
)  # fmt: skip


def rank(pattern: list[str], one: str, rest: str) -> list[int]:
    """Return what orders patterns by how much they say, the one that says most first."""
    return [{one: 1, rest: 2}.get(token, 0) for token in pattern]


def precedence(principal: str, uri: str) -> tuple[list[int], list[int]]:
    """Return what orders rules, the one that holds first, as docs/policy.md states it."""
    who = rank(principal.split("/"), "*", "**")
    if uri.startswith("nats://"):
        return who, rank(uri[12:].split("."), "*", ">")
    return who, [-len(uri) if uri.endswith("*") else -1000]


def applies(principal: str, uri: str, speaker: str, channel: Channel) -> bool:
    """Match a rule as docs/policy.md states it."""
    who = ".".join({"**": ">"}.get(part, part) for part in principal.split("/"))
    if not covers(who, speaker.replace("/", ".")):
        return False
    if channel.scheme == "kafka":
        return channel.uri == uri or (uri.endswith("*") and channel.uri.startswith(uri[:-1]))
    return uri.startswith("nats://") and covers(uri[12:], channel.name)


@given(st.lists(SPOKEN, max_size=8), SPEAKER, CHANNELS)
def test_the_most_specific_rule_holds(allow: list[Allow], speaker: str, channel: Channel) -> None:
    """Promise (A24): which rule lets a principal speak is the stated order's doing: principal, channel, then place."""
    wanted = sorted(
        (precedence(rule.principal, uri), number)
        for number, rule in enumerate(allow)
        for uri in rule.channels
        if applies(rule.principal, uri, speaker, channel)
    )
    policy = Policy(allow=tuple(allow))
    assert policy.rules_matching(speaker, channel) == list(dict.fromkeys(number for _, number in wanted))
    for _ in range(2):  # found, and remembered
        assert policy.rule_for(speaker, channel) is (allow[wanted[0][-1]] if wanted else None)


@given(st.lists(WHO, max_size=5), SPEAKER)
def test_containment_by_pattern_is_what_its_patterns_match(contained: list[str], speaker: str) -> None:
    """Promise (A24): a principal is cut off if its name or any pattern of ``contained`` matches it, and only then."""
    found = Policy(contained=frozenset(contained)).containing(speaker)
    wanted = {one for one in contained if covers(one.replace("**", ">").replace("/", "."), speaker.replace("/", "."))}
    assert found in wanted if wanted else found is None


PREFIXES = st.builds("kafka://prod/{}*".format, st.text("ab", max_size=2)) | st.builds("kafka://prod/{}".format, TOPIC)


@given(st.lists(st.tuples(PREFIXES, st.sampled_from(Mode)), max_size=6, unique_by=lambda one: one[0]), PREFIXES)
def test_a_topic_has_the_mode_of_its_longest_prefix(written: list[tuple[str, Mode]], asked: str) -> None:
    """Promise: a topic's own rule comes before a prefix, and a longer prefix before a shorter one."""
    policy = Policy(channels=tuple(ChannelRule(match, mode) for match, mode in written))
    observes = policy.observes(Channel.parse(asked))
    topics = ["".join(name) for length in range(1, 5) for name in product("ab.", repeat=length)]
    modes = {
        min(
            (
                (-1000 if match == uri else -len(match), mode)
                for match, mode in written
                if match == uri or (match.endswith("*") and uri.startswith(match[:-1]))
            ),
            default=(0, Mode.ENFORCE),
        )[1]
        for uri in (f"kafka://prod/{name}" for name in topics)
        if uri == asked or (asked.endswith("*") and uri.startswith(asked[:-1]))
    }
    assert not (observes and Mode.ENFORCE in modes)
    if not asked.endswith("*"):
        assert modes == {Mode.OBSERVE if observes else Mode.ENFORCE}


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
    spent = sum(limiter.spend(rule, P, "log", at=at) for at in times)
    elapsed = max(times) - times[0]
    assert spent <= count + elapsed * count / 10.0 + 1e-6


STEPS = st.lists(
    st.tuples(st.sampled_from("pqrs"), st.floats(-3, 30) | st.sampled_from([0.0, 0.0, 60.0])), min_size=1, max_size=120
)


@given(st.integers(1, 4), STEPS)
def test_dropping_full_buckets_changes_no_answer(count: int, steps: list[tuple[str, float]]) -> None:
    """Promise (A24): while a log's time does not step back, the limiter answers as if it kept every bucket for good."""
    rule = Allow("**", ("nats://prod/a",), Rate(count, 10.0))
    limiter, kept, now = RateLimiter(), dict[str, RateLimiter](), 1000.0
    for who, step in steps:
        now += max(0.0, step)
        for table in limiter._tables.values():
            table.look_at = 0  # looks each time
        alone = kept.setdefault(who, RateLimiter())
        assert limiter.spend(rule, who, "log", at=now) == alone.spend(rule, who, "log", at=now)
        assert len(limiter) <= len(kept)


@given(st.integers(1, 4), st.integers(0, 3), STEPS)
def test_nobody_spends_more_for_others_or_for_want_of_room(
    count: int, most: int, steps: list[tuple[str, float]]
) -> None:
    """Promise (A24): with any room, any company and any clock, nobody passes its rate over the log's highest time."""
    rule, limiter, now = Allow("**", ("nats://prod/a",), Rate(count, 10.0)), RateLimiter(most), 1000.0
    spent: Counter[str] = Counter()
    begun, highest = dict[str, float](), now
    for who, step in steps:
        now += step
        highest = max(highest, now)
        begun.setdefault(who, now)
        for table in limiter._tables.values():
            table.look_at = 0
        spent[who] += limiter.spend(rule, who, "log", at=now)
        assert spent[who] <= count + (highest - begun[who]) * count / 10.0 + 1e-6
        assert len(limiter) <= most + 1


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
