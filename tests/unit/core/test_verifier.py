"""What a verdict says; checks 8 and 9 in detail: replay and policy."""

from dataclasses import replace
from math import inf
from typing import Any

import pytest

from tests.unit.core.world import (
    ALICE,
    ALICE_KEY,
    BOB,
    ID,
    MALLORY,
    MALLORY_KEY,
    NOW,
    REALM,
    Checks,
    CountingStore,
    World,
    at_once,
    endings,
    kafka,
    known_keys,
    nats,
    press,
    public,
    rejected,
)
from watchword import (
    Allow,
    ConfigurationError,
    MemoryKeys,
    Policy,
    Rate,
    Reason,
    Rejected,
    Unavailable,
    VerificationKey,
)
from watchword.message import Expected, Request
from watchword.spi import Admission, Claim, MemoryReplayStore, Message, Position, Verifier


def test_what_a_verified_message_says() -> None:
    """Promise: a verified message carries what was signed and nothing that was not."""
    message = kafka(headers=(("a", b"1"), ("a", None), ("traceparent", b"t")))
    verified = World().verify(press(message, c3=BOB))
    assert (verified.principal, verified.key_id, verified.id) == (ALICE, "alice-1", ID.hex())
    assert (verified.value, verified.key, verified.headers) == (message.value, message.key, message.headers)
    assert (verified.issued_at, verified.redelivered, verified.recipient) == (NOW, False, BOB)
    assert (verified.channel, verified.position) == (message.channel, message.position)
    assert (verified.reply_to, verified.in_reply_to) == (None, None)


def test_a_rejection_names_place_and_claimed_sender() -> None:
    """Promise: the audit trail learns where it was found and whom it claimed to be from, once that was read."""
    refused = rejected(press(nats(), c="nats://prod/other"))
    assert (refused.channel, refused.claimed_principal) == ("nats://prod/tasks.scale", ALICE)
    assert rejected(nats()).claimed_principal is None
    assert len(rejected(press(nats(), c1="x" * 250)).claimed_principal or "") == 128


# Check 8


def test_the_claim_that_is_made() -> None:
    """Promise: the store learns scope, log, principal, id, digest, place and times."""
    world = World()
    message = press(kafka())
    world.verify(message)
    (claim,) = world.store.claims
    policy = Policy()
    assert claim == Claim(
        scope="kafka://prod/tasks#group", log="group#tasks/0", principal=ALICE, key_id=b"alice-1", id=ID,
        digest=claim.digest, place=(Position("tasks/0", 12), NOW + 0.5), issued_at=NOW, reference=NOW + 0.5,
        keep_until=NOW + policy.window + policy.max_lag, reader="group",
    )  # fmt: skip
    assert len(claim.digest) == 32
    world.verify(press(nats(), c7=b"2" * 16))
    assert (world.store.claims[-1].log, world.store.claims[-1].place) == ("sub#", None)


def test_redelivery_is_not_replay() -> None:
    """Promise (A12, A17): the same place is a redelivery, another place a replay, another reader a first sight."""
    world = World()
    message = press(kafka())
    assert not world.verify(message).redelivered
    assert world.verify(message).redelivered
    assert rejected(replace(message, position=Position("tasks/0", 13)), world).reason is Reason.REPLAYED
    assert rejected(replace(message, appended_at=NOW + 9.0), world).reason is Reason.REPLAYED
    assert not world.verify(replace(message, reader="other group")).redelivered


def test_another_principal_may_use_the_same_id() -> None:
    """Promise (A19): a compromised principal can spend its own ids only."""
    world = World()
    assert world.verify(press(nats(), key=MALLORY_KEY, principal=MALLORY)).principal == MALLORY
    assert world.verify(press(nats())).principal == ALICE


class Store:
    """A replay store that returns or raises what it was created with."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def claim(self, _: Claim) -> Admission:
        """Answer, or fail."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return] # lies on purpose


