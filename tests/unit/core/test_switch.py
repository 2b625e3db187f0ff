"""A policy that changes while a process runs: by channel, as a whole, or not at all."""

from dataclasses import replace
from itertools import combinations, product
from typing import Any

import pytest

from tests.unit.core.world import ALICE, ALICE_KEY, BOB, NOW, at_once, nats, press, public
from watchword import (
    Alias,
    Allow,
    ConfigurationError,
    MemoryKeys,
    Mode,
    Policy,
    Rate,
    Rejected,
    SigningKey,
    Unavailable,
    VerifiedMessage,
    Watchword,
)  # fmt: skip
from watchword.agent import require
from watchword.policy import ChannelRule
from watchword.spi import Channel, Expected, ObservedMessage, Request

TASKS = Channel.parse("nats://prod/tasks.scale")
OBSERVE, ENFORCE = Mode.OBSERVE, Mode.ENFORCE


def rules(**modes: Mode) -> tuple[ChannelRule, ...]:
    """Return rules for subjects, in which ``_`` stands for a dot, ``any`` for ``*`` and ``rest`` for ``>``."""
    return tuple(
        ChannelRule(
            "nats://prod/" + ".".join({"any": "*", "rest": ">"}.get(token, token) for token in subject.split("_")), mode
        )
        for subject, mode in modes.items()
    )


def agent(policy: Policy | None = None, **options: Any) -> Watchword:
    """Return an agent that knows Alice."""
    keys = options.pop("keys", [public(ALICE_KEY, ALICE)])
    return Watchword(realm="prod", keys=keys, policy=policy, clock=lambda: NOW, **options)


@pytest.mark.parametrize(
    ("subject", "mode"),
    [
        ("other", ENFORCE), ("tasks", ENFORCE), ("tasks.a", OBSERVE), ("tasks.b", ENFORCE), ("tasks.b.c", OBSERVE),
        ("x.a", ENFORCE), ("tasks.x.y.z", OBSERVE),
    ],
)  # fmt: skip
def test_the_most_exact_rule_holds(subject: str, mode: Mode) -> None:
    """Promise: of several rules that match a channel, the one that says more of it decides, in any order."""
    written = rules(tasks_rest=OBSERVE, tasks_b=ENFORCE, any_a=ENFORCE)
    for channels in (written, written[::-1]):
        assert Policy(channels=channels).observes(Channel("nats", "prod", subject)) is (mode is OBSERVE)


def test_topics_are_matched_as_they_are() -> None:
    """Promise: a rule for a topic holds for that topic alone."""
    policy = Policy(mode=OBSERVE, channels=(ChannelRule("kafka://prod/tasks", ENFORCE),))
    assert not policy.observes(Channel("kafka", "prod", "tasks"))
    assert policy.observes(Channel("kafka", "prod", "tasks2"))
    assert policy.observes(Channel("nats", "prod", "tasks"))


def test_a_prefix_is_observed_if_no_longer_one_in_it_is_enforced() -> None:
    """Promise: where a part of what a prefix covers has a rule of its own, the whole is not taken for observed."""
    rules_of = {"a*": OBSERVE, "*": ENFORCE}
    for match, mode, wanted in (("ab*", OBSERVE, True), ("ab*", ENFORCE, False), ("abc", ENFORCE, False)):
        written = (rules_of | {match: mode}).items()
        policy = Policy(channels=tuple(ChannelRule(f"kafka://prod/{name}", mode) for name, mode in written))
        assert policy.observes(Channel("kafka", "prod", "a*")) is wanted, (match, mode)


TOKENS = ("a", "b", "*")
PATTERNS = [".".join(tokens) for length in (1, 2) for tokens in product(TOKENS, repeat=length)]
PATTERNS += [">", "a.>", "*.>", "a.*.>"]
SUBJECTS = [".".join(tokens) for n in (1, 2, 3) for tokens in product("abc", repeat=n)]


def covered(pattern: str) -> list[str]:
    """Return the subjects that a pattern covers, worked out token by token."""

    def covers(wanted: list[str], found: list[str]) -> bool:
        if not wanted or not found:
            return not wanted and not found
        return wanted[0] == ">" or (wanted[0] in {"*", found[0]} and covers(wanted[1:], found[1:]))

    return [subject for subject in SUBJECTS if covers(pattern.split("."), subject.split("."))]


