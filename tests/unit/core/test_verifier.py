"""What a verdict says; checks 8 and 9 in detail: replay and policy."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.core.world import (
    ABSENT,
    ALICE,
    ALICE_KEY,
    BOB,
    ID,
    MALLORY,
    MALLORY_KEY,
    NOW,
    REALM,
    World,
    at_once,
    ed_key,
    kafka,
    known_keys,
    nats,
    press,
    public,
    rejected,
)
from watchword import (
    Admission,
    Allow,
    Claim,
    ConfigurationError,
    MemoryKeys,
    MemoryReplayStore,
    Message,
    Policy,
    Position,
    Rate,
    Reason,
    Rejected,
    Request,
    Unavailable,
    Verifier,
)
from watchword.message import Expected
from watchword.verifier import log_name


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
        keep_until=NOW + policy.window + policy.max_lag,
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
    """A replay store that answers as it is told."""

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
    """Promise: what is settled, or dropped by policy, leaves the unsettled; a store without that port needs none."""
    for policy, allowed in ((Policy(), True), (Policy(contained=frozenset({ALICE})), False)):
        memory = MemoryReplayStore(horizon=policy.horizon)
        verifier = Verifier(
            realm=REALM, keys=MemoryKeys([public(ALICE_KEY, ALICE)]), replay=memory, policy=policy, clock=lambda: NOW
        )
        if allowed:
            verifier.settle(_stored(), at_once(verifier.verify(press(_stored()))))
        else:
            with pytest.raises(Rejected, match="contained"):
                at_once(verifier.verify(press(_stored())))
        assert memory._logs["sub#TASKS"].pins == {}
        assert len(memory) == 1
    plain = World()
    plain.verifier.settle(_stored(), plain.verify(press(_stored())))


def test_a_log_that_begins_anew_or_is_no_longer_read() -> None:
    """Promise (A17): a log read from elsewhere starts its time anew; one no longer read leaves no ids, no rates."""
    policy = Policy(allow=(Allow(ALICE, ("kafka://prod/tasks",), Rate(1, 10.0)),))
    memory = MemoryReplayStore(horizon=policy.horizon)
    verifier = Verifier(
        realm=REALM, keys=MemoryKeys([public(ALICE_KEY, ALICE)]), replay=memory, policy=policy, clock=lambda: NOW
    )

    def read(offset: int, at: float) -> str:
        message = press(
            kafka(position=Position("tasks/0", offset), appended_at=at), c6=int(at), c7=bytes([offset]) * 16
        )
        try:
            return "again" if at_once(verifier.verify(message)).redelivered else "first"
        except Rejected as refused:
            return str(refused.reason)

    log = log_name(kafka(position=Position("tasks/0", 0)))
    assert [read(1, NOW + 5000), read(0, NOW)] == ["first", "stale"]
    verifier.begin(log, floor=NOW)
    assert [read(2, NOW - 1), read(0, NOW), read(0, NOW)] == ["stale", "rate_limited", "again"]
    verifier.forget(log)
    assert len(memory) == 0
    assert read(0, NOW) == "first"


def test_what_one_reads_alone_is_kept_by_oneself() -> None:
    """Promise: with a store that others share, a log that this process reads alone is judged by its own memory."""
    world = World(shared_replay=True)
    message = press(kafka(alone=True))
    assert not world.verify(message).redelivered
    assert world.verify(message).redelivered
    assert world.store.claims == []
    loose = rejected(press(kafka(alone=True), p=ABSENT), world)
    assert loose.reason is Reason.WRONG_PARTITION
    world.verify(press(kafka(), p=ABSENT, c7=b"2" * 16))
    assert len(world.store.claims) == 1


def test_a_recalled_message_is_known_and_not_delivered() -> None:
    """Promise (A14): what passed checks 1 to 7 in the log before is remembered, also what has expired since."""
    for expires, reason in ((NOW + 9999, Reason.REPLAYED), (NOW - 1, Reason.EXPIRED)):
        world = World()
        message = press(kafka(alone=True), c4=expires)
        at_once(world.verifier.recall(message))
        copy = replace(message, position=Position("tasks/0", 99))
        assert rejected(copy, world).reason is reason
        assert len(world.verifier._guard) == 1


@pytest.mark.parametrize(
    "message",
    [
        kafka(alone=True),
        replace(press(kafka(alone=True)), value=b"forged"),
        press(kafka(alone=True), key=ed_key(9, kid=b"alice-1")),
        press(kafka(alone=True, appended_at=NOW + 9999.0)),
        press(kafka(alone=True), p=1),
    ],
)
def test_what_does_not_verify_is_not_recalled(message: Message) -> None:
    """Promise (A19): a forgery in the log before does not keep the real message out."""
    world = World()
    at_once(world.verifier.recall(message))
    assert not world.verify(replace(press(kafka(alone=True)), position=Position("tasks/0", 99))).redelivered


def test_what_passes_without_a_verdict_on_its_key_is_a_replay_elsewhere() -> None:
    """Promise (A39): unknown live or in a rebuild, or given up in an outage: the same claims elsewhere are a replay."""
    for how in ("live", "recalled", "given up"):
        world = World(keys=[])
        message = press(kafka(alone=True))
        if how == "live":
            assert rejected(message, world).reason is Reason.UNKNOWN_KEY
        elif how == "recalled":
            at_once(world.verifier.recall(message))
        else:
            world.verifier.pass_over(message)
        world.keys.source = MemoryKeys(known_keys())
        assert rejected(replace(message, position=Position("tasks/0", 99)), world).reason is Reason.REPLAYED
        assert world.verify(message).id == ID.hex()
    world.verifier.pass_over(kafka(alone=True))  # unsigned: nothing to remember


def test_where_a_shared_store_answers_nothing_is_kept_beside_it() -> None:
    """Promise: what passed without a verdict is remembered only where this process's own memory answers."""
    world = World(keys=[], shared_replay=True)
    message = press(kafka())
    assert rejected(message, world).reason is Reason.UNKNOWN_KEY
    world.verifier.pass_over(message)
    assert world.verifier._guard._logs == {}


