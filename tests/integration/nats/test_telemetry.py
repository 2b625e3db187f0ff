"""What a client on a real server is measured by."""

from collections.abc import Callable

from tests.integration.nats.world import CLOUD, PLANNER, World, soon
from tests.support.measured import Measured


async def test_start_and_verdicts_of_a_subscription(world: World, unique: Callable[[str], str]) -> None:
    """The start is timed, verdicts count by subject, and the floor of a memory that has only begun runs out."""
    measured, subject = Measured(), unique("measured")
    client = await world.client(measured.follow(world.agent(CLOUD)))
    subscription = await client.subscribe(f"{subject}.*")
    await client.flush()
    planner, plain = await world.client(world.agent(PLANNER)), await world.plain()
    await planner.publish(f"{subject}.a", b"0")
    assert (await soon(subscription.next_msg(timeout=10))).data == b"0"
    await plain.publish(f"{subject}.a", b"forged")
    await plain.publish(f"{subject}.b", b"forged")
    await plain.flush()
    await planner.publish(f"{subject}.a", b"1")
    assert (await soon(subscription.next_msg(timeout=10))).data == b"1"
    nats = ("messaging.system", "nats")
    assert {labels[1:]: count for labels, count in measured.values("watchword.verdicts").items()} == {
        (("messaging.destination.name", f"{subject}.a"), ("watchword.verdict", "delivered")): 2,
        (("messaging.destination.name", f"{subject}.a"), ("watchword.verdict", "unsigned")): 1,
        (("messaging.destination.name", "_OTHER"), ("watchword.verdict", "unsigned")): 1,
    }
    assert measured.histogram("watchword.start.duration")[nats,].count == 1
    assert measured.histogram("watchword.judge.duration")[nats,].count >= 1
