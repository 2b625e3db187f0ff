"""The nine checks: each one works, and of two faults the one that is checked first is named.

Every fault is made alone, and every two of different checks together: so a check that is taken out, or two that change
places, make a test fail. What a check may touch is counted: no key is looked up before check 5, no id claimed before 8.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, NamedTuple

import pytest

from tests.unit.core.world import (
    ALICE,
    ALICE_KEY,
    BOB,
    MALLORY,
    MALLORY_KEY,
    NOW,
    World,
    at_once,
    bear,
    cbor,
    claims_of,
    direct,
    known_keys,
    nats,
    public,
    raw_of,
)
from watchword import Allow, Policy, Rate, Reason, Rejected, VerificationKey
from watchword.message import Expected
from watchword.spi import Admission, Message
from watchword.trust import Fact


@dataclass
class Case:
    """An honest message and everything around it, to be spoilt by faults."""

    claims: dict[str, Any] = field(default_factory=dict)
    keys: list[VerificationKey] = field(default_factory=known_keys)
    after: list[Callable[[Message], Message]] = field(default_factory=list)
    expected: dict[str, Any] = field(default_factory=lambda: {"consumer": ("TASKS", "worker")})
    policy: dict[str, Any] = field(default_factory=dict)
    admission: Admission | None = None
    spent: bool = False
    signature_bit: int = 0

    def world(self) -> World:
        """Return the verifier's side."""
        world = World(policy=Policy(**self.policy), keys=self.keys)
        world.store.answer = self.admission
        world.verifier.trust.note(ALICE, Fact.REPORTED)
        for rule in self.policy.get("allow", ()):
            if self.spent and isinstance(rule, Allow):
                world.verifier._rates.spend(rule, rule.principal, "sub#", at=NOW + 1.0)
        return world

    def message(self) -> Message:
        """Return the message as it arrives."""
        honest = nats(reply_to="_INBOX.alice.1", delivered_by=("TASKS", "worker"))
        raw = bytearray(direct(cbor(claims_of(honest, **self.claims))))
        raw[-1] ^= self.signature_bit
        message = bear(honest, bytes(raw))
        for change in self.after:
            message = change(message)
        return message


class Fault(NamedTuple):
    """One thing wrong: the check that finds it, the reason it gives, and how to bring it about."""

    check: int
    reason: Reason
    spoil: Callable[[Case], object]
    group: str = ""


def _allow(case: Case, principal: str, *, spent: bool = False, min_trust: float = 0.0) -> None:
    rule = Allow(principal, ("nats://prod/tasks.>",), Rate(1, 3600.0), min_trust)
    case.spent = spent
    case.policy["allow"] = (*case.policy.get("allow", ()), rule)


def _owned_by_another(case: Case) -> None:
    case.keys = [public(ALICE_KEY, MALLORY)]


def _valid(case: Case, **times: Any) -> None:
    known = next((key for key in case.keys if key.key_id == ALICE_KEY.key_id), None)
    if known is not None:
        case.keys = [replace(known, **times)]


