"""The verifier's checks in detail: boundaries, and what it does not take from its plug-ins."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.core.world import (
    ALICE,
    ALICE_EC_KEY,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    ID,
    MALLORY,
    MALLORY_KEY,
    NOW,
    REALM,
    World,
    at_once,
    batch,
    bear,
    cbor,
    claims_of,
    direct,
    kafka,
    nats,
    press,
    public,
    signed,
)
from watchword import (
    Admission,
    Allow,
    Channel,
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
    VerificationKey,
    Verifier,
)
from watchword.message import MAX_HEADER_BYTES, Expected
from watchword.verifier import log_name


def rejected(message: Message, world: World | None = None, expected: Expected | None = None) -> Rejected:
    """Return the rejection of a message that must not be delivered."""
    with pytest.raises(Rejected) as caught:
        (world or World()).verify(message, expected)
    return caught.value


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


# Check 1


@pytest.mark.parametrize("name", ["watchword", "Watchword", "WATCHWORD"])
def test_the_header_is_found_in_any_letter_case(name: str) -> None:
    """Promise (A06): a bus or library that changes the case of header names breaks nothing."""
    message = press(nats())
    message = replace(message, headers=(*message.headers[:-1], (name, message.headers[-1][1])))
    assert World().verify(message).principal == ALICE


@pytest.mark.parametrize("value", [None, b"", b"x"])
def test_two_envelopes_are_malformed(value: bytes | None) -> None:
    """Promise (A06): a second envelope in any letter case, even an empty one, is malformed."""
    message = press(nats())
    for headers in ((("WatchWord", value), *message.headers), (*message.headers, ("WATCHWORD", value))):
        assert rejected(replace(message, headers=headers)).reason is Reason.MALFORMED


def test_a_null_envelope_is_malformed() -> None:
    """Promise: an envelope header without a value is malformed, not unsigned."""
    assert rejected(kafka(headers=(("watchword", None),))).reason is Reason.MALFORMED


@pytest.mark.parametrize("name", ["x", "é", "\ud800"])
def test_the_header_block_is_bounded_in_bytes(name: str) -> None:
    """Promise (A06): the limit counts names and values in bytes; one byte more is malformed."""
    message = press(nats())
    used = sum(len(n.encode()) + len(v or b"") for n, v in message.headers) + len(name.encode(errors="surrogatepass"))
    room = MAX_HEADER_BYTES - used
    full = replace(message, headers=(*message.headers, (name, bytes(room))))
    over = replace(message, headers=(*message.headers, (name, bytes(room + 1))))
    assert World().verify(full).headers == nats().headers
    assert rejected(over).reason is Reason.MALFORMED
    assert rejected(replace(over, headers=over.headers[-1:])).reason is Reason.UNSIGNED


# Check 3


def test_the_realm_must_be_ours() -> None:
    """Promise (A13): a message that names another realm's channel is misdirected even where it is found there."""
    other = nats(channel=Channel("nats", "other", "tasks.scale"))
    assert rejected(press(other)).reason is Reason.WRONG_CHANNEL


@pytest.mark.parametrize("uri", ["kafka://prod/tasks.scale", "nats://prod/tasks.scale2", "nats://other/tasks.scale"])
def test_the_channel_is_compared_whole(uri: str) -> None:
    """Promise (A13): bus, realm and name all count."""
    assert rejected(press(nats(), c=uri)).reason is Reason.WRONG_CHANNEL


@pytest.mark.parametrize(
    ("signed_for", "found_in", "shared", "passes"),
    [
        (0, 0, False, True),
        (0, 1, False, False),
        (None, 0, False, False),
        (0, None, False, False),
        (None, None, False, False),
        (None, 0, True, True),
        (0, 0, True, True),
        (0, 1, True, False),
    ],
)
def test_partitions(signed_for: int | None, found_in: int | None, shared: bool, passes: bool) -> None:  # noqa: FBT001 - a table's columns
    """Promise (A13): on Kafka the partition must be the signed one; only a shared store allows none."""
    message = replace(press(kafka(partition=signed_for)), partition=found_in)
    world = World(shared_replay=shared)
    if passes:
        assert world.verify(message).principal == ALICE
    else:
        assert rejected(message, world).reason is Reason.WRONG_PARTITION


def test_a_partition_is_for_kafka() -> None:
    """Promise: a NATS message that claims a partition is misdirected, shared store or not."""
    for shared in (False, True):
        assert rejected(press(nats(), p=0), World(shared_replay=shared)).reason is Reason.WRONG_PARTITION


