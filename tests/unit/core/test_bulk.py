"""Many messages judged together: in order, up to the first that is unavailable, and as if one by one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cbor2
import pytest

from tests.unit.core.world import (
    ALICE,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    MALLORY_KEY,
    NOW,
    REALM,
    Checks,
    World,
    at_once,
    bear,
    cbor,
    claims_of,
    endings,
    kafka,
    nats,
    press,
    press_many,
    public,
    raw_of,
)
from watchword import MemoryKeys, Policy, Reason, Rejected, VerificationKey, VerifiedMessage
from watchword.errors import Pending
from watchword.message import Expected, Request
from watchword.spi import Admission, Claim, KeySource, MemoryReplayStore, Message, Position, Verifier


def records(count: int, **fields: Any) -> list[Message]:
    """Return records of one partition in a row, in one signed tree."""
    return press_many([kafka(position=Position("tasks/0", at), **fields) for at in range(count)])


class Bulk:
    """A store that takes claims one by one or together; ``answers`` makes of the true answers what it says."""

    def __init__(self, answers: Callable[[list[Admission]], Any] = list) -> None:
        self.memory = MemoryReplayStore(horizon=None)
        self.answers = answers
        self.together: list[int] = []
        self.claims: list[Claim] = []

    async def claim(self, claim: Claim) -> Admission:
        """See ReplayStore."""
        self.claims.append(claim)
        return self.memory.admit(claim)

    async def claim_many(self, claims: Sequence[Claim]) -> Any:
        """See BulkStore."""
        self.together.append(len(claims))
        return self.answers([self.memory.admit(claim) for claim in claims])


def with_store(store: Any, **options: Any) -> World:
    """Return a world whose verifier asks ``store``."""
    world = World()
    given: dict[str, Any] = {
        "realm": REALM, "keys": world.keys, "replay": store, "policy": world.policy, "clock": lambda: world.now,
        "principal": BOB,
    }  # fmt: skip
    world.verifier = Verifier(**given | options)
    return world


class Late:
    """A source that finds each key when it is asked for it once more."""

    def __init__(self, keys: KeySource) -> None:
        self.keys, self.asked = keys, list[str]()

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        self.asked.append(principal)
        if self.asked.count(principal) == 1:
            raise Pending(principal)
        return await self.keys.find(principal, key_id)


@pytest.mark.parametrize("apart", [False, True])
def test_what_follows_a_message_whose_key_is_pending_waits_with_it(*, apart: bool) -> None:
    """Promise: a key that is found during a pass lets no message of its sender pass an earlier one."""
    lone = [press(kafka(position=Position("tasks/0", at)), c7=bytes([at]) * 16) for at in range(2)]
    alices = lone if apart else records(3)
    bobs = press(kafka(), principal=BOB, key=BOB_KEY)
    source = Late(World().keys)
    world, messages = World(), [alices[0], bobs, *alices[1:], bobs]
    verdicts = at_once(world.verifier.verify_many(messages, keys=source))
    assert source.asked == [ALICE, BOB]
    assert [type(verdict) for verdict in verdicts] == [Pending] * len(messages)
    assert [verdict.found for verdict in verdicts if isinstance(verdict, Pending)] == [
        ALICE if message in alices else BOB for message in messages
    ]
    assert endings(world, messages[:-1], keys=source) == ["first"] * (len(messages) - 1)


def test_verdicts_come_in_order() -> None:
    """Promise: each message has its own verdict, in the order in which they were given, whatever it is."""
    one, two, three = records(3)
    messages = [one, kafka(), two, replace(three, value=b"altered"), replace(two, position=Position("tasks/0", 9)), one]
    assert endings(World(), messages) == ["first", "unsigned", "first", "altered", "replayed", "again"]
    assert endings(World(), []) == []


@pytest.mark.parametrize("check", [None, Checks()], ids=["inline", "checker"])
def test_it_ends_with_the_first_that_is_unavailable(check: Checks | None) -> None:
    """Promise (A35): what is behind an outage is left alone: no verdict, no id claimed, no key looked up."""
    known, later = records(2)
    down = press(kafka(position=Position("tasks/0", 5)), key=BOB_KEY, principal=BOB)
    world = World()
    source = world.keys.source

    class Failing:
        async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
            if principal == BOB:
                raise OSError
            return await source.find(principal, key_id)

    world.keys.source = Failing()
    assert endings(world, [known, kafka(), down, later, kafka()], check=check) == ["first", "unsigned", "keys"]
    assert len(world.store.claims) == 1
    world.keys.source = source
    assert endings(world, [down, later], check=check) == ["first", "first"]


def test_a_key_is_looked_up_once() -> None:
    """Promise (A21): however many messages name one key, known or not, its source is asked once for all of them."""
    world = World()
    forged = [press(kafka(), key=MALLORY_KEY, c7=bytes([at]) * 16) for at in range(20)]
    assert set(endings(world, [*records(20), *forged])) == {"first", "wrong_principal"}
    assert world.keys.asked == 2


def test_a_signature_is_checked_once(signatures: list[bytes]) -> None:
    """Promise: of a tree's messages only the first has its signature checked, by any checker."""
    for check in (None, Checks()):
        world, trees = World(), [records(7), press_many([nats(value=bytes([at])) for at in range(3)], c6=NOW + 1)]
        mixed = [message for pair in zip(*trees, strict=False) for message in pair]
        assert set(endings(world, mixed, check=check)) <= {"first"}
        assert len(signatures) == 2
        assert endings(world, trees[0][3:], check=check) == ["first"] * 4
        assert len(signatures) == 2
        signatures.clear()