@pytest.mark.parametrize("answer", [OSError("password=s3cret"), None, True, "yes", "first", 1, [], {}])
def test_a_store_that_does_not_answer_is_an_outage(answer: Any) -> None:
    """Promise: an error or nonsense of the store is an outage of ours: nothing delivered, nothing dropped."""
    world = World()
    world.store.store = Store(answer)
    with pytest.raises(Unavailable, match="replay") as caught:
        world.verify(press(nats()))
    assert "s3cret" not in str(caught.value)


class EndedError(BaseException):
    """Ends a process, as KeyboardInterrupt does."""


class Ending:
    """A key source during whose look-up the process is ended."""

    async def find(self, _: str, __: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        raise EndedError


def test_what_ends_the_process_is_no_verdict() -> None:
    """Promise: an exception that is not an error passes through, and no engine is blamed for it."""
    world = World()
    world.verifier.keys.source = Ending()
    with pytest.raises(EndedError):
        world.verify(press(nats()))
    with pytest.raises(EndedError):
        at_once(world.verifier.verify_many([press(nats()), press(nats(), c7=b"2" * 16)]))
    assert not world.verifier.warnings


# Check 9


def test_rates_hold_per_log_in_reference_time() -> None:
    """Promise (A24): the rate is spent by first sights, at the pace at which the log was written."""
    policy = Policy(allow=(Allow(ALICE, ("kafka://prod/tasks",), Rate(1, 10.0)),))
    world = World(policy=policy)
    outcomes = []
    for number, at in enumerate([0.0, 1.0, 10.0, 11.0]):
        message = press(kafka(position=Position("tasks/0", number), appended_at=NOW + at), c7=bytes([number]) * 16)
        try:
            world.verify(message)
            outcomes.append("delivered")
        except Rejected as refused:
            outcomes.append(str(refused.reason))
    assert outcomes == ["delivered", "rate_limited", "delivered", "rate_limited"]


def _stored(**fields: Any) -> Message:
    return nats(position=Position("TASKS", 7), delivered_by=("TASKS", "worker"), appended_at=NOW + 0.5, **fields)


def test_a_delivery_that_must_be_acknowledged_is_unsettled_until_then() -> None:
    """Promise (A17): JetStream's redelivery after a long handler is a redelivery still."""
    world = World()
    assert not world.verify(press(_stored())).redelivered
    late = NOW + 5000
    assert world.verify(press(_stored()), None).redelivered
    world.verify(replace(press(nats(appended_at=late), c6=late, c7=b"2" * 16), position=Position("TASKS", 9)))
    assert len(world.memory) == 2
    assert world.verify(press(_stored())).redelivered


def test_settling_reaches_a_store_that_wants_it() -> None:
    """Promise: what is settled, or dropped by policy, leaves the unacked; a store without that port needs none."""
    for policy, allowed in ((Policy(), True), (Policy(contained=frozenset({ALICE})), False)):
        memory = MemoryReplayStore(horizon=policy.horizon)
        verifier = Verifier(
            realm=REALM, keys=MemoryKeys([public(ALICE_KEY, ALICE)]), replay=memory, policy=policy, clock=lambda: NOW
        )
        if allowed:
            at_once(verifier.verify(press(_stored())))
            verifier.acknowledge_at("sub#TASKS", 7)
        else:
            with pytest.raises(Rejected, match="contained"):
                at_once(verifier.verify(press(_stored())))
        assert len(memory) == 1
        memory.look("sub#TASKS", NOW + 5000)
        assert len(memory) == 0


@pytest.mark.parametrize("offset", [7, 8])
def test_a_rejected_delivery_leaves_nothing_pinned_and_no_copy_of_it_does_harm(offset: int) -> None:
    """Promise (A28): what is terminated is pinned no more; a copy that is rejected changes nothing."""
    world = World()
    world.verifier = Verifier(
        realm=REALM, keys=MemoryKeys(), replay=world.memory, policy=world.policy, clock=lambda: world.now
    )
    message = press(_stored())
    world.verifier.remember_unjudged(message)
    assert rejected(replace(message, position=Position("TASKS", offset)), world).reason is Reason.UNKNOWN_KEY
    world.memory.look("sub#TASKS", NOW + 5000)
    assert world.memory.lowest_needed("sub#TASKS") == (None if offset == 7 else 7)


def test_a_log_that_is_no_longer_read_leaves_nothing() -> None:
    """Promise: neither ids nor rates of a log outlast its reading."""
    world = World(policy=Policy(allow=(Allow(ALICE, ("kafka://prod/tasks",), Rate(1, 10.0)),)))
    verifier = alone(world)
    assert not at_once(verifier.verify(press(kafka(exclusive=True)))).redelivered
    with pytest.raises(Rejected, match="rate_limited"):
        at_once(verifier.verify(press(kafka(exclusive=True), c7=b"2" * 16)))
    verifier.forget("group#tasks/0")
    assert not at_once(verifier.verify(press(kafka(exclusive=True, position=Position("tasks/0", 13))))).redelivered


# What was before


def alone(world: World, **options: Any) -> Verifier:
    """Return a verifier with a guard of its own, and a shared store that nothing may reach."""
    given: dict[str, Any] = {
        "realm": REALM, "keys": world.keys, "replay": Store(OSError("not to be asked")), "policy": world.policy,
        "clock": lambda: world.now, "principal": BOB,
    }  # fmt: skip
    return Verifier(**given | options)


def ending(verifier: Verifier, message: Message, expected: Expected | None = None) -> str:
    """Return how a message ends."""
    try:
        again = at_once(verifier.verify(message, *([] if expected is None else [expected]))).redelivered
    except Rejected as refused:
        return str(refused.reason)
    except Unavailable as down:
        return down.what
    return "again" if again else "first"


def test_what_a_process_reads_alone_needs_no_shared_store() -> None:
    """Promise (A12): the guard answers for a log that is read alone, the store for what is shared."""
    verifier = alone(World())
    message = press(kafka(exclusive=True))
    assert [ending(verifier, message), ending(verifier, message)] == ["first", "again"]
    assert ending(verifier, replace(message, exclusive=False)) == "replay"


def test_a_rebuilt_guard_knows_what_passed() -> None:
    """Promise (A14): what passed checks 1 to 7 before is a replay elsewhere, below the floor everything is stale."""
    verifier = alone(World())
    verifier.begin("group#tasks/0", floor=NOW - 5.0)
    message = press(kafka(exclusive=True))
    at_once(verifier.recall(message))
    copy = replace(message, position=Position("tasks/0", 13))
    old = press(kafka(exclusive=True), c6=NOW - 6, c7=b"2" * 16)
    assert [ending(verifier, one) for one in (copy, message, old)] == ["replayed", "again", "stale"]


@pytest.mark.parametrize(
    "junk",
    [
        kafka(exclusive=True),
        press(kafka(exclusive=True), key=MALLORY_KEY),
        replace(press(kafka(exclusive=True)), value=b"altered"),
        replace(press(kafka(exclusive=True)), partition=1),
        press(kafka(exclusive=True), c6=NOW - 400),
        press(kafka(exclusive=True), c6=NOW + 40),
    ],
)
def test_only_what_verifies_is_recalled(junk: Message) -> None:
    """Promise (A19): nothing unverified takes an id in a rebuild either."""
    verifier = alone(World())
    at_once(verifier.recall(junk))
    assert verifier.ids_held == 0


def test_a_rebuild_remembers_what_another_max_age_let_in() -> None:
    """Promise (A14, K5): a reader with a longer max_age may have had what is stale for this one; its floor decides."""
    verifier = alone(World())
    verifier.begin("group#tasks/0", floor=NOW - 500.0)
    for age, number in ((400, b"1" * 16), (600, b"2" * 16)):
        unstamped = replace(kafka(exclusive=True, appended_at=None), appended_between=(-inf, float(NOW)))
        at_once(verifier.recall(press(unstamped, c6=NOW - age, c7=number)))
    assert verifier.ids_held == 1


def test_a_rebuild_remembers_what_has_expired_or_lost_its_key_since() -> None:
    """Promise (A14, A23): it may have been delivered, so it is known, by its id or by its claims."""
    world = World()
    keys = MemoryKeys([public(ALICE_KEY, ALICE, revoked_at=NOW)])
    expired, revoked = press(kafka(exclusive=True), c4=NOW), press(kafka(exclusive=True), c7=b"2" * 16)
    verifier = alone(world)
    at_once(verifier.recall(expired))
    assert verifier.ids_held == 1
    known, world.keys.source = world.keys.source, keys
    at_once(verifier.recall(revoked))
    world.keys.source = known
    assert ending(verifier, replace(revoked, position=Position("tasks/0", 13))) == "replayed"
    assert ending(verifier, revoked) == "first"


def test_a_delivery_that_is_still_offered_when_its_key_is_not_known_in_a_rebuild() -> None:
    """Promise (A17): JetStream offers it again, and once its key is known it is delivered, however late that is."""
    world = World(keys=[])
    verifier = alone(world)
    waiting = press(nats(exclusive=True, position=Position("S", 7), appended_at=NOW + 0.5, delivered_by=("S", "c")))
    at_once(verifier.recall(waiting, unacked=True))
    world.keys.source = MemoryKeys(known_keys())
    late = press(nats(exclusive=True, position=Position("S", 9), appended_at=NOW + 9000.5), c6=NOW + 9000, c7=b"2" * 16)
    copy = replace(waiting, position=Position("S", 8))
    assert [ending(verifier, one) for one in (late, copy, waiting)] == ["first", "replayed", "first"]


def test_a_rebuild_without_the_brokers_stamps_trusts_no_clock_to_have_stood_still() -> None:
    """Promise (A34, A39): what looks stale to a clock that then steps back within the skew is known all the same."""
    world = World()
    verifier = alone(world)
    message = press(kafka(exclusive=True, appended_at=None, created_at=float(NOW)))
    world.now = NOW + 306.0
    at_once(verifier.recall(message))
    world.now = NOW + 304.0
    assert ending(verifier, replace(message, position=Position("tasks/0", 13))) == "replayed"
    ahead = press(kafka(exclusive=True, appended_at=None, created_at=NOW + 400.0), c6=NOW + 400, c7=b"2" * 16)
    at_once(verifier.recall(ahead))
    assert verifier.ids_held == 1, "what no clock can have read is not remembered"


class Down:
    """A key source that fails."""

    async def find(self, principal: str, key_id: bytes) -> None:
        """See KeySource."""
        raise OSError(principal, key_id)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Unavailable("directory", "keys.acme.test: answered 503"), "keys unavailable: keys.acme.test: answered 503"),
        (OSError("https://bob:hunter2@keys.acme.test"), "keys unavailable: OSError"),
    ],
)
def test_why_keys_cannot_be_looked_up_is_told_as_their_source_says(error: Exception, told: str) -> None:
    """Promise: a source's own words say what to do; what a library put into its error may be a secret (A31)."""
    world = World()

    class Failing:
        async def find(self, *_: object) -> None:
            raise error

    world.verifier.keys.source = Failing()
    with pytest.raises(Unavailable) as caught:
        at_once(world.verifier.verify(press(kafka())))
    assert (str(caught.value), caught.value.what) == (told, "keys")


