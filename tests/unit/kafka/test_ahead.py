"""Records that are judged ahead of a caller who takes one at a time: none is lost, repeated, or out of date."""

import asyncio
import math
import time
from dataclasses import replace

import pytest
from aiokafka.structs import OffsetAndMetadata

from tests.support.kept import Kept
from tests.unit.control.world import OPERATORS, THIRD, issued
from tests.unit.kafka.conftest import Read
from tests.unit.kafka.fakes import (
    KEY,
    OTHER,
    P0,
    P1,
    REALM,
    SENDER,
    FakeKafka,
    Keys,
    alone,
    numbers,
    record,
    tree,
    watchword,
)
from watchword import Mode, Unavailable, VerificationKey, Watchword, partition
from watchword.control import Control
from watchword.keys import thumbprint
from watchword.partition import BRISK, FRESH
from watchword.statements import Contain, Revoke, Saying
from watchword.testing import SharedMemoryStore
from watchword_adapters.kafka import DeserializationError


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every caller count as one that takes records quickly, however slow this machine is."""
    monkeypatch.setattr(partition, "BRISK", math.inf)


def revoke(keys: Keys) -> None:
    """Let the sender's key be revoked by now."""
    revoked = VerificationKey.from_public_key(
        KEY.public, principal=SENDER, key_id=KEY.key_id, revoked_at=int(time.time()) - 1
    )
    keys.replace(revoked)


def is_ready(kafka: FakeKafka) -> int:
    """Return how many records were judged and not handed over."""
    return len(kafka.verified._readers[P0].ready)


async def ahead(read: Read, agent: Watchword, count: int = 40, *, least: int = 1, **options: object) -> FakeKafka:
    """Return a consumer whose caller was quick, so that ``least`` records at least are judged ahead."""
    kafka = read(agent, P0, **options)
    kafka.logs[P0].records = await tree(P0, numbers(count))
    while P0 not in kafka.verified._readers or is_ready(kafka) < least:
        await kafka.one()
    return kafka


def delivered(kafka: FakeKafka) -> int:
    """Return the position of P0."""
    position: int = kafka.verified.judged()[P0]
    return position


