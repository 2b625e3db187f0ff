"""Signatures checked once for a tree: under which name a root is remembered, how many, and what that proves."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cbor2
import pytest

from tests.unit.core.world import (
    ALICE,
    ALICE_EC_KEY,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    NOW,
    Checks,
    World,
    at_once,
    bear,
    cbor,
    claims_of,
    direct,
    ed_key,
    endings,
    kafka,
    press,
    press_many,
    public,
    raw_of,
)
from watchword import Rejected, VerificationKey, VerifiedMessage, engine
from watchword.merkle import root_of
from watchword.reader import LearningReader
from watchword.signatures import SignatureChecker
from watchword.spi import Message, Position
from watchword.verification import Verification

KEY = public(ALICE_KEY, ALICE)
CHECKS = pytest.mark.parametrize("check", [None, Checks()], ids=["inline", "checker"])


def tree(size: int, **options: Any) -> list[Message]:
    """Return records in a row, in one signed tree."""
    return press_many([kafka(position=Position("tasks/0", at), value=b"%d" % at) for at in range(size)], **options)


def holds(checker: SignatureChecker, message: Message, key: VerificationKey = KEY) -> bool:
    """Return True if the message's proof holds under this key."""
    case = Verification(message)
    LearningReader().open(case, message.headers[-1][1] or b"")
    case.key = key
    try:
        checker.signed(case)
    except Rejected:
        return False
    return True


def bent(message: Message, *, size: int | None = None, **parts: Any) -> Message:
    """Return the message with some parts of its proof replaced."""
    version, claims, (protected, unprotected, payload, signature) = cbor2.loads(raw_of(message))
    known, index, path = cbor2.loads(unprotected[396][-1][0])
    proof = cbor2.dumps([size or known, parts.get("index", index), parts.get("path", path)])
    changed = [parts.get("protected", protected), {396: {-1: [proof]}}, payload, parts.get("signature", signature)]
    return bear(replace(message, headers=message.headers[:-1]), cbor2.dumps([version, claims, changed]))


def path_of(message: Message) -> list[bytes]:
    """Return the path of the message's inclusion proof."""
    path: list[bytes] = cbor2.loads(cbor2.loads(raw_of(message))[2][1][396][-1][0])[2]
    return path


def test_one_signature_proves_a_tree(signatures: list[bytes]) -> None:
    """Promise: the signature is checked once, whichever leaf comes first, and never again."""
    checker, messages = SignatureChecker(), tree(5)
    assert all(holds(checker, message) for message in [*reversed(messages), *messages])
    assert len(signatures) == 1


@pytest.fixture
def room_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one root be remembered, so that any other would make it forgotten."""
    monkeypatch.setattr("watchword.signatures.MAX_ROOTS", 1)


@pytest.mark.usefixtures("room_for_one")
def test_direct_signatures_are_not_remembered(signatures: list[bytes]) -> None:
    """Promise: a direct signature stands for one message, is checked each time, and takes no root's room."""
    checker, message, messages = SignatureChecker(), press(kafka()), tree(2)
    for one, checked in ((messages[0], 1), (message, 2), (message, 3), (messages[1], 3)):
        assert holds(checker, one)
        assert len(signatures) == checked


OTHER_KEYS: dict[str, VerificationKey] = {
    "rotated under the same id": public(ed_key(7, kid=b"alice-1"), ALICE),
    "of another algorithm under the same id": replace(public(ALICE_EC_KEY, ALICE), key_id=b"alice-1"),
    "of another principal": public(BOB_KEY, BOB),
}


@pytest.mark.usefixtures("room_for_one")
@pytest.mark.parametrize("key", OTHER_KEYS.values(), ids=OTHER_KEYS.keys())
def test_a_root_is_known_under_its_very_key(key: VerificationKey, signatures: list[bytes]) -> None:
    """Promise (A23): what verified under one key proves nothing under any other, whatever that is called."""
    checker, messages = SignatureChecker(), tree(4)
    assert all(holds(checker, message) for message in messages)
    assert not any(holds(checker, message, key) for message in messages)
    signatures.clear()
    assert all(holds(checker, message) for message in messages)
    assert signatures == [], "no other root took the place of this one"