FAULTS = [
    Fault(1, Reason.UNSIGNED, lambda case: case.after.append(lambda message: replace(message, headers=())), "header"),
    Fault(
        1,
        Reason.MALFORMED,
        lambda case: case.after.append(lambda message: bear(message, raw_of(message))),
        "header",
    ),
    Fault(2, Reason.MALFORMED, lambda case: case.claims.update(z=1)),
    Fault(3, Reason.WRONG_CHANNEL, lambda case: case.claims.update(c="nats://prod/tasks.other")),
    Fault(3, Reason.WRONG_PARTITION, lambda case: case.claims.update(p=3)),
    Fault(3, Reason.WRONG_REPLY_TO, lambda case: case.claims.update(r="_INBOX.mallory")),
    Fault(3, Reason.WRONG_RECIPIENT, lambda case: case.claims.update(c3=MALLORY)),
    Fault(3, Reason.WRONG_REQUEST, lambda case: case.expected.update(only_replies=True)),
    Fault(3, Reason.WRONG_DELIVERY, lambda case: case.expected.update(consumer=("TASKS", "other"))),
    Fault(4, Reason.STALE, lambda case: case.claims.update(c6=NOW - 331), "age"),
    Fault(4, Reason.FROM_FUTURE, lambda case: case.claims.update(c6=NOW + 32), "age"),
    Fault(4, Reason.EXPIRED, lambda case: case.claims.update(c4=NOW + 1)),
    Fault(5, Reason.UNKNOWN_KEY, lambda case: case.keys.clear(), "key"),
    Fault(5, Reason.WRONG_PRINCIPAL, _owned_by_another, "key"),
    Fault(5, Reason.KEY_NOT_VALID, lambda case: _valid(case, not_after=NOW)),
    Fault(5, Reason.KEY_REVOKED, lambda case: _valid(case, revoked_at=NOW)),
    Fault(6, Reason.BAD_SIGNATURE, lambda case: setattr(case, "signature_bit", 1)),
    Fault(7, Reason.ALTERED, lambda case: case.after.append(lambda message: replace(message, value=b"{}"))),
    Fault(8, Reason.REPLAYED, lambda case: setattr(case, "admission", Admission.REPLAYED), "admission"),
    Fault(8, Reason.STALE, lambda case: setattr(case, "admission", Admission.TOO_OLD), "admission"),
    Fault(8, Reason.OVER_QUOTA, lambda case: setattr(case, "admission", Admission.OVER_QUOTA), "admission"),
    Fault(9, Reason.NOT_PERMITTED, lambda case: _allow(case, BOB), "rule"),
    Fault(9, Reason.RATE_LIMITED, lambda case: _allow(case, ALICE, spent=True), "rule"),
    Fault(9, Reason.CONTAINED, lambda case: case.policy.update(contained=frozenset({ALICE}))),
    Fault(9, Reason.NOT_TRUSTED, lambda case: _allow(case, ALICE, min_trust=1.0), "rule"),
]
PAIRS = [(one, two) for one, two in combinations(FAULTS, 2) if not one.group or one.group != two.group]


def _name(fault: Fault) -> str:
    return f"{fault.check}-{fault.reason}"


DETAILS = {
    "1-unsigned": "sent by a plain client",
    "1-malformed": "more than one envelope",
    "2-malformed": "unknown",
    "3-wrong_channel": r"signed for 'nats://prod/tasks\.other'; .* \[\[policy\.aliases\]\]",
    "3-wrong_partition": "signed for 3, found in None",
    "3-wrong_reply_to": "not the one that was signed",
    "3-wrong_recipient": f"addressed to '{MALLORY}'; this is '{BOB}'",
    "3-wrong_request": r"answer with msg\.respond\(\)",
    "3-wrong_delivery": "delivered by .*, a consumer that was not bound",
    "4-stale": r"\d+ s old, and max_age is 300 s, max_skew 5 s",
    "4-from_future": r"\d+ s ahead, and .*, max_skew 5 s: set the clocks",
    "4-expired": r"s after its own end \(exp\)",
    "5-unknown_key": r"key 'alice-1' in none of \[\[keys\]\]",
    "5-wrong_principal": "key 'alice-1' belongs to another principal",
    "5-key_not_valid": r"key 'alice-1': used \d+ s after its end",
    "5-key_revoked": r"key 'alice-1': revoked \d+ s ago",
    "6-bad_signature": "not by key 'alice-1'",
    "7-altered": "value: changed since it was signed",
    "8-replayed": "used before, elsewhere",
    "8-stale": "issued before",
    "8-over_quota": r"raise \[replay\] memory",
    "9-not_permitted": r"no \[\[policy\.allow\]\]",
    "9-rate_limited": r"over the rate .* \d+ in \d+ s",
    "9-contained": r"\[policy\] contained",
    "9-not_trusted": r"trust 0\.90, .* min_trust = 1: it is let in again at 1",
}


def _judge(case: Case, first: Fault) -> None:
    world = case.world()
    with pytest.raises(Rejected) as caught:
        world.verify(case.message(), Expected(**case.expected))
    assert caught.value.reason is first.reason
    assert re.search(DETAILS[_name(first)], caught.value.detail), "the detail says what was found, or what to do"
    assert (world.keys.asked > 0) == (first.check >= 5), "a key is looked up at check 5, no earlier"
    assert (len(world.store.claims) > 0) == (first.check >= 8), "an id is claimed at check 8, no earlier"