async def test_a_slow_key_source_does_not_make_its_caller_slow(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: who takes records quickly has many judged at once, though each look-up takes longer than that."""
    keys = Keys()
    kafka = read(alone(keys), P0)
    kafka.logs[P0].records = await tree(P0, numbers(200))
    find = keys.find

    async def slowly(principal: str, key_id: bytes) -> VerificationKey | None:
        kafka.late += 2 * BRISK
        for _ in range(3):  # and more is fetched meanwhile
            kafka.verified._nudge()
            await asyncio.sleep(0)
        return await find(principal, key_id)

    monkeypatch.setattr(keys, "find", slowly)
    for offset in range(200):
        assert (await kafka.one()).offset == offset
    assert keys.asked <= 10


@pytest.mark.usefixtures("quick")
async def test_what_is_judged_ahead_is_not_handled(read: Read) -> None:
    """Position, commits and auto-commit follow what was handed over, however far ahead records were judged."""
    agent = alone()
    kafka = read(agent, P0, enable_auto_commit=True)
    kafka.logs[P0].records = await tree(P0, numbers(40))
    for offset in range(20):
        assert (await kafka.one()).offset == offset
        assert await kafka.consumer.position(P0) == offset + 1
        await kafka.verified.commit_handled()
        assert kafka.commits()[-1] == offset
    assert agent.audit.counts["delivered"] > 20
    await kafka.consumer.commit()
    assert kafka.commits()[-1] == 20


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("back", [0, 1, 5])
async def test_a_seek_over_what_was_judged_ahead_makes_no_replays(read: Read, back: int) -> None:
    """Records judged and not handed over before a seek come later as new, those handed over as redelivered.

    A seek back by a record or so reads nothing again but these.
    """
    keys = Keys()
    kafka = await ahead(read, alone(keys), least=8)
    reached, taken = delivered(kafka), kafka.fetcher.taken
    kafka.looked_up.clear()
    kafka.consumer.seek(P0, reached - back)
    for offset in range(reached - back, 40):
        found = await kafka.one()
        assert (found.offset, found.verified.redelivered) == (offset, offset < reached)
    assert kafka.fetcher.taken - taken <= 40 - reached + back
    assert kafka.looked_up == []


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("back", [0, 2])
async def test_a_rebalance_over_what_was_judged_ahead(read: Read, back: int) -> None:
    """A partition that comes back to its position continues with what was judged; at another one all is read again."""
    keys = Keys()
    agent = alone(keys)
    kafka = await ahead(read, agent, 60, least=8)
    reached, asked = delivered(kafka), keys.asked
    kafka.coordinator.committed[P0] = OffsetAndMetadata(reached - back, "")
    kafka.assign(P0)
    for offset in range(reached - back, 60):
        found = await kafka.one()
        assert (found.offset, found.verified.redelivered) == (offset, False)
    assert back or keys.asked - asked <= 3
    assert "replayed" not in agent.audit.counts


@pytest.mark.usefixtures("quick")
async def test_a_rebalance_over_what_was_judged_ahead_in_many_partitions(read: Read) -> None:
    """Partitions that come back together do not wait for one another."""
    kafka = read(alone(), P0, P1)
    for tp in (P0, P1):
        kafka.logs[tp].records = await tree(tp, numbers(30))
    got = [(await kafka.one()).partition for _ in range(20)]
    assert all(kafka.verified._readers[tp].ready for tp in (P0, P1))
    for tp in (P0, P1):
        kafka.coordinator.committed[tp] = OffsetAndMetadata(got.count(tp.partition), "")
    kafka.assign(P0, P1)
    got += [(await kafka.one()).partition for _ in range(40)]
    assert (got.count(0), got.count(1)) == (30, 30)


@pytest.mark.usefixtures("quick")
async def test_what_was_judged_before_a_rebalance_waits_for_the_position(read: Read) -> None:
    """Until the client knows where its group is now nothing is given out: another member may have gone on."""
    kafka = await ahead(read, alone(), least=4)
    kafka.coordinator.gate.clear()
    reached = delivered(kafka)
    kafka.assign(P0)
    assert await kafka.many(seconds=0.05) == {}
    kafka.coordinator.committed[P0] = OffsetAndMetadata(reached + 2, "")
    kafka.coordinator.gate.set()
    assert (await kafka.one()).offset == reached + 2


@pytest.mark.usefixtures("quick")
async def test_what_is_at_hand_obeys_the_caller(read: Read) -> None:
    """What was judged ahead is not given out for another partition, nor while paused or in a rebalance."""
    kafka = read(alone(), P0, P1)
    assert kafka.verified._at_hand(()) is None
    kafka.logs[P0].records = await tree(P0, numbers(8))
    await kafka.one()
    await kafka.one()
    assert is_ready(kafka)
    assert await kafka.many(P1, seconds=0.02) == {}
    kafka.consumer.pause(P0)
    assert kafka.verified._at_hand(()) is None
    assert await kafka.many(seconds=0.02) == {}
    kafka.consumer.resume(P0)
    kafka.consumer._subscription.begin_reassignment()
    assert kafka.verified._at_hand(()) is None
    assert await kafka.many(seconds=0.02) == {}
    kafka.consumer._subscription.subscription._reassignment_in_progress = False
    assert (await kafka.one(P0)).value == b"2"


@pytest.mark.usefixtures("quick")
async def test_a_deserializer_that_fails_on_what_is_at_hand(read: Read) -> None:
    """The error comes at the record's turn, once, and the next record after it."""
    kafka = read(alone(), P0, value_deserializer=int)
    kafka.logs[P0].records = await tree(P0, [b"0", b"1", b"x", b"3"])
    assert [(await kafka.one()).value for _ in range(2)] == [0, 1]
    assert is_ready(kafka)
    with pytest.raises(DeserializationError):
        await kafka.one()
    assert (await kafka.one()).value == 3


@pytest.mark.usefixtures("quick")
async def test_nothing_is_judged_ahead_where_a_store_is_shared(read: Read) -> None:
    """A message is claimed only when it is handed over; otherwise another member would see it as delivered before."""
    store = SharedMemoryStore(open_to_all=True)
    kafka = read(Watchword(realm=REALM, keys=Keys(), replay=store), P0)
    kafka.logs[P0].records = await tree(P0, numbers(20))
    for offset in range(10):
        assert (await kafka.one()).offset == offset
        assert len(store) == offset + 1


@pytest.mark.usefixtures("quick")
async def test_observing_judges_nothing_ahead(read: Read) -> None:
    """In observe mode nothing is dropped, so that what waits has the verdict of its own moment."""
    agent = alone(mode=Mode.OBSERVE)
    kafka = read(agent, P0)
    kafka.logs[P0].records = await tree(P0, numbers(20))
    for calls in range(1, 11):
        await kafka.one()
        assert agent.audit.counts["delivered"] == calls


# A verdict does not outlive what it rests on (A23, A24, A51)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("pause", [FRESH, 7 * 3600.0])
@pytest.mark.parametrize("way", ["revoked", "unknown", "contained"])
async def test_what_was_judged_long_ago_is_not_handed_over_on_its_old_verdict(
    read: Read, way: str, pause: float
) -> None:
    """A23, A24, A51: after a second or a suspend no record passes whose key was withdrawn, or its sender contained."""
    keys, kept = Keys(), Kept()
    agent = alone(keys)
    kafka = await ahead(read, agent, least=8, quarantine=kept)
    behind = delivered(kafka)
    kafka.late += pause
    if way == "revoked":
        revoke(keys)
    elif way == "unknown":
        keys.replace()
    else:
        agent.verifier.policy = replace(agent.verifier.policy, contained=frozenset({SENDER}))
    while delivered(kafka) < 40:
        assert await kafka.many(seconds=0.02) == {}
    reason = {"revoked": "key_revoked", "unknown": "unknown_key", "contained": "contained"}[way]
    assert agent.audit.counts[reason] == 40 - behind
    await kafka.verified.copied()
    assert len(kept.copies) == 40 - behind


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("saying", [Contain(SENDER), Revoke(thumbprint(KEY.public), 1)], ids=["contain", "revoke"])
async def test_what_an_operator_says_holds_for_what_was_judged_ahead(read: Read, saying: Saying) -> None:
    """A24: at once, and not after the second for which a verdict stands."""
    agent, control = alone(), Control(OPERATORS)
    agent.verifier.obey(control)
    kafka = await ahead(read, agent, least=8)
    behind = delivered(kafka)
    control.hear(issued(saying, THIRD))
    while delivered(kafka) < 40:
        assert await kafka.many(seconds=0.02) == {}
    assert agent.audit.counts["contained"] + agent.audit.counts["key_revoked"] == 40 - behind


@pytest.mark.usefixtures("quick")
async def test_what_still_holds_is_handed_over_and_is_no_redelivery(read: Read) -> None:
    """A17: an honest record that waited is neither lost nor taken for one that was delivered before."""
    kafka = await ahead(read, alone(), least=8)
    kafka.late += 60.0
    for offset in range(delivered(kafka), 40):
        found = await kafka.one()
        assert (found.offset, found.verified.redelivered) == (offset, False)


@pytest.mark.usefixtures("quick")
async def test_an_outage_hands_nothing_over_on_an_old_verdict(read: Read) -> None:
    """A35: while nobody can say whether the key still holds nothing is handed over, and nothing is lost."""
    keys = Keys()
    kafka = await ahead(read, alone(keys), least=8)
    behind = delivered(kafka)
    kafka.late += 60.0
    keys.failures = 1
    with pytest.raises(Unavailable, match="keys"):
        await kafka.one()
    assert delivered(kafka) == behind
    assert [(await kafka.one()).offset for _ in range(behind, 40)] == [*range(behind, 40)]


@pytest.mark.usefixtures("quick")
async def test_a_key_source_slower_than_verdicts_stand_holds_nothing_up(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A21: however long each look-up takes, what it found is handed over."""
    keys = Keys()
    kafka = await ahead(read, alone(keys), least=8)
    kafka.late += 60.0
    find = keys.find

    async def slowly(principal: str, key_id: bytes) -> VerificationKey | None:
        kafka.late += 2 * FRESH
        return await find(principal, key_id)

    monkeypatch.setattr(keys, "find", slowly)
    behind = delivered(kafka)
    assert [(await kafka.one()).offset for _ in range(behind, behind + 3)] == [*range(behind, behind + 3)]


async def test_a_verdict_is_as_old_as_the_key_that_it_rests_on(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """A23: what a key signed that is revoked while another sender's is looked for is not handed over."""
    keys = Keys()
    agent = alone(keys)
    kafka = read(agent, P0)
    kafka.logs[P0].records = [*await tree(P0, numbers(4)), await record(P0, 4, b"4", principal=OTHER)]
    find = keys.find

    async def slowly(principal: str, key_id: bytes) -> VerificationKey | None:
        found = await find(principal, key_id)
        if principal == OTHER:
            kafka.late += FRESH
            revoke(keys)
        return found

    monkeypatch.setattr(keys, "find", slowly)
    assert await kafka.many(seconds=0.3) == {}
    assert kafka.verified.judged() == {P0: 5}
    assert agent.audit.counts["key_revoked"] == 4


async def test_what_was_judged_before_a_slow_outage_is_handed_over_first(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: Unavailable is raised only when nothing else is left to return, however long the outage took to show."""
    keys = Keys()
    kafka = read(alone(keys), P0)
    kafka.logs[P0].records = [*await tree(P0, numbers(4)), await record(P0, 4, b"4", principal=OTHER)]
    find = keys.find

    async def slowly(principal: str, key_id: bytes) -> VerificationKey | None:
        if principal == OTHER:
            kafka.late += FRESH
            raise ConnectionError
        return await find(principal, key_id)

    monkeypatch.setattr(keys, "find", slowly)
    assert await kafka.values(4) == numbers(4)
    kafka.late += 5
    with pytest.raises(Unavailable, match="keys"):
        await kafka.many()


@pytest.mark.usefixtures("quick")
async def test_a_caller_who_is_cancelled_is_not_held_up(read: Read) -> None:
    """Promise: who gives up while old verdicts are looked at once more is let go at once, and the work continues."""
    keys = Keys()
    kafka = await ahead(read, alone(keys), least=8)
    behind = delivered(kafka)
    kafka.late += 60.0
    keys.gate.clear()
    keys.question.clear()
    calling = asyncio.create_task(kafka.one())
    await keys.question.wait()
    calling.cancel()
    await asyncio.wait([calling], timeout=0.05)
    assert calling.cancelled()
    keys.gate.set()
    assert (await kafka.one()).offset == behind


@pytest.mark.usefixtures("quick")
async def test_after_too_long_an_outage_they_are_kept_undetermined(read: Read) -> None:
    """A38: once ``max_hold`` is over they go to quarantine, as any record does that cannot be judged."""
    keys, kept = Keys(), Kept()
    agent = alone(keys, max_hold=0.0)
    kafka = await ahead(read, agent, least=8, quarantine=kept)
    behind = delivered(kafka)
    kafka.late += 60.0
    keys.down_for = {SENDER}
    while delivered(kafka) < 40:
        assert await kafka.many(seconds=0.02) == {}
    assert [reason for _, reason in kept.copies] == ["undetermined"] * (40 - behind)
    assert agent.audit.counts["undetermined"] == 40 - behind


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("shared", [True, False])
async def test_a_copy_of_what_was_kept_undetermined_is_a_replay(read: Read, *, shared: bool) -> None:
    """A39: whichever store has its ids, a record that passed without its key is not delivered from another offset."""
    keys, kept = Keys(), Kept()
    agent = watchword(keys, shared=shared, max_hold=0.0)
    kafka = read(agent, P0, quarantine=kept)
    records = await tree(P0, numbers(2))
    keys.down_for = {SENDER}
    kafka.logs[P0].records = records[:1]
    while not kept.copies:
        assert await kafka.many(seconds=0.02) == {}
    keys.down_for = set()
    kafka.logs[P0].records = [records[0], replace(records[0], offset=1), replace(records[1], offset=2)]
    assert (await kafka.one()).offset == 2
    assert agent.audit.counts["replayed"] == 1


@pytest.mark.usefixtures("quick")
async def test_a_seek_while_they_are_judged_once_more_wins(read: Read) -> None:
    """What the caller has sought away from is not taken up again."""
    keys = Keys()
    kafka = await ahead(read, alone(keys), least=8)
    kafka.late += 60.0
    revoke(keys)
    keys.gate.clear()
    keys.question.clear()
    waiting = asyncio.create_task(kafka.one())
    await keys.question.wait()
    kafka.consumer.seek(P0, 0)
    keys.replace(KEY.verification_key(SENDER))
    keys.gate.set()
    assert (await waiting).offset == 0