def test_whose_key_it_is_and_until_when_is_not_asked_here(signatures: list[bytes]) -> None:
    """Promise (A23): a root is remembered for the key itself; its owner and times are check 5's each time."""
    checker, messages = SignatureChecker(), tree(2)
    assert holds(checker, messages[0])
    assert holds(checker, messages[1], replace(KEY, principal=BOB, not_after=NOW, revoked_at=0))
    assert len(signatures) == 1


def test_a_key_of_another_algorithm_checks_nothing(signatures: list[bytes]) -> None:
    """Promise (A08): the algorithm is the key's; with another one in the envelope no signature is checked."""
    checker, messages = SignatureChecker(), tree(2)
    assert holds(checker, messages[0])
    assert not holds(checker, messages[1], replace(KEY, algorithm=public(ALICE_EC_KEY, ALICE).algorithm))
    assert len(signatures) == 1


@pytest.mark.parametrize(
    "parts",
    [
        {"signature": bytes(64)},
        {"protected": cbor2.dumps({1: -19, 4: b"alice-2", 395: 1}, canonical=True)},
        {"size": 4},
        {"path": [bytes(32)] * 2},
        {"index": 1},
    ],
    ids=lambda parts: next(iter(parts)),
)
@pytest.mark.usefixtures("room_for_one")
def test_every_part_of_the_proof_counts(parts: dict[str, Any], signatures: list[bytes]) -> None:
    """Promise (A25): another signature, protected header, size, path or index than what verified proves nothing."""
    checker, (message, *others) = SignatureChecker(), tree(3)
    assert holds(checker, message)
    for _ in range(2):
        assert not holds(checker, bent(message, **parts))
    signatures.clear()
    assert all(holds(checker, other) for other in others)
    assert signatures == [], "nothing else was remembered in its place"


@pytest.mark.usefixtures("room_for_one")
def test_what_did_not_verify_is_not_kept(signatures: list[bytes]) -> None:
    """Promise (A21): a forged tree takes no memory; a path that fits none takes no check either."""
    checker, honest = SignatureChecker(), tree(2)
    assert holds(checker, honest[0])
    for message in tree(3, key=ed_key(9, kid=b"alice-1")):
        assert not holds(checker, message)
        assert not holds(checker, bent(message, path=[*path_of(message), bytes(32)]))
    assert len(signatures) == 1 + 3
    assert holds(checker, honest[1])
    assert len(signatures) == 1 + 3, "what was remembered still is"


def test_the_root_known_longest_makes_room(monkeypatch: pytest.MonkeyPatch, signatures: list[bytes]) -> None:
    """Promise: the memory is bounded; what was forgotten is checked in full, and verifies."""
    monkeypatch.setattr("watchword.signatures.MAX_ROOTS", 3)
    checker, trees = SignatureChecker(), [tree(2, c6=NOW + at) for at in range(6)]
    for messages in trees:
        assert holds(checker, messages[0])
    signatures.clear()
    assert all(holds(checker, messages[1]) for messages in trees[3:])
    assert signatures == []
    assert all(holds(checker, messages[1]) for messages in trees[:3])
    assert len(signatures) == 3


# Whole trees at once


def together(messages: Sequence[Message], check: Checks | None, *, warm: bool = False) -> list[str]:
    """Return how messages end before a verifier that knows nothing yet, or the shape of their envelopes only."""
    world = World()
    if warm:
        assert set(endings(world, tree(len(messages), c6=NOW + 1))) == {"first"}
    return endings(world, messages, check=check)


@CHECKS
@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("size", [2, 3, 5, 8, 13])
def test_a_whole_tree_with_one_bent_proof(size: int, check: Checks | None, *, warm: bool) -> None:
    """Promise (A25): of a tree that arrives whole, exactly the message whose proof is bent in any part is rejected."""
    messages = tree(size)
    for at in range(size):
        bends: list[dict[str, Any]] = [
            {"path": [bytes(32), *path_of(messages[at])[1:]]},
            {"index": (at + 1) % size},
            {"size": size + 1},
            {"signature": bytes(64)},
            {"protected": cbor2.dumps({1: -9, 4: b"alice-1", 395: 1}, canonical=True)},
        ]
        for parts in bends:
            bad = [*messages[:at], bent(messages[at], **parts), *messages[at + 1 :]]
            wanted = ["bad_signature" if other == at else "first" for other in range(size)]
            assert together(bad, check, warm=warm) == wanted