def test_the_checker_is_given_each_signature_that_is_needed_once() -> None:
    """Promise: direct ones, one of each tree, none that is known or cannot hold; a single one is not worth it."""
    check, world = Checks(), World()
    tree, other = records(4), press_many([kafka(value=b"%d" % at) for at in range(3)], c6=NOW + 1, c7=b"o" * 16)
    alone = [press(kafka(position=Position("tasks/0", 50 + at)), c7=bytes([at]) * 16) for at in range(2)]
    stale = press(kafka(), c6=NOW - 1000)
    misfit = bent(other[0])
    assert endings(world, [*tree, *alone, other[0], stale, misfit], check=check) == [
        *["first"] * 7, "stale", "bad_signature",
    ]  # fmt: skip
    assert check.given == [4]
    assert endings(world, [*tree, other[0]], check=check) == ["again"] * 5
    assert endings(world, [press(kafka(), c7=b"n" * 16)], check=check) == ["first"]
    assert check.given == [4], "neither what is known nor a single one"


def bent(message: Message) -> Message:
    """Return the message with an inclusion proof that fits no tree."""
    envelope = cbor2.loads(raw_of(message))
    size, index, path = cbor2.loads(envelope[2][1][396][-1][0])
    envelope[2][1] = {396: {-1: [cbor2.dumps([size, index, [*path, bytes(32)]])]}}
    return bear(replace(message, headers=message.headers[:-1]), cbor2.dumps(envelope))


def test_a_forged_leaf_does_not_stand_in_for_its_tree() -> None:
    """Promise (A21, A25): with the honest signature under a forged leaf, only the forged message is rejected."""
    tree = records(4)
    forged = [replace(message, value=b"x") for message in tree[:1]]
    other = press_many([kafka(value=b"evil"), kafka()], key=MALLORY_KEY, c6=NOW - 1)  # other claims than theirs
    borrowed = transplanted(other[0], tree[0])
    assert endings(World(), [borrowed, *other, *forged, *tree], check=Checks()) == [
        "bad_signature", "wrong_principal", "wrong_principal", "altered", *["first"] * 4,
    ]  # fmt: skip


def transplanted(leaf: Message, tree: Message) -> Message:
    """Return what claims to be alice's, its claims new and its proof and signature those of another message."""
    plain = replace(leaf, headers=leaf.headers[:-1])
    envelope = cbor2.loads(raw_of(tree))
    envelope[1] = cbor(claims_of(plain))
    return bear(plain, cbor2.dumps(envelope))


# Check 8, for many