def test_reply_subjects() -> None:
    """Promise (A22): a signed reply subject must be there; an unsigned one is hidden."""
    message = press(nats(reply_to="_INBOX.1"))
    assert World().verify(message).reply_to == "_INBOX.1"
    for found in (None, "_INBOX.2"):
        assert rejected(replace(message, reply_to=found)).reason is Reason.WRONG_REPLY_TO
    assert World().verify(replace(press(nats()), reply_to="_INBOX.mallory")).reply_to is None


def test_at_a_stream_position_the_broker_replaces_the_reply_subject() -> None:
    """Promise: JetStream's ack subject in place of the signed one is no attack."""
    message = press(nats(reply_to="_INBOX.1"))
    stored = replace(message, reply_to="$JS.ACK.x", position=Position("TASKS", 7))
    assert World().verify(stored).reply_to == "_INBOX.1"


def test_recipients() -> None:
    """Promise (A36): addressed to this agent or to nobody in particular; a nameless process gets only the latter."""
    to_bob, to_all = press(nats(), c3=BOB), press(nats())
    assert World(principal=BOB).verify(to_bob).recipient == BOB
    assert World(principal=None).verify(to_all).recipient is None
    assert rejected(to_bob, World(principal=MALLORY)).reason is Reason.WRONG_RECIPIENT
    assert rejected(to_bob, World(principal=None)).reason is Reason.WRONG_RECIPIENT


QUESTION = Request(id=b"q" * 16, channel=Channel("nats", REALM, "tasks.scale"))


def _answer(**changes: Any) -> Message:
    inbox = nats(channel=Channel("nats", REALM, "_INBOX.bob.1"))
    return press(inbox, **{"q": QUESTION.id} | changes)


def _asked(**changes: Any) -> Expected:
    return Expected(requests={QUESTION.id: replace(QUESTION, **changes)}, only_replies=True)


def test_replies() -> None:
    """Promise (A22): an answer is bound to a pending request; one to nothing, or to another, is rejected."""
    assert World().verify(_answer(), _asked()).in_reply_to == QUESTION.id.hex()
    assert rejected(_answer(q=b"p" * 16), expected=_asked()).reason is Reason.WRONG_REQUEST
    assert rejected(_answer()).reason is Reason.WRONG_REQUEST
    echoed = press(nats(channel=Channel("nats", REALM, "_INBOX.bob.1")))
    assert rejected(echoed, expected=_asked()).reason is Reason.WRONG_REQUEST


def test_who_may_answer() -> None:
    """Promise (A22): the request's recipient alone, else whoever may speak where the request went."""
    assert World().verify(_answer(), _asked(recipient=ALICE)).principal == ALICE
    assert rejected(_answer(), expected=_asked(recipient=MALLORY)).reason is Reason.NOT_PERMITTED
    policy = Policy(allow=(Allow(ALICE, ("nats://prod/tasks.>",)),))
    assert World(policy=policy).verify(_answer(), _asked()).principal == ALICE
    other = Policy(allow=(Allow(ALICE, ("nats://prod/_INBOX.>",)),))
    assert rejected(_answer(), World(policy=other), _asked()).reason is Reason.NOT_PERMITTED
    assert World(policy=other).verify(_answer(), _asked(recipient=ALICE)).principal == ALICE


def test_deliveries_of_another_consumer() -> None:
    """Promise: an ack subject of another stream or consumer than the bound one is no delivery of ours."""
    message = press(nats(position=Position("TASKS", 7), delivered_by=("TASKS", "worker")))
    assert World().verify(message, Expected(consumer=("TASKS", "worker"))).position == Position("TASKS", 7)
    for delivered_by in (("TASKS", "other"), ("OTHER", "worker"), None):
        wrong = replace(message, delivered_by=delivered_by)
        assert rejected(wrong, expected=Expected(consumer=("TASKS", "worker"))).reason is Reason.WRONG_DELIVERY


# Check 4

MAX_AGE, SKEW = Policy().max_age, Policy().max_skew


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        (MAX_AGE + SKEW, None),
        (MAX_AGE + SKEW + 0.1, Reason.STALE),
        (-SKEW, None),
        (-SKEW - 0.1, Reason.FROM_FUTURE),
        (float("nan"), Reason.STALE),
        (float("inf"), Reason.STALE),
        (float("-inf"), Reason.FROM_FUTURE),
    ],
)
@pytest.mark.parametrize("stamped", [True, False])
def test_freshness(age: float, reason: Reason | None, stamped: bool) -> None:  # noqa: FBT001 - a table's column
    """Promise (A16, A18): fresh at the broker's append time where there is one, else now; bounds included."""
    world = World()
    message = press(kafka(appended_at=NOW + age if stamped else None))
    world.now = NOW + 10_000.0 if stamped else NOW + age
    if reason is None:
        assert world.verify(message).principal == ALICE
    else:
        assert rejected(message, world).reason is reason