@pytest.mark.parametrize("default", Mode)
def test_what_a_pattern_covers_is_observed_if_all_of_it_is(default: Mode) -> None:
    """Promise: a subscription counts as observed only if no subject that it can be given is enforced."""
    for one, other in combinations(PATTERNS, 2):
        for modes in ((OBSERVE, ENFORCE), (ENFORCE, OBSERVE)):
            channels = tuple(
                ChannelRule(f"nats://prod/{match}", mode) for match, mode in zip((one, other), modes, strict=True)
            )
            policy = Policy(mode=default, channels=channels)
            for pattern in PATTERNS:
                found = {policy.observes(Channel("nats", "prod", subject)) for subject in covered(pattern)}
                observes = policy.observes(Channel("nats", "prod", pattern))
                assert not (observes and False in found), (one, other, modes, pattern)
                if "*" not in pattern + one + other:  # with '*' there may be subjects beyond these three letters
                    assert observes == (found == {True}), (one, other, modes, pattern)


def test_two_rules_for_one_pattern_are_refused() -> None:
    """Promise: no rule is passed over in silence."""
    with pytest.raises(ConfigurationError, match=r"two rules for 'nats://prod/tasks\.scale': keep one"):
        Policy(channels=(*rules(tasks_scale=OBSERVE), *rules(tasks_scale=ENFORCE)))


@pytest.mark.parametrize("match", ["tasks", "kafka://prod/*.a", "nats://prod/a.>.b", "nats://prod/a b"])
def test_a_pattern_that_can_never_match_is_refused(match: str) -> None:
    """Promise: a mistake in a rule is an error that names its table."""
    with pytest.raises(ConfigurationError, match=r"^channels: "):
        ChannelRule(match, OBSERVE)


def test_each_channel_has_its_mode() -> None:
    """Promise: in one run of messages, what is unsigned is dropped where that is enforced, and marked where not."""
    watchword = agent(Policy(channels=rules(tasks_scale=OBSERVE)))
    other = Channel("nats", "prod", "other")
    marked, dropped, verified = at_once(
        watchword.admit_many([nats(), nats(channel=other), press(nats(channel=other, value=b"2"))])
    )
    assert isinstance(marked, ObservedMessage)
    assert isinstance(dropped, Rejected)
    assert isinstance(verified, VerifiedMessage)
    assert watchword.audit.counts == {"unsigned": 2, "delivered": 1}


def test_an_answer_is_observed_where_its_request_went() -> None:
    """Promise: an inbox needs no rule; what answers an observed channel is marked, and else dropped."""
    request = Request(id=bytes(16), channel=TASKS, recipient=None)
    expected = Expected(requests={request.id: request}, only_replies=True)
    answer = nats(channel=Channel("nats", "prod", "_INBOX.x"))
    watchword = agent(Policy(channels=rules(tasks_scale=OBSERVE)))
    (found,) = at_once(watchword.admit_many([answer], expected))
    assert isinstance(found, ObservedMessage)
    (found,) = at_once(agent(Policy(mode=OBSERVE, channels=rules(tasks_scale=ENFORCE))).admit_many([answer], expected))
    assert isinstance(found, Rejected)


def test_another_policy_holds_from_the_next_message_on() -> None:
    """Promise: rules, containment and mode change as a whole, and ids stay known: what was seen is a replay."""
    watchword = agent(Policy(mode=OBSERVE))
    first = press(nats())
    assert isinstance(at_once(watchword.admit(first)), ObservedMessage)
    assert watchword.switch(Policy(), watchword.verifier.keys) == []
    with pytest.raises(Rejected, match="replayed"):
        at_once(watchword.admit(first))
    assert isinstance(at_once(watchword.admit(press(nats(), c7=b"2" * 16))), VerifiedMessage)
    watchword.switch(Policy(contained=frozenset({ALICE})), watchword.verifier.keys)
    with pytest.raises(Rejected, match="contained"):
        at_once(watchword.admit(press(nats(), c7=b"3" * 16)))
    watchword.switch(Policy(allow=(Allow(BOB, (TASKS.uri,)),)), watchword.verifier.keys)
    with pytest.raises(Rejected, match="not_permitted"):
        at_once(watchword.admit(press(nats(), c7=b"4" * 16)))


def test_what_was_spent_of_a_rate_stays_spent() -> None:
    """Promise: an attacker who causes a change of policy gains no messages by it, as long as the rule is the same."""
    rule = Allow(ALICE, (TASKS.uri,), Rate(1, 3600.0))
    watchword = agent(Policy(allow=(rule,)))
    assert isinstance(at_once(watchword.admit(press(nats()))), VerifiedMessage)
    watchword.switch(Policy(allow=(Allow(BOB, (TASKS.uri,)), rule)), watchword.verifier.keys)
    with pytest.raises(Rejected, match="rate_limited"):
        at_once(watchword.admit(press(nats(), c7=b"2" * 16)))


