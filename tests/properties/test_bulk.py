"""Judged together or one by one, from memory or in full: the verdicts are the same."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.core.world import (
    ABSENT,
    ALICE,
    ALICE_EC_KEY,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    MALLORY,
    MALLORY_KEY,
    NOW,
    Checks,
    CountingStore,
    World,
    at_once,
    bear,
    cbor,
    claims_of,
    ed_key,
    kafka,
    nats,
    press,
    press_many,
    raw_of,
    signed,
)
from watchword import Allow, Policy, Rate, Rejected, Unavailable, VerificationKey, VerifiedMessage
from watchword.message import Expected
from watchword.reader import LearningReader, NativeReader
from watchword.signatures import SignatureChecker
from watchword.spi import Admission, Claim, MemoryReplayStore, Message, Position, ReplayStore, Verifier


def kafka_at(offset: int, **fields: Any) -> Message:
    """Return a record of a partition that one reads alone."""
    return kafka(position=Position("tasks/0", offset), exclusive=True, value=b"%d" % offset, **fields)


def stored(sequence: int) -> Message:
    """Return a JetStream delivery that waits to be acknowledged."""
    place = Position("TASKS", sequence)
    return nats(
        position=place, delivered_by=("TASKS", "w"), appended_at=NOW + 0.5, exclusive=True, value=b"%d" % sequence
    )


HONEST = [
    *press_many([kafka_at(at) for at in range(5)]),
    *press_many([nats(value=b"%d" % at) for at in range(3)], key=ALICE_EC_KEY, c6=NOW + 1),
    *press_many([stored(at) for at in range(2)], key=MALLORY_KEY, principal=MALLORY),
    press(kafka_at(20), c7=b"d" * 16),
    press(nats(headers=(("a", b"1"), ("a", b"2"))), c7=b"e" * 16),
]
OTHERS = [
    kafka_at(30),
    press(kafka_at(31), c6=NOW - 331),
    press(nats(), c6=NOW + 99),
    press(nats(), c4=NOW),
    press(nats(), c3=MALLORY, c7=b"f" * 16),
    press(kafka_at(32), p=7),
    press(kafka_at(33), key=ed_key(9, kid=b"alice-1")),
    press(kafka_at(34), key=ed_key(9, kid=b"nobody")),
    press(kafka_at(35), key=MALLORY_KEY),
    *press_many([kafka_at(40 + at) for at in range(2)], key=ed_key(9, kid=b"alice-1")),
    press(kafka_at(50), key=BOB_KEY, principal=BOB),
]
POOL = [*HONEST, *OTHERS]


def moved(message: Message, by: int) -> Message:
    """Return a copy further on in its log, if it has one."""
    place = message.position
    return message if place is None else replace(message, position=Position(place.log, place.offset + by))


def altered(message: Message) -> Message:
    """Return the message with another value."""
    return replace(message, value=b"altered")


def flipped(message: Message, at: int, change: int) -> Message:
    """Return the message with one byte of its envelope changed."""
    if message.headers[-1][0] != "watchword":
        return message
    raw = bytearray(raw_of(message))
    raw[at % len(raw)] ^= change
    return bear(replace(message, headers=message.headers[:-1]), bytes(raw))


RENAMED = flipped(HONEST[5], raw_of(HONEST[5]).index(b"alice-ec"), 1)
"""An honest message under a key id that nobody knows: its claims have passed without a verdict."""

MESSAGES = st.one_of(
    st.sampled_from(HONEST),
    st.sampled_from(POOL),
    st.builds(moved, st.sampled_from(POOL), st.integers(1, 3)),
    st.builds(altered, st.sampled_from(POOL)),
    st.builds(flipped, st.sampled_from(HONEST), st.integers(0, 500), st.integers(1, 255)),
)


class Shared:
    """A store for all readers that takes many claims at once, if ``claim_many`` is not taken from it."""

    def __init__(self) -> None:
        self.memory = MemoryReplayStore(horizon=None)

    async def claim(self, claim: Claim) -> Admission:
        """See ReplayStore."""
        return self.memory.admit(claim)

    async def claim_many(self, claims: Sequence[Claim]) -> list[Admission]:
        """See BulkStore."""
        return [self.memory.admit(claim) for claim in claims]


def verifier(store: str, policy: Policy) -> Verifier:
    """Return a verifier that knows nothing yet, to whom BOB's keys are out of reach."""
    world = World()
    source = world.keys.source

    class Keys:
        async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
            if principal == BOB:
                raise OSError
            return await source.find(principal, key_id)

    replay: dict[str, ReplayStore] = {
        "guard": MemoryReplayStore(horizon=policy.horizon),
        "one": CountingStore(Shared()),
        "bulk": Shared(),
    }
    return Verifier(
        realm="prod", keys=Keys(), replay=replay[store], policy=policy, clock=lambda: NOW + 1.0, principal=BOB
    )


def told(verdict: VerifiedMessage | Rejected | Unavailable) -> object:
    """Return all that a verdict says."""
    if isinstance(verdict, VerifiedMessage):
        return verdict
    if isinstance(verdict, Rejected):
        return str(verdict), verdict.reason, verdict.channel, verdict.claimed_principal
    return str(verdict)


def one_by_one(judge: Verifier, messages: Sequence[Message], expected: Expected) -> list[object]:
    """Return the verdict on each message, up to the first that is unavailable."""
    found: list[object] = []
    for message in messages:
        try:
            found.append(told(at_once(judge.verify(message, expected))))
        except Rejected as refused:
            found.append(told(refused))
        except Unavailable as down:
            return [*found, told(down)]
    return found