def test_a_bulk_store_is_asked_once() -> None:
    """Promise: a store that takes many claims gets them together and in order; a single one as ever."""
    store = Bulk()
    world, messages = with_store(store), records(5)
    assert endings(world, [*messages, kafka(), messages[0]]) == [*["first"] * 5, "unsigned", "again"]
    assert endings(world, [replace(messages[1], position=Position("tasks/0", 77))]) == ["replayed"]
    assert (store.together, len(store.claims)) == ([6], 1)


def _down(_: object) -> object:
    raise OSError("password=s3cret")


WRONG = [
    (_down, 0),
    (lambda _: None, 0),
    (lambda _: [], 0),
    (lambda found: found[:2], 2),
    (lambda found: [*found[:1], "first", *found[2:]], 1),
    (lambda _: "first", 0),
]


def test_it_ends_before_another_key_where_that_is_enough() -> None:
    """Promise: the first key is looked for, and others while there is time; what is left alone claims nothing."""
    world = World(keys=[public(ALICE_KEY, ALICE), public(BOB_KEY, BOB)])
    ours = press_many([kafka(value=b"%d" % at) for at in range(3)])
    theirs = press_many([kafka(value=b"%d" % at) for at in range(2)], key=BOB_KEY, principal=BOB)
    messages = [*ours[:2], theirs[0], ours[2], theirs[1]]
    assert endings(world, messages, enough=lambda: True) == ["first"] * 2
    assert len(world.store.claims) == 2
    assert endings(world, messages[2:], enough=lambda: True) == ["first"]
    assert endings(world, messages[3:], enough=lambda: False) == ["first"] * 2


@pytest.mark.parametrize(("answers", "judged"), WRONG)
def test_a_bulk_store_that_does_not_answer_is_an_outage(answers: Callable[[list[Admission]], Any], judged: int) -> None:
    """Promise: what fails, falls short or answers nonsense judges nothing from there on: Unavailable, no error."""
    world = with_store(Bulk(answers))
    assert endings(world, records(4)) == [*["first"] * judged, "replay"]


def test_more_answers_than_claims_change_nothing() -> None:
    """Promise: what nobody asked for is not read."""
    assert endings(with_store(Bulk(lambda found: [*found, *found])), records(2)) == ["first", "first"]


@pytest.mark.parametrize("bulk", [True, False])
def test_what_is_behind_an_outage_of_the_store_is_left_alone(*, bulk: bool) -> None:
    """Promise (A35): neither our own memory nor the undetermined learn of it, so it can be offered again."""

    class Down:
        async def claim(self, claim: Claim) -> Admission:
            raise OSError(claim)

    shared, alone = records(1)[0], press(nats(exclusive=True))
    unknown = press(nats(exclusive=True), key=MALLORY_KEY, c7=b"2" * 16)
    world = with_store(Bulk(_down) if bulk else Down())
    messages = [shared, replace(shared, position=Position("tasks/0", 1)), alone, unknown]
    assert endings(world, messages) == ["replay"]
    assert world.verifier.ids_held == 0
    assert endings(world, [alone]) == ["first"]
    world.keys.source = MemoryKeys([public(MALLORY_KEY, ALICE)])
    assert endings(world, [unknown]) == ["first"]


def test_ones_own_memory_and_a_shared_store_in_one_bulk() -> None:
    """Promise: each message is admitted by the store that answers for it."""
    store = Bulk()
    world = with_store(store)
    shared, alone = records(2), press_many([nats(exclusive=True, value=bytes([at])) for at in range(2)])
    assert endings(world, [shared[0], alone[0], shared[1], alone[1], alone[0]]) == [*["first"] * 4, "replayed"]
    assert (store.together, world.verifier.ids_held) == ([2], 2)


def test_a_readers_floor_holds_for_each() -> None:
    """Promise (A16): in a bulk too, what was issued before the reader began is stale, and claims nothing."""
    world = World()
    early, late = press(nats(), c6=NOW - 1, c7=b"1" * 16), press(nats())
    assert endings(world, [early, late], Expected(floor=NOW)) == ["stale", "first"]
    assert len(world.store.claims) == 1