@pytest.mark.parametrize("together", [1, 2])
def test_a_message_from_the_future_is_final_without_its_key(together: int) -> None:
    """Promise: an outage does not hold what would be rejected with any key, be it alone or with others."""
    world = World()
    world.verifier.keys.source = Down()
    place = kafka(exclusive=True, appended_at=None, appended_between=(NOW, NOW))
    ahead = [press(place, c6=NOW + 60, c7=bytes([number]) * 16) for number in range(together)]
    assert endings(world, ahead) == [str(Reason.FROM_FUTURE)] * together
    assert endings(world, [press(place)]) == ["keys"]


def test_a_rebuild_that_cannot_look_up_keys_says_so() -> None:
    """Promise (A35): an outage during a rebuild is no end of it; given up, a record is known by its claims."""
    world = World()
    known, world.keys.source = world.keys.source, Down()
    verifier, message = alone(world), press(kafka(exclusive=True))
    with pytest.raises(Unavailable, match="keys"):
        at_once(verifier.recall(message))
    verifier.remember_unjudged(message)
    world.keys.source = known
    assert ending(verifier, replace(message, position=Position("tasks/0", 13))) == "replayed"
    assert ending(verifier, message) == "first"


def test_what_cannot_be_read_is_passed_over_and_forgotten() -> None:
    """Promise (A38): junk takes no memory; nor does what a shared store answers for take any of the guard."""
    verifier = alone(World())
    verifier.remember_unjudged(kafka(exclusive=True))
    verifier.remember_unjudged(press(kafka()))
    memory = verifier.memory("group#tasks/0")
    assert memory.lowest_needed() is None
    verifier.remember_unjudged(press(kafka(exclusive=True, appended_at=None)))
    assert memory.lowest_needed() == 12