def test_a_reader_that_begins_with_a_floor() -> None:
    """Promise (A14): what was issued before a reader began is stale, unless it answers a pending request."""
    floor = Expected(floor=NOW + 1.0)
    assert rejected(press(nats()), World(), floor).reason is Reason.STALE
    assert World().verify(press(nats(), c6=NOW + 1), floor).issued_at == NOW + 1
    request = Request(id=ID, channel=nats().channel)
    asked = replace(floor, requests={ID: request})
    assert World().verify(press(nats(), q=ID), asked).in_reply_to == ID.hex()


@pytest.mark.parametrize(
    ("error", "expected"), [(ConfigurationError("may forget"), ConfigurationError), (OSError(), Unavailable)]
)
def test_a_store_is_opened_at_the_start(error: Exception, expected: type[Exception]) -> None:
    """Promise: a store that cannot be trusted is refused before anything is read; one that is down is Unavailable."""

    class Store(MemoryReplayStore):
        async def start(self) -> None:
            raise error

    verifier = Verifier(realm=REALM, keys=MemoryKeys(), replay=Store(horizon=None), policy=Policy(), clock=lambda: NOW)
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


def test_what_was_rejected_for_its_key_is_not_pinned() -> None:
    """Promise (A20): a flood under unknown keys fills the memory for the window only, in a stream too."""
    policy = Policy()
    store = MemoryReplayStore(horizon=policy.horizon, unverified=1)
    known, unknown = (
        Verifier(realm=REALM, keys=MemoryKeys(keys), replay=store, policy=policy, clock=lambda: NOW, principal=BOB)
        for keys in (known_keys(), [])
    )

    def stored(sequence: int, at: int, number: int) -> Message:
        place = {"position": Position("orders", sequence), "appended_at": float(at), "delivered_by": ("orders", "w")}
        return press(nats(**place), c6=at, c7=bytes([number]) * 16)

    late = NOW + 1000
    for verifier, message, reason in (
        (unknown, stored(1, NOW, 1), Reason.UNKNOWN_KEY),
        (known, stored(2, late, 2), None),
        (unknown, stored(3, late, 3), Reason.UNKNOWN_KEY),
        (known, stored(4, late, 3), Reason.REPLAYED),
        (known, stored(3, late, 3), None),
    ):
        if reason is None:
            assert not at_once(verifier.verify(message)).redelivered
            continue
        with pytest.raises(Rejected) as caught:
            at_once(verifier.verify(message))
        assert caught.value.reason is reason