def test_the_honest_message_passes() -> None:
    """Promise: without a fault the message that all of these spoil is delivered."""
    case = Case()
    assert case.world().verify(case.message(), Expected(**case.expected)).principal == ALICE


@pytest.mark.parametrize("fault", FAULTS, ids=_name)
def test_each_fault_alone(fault: Fault) -> None:
    """Promise: each check rejects what it is there for, under its own reason, before anything dearer is done."""
    case = Case()
    fault.spoil(case)
    _judge(case, fault)


@pytest.mark.parametrize(("one", "two"), PAIRS, ids=_name)
def test_of_two_faults_the_first_in_order_is_named(one: Fault, two: Fault) -> None:
    """Promise: the checks run in the order that the specification gives, whatever else is wrong."""
    case = Case()
    two.spoil(case)
    one.spoil(case)
    _judge(case, one)


def test_every_reason_has_its_fault() -> None:
    """Promise: no reason is without a check that gives it, and the reasons stand in the order of the checks."""
    seen = list(dict.fromkeys(fault.reason for fault in FAULTS))
    assert seen == list(Reason)


@pytest.mark.parametrize("admission", [Admission.REPLAYED, Admission.TOO_OLD, Admission.OVER_QUOTA])
def test_what_is_not_admitted_spends_no_rate(admission: Admission) -> None:
    """Promise (A40): a replay cannot spend the sender's budget."""
    case = Case(admission=admission)
    _allow(case, ALICE)
    world = case.world()
    for _ in range(3):
        with pytest.raises(Rejected):
            world.verify(case.message(), Expected(**case.expected))
    world.store.answer = Admission.FIRST
    assert world.verify(case.message(), Expected(**case.expected)).principal == ALICE


def test_a_redelivery_spends_no_rate() -> None:
    """Promise: the broker's own redeliveries do not eat the sender's budget."""
    case = Case()
    _allow(case, ALICE)
    world = case.world()
    assert not world.verify(case.message(), Expected(**case.expected)).redelivered
    world.store.answer = Admission.REDELIVERED
    for _ in range(3):
        assert world.verify(case.message(), Expected(**case.expected)).redelivered


@pytest.mark.parametrize("reason", [Reason.NOT_PERMITTED, Reason.RATE_LIMITED, Reason.CONTAINED])
def test_what_policy_drops_has_claimed_its_id(reason: Reason) -> None:
    """Promise (A40): what policy dropped is not brought back by a replay once policy would let it pass."""
    case = Case()
    next(fault for fault in FAULTS if fault.reason is reason).spoil(case)
    world = case.world()
    message = case.message()
    with pytest.raises(Rejected) as first:
        world.verify(message, Expected(**case.expected))
    assert first.value.reason is reason
    world.verifier.policy = Policy()
    with pytest.raises(Rejected) as again:
        world.verify(message, Expected(**case.expected))
    assert again.value.reason is Reason.REPLAYED


def test_an_unsigned_flood_costs_no_lookup() -> None:
    """Promise: what is malformed, misdirected or stale reaches neither key source nor store."""
    world = World()
    honest = nats()
    for message in (honest, bear(honest, b""), bear(honest, direct(cbor(claims_of(honest, c6=0))))):
        with pytest.raises(Rejected):
            world.verify(message)
    assert (world.keys.asked, world.store.claims) == (0, [])


def test_forgeries_do_not_touch_the_store() -> None:
    """Promise (A19): a forged message with the id of a real one cannot take that id away from it."""
    world = World()
    honest = nats()
    real = bear(honest, direct(cbor(claims_of(honest))))
    forged = bear(honest, direct(cbor(claims_of(honest)), MALLORY_KEY, c4=ALICE_KEY.key_id))
    with pytest.raises(Rejected) as caught:
        world.verify(forged)
    assert caught.value.reason is Reason.BAD_SIGNATURE
    assert at_once(world.verifier.verify(real)).principal == ALICE