@pytest.mark.parametrize("alone_at", [True, False])
def test_a_key_that_is_known_late_brings_back_the_original_only(alone_at: bool) -> None:  # noqa: FBT001
    """Promise (A39): what was rejected for an unknown key is no replay once the key is known, nor with a store."""
    world = World(keys=[])
    verifier = alone(world, replay=MemoryReplayStore(horizon=None) if alone_at else CountingStore(world.memory))
    message = press(kafka(exclusive=alone_at))
    assert ending(verifier, message) == "unknown_key"
    world.keys.source = MemoryKeys([public(ALICE_KEY, ALICE)])
    copy = replace(message, position=Position("tasks/0", 13))
    assert ending(verifier, copy) == "replayed"
    assert ending(verifier, message) == "first"
    assert ending(verifier, copy) == "replayed"


def test_the_readers_own_floor() -> None:
    """Promise (A16): what was issued before a reader began to remember is stale, save the answer that it waits for."""
    request = Request(id=b"q" * 16, channel=nats().channel, recipient=None)
    expected = Expected(requests={request.id: request}, floor=NOW + 0.5)
    verifier = alone(World(), replay=MemoryReplayStore(horizon=None))
    assert ending(verifier, press(nats()), expected) == "stale"
    assert ending(verifier, press(nats(), q=request.id), expected) == "first"
    assert ending(verifier, press(nats(), c6=NOW + 1, c7=b"2" * 16), expected) == "first"