@pytest.mark.parametrize(("at", "passes"), [(NOW + 8.9, True), (NOW + 9.0, False), (NOW + 50_000.0, False)])
def test_a_messages_own_expiry(at: float, passes: bool) -> None:  # noqa: FBT001 - a table's column
    """Promise: ``exp`` is judged at the present time, strictly, also in a backlog that the broker stamped."""
    world = World()
    world.now = at
    message = press(kafka(), c4=NOW + 9)
    if passes:
        assert world.verify(message).principal == ALICE
    else:
        assert rejected(message, world).reason is Reason.EXPIRED


# Check 5


class Source:
    """A key source that answers as it is told."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def find(self, *_: object) -> VerificationKey | None:
        """Answer, or fail."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return] # lies on purpose


def _lying(answer: Any) -> World:
    world = World()
    world.keys.source = Source(answer)
    return world


@pytest.mark.parametrize(
    "answer", [TimeoutError("key=s3cret"), "a key", b"", object(), public(BOB_KEY, BOB), public(BOB_KEY, ALICE)]
)
def test_the_key_source_is_not_taken_at_its_word(answer: Any) -> None:
    """Promise: an error, no key at all, or a key of another id is an outage of ours, not a verdict."""
    with pytest.raises(Unavailable, match="keys") as caught:
        _lying(answer).verify(press(nats()))
    assert "s3cret" not in str(caught.value)


def test_a_key_of_another_principal_verifies_nothing() -> None:
    """Promise (A10): a key source that answers with another's key of this id gives ``wrong_principal``."""
    assert rejected(press(nats()), _lying(public(ALICE_KEY, MALLORY))).reason is Reason.WRONG_PRINCIPAL
    assert rejected(press(nats()), _lying(None)).reason is Reason.UNKNOWN_KEY


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ({"not_before": NOW}, None),
        ({"not_before": NOW + 1}, Reason.KEY_NOT_VALID),
        ({"not_after": NOW + 1}, None),
        ({"not_after": NOW}, Reason.KEY_NOT_VALID),
        ({"revoked_at": NOW + 101}, None),
        ({"revoked_at": NOW + 100}, Reason.KEY_REVOKED),
        ({"revoked_at": 0}, Reason.KEY_REVOKED),
    ],
)
def test_key_times(times: dict[str, int], reason: Reason | None) -> None:
    """Promise (A23): validity is judged at the reference time, without skew; revocation at the present time."""
    world = World(keys=[public(ALICE_KEY, ALICE, **times)])
    world.now = NOW + 100.0
    message = press(kafka(appended_at=float(NOW)))
    if reason is None:
        assert world.verify(message).principal == ALICE
    else:
        assert rejected(message, world).reason is reason


# Check 6


def test_the_algorithm_is_the_keys() -> None:
    """Promise (A08): a message that names another algorithm than its key's is not verified by either."""
    for alg in (-9, -8, -7, 5, 0, -19 - (1 << 40)):
        raw = direct(cbor(claims_of(nats())), ALICE_KEY, c1=alg)
        assert rejected(bear(nats(), raw)).reason is Reason.BAD_SIGNATURE
    raw = direct(cbor(claims_of(nats())), ALICE_EC_KEY, c1=-19)
    assert rejected(bear(nats(), raw)).reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("count", [2, 3, 7])
def test_batches(count: int) -> None:
    """Promise: each message of a batch is verifiable alone, and its id used once."""
    world = World()
    messages = [nats(value=bytes([index])) for index in range(count)]
    entries = [cbor(claims_of(message, c7=bytes([index]) * 16)) for index, message in enumerate(messages)]
    for message, raw in zip(messages, batch(entries), strict=True):
        assert world.verify(bear(message, raw)).value == message.value
        assert rejected(bear(message, raw), world).reason is Reason.REPLAYED


# Check 7