@pytest.mark.usefixtures("python_engine")
@pytest.mark.parametrize("size", [2, 5])
def test_a_whole_tree_with_one_bent_proof_before_the_python_engine(size: int) -> None:
    """Promise (A25): as above, whichever engine is installed."""
    test_a_whole_tree_with_one_bent_proof(size, None, warm=False)


@CHECKS
def test_the_algorithm_is_the_keys_in_a_bulk_too(check: Checks | None, signatures: list[bytes]) -> None:
    """Promise (A08): a message that names another algorithm than its key's is not verified by either, nor checked."""
    messages = [press_with(-9, at) for at in range(3)]
    assert together(messages, check) == ["bad_signature"] * 3
    assert signatures == []


def press_with(algorithm: int, number: int) -> Message:
    """Return a message that is honestly signed, but names another algorithm."""
    message = kafka()
    return bear(message, direct(cbor(claims_of(message, c7=number.to_bytes(16))), c1=algorithm))


@CHECKS
def test_a_whole_tree_in_another_order_or_with_strangers(check: Checks | None) -> None:
    """Promise (A25): turned round, with one twice, one short, or one forged among them, each is judged for itself."""
    messages = tree(4)
    forged = bent(
        press_many([kafka(value=b"evil"), kafka()])[0], signature=cbor2.loads(raw_of(messages[0]))[2][3], size=4
    )
    assert together(messages[::-1], check) == ["first"] * 4
    assert together([*messages[:3], messages[0]], check) == ["first"] * 3 + ["again"]
    assert together(messages[1:], check) == ["first"] * 3
    assert together([*messages[:3], forged], check) == ["first"] * 3 + ["bad_signature"]
    assert together([forged, *messages], check) == ["bad_signature"] + ["first"] * 4


def test_copies_behind_it_do_not_break_up_a_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise (A21): altered copies of what stands in a log cost their own climbs, and none of the honest."""
    climbs: list[int] = []

    def counted(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
        climbs.append(index)
        return root_of(leaf, index, size, path)

    monkeypatch.setattr("watchword.envelope.root_of", counted)
    messages = tree(8)
    copies = [bent(messages[at], path=[bytes(32), *path_of(messages[at])[1:]]) for at in (2, 5)]
    assert together([*messages, *copies], None) == ["first"] * 8 + ["bad_signature"] * 2
    assert climbs == ([2, 5] if engine.native() is None else [])


@CHECKS
def test_a_whole_tree_that_nobody_signed(check: Checks | None, signatures: list[bytes]) -> None:
    """Promise (A21): a forged tree that arrives whole costs one check, and none of it is delivered."""
    assert together(tree(8, key=ed_key(9, kid=b"alice-1")), check) == ["bad_signature"] * 8
    assert len(signatures) == 1


async def _failing(_: object) -> Any:
    raise RuntimeError("no more threads")


async def _short(_: object) -> Any:
    return [True]


async def _long(jobs: Any) -> Any:
    return [True] * (len(jobs) + 1)


async def _no_bools(jobs: Any) -> Any:
    return ["yes"] * len(jobs)


@pytest.mark.parametrize("check", [_failing, _short, _long, _no_bools])
def test_a_checker_that_does_not_answer_decides_nothing(check: Any) -> None:
    """Promise: where a checker fails, or answers otherwise than asked, the signatures are checked without it."""
    world = World()
    messages = [*tree(3), press(kafka(), c7=b"z" * 16), press(kafka(), key=ed_key(9, kid=b"alice-1"), c7=b"y" * 16)]
    verdicts = at_once(world.verifier.verify_many(messages, check=check))
    assert [isinstance(verdict, VerifiedMessage) for verdict in verdicts] == [True] * 4 + [False]
    assert len(world.store.claims) == 4