@pytest.mark.parametrize(
    ("error", "expected"), [(ConfigurationError("may forget"), ConfigurationError), (OSError(), Unavailable)]
)
def test_a_store_is_opened_at_the_start(error: Exception, expected: type[Exception]) -> None:
    """Promise: a store that cannot be trusted is refused before anything is read; one that is down is Unavailable."""

    class Store(CountingStore):
        async def start(self) -> None:
            raise error

    store = Store(MemoryReplayStore(horizon=None))
    verifier = Verifier(realm=REALM, keys=MemoryKeys(), replay=store, policy=Policy(), clock=lambda: NOW)
    with pytest.raises(expected):
        at_once(verifier.start())
    at_once(World().verifier.start())


@pytest.mark.parametrize(
    ("options", "why"),
    [({"realm": "Prod"}, "realm"), ({"principal": ""}, "principal"), ({"principal": " x"}, "principal")],
)
def test_bad_construction(options: dict[str, Any], why: str) -> None:
    """Promise: a verifier for no realm or nobody is an error when it is made."""
    given: dict[str, Any] = {
        "realm": REALM, "keys": MemoryKeys(), "replay": MemoryReplayStore(horizon=None), "policy": Policy(),
        "clock": lambda: NOW,
    }  # fmt: skip
    with pytest.raises(ConfigurationError, match=why):
        Verifier(**given | options)


def test_times_of_issue_of_what_cannot_be_judged() -> None:
    """Promise: where nothing passes before a key source that is down, that is no answer."""
    world = World()
    message = press(kafka())

    class Down:
        async def find(self, *_: object) -> None:
            raise OSError

    world.verifier.keys.source = Down()
    with pytest.raises(Unavailable, match="keys"):
        at_once(world.verifier.times_of_issue([message], check=Checks()))
    assert at_once(world.verifier.times_of_issue([kafka()], check=Checks())) == []


def test_what_bears_no_time_of_the_broker_is_not_authenticated() -> None:
    """Promise: a user who asks for what stays true however old it is learns that the broker's time is needed."""
    with pytest.raises(ConfigurationError, match="appended_at"):
        at_once(World().verifier.authenticate([press(nats())]))