@pytest.mark.parametrize("store", [Bulk, MemoryReplayStore])
def test_a_readers_floor_is_not_meant_for_the_answer_that_it_awaits(store: Callable[..., Any]) -> None:
    """Promise (A22): with any store, an answer to a pending request is first however early it was issued."""
    request = Request(id=b"q" * 16, channel=nats().channel)
    expected = Expected(requests={request.id: request}, floor=NOW + 9)
    world = with_store(store() if store is Bulk else store(horizon=None))
    answer, other = press(nats(), q=request.id), press(nats(), c7=b"2" * 16)
    assert endings(world, [other, answer, answer], expected) == ["stale", "first", "replayed"]


# A rebuild, for many


def test_a_rebuild_recalls_many_at_once(signatures: list[bytes]) -> None:
    """Promise (A14): recalled together, messages are known at their places as if recalled one by one."""
    world = with_store(MemoryReplayStore(horizon=None))
    messages = records(6, exclusive=True)
    junk = [kafka(exclusive=True), replace(messages[3], value=b"x"), press(kafka(exclusive=True), key=MALLORY_KEY)]
    check = Checks()
    assert at_once(world.verifier.recall_many([*messages[:4], *junk], check=check)) == 7
    assert len(signatures) == 1
    moved = [replace(message, position=Position("tasks/0", 90)) for message in messages]
    assert endings(world, [*moved, *messages[:4]]) == [*["replayed"] * 4, "first", "first", *["again"] * 4]
    assert at_once(world.verifier.recall_many([], check=check)) == 0


def test_a_rebuild_of_many_stops_where_no_key_can_be_looked_up() -> None:
    """Promise (A35): it says how many are recalled, so that one continues with the one behind."""
    world = World()
    verifier = with_store(MemoryReplayStore(horizon=None), keys=world.keys).verifier
    messages = records(2, exclusive=True)
    down = press(kafka(exclusive=True), key=BOB_KEY, principal=BOB)
    source = world.keys.source

    class Failing:
        async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
            if principal == BOB:
                raise OSError
            return await source.find(principal, key_id)

    world.keys.source = Failing()
    assert at_once(verifier.recall_many([messages[0], kafka(exclusive=True), down, messages[1]], check=Checks())) == 2
    assert verifier.ids_held == 1
    world.keys.source = source
    assert at_once(verifier.recall_many([down, messages[1]], check=Checks())) == 2
    assert verifier.ids_held == 3


def test_a_delivery_is_recalled_unsettled_where_that_is_said() -> None:
    """Promise (A17): what may be offered again is pinned, however many are recalled together."""
    world = with_store(MemoryReplayStore(horizon=Policy().horizon))
    assert at_once(world.verifier.recall_many(records(3, exclusive=True), unacked=True, check=Checks())) == 3
    world.verifier.memory("group#tasks/0").pass_time(NOW + 5000.0)
    assert world.verifier.ids_held == 3


def test_what_could_not_be_read_is_malformed() -> None:
    """Promise: a fault of a message's own ends it at the first check, alone and together, whatever its headers hold."""
    messages = [records(3)[0], replace(records(3)[1], fault="broken header line"), records(3)[2]]
    for together in (messages, messages[1:2]):
        world = World()
        verdicts = at_once(world.verifier.verify_many(together, check=Checks()))
        (broken,) = [verdict for verdict in verdicts if isinstance(verdict, Rejected)]
        assert (broken.reason, broken.detail) == (Reason.MALFORMED, "broken header line")
        assert len(verdicts) == len(together)


def test_the_time_is_read_once() -> None:
    """Promise: all messages of one bulk are judged by one clock reading, and by the reference time of each."""
    world = World(keys=[public(ALICE_KEY, ALICE, revoked_at=NOW + 5)])
    times = iter([NOW + 4.0, NOW + 5.0])
    world.verifier.clock = lambda: next(times)  # type: ignore[misc] # time passes
    messages = records(3)
    assert endings(world, messages) == ["first"] * 3
    assert endings(world, messages) == ["key_revoked"] * 3


def test_a_bulk_is_verified_messages_all_the_way() -> None:
    """Promise: what verifies in a bulk is what ``verify`` would have returned."""
    message = records(3)[1]
    alone = World().verify(message)
    (together,) = at_once(World().verifier.verify_many([message]))
    assert isinstance(together, VerifiedMessage)
    assert together == alone
    assert Policy() == World().policy
    assert isinstance(World().keys.source, MemoryKeys)