CHANGES: dict[str, Callable[[Message], Message]] = {
    "value": lambda m: replace(m, value=b"other"),
    "value emptied": lambda m: replace(m, value=b""),
    "tombstone": lambda m: replace(m, value=None),
    "key": lambda m: replace(m, key=b"k2"),
    "key emptied": lambda m: replace(m, key=b""),
    "key removed": lambda m: replace(m, key=None),
    "covered value": lambda m: replace(m, headers=(("content-type", b"text/plain"), *m.headers[1:])),
    "covered value null": lambda m: replace(m, headers=(("content-type", None), *m.headers[1:])),
    "covered removed": lambda m: replace(m, headers=m.headers[1:]),
    "covered renamed": lambda m: replace(m, headers=(("Content-type", m.headers[0][1]), *m.headers[1:])),
    "covered twice": lambda m: replace(m, headers=(m.headers[0], *m.headers)),
    "record timestamp": lambda m: replace(m, created_at=NOW + 30.5),
    "record timestamp before": lambda m: replace(m, created_at=NOW - 30.5),
    "record timestamp is none": lambda m: replace(m, created_at=float("nan")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_altered(change: Callable[[Message], Message]) -> None:
    """Promise (A02, A04): whatever is covered and changed is ``altered``."""
    message = press(kafka())
    assert World().verify(message).principal == ALICE
    assert rejected(change(message)).reason is Reason.ALTERED


def test_what_was_added_to_an_absent_part_is_altered() -> None:
    """Promise (A04): a message signed without value or key accepts neither."""
    bare = press(kafka(value=None, key=None, headers=()))
    assert World().verify(bare).value is None
    assert rejected(replace(bare, value=b"")).reason is Reason.ALTERED
    assert rejected(replace(bare, key=b"")).reason is Reason.ALTERED


def test_a_digest_of_nothing_is_altered() -> None:
    """Promise: ``m`` is absent when there is neither key nor covered header; a needless one has no second spelling."""
    bare = kafka(key=None, headers=())
    assert rejected(press(bare, m=bytes(32))).reason is Reason.ALTERED


def test_record_timestamps_within_the_skew() -> None:
    """Promise (A39): a producer's record timestamp may differ from the signed time by the skew, no more."""
    message = press(kafka(appended_at=None))
    for created_at in (NOW - 30, NOW, NOW + 30.0):
        assert World().verify(replace(message, created_at=created_at)).principal == ALICE


def test_uncovered_headers_are_hidden() -> None:
    """Promise (A03): what the sender did not sign does not reach the handler, trace headers apart."""
    message = press(nats())
    added = (("Authorization", b"x"), ("tracestate", b"s"), ("traceparent", b"t"), ("Nats-Msg-Id", ID.hex().encode()))
    seen = World().verify(replace(message, headers=(*added, *message.headers))).headers
    assert seen == (("tracestate", b"s"), ("traceparent", b"t"), ("Content-Type", b"application/json"))


@pytest.mark.parametrize("value", [b"", b"other", ID.hex().upper().encode(), None])
def test_nats_msg_id_is_the_id(value: bytes | None) -> None:
    """Promise (A19): on NATS an uncovered ``Nats-Msg-Id`` must be the message's id; Kafka has no such header."""

    def added(message: Message) -> Message:
        return replace(message, headers=(*message.headers, ("Nats-Msg-Id", value)))

    assert rejected(added(press(nats()))).reason is Reason.ALTERED
    assert World().verify(added(press(kafka()))).headers == kafka().headers


def test_an_applications_own_nats_msg_id_is_covered() -> None:
    """Promise: an application's own ``Nats-Msg-Id`` is a header like any other."""
    message = press(nats(headers=(("Nats-Msg-Id", b"order-7"),)))
    assert World().verify(message).headers == (("Nats-Msg-Id", b"order-7"),)
    assert (
        rejected(replace(message, headers=(("Nats-Msg-Id", b"order-8"), message.headers[-1]))).reason is Reason.ALTERED
    )


# Check 8


def test_the_claim_that_is_made() -> None:
    """Promise: the store learns scope, log, principal, id, digest, place and times."""
    world = World()
    message = press(kafka())
    world.verify(message)
    (claim,) = world.store.claims
    policy = Policy()
    assert claim == Claim(
        scope="kafka://prod/tasks#group", log="group#tasks/0", principal=ALICE, id=ID, digest=claim.digest,
        place=(Position("tasks/0", 12), NOW + 0.5), issued_at=NOW, reference=NOW + 0.5,
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
        assert memory._logs["sub#TASKS"].unsettled == {}
        assert len(memory) == 1
    plain = World()
    plain.verifier.settle(_stored(), plain.verify(press(_stored())))


def test_a_log_that_is_read_from_elsewhere_or_no_longer() -> None:
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
    verifier.rewind(log)
    assert [read(0, NOW), read(1, NOW + 5000)] == ["rate_limited", "again"]
    verifier.forget(log)
    assert len(memory) == 0
    assert read(0, NOW) == "first"
    plain = World().verifier
    plain.rewind(log)
    plain.forget(log)


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


def test_a_signed_message_for_nobody_else() -> None:
    """Promise: the product's own signer addresses, expires and answers as the verifier expects."""
    message = signed(
        nats(channel=Channel("nats", REALM, "_INBOX.bob.1")),
        recipient=BOB,
        expires_at=NOW + 60,
        in_reply_to=QUESTION.id,
    )
    assert World().verify(message, _asked()).recipient == BOB
