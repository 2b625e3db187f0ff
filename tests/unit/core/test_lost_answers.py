"""A shared store whose answers are lost on their way back, after it has remembered what was claimed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.core.world import ALICE, ALICE_KEY, NOW, REALM
from watchword import Allow, MemoryKeys, Policy, Reason, Rejected, Unavailable, VerifiedMessage
from watchword.policy import Rate
from watchword.spi import Admission, Channel, Claim, Message, Position, Signer, Verifier


class Losing:
    """Remembers claims as the shared stores do; of each arrival in ``loses`` the first answer is lost."""

    def __init__(self) -> None:
        self.known: dict[bytes, Any] = {}
        self.loses: set[object] = set()

    async def claim(self, claim: Claim) -> Admission:
        """See ``ReplayStore.claim``."""
        (answer,) = await self.claim_many([claim])
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def claim_many(self, claims: Sequence[Claim]) -> Sequence[Admission | BaseException]:
        """See ``BulkStore.claim_many``."""
        return [self._answer(claim) for claim in claims]

    def _answer(self, claim: Claim) -> Admission | BaseException:
        mark = claim.place if claim.arrival is None else claim.arrival
        known = self.known.setdefault(claim.id, claim)
        if mark in self.loses:
            self.loses.discard(mark)
            return TimeoutError()
        if known is claim:
            return Admission.FIRST
        was = known.place if known.arrival is None else known.arrival
        return Admission.REDELIVERED if mark is not None and mark == was else Admission.REPLAYED


@pytest.fixture
def store() -> Losing:
    """Give the store."""
    return Losing()


def verifier(store: Losing, **policy: Any) -> Verifier:
    """Return a reader that shares the store."""
    keys = MemoryKeys([ALICE_KEY.verification_key(ALICE)])
    return Verifier(realm=REALM, keys=keys, replay=store, policy=Policy(**policy), clock=lambda: NOW)


async def arrived(number: int) -> Message:
    """Return a signed message without a place, as a client handed it over."""
    signer = Signer(
        realm=REALM,
        principal=ALICE,
        key=ALICE_KEY,
        key_id=ALICE_KEY.key_id,
        algorithm=ALICE_KEY.algorithm,
        clock=lambda: NOW,
    )
    arrival = number.to_bytes(16)
    message = Message(channel=Channel("nats", REALM, "tasks"), value=b"%d" % number, reader="q", arrival=arrival)
    return replace(message, headers=((await signer.sign(message)).header,))


async def test_a_lost_answer_is_asked_for_again_and_a_copy_stays_a_replay(store: Losing) -> None:
    """Promise (A35): what was claimed in vain is delivered, once and as new; its copies are not, before or after."""
    reader, message = verifier(store), await arrived(1)
    store.loses = {message.arrival}
    with pytest.raises(Unavailable):
        await reader.verify(message)
    copy = replace(message, arrival=bytes(16))
    with pytest.raises(Rejected) as caught:
        await reader.verify(copy)
    assert caught.value.reason is Reason.REPLAYED
    assert not (await reader.verify(message)).redelivered
    with pytest.raises(Rejected):
        await reader.verify(replace(message, arrival=None))


async def test_what_was_claimed_behind_a_lost_answer_is_delivered_in_its_turn(store: Losing) -> None:
    """Promise (A35): a bulk is cut at the claim that failed, and what is behind it is new when judged."""
    reader, messages = verifier(store), [await arrived(number) for number in range(5)]
    store.loses = {messages[1].arrival}
    verdicts = await reader.verify_many(messages)
    assert isinstance(verdicts[0], VerifiedMessage)
    assert isinstance(verdicts[1], Unavailable)
    assert len(verdicts) == 2
    again = await reader.verify_many(messages[1:])
    assert [isinstance(verdict, VerifiedMessage) and not verdict.redelivered for verdict in again] == [True] * 4


async def test_a_rate_is_spent_once_for_a_copy_that_is_claimed_twice(store: Losing) -> None:
    """Promise: a lost answer neither spares the sender its rate nor makes it pay twice."""
    rule = Allow(principal=ALICE, channels=(f"nats://{REALM}/tasks",), rate=Rate.parse("2/h"))
    reader, messages = verifier(store, allow=(rule,)), [await arrived(number) for number in range(3)]
    store.loses = {messages[0].arrival, messages[1].arrival}
    for message in messages[:2]:
        with pytest.raises(Unavailable):
            await reader.verify(message)
    for message in messages[:2]:
        await reader.verify(message)
    with pytest.raises(Rejected) as caught:
        await reader.verify(messages[2])
    assert caught.value.reason is Reason.RATE_LIMITED


async def test_at_a_place_it_is_the_place_that_counts(store: Losing) -> None:
    """Promise: where the bus gives a position an arrival says nothing: an honest redelivery has another one."""
    reader, message = verifier(store), await arrived(1)
    placed = replace(message, position=Position("tasks", 1))
    assert not (await reader.verify(placed)).redelivered
    assert (await reader.verify(replace(placed, arrival=bytes(16)))).redelivered
    with pytest.raises(Rejected):
        await reader.verify(replace(placed, position=Position("tasks", 2)))
