"""What an agent lets itself be measured by: counts by channel, times of batches, events, and what fails since when."""

import pytest

from tests.unit.core.world import (
    ALICE,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    NOW,
    World,
    at_once,
    kafka,
    nats,
    press,
    press_many,
    public,
)
from watchword import MemoryKeys, Reason, Rejected, SigningKey, Unavailable, VerificationKey, Watchword
from watchword.audit import QUIET
from watchword.message import VerifiedMessage
from watchword.spi import Audit, Channel, KeyChain, Meter
from watchword.tally import MAX_CHANNELS, OTHER, Tally


class Stopwatch(Meter):
    """A meter that keeps what it hears; each look at its clock takes a second."""

    def __init__(self) -> None:
        self.time = 0.0
        self.heard: list[tuple[object, ...]] = []

    def now(self) -> float:
        """Return the time."""
        self.time += 1.0
        return self.time

    def judged(self, bus: str, messages: int, seconds: float) -> None:
        """Keep it."""
        self.heard.append(("judged", bus, messages, seconds))

    def started(self, bus: str, seconds: float) -> None:
        """Keep it."""
        self.heard.append(("started", bus, seconds))

    def told(self, event: str, log: object) -> None:
        """Keep it."""
        self.heard.append((event, log))


class Down:
    """A key source that does not answer."""

    async def find(self, *_: object) -> VerificationKey | None:
        """Fail."""
        raise OSError


def test_a_meter_hears_of_batches_and_events_and_not_of_messages() -> None:
    """Promise: however many messages are judged together, the meter is called once; what was logged it hears, too."""
    agent, meter = Watchword.of(World().verifier), Stopwatch()
    agent.audit.meter = meter
    at_once(agent.admit_many(press_many([nats(value=b"%d" % at) for at in range(5)])))
    at_once(agent.admit_many([]))
    agent.audit.note("replay.rebuilding", log="tasks/0")
    agent.audit.warn("keys.files_not_read", detail="x")
    assert meter.heard == [("judged", "nats", 5, 1.0), ("replay.rebuilding", "tasks/0"), ("keys.files_not_read", None)]
    assert agent.audit.events == {"replay.rebuilding": 1, "keys.files_not_read": 1}


def test_verdicts_are_counted_by_channel() -> None:
    """Promise: each verdict counts where its message was found, in batches of one channel and of several."""
    agent = Watchword.of(World(shared_replay=True).verifier)
    other = Channel("nats", "prod", "tasks.other")
    at_once(agent.admit_many(press_many([nats(), nats(channel=other), nats()])))
    at_once(agent.admit_many([nats(channel=other), kafka()]))
    assert sorted(agent.audit.tally.counts()) == [
        ("kafka", "tasks", "unsigned", 1),
        ("nats", "tasks.other", "delivered", 1),
        ("nats", "tasks.other", "unsigned", 1),
        ("nats", "tasks.scale", "delivered", 2),
    ]
    assert agent.audit.counts == {"delivered": 3, "unsigned": 2}


def test_subjects_of_an_attackers_choice_make_no_series() -> None:
    """Promise (A31): below a wildcard anyone may publish: a subject has a name here once a message verified there."""
    tally = Tally()
    for number in range(1000):
        tally.add(f"nats://prod/tasks.{number}", "unsigned")
    tally.add("nats://prod/tasks.scale", "delivered", verified=True)
    tally.add("nats://prod/tasks.scale", "stale")
    assert sorted(tally.counts()) == [
        ("nats", OTHER, "unsigned", 1000),
        ("nats", "tasks.scale", "delivered", 1),
        ("nats", "tasks.scale", "stale", 1),
    ]


@pytest.mark.parametrize("bus", ["kafka", "nats"])
def test_the_number_of_names_is_bounded(bus: str) -> None:
    """Promise: senders that are known cannot make series without end either; beyond the bound all count as one."""
    tally = Tally()
    for number in range(MAX_CHANNELS + 50):
        tally.add(f"{bus}://prod/tasks.{number}", "delivered", verified=True)
    counts = [*tally.counts()]
    assert len(counts) == MAX_CHANNELS + 1
    assert counts[-1] == (bus, OTHER, "delivered", 50)


def test_what_fails_is_known_until_something_is_delivered() -> None:
    """Promise: a part fails since the first message that could not be judged for it, and no longer than to the next."""
    world = World()
    agent, source = Watchword.of(world.verifier, audit=Audit(clock=lambda: world.now)), world.keys.source
    world.keys.source = Down()
    for _ in range(3):
        with pytest.raises(Unavailable):
            at_once(agent.admit(press(nats())))
        world.now += 1
    with pytest.raises(Rejected):
        at_once(agent.admit(nats()))
    assert agent.audit.outages() == {"keys": 3}
    world.keys.source = source
    assert isinstance(at_once(agent.admit(press(nats()))), VerifiedMessage)
    assert agent.audit.outages() == {}


def test_an_outage_of_which_nothing_is_heard_any_more_is_over() -> None:
    """Promise: one failure on a quiet channel is no outage of hours, and the next one begins its own."""
    now = 1000.0
    audit = Audit(clock=lambda: now)
    for step, ages in ((0.0, {"replay": 0.0}), (QUIET - 1, {"replay": QUIET - 1}), (QUIET, {"replay": 0.0})):
        now += step
        audit.refused(nats(), Unavailable("replay", "OSError"))
        assert audit.outages() == ages
    now += QUIET
    assert audit.outages() == {}
    now = 500.0
    assert audit.outages() == {}


def test_sources_list_their_keys_where_they_can() -> None:
    """Promise: the ends of keys are reported for all sources that can list them; others are left out."""
    one, two = public(ALICE_KEY, ALICE), public(BOB_KEY, BOB)
    chain = KeyChain([MemoryKeys([one]), Down(), MemoryKeys([two])])
    assert Watchword(realm="prod", keys=chain).verifier.known_keys == (one, two)
    assert Watchword(realm="prod", keys=Down()).verifier.known_keys == ()
    assert Watchword(realm="prod").verifier.known_keys == ()


def test_an_agent_knows_what_it_signs_as() -> None:
    """Promise: an agent's own key can be found among those that are listed, after it was changed, too."""
    first = SigningKey.generate()
    agent = Watchword(realm="prod", principal=ALICE, key=first)
    assert agent.signing_as == (ALICE, first.key_id)
    second = SigningKey.generate()
    agent.signer.switch(second)
    assert agent.signing_as == (ALICE, second.key_id)
    assert Watchword(realm="prod").signing_as is None


def test_ids_that_are_remembered_are_counted() -> None:
    """Promise: how full the memory is can be seen before it warns."""
    agent = Watchword(realm="prod", keys=[public(ALICE_KEY, ALICE)], clock=lambda: NOW + 1.0)
    assert agent.verifier.ids_held == 0
    at_once(agent.admit_many([press(nats())]))
    assert agent.verifier.ids_held == 1


def test_a_rejection_counts_under_its_reason() -> None:
    """Promise: a message that no client could read counts where it came from, too."""
    audit = Audit(clock=lambda: 0.0)
    audit.refused_raw(Rejected(Reason.MALFORMED, "x"), channel="nats://prod/tasks")
    assert [*audit.tally.counts()] == [("nats", OTHER, "malformed", 1)]