def test_other_keys_are_asked() -> None:
    """Promise: a source that is taken away knows nobody any more, and a new one is asked at once."""
    watchword = agent()
    watchword.switch(Policy(), MemoryKeys())
    with pytest.raises(Rejected, match="unknown_key"):
        at_once(watchword.admit(press(nats())))
    watchword.switch(Policy(), MemoryKeys([public(ALICE_KEY, ALICE)]))
    assert isinstance(at_once(watchword.admit(press(nats(), c7=b"2" * 16))), VerifiedMessage)


def test_what_memories_began_with_stays() -> None:
    """Promise: no floor falls and no window grows while a process runs; what is left for a restart is named."""
    mirror = Alias("nats://prod/mirror", TASKS.uri)
    watchword = agent(Policy(max_age=300.0, aliases=(mirror,)))
    new = Alias("nats://prod/copy", TASKS.uri)
    later = watchword.switch(Policy(max_age=900.0, max_lag=60.0, aliases=(new,)), watchword.verifier.keys)
    assert later == ["max_age", "max_lag", "aliases"]
    assert (watchword.verifier.policy.max_age, watchword.verifier.policy.aliases) == (300.0, ())  # one less is at once
    assert watchword.verifier.policy.max_lag == Policy().max_lag


def test_nothing_is_enforced_that_could_not_be() -> None:
    """Promise: where something reads in a way that enforcing refuses, the mode stays, and the error says why."""
    watchword = agent(Policy(mode=OBSERVE))
    watchword.hinder(Channel("nats", "prod", "work.>"), "queue group a: configure a store")
    for policy in (Policy(), Policy(mode=OBSERVE, channels=rules(work_a=ENFORCE))):
        with pytest.raises(ConfigurationError, match="is refused while this runs: queue group a: configure a store"):
            watchword.switch(policy, watchword.verifier.keys)
        assert watchword.observing
    watchword.switch(Policy(channels=rules(work_rest=OBSERVE)), watchword.verifier.keys)
    assert not watchword.observing


def test_a_reader_without_keys_cannot_enforce() -> None:
    """Promise: a process that began to read before keys were given out does not drop everything by a change of mode."""
    watchword = agent(Policy(mode=OBSERVE), keys=None)
    require(watchword, reads=True)
    with pytest.raises(ConfigurationError, match="no key source"):
        watchword.switch(Policy(), None)
    watchword.switch(Policy(), MemoryKeys([public(ALICE_KEY, ALICE)]))
    assert isinstance(at_once(watchword.admit(press(nats()))), VerifiedMessage)


def test_who_signs_goes_on_by_another_key() -> None:
    """Promise: what is prepared with one key and signed with the next verifies under the next."""
    first, second = SigningKey.generate(), SigningKey.generate()
    watchword = agent(principal=BOB, key=first, keys=[second.verification_key(BOB)])
    prepared = watchword.signer.prepare(nats())
    watchword.switch(Policy(), watchword.verifier.keys, second)
    (signed,) = at_once(watchword.signer.sign_prepared([prepared]))
    assert isinstance(
        at_once(watchword.admit(replace(nats(), headers=(*nats().headers, signed.header)))), VerifiedMessage
    )
    other = SigningKey.from_pem(second.to_pem(), key_id=b"2026-11")
    with pytest.raises(ConfigurationError, match="id has another length"):
        watchword.switch(Policy(), watchword.verifier.keys, other)


def test_what_observing_could_not_judge_is_remembered() -> None:
    """Promise (A38): a message that was handed over without a verdict is a replay once enforcing has begun."""

    class Down:
        async def find(self, principal: str, key_id: bytes) -> None:
            raise ConnectionError(principal, key_id)

    watchword = agent(Policy(mode=OBSERVE), keys=Down())
    message = press(nats())
    found = at_once(watchword.admit(message))
    assert isinstance(found, ObservedMessage)
    assert isinstance(found.verdict, Unavailable)
    watchword.switch(Policy(), MemoryKeys([public(ALICE_KEY, ALICE)]))
    with pytest.raises(Rejected, match="replayed"):
        at_once(watchword.admit(message))


def test_one_that_follows_nothing_says_how_to() -> None:
    """Promise: ``reload`` without settings is an error that names the call which has some."""
    with pytest.raises(ConfigurationError, match=r'watchword\.load\("watchword.toml"\)'):
        agent().reload()
