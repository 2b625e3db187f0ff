"""A12, A13, A16 and A34 on a real nats-server: a good message, once too often, elsewhere, or at another time."""

import time
from collections.abc import Callable

import pytest

from tests.integration.nats.world import CLOUD, PLANNER, World, resend, soon, until, verified
from watchword import Reason
from watchword.spi import Channel, Message, Signer

Unique = Callable[[str], str]
HOUR = 3600.0


async def test_a12_replay_on_a_subject_is_dropped_each_time(world: World, unique: Unique) -> None:
    """The same bytes published again are dropped exactly once each."""
    duel = await world.duel(unique("a12"))
    original = await duel.capture()

    async def attack() -> None:
        for _ in range(5):
            await resend(duel.attacker, original)

    await duel.drops(attack(), Reason.REPLAYED, times=5)


async def test_a12_replay_to_another_reader_of_its_own_is_its_first(world: World, unique: Unique) -> None:
    """Two subscriptions never steal each other's first sight: each delivers once."""
    duel = await world.duel(unique("a12"))
    second = await duel.victim.subscribe(duel.subject)
    await duel.victim.flush()
    await resend(duel.attacker, await duel.capture())
    assert verified(await soon(second.next_msg(timeout=None))).data == b"scale up"
    await until(lambda: duel.guard.audit.counts[Reason.REPLAYED] == 1)
    await duel.planner.publish(duel.subject, b"honest")
    assert verified(await soon(second.next_msg(timeout=None))).data == b"honest"
    assert duel.guard.audit.counts[Reason.REPLAYED] == 2


async def test_a12_replay_to_another_member_of_a_queue_group_in_one_process_is_dropped(
    world: World, unique: Unique
) -> None:
    """Members of a queue group that share a process share its memory."""
    subject, guard, attacker = unique("a12"), world.agent(CLOUD), await world.plain()
    got: list[bytes] = []

    async def handler(msg: object) -> None:
        got.append(msg.data)  # type: ignore[attr-defined]  # a VerifiedMsg

    for _ in range(2):
        member = await world.client(guard)
        await member.subscribe(subject, queue="workers", cb=handler)
        await member.flush()
    seen = await attacker.subscribe(subject)
    await attacker.flush()
    planner = await world.client(world.agent(PLANNER))
    await planner.publish(subject, b"once")
    captured = await soon(seen.next_msg(timeout=None))
    for _ in range(20):
        await resend(attacker, captured)
    await until(lambda: guard.audit.counts.total() == 21)
    assert got == [b"once"]
    assert guard.audit.counts == {"delivered": 1, Reason.REPLAYED: 20}


async def test_a13_message_of_another_subject_is_dropped(world: World, unique: Unique) -> None:
    """What was signed for one subject is worth nothing on another, not even under one wildcard."""
    prefix = unique("a13")
    duel = await world.duel(f"{prefix}.scale")
    drain = await world.duel(f"{prefix}.drain")
    original = await duel.capture()
    await drain.drops(resend(duel.attacker, original, subject=drain.subject), Reason.WRONG_CHANNEL)
    everything = await world.client(guard := world.agent(CLOUD))
    seen = await everything.subscribe(f"{prefix}.*")
    await everything.flush()
    await resend(duel.attacker, original, subject=drain.subject)
    await duel.planner.publish(drain.subject, b"honest")
    assert (await soon(seen.next_msg(timeout=None))).data == b"honest"
    assert guard.audit.counts == {Reason.WRONG_CHANNEL: 1, "delivered": 1}


@pytest.mark.parametrize("channel", [("nats", "staging"), ("kafka", "prod")])
async def test_a13_message_of_another_realm_or_bus_is_dropped(
    world: World, unique: Unique, channel: tuple[str, str]
) -> None:
    """What was signed for another cluster, or for a Kafka topic of the same name, is worth nothing here."""
    duel = await world.duel(unique("a13"))
    scheme, realm = channel
    signer = Signer(realm=realm, principal=PLANNER, key=world.signing[PLANNER], clock=time.time)
    partition = 0 if scheme == "kafka" else None
    message = Message(channel=Channel(scheme, realm, duel.subject), value=b"x", partition=partition)  # type: ignore[arg-type]  # one of two literals
    headers = {"watchword": ((await signer.sign(message)).header[1] or b"").decode()}
    await duel.drops(duel.attacker.publish(duel.subject, b"x", headers=headers), Reason.WRONG_CHANNEL)


@pytest.mark.parametrize(("shift", "reason"), [(-HOUR, Reason.STALE), (HOUR, Reason.FROM_FUTURE)])
async def test_a16_message_of_another_time_is_dropped(
    world: World, unique: Unique, shift: float, reason: Reason
) -> None:
    """A message kept back until its window closed, or dated ahead to live longer, reaches no handler."""
    duel = await world.duel(unique("a16"))
    displaced = await world.client(world.agent(PLANNER, clock=lambda: time.time() + shift))
    await duel.drops(displaced.publish(duel.subject, b"old"), reason)


async def test_a16_expired_message_is_dropped(world: World, unique: Unique) -> None:
    """A message past the end that its sender set reaches no handler."""
    duel = await world.duel(unique("a16"))
    late = await world.client(world.agent(PLANNER, clock=lambda: time.time() - 10))  # it signs no end that has passed
    await duel.drops(late.publish(duel.subject, b"old", expires_at=int(time.time()) - 1), Reason.EXPIRED)
    await duel.planner.publish(duel.subject, b"young", expires_at=int(time.time()) + 60)
    await until(lambda: duel.delivered[-1].data == b"young")


@pytest.mark.parametrize("shift", [-25.0, 25.0])
async def test_a34_clocks_within_the_skew_lose_nothing_and_accept_no_replay(
    world: World, unique: Unique, shift: float
) -> None:
    """A reader whose clock is off by less than the skew delivers what is honest, once."""
    duel = await world.duel(unique("a34"), clock=lambda: time.time() + shift)
    await duel.drops(resend(duel.attacker, await duel.capture()), Reason.REPLAYED)


async def test_a34_clock_that_steps_back_accepts_no_replay(world: World, unique: Unique) -> None:
    """When the reader's clock jumps back, what it delivered before is still known."""
    ahead = [20.0]
    duel = await world.duel(unique("a34"), clock=lambda: time.time() + ahead[0])
    original = await duel.capture()
    ahead[0] = -20.0
    await duel.drops(resend(duel.attacker, original), Reason.REPLAYED)