POLICIES = {
    "any": Policy(),
    "slow": Policy(allow=(Allow(ALICE, ("kafka://prod/tasks",), Rate(2, 60.0)), Allow(ALICE, ("nats://prod/>",)))),
    "contained": Policy(contained=frozenset({ALICE})),
}


@pytest.mark.slow
@given(
    messages=st.lists(MESSAGES, max_size=12),
    checked=st.booleans(),
    store=st.sampled_from(["guard", "one", "bulk"]),
    policy=st.sampled_from(sorted(POLICIES)),
    floor=st.sampled_from([0.0, NOW + 1]),
    cut=st.integers(0, 12),
)
@settings(max_examples=300)
@example(messages=[RENAMED, HONEST[5], *HONEST], checked=False, store="one", policy="any", floor=0.0, cut=0)
@example(messages=[*HONEST, *HONEST], checked=True, store="guard", policy="slow", floor=0.0, cut=3)
@example(messages=[*HONEST, *OTHERS, *HONEST], checked=True, store="bulk", policy="any", floor=0.0, cut=0)
def test_together_is_as_one_by_one(  # noqa: PLR0917 - drawn by name
    messages: list[Message],
    checked: bool,  # noqa: FBT001 - drawn by name
    store: str,
    policy: str,
    floor: float,
    cut: int,
) -> None:
    """Promise: a bulk, however it is cut, gives the same verdicts as its messages would get one by one."""
    expected = Expected(floor=floor)
    wanted = one_by_one(verifier(store, POLICIES[policy]), messages, expected)
    judge = verifier(store, POLICIES[policy])
    found: list[object] = []
    for part in (messages[:cut], messages[cut:]):
        verdicts = at_once(judge.verify_many(part, expected, check=Checks() if checked else None))
        found += map(told, verdicts)
        if len(verdicts) < len(part) or any(isinstance(verdict, Unavailable) for verdict in verdicts):
            break
    assert found == wanted


def trees() -> list[list[Message]]:
    """Return signed trees of several sizes, and one of the same messages under another key."""
    sizes = (2, 3, 5, 6, 8)
    made = [press_many([kafka_at(at) for at in range(size)], c6=NOW - size) for size in sizes]
    made.append(press_many([kafka_at(at) for at in range(5)], key=ALICE_EC_KEY, c6=NOW - 5))
    return made


TREES = trees()


def taken(data: st.DataObject) -> Message:
    """Return a message of a tree, bent in one way or not at all."""
    tree = data.draw(st.sampled_from(TREES))
    message = data.draw(st.sampled_from(tree))
    plain = replace(message, headers=message.headers[:-1])
    version, claims, (protected, unprotected, payload, signature) = cbor2.loads(raw_of(message))
    size, index, path = cbor2.loads(unprotected[396][-1][0])
    other = cbor2.loads(raw_of(data.draw(st.sampled_from(data.draw(st.sampled_from(TREES))))))
    match data.draw(st.sampled_from(["none", "byte", "index", "size", "path", "claims", "signature", "protected"])):
        case "byte":
            return flipped(message, data.draw(st.integers(0, 500)), data.draw(st.integers(1, 255)))
        case "index":
            index = data.draw(st.integers(0, size))
        case "size":
            size = data.draw(st.integers(2, 10))
        case "path":
            nodes = [*path, *cbor2.loads(other[2][1][396][-1][0])[2], bytes(32)]
            path = data.draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=5))
        case "claims":
            claims = data.draw(st.sampled_from([other[1], cbor(claims_of(plain)), cbor(claims_of(plain, v=ABSENT))]))
        case "signature":
            signature = data.draw(st.sampled_from([other[2][3], bytes(64), signature[:32], signature[::-1]]))
        case "protected":
            protected = data.draw(st.sampled_from([other[2][0], cbor({1: -9, 4: b"alice-1", 395: 1})]))
    proof = cbor2.dumps([size, index, path])
    return bear(plain, cbor2.dumps([version, claims, [protected, {396: {-1: [proof]}}, payload, signature]]))


@pytest.mark.slow
@given(st.data())
@settings(max_examples=300)
def test_no_verdict_depends_on_what_is_remembered(data: st.DataObject) -> None:
    """Promise (A25): whatever was seen before, a batched message is judged as by a verifier that has just begun."""
    remembered = {kind.__name__: cache(kind) for kind in (SignatureChecker, LearningReader, NativeReader)}
    together = data.draw(st.booleans())
    for _ in range(data.draw(st.integers(1, 12))):
        message, cold = taken(data), World()
        with pytest.MonkeyPatch.context() as patch:
            for name, kind in remembered.items():
                patch.setattr(f"watchword.verifier.{name}", kind)
            fresh = World()
        check = Checks() if together else None
        messages = [message, press(nats())] if together else [message]
        assert [*map(told, at_once(fresh.verifier.verify_many(messages, check=check)))] == [
            *map(told, at_once(cold.verifier.verify_many(messages)))
        ]


def test_what_the_properties_play_with_is_honest() -> None:
    """Promise: the messages that are bent verify as they are, all of them."""
    assert [type(found) for found in map(World().verify, HONEST)] == [VerifiedMessage] * len(HONEST)
    for tree in TREES:
        assert [World().verify(message).principal for message in tree] == [ALICE] * len(tree)
    assert World().verify(signed(kafka())).key_id == ALICE_KEY.key_id.decode()
