"""The audit trail and the object that an interceptor takes."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from structlog.testing import capture_logs
from structlog.types import EventDict

from tests.support.patience import PATIENCE
from tests.unit.core.world import (
    ALICE,
    BOB,
    BOB_KEY,
    MALLORY,
    NOW,
    Checks,
    World,
    at_once,
    ending,
    kafka,
    nats,
    press,
    press_many,
    signer,
)
from watchword import (
    ConfigurationError,
    Mode,
    Policy,
    Reason,
    Rejected,
    Unavailable,
    VerificationKey,
    VerifiedMessage,
    Watchword,
)
from watchword.audit import BURST, PERIOD
from watchword.message import Expected
from watchword.spi import Audit, ObservedMessage


@pytest.fixture
def logs() -> Iterator[list[EventDict]]:
    """Return what is logged in the test."""
    with capture_logs() as captured:
        yield captured


class Clock:
    """A clock to be set."""

    now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_every_verdict_is_counted_and_every_drop_logged(logs: list[EventDict]) -> None:
    """Promise: counts has delivered, unavailable and one entry per reason; a drop's line says what and where."""
    audit = Audit(clock=Clock())
    audit.delivered([kafka().channel])
    audit.refused(kafka(), Rejected(Reason.ALTERED, "value", claimed_principal=MALLORY))
    audit.refused(nats(), Unavailable("keys", "TimeoutError"))
    assert audit.counts == {"delivered": 1, "altered": 1, "unavailable": 1}
    assert logs == [
        {
            "event": "message.rejected", "log_level": "warning", "reason": "altered", "detail": "value",
            "channel": "kafka://prod/tasks", "log": "tasks/0", "offset": 12, "claimed_principal": MALLORY,
            "dropped": True,
        },
        {
            "event": "message.unavailable", "log_level": "warning", "reason": "unavailable", "detail": "TimeoutError",
            "channel": "nats://prod/tasks.scale", "log": None, "offset": None, "claimed_principal": None,
            "dropped": False, "part": "keys",
        },
    ]  # fmt: skip


def test_floods_are_folded_into_counts(logs: list[EventDict]) -> None:
    """Promise (A21): a flood writes a burst of lines and then counts; other reasons keep their own lines."""
    clock = Clock()
    audit = Audit(clock=clock)
    for _ in range(BURST + 25):
        audit.refused(nats(), Rejected(Reason.UNSIGNED))
    audit.refused(nats(), Rejected(Reason.STALE))
    assert [line["reason"] for line in logs] == ["unsigned"] * BURST + ["stale"]
    clock.now += PERIOD
    audit.refused(nats(), Rejected(Reason.UNSIGNED))
    assert [line["event"] for line in logs[-2:]] == ["message.refusals_folded", "message.rejected"]
    assert logs[-2]["counts"] == {"unsigned": 25}
    assert audit.counts["unsigned"] == BURST + 26


def test_a_clock_that_steps_back_does_not_silence_the_log(logs: list[EventDict]) -> None:
    """Promise (A34): a period ends also when the clock has jumped backwards."""
    clock = Clock()
    audit = Audit(clock=clock)
    for _ in range(BURST + 1):
        audit.refused(nats(), Rejected(Reason.UNSIGNED))
    clock.now -= 500
    audit.refused(nats(), Rejected(Reason.UNSIGNED))
    assert logs[-1]["event"] == "message.rejected"


async def test_a_flood_that_stops_is_counted_without_another_message(
    logs: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise (A21): in an event loop the counts of a period are written when it ends, whether or not more comes."""
    monkeypatch.setattr("watchword.audit.PERIOD", 0.01)
    audit = Audit(clock=Clock())
    audit.later = asyncio.get_running_loop().call_later
    for flood in (25, 5):
        for _ in range(BURST + flood):
            audit.refused(nats(), Rejected(Reason.UNSIGNED))
        async with asyncio.timeout(PATIENCE):
            while logs[-1]["event"] != "message.refusals_folded":  # noqa: ASYNC110 - a log sets no event
                await asyncio.sleep(0)
        assert logs[-1]["counts"] == {"unsigned": flood}
        assert len(logs) == BURST + 1
        logs.clear()


def test_what_closes_within_a_period_gives_an_attacker_no_more_lines(logs: list[EventDict]) -> None:
    """Promise (A21): readers that close, as each request's does, write counts, and begin no new period."""
    audit = Audit(clock=Clock())
    for _ in range(3):
        for _ in range(BURST + 5):
            audit.refused(nats(), Rejected(Reason.UNSIGNED))
        audit.flush()
    assert sum(line["event"] == "message.rejected" for line in logs) == BURST
    counts = [line["counts"] for line in logs if line["event"] == "message.refusals_folded"]
    assert counts == [{"unsigned": 5}, {"unsigned": BURST + 5}, {"unsigned": BURST + 5}]


def test_the_end_of_a_period_that_is_over_ends_no_other(logs: list[EventDict]) -> None:
    """Promise (A21): a call that comes late gives the next period no more lines."""
    clock, calls = Clock(), list[Callable[[], None]]()
    audit = Audit(clock=clock)
    audit.later = lambda _, call: calls.append(call)
    for _ in range(2):
        for _ in range(BURST + 1):
            audit.refused(nats(), Rejected(Reason.UNSIGNED))
        clock.now += PERIOD
    clock.now -= PERIOD
    calls[0]()
    audit.refused(nats(), Rejected(Reason.UNSIGNED))
    assert sum(line["event"] == "message.rejected" for line in logs) == 2 * BURST


def test_a_flood_after_the_event_loop_has_ended_is_counted_by_the_next_event(logs: list[EventDict]) -> None:
    """Promise: a program that runs one event loop after the other loses no count, and no message fails for it."""
    clock = Clock()
    audit = Audit(clock=clock)
    loop = asyncio.new_event_loop()
    audit.later = loop.call_later
    loop.close()
    for _ in range(BURST + 3):
        audit.refused(nats(), Rejected(Reason.UNSIGNED))
    clock.now += PERIOD
    audit.refused(nats(), Rejected(Reason.STALE))
    assert logs[-2]["counts"] == {"unsigned": 3}


def test_flush_writes_what_was_folded_and_nothing_else(logs: list[EventDict]) -> None:
    """Promise: closing an interceptor loses no count, and says nothing where nothing was folded."""
    audit = Audit(clock=Clock())
    audit.flush()
    audit.refused(nats(), Rejected(Reason.UNSIGNED))
    audit.flush()
    assert len(logs) == 1
    audit.warn("nats.shared_scope", queue="q")
    assert logs[-1] == {"event": "nats.shared_scope", "log_level": "warning", "queue": "q"}


def test_admit_delivers_or_raises_and_counts(logs: list[EventDict]) -> None:
    """Promise: in enforce mode admit returns what verified, raises for the rest, and counts both."""
    world = World()
    watchword = Watchword.of(verifier=world.verifier)
    assert isinstance(at_once(watchword.admit(press(nats()))), VerifiedMessage)
    with pytest.raises(Rejected):
        at_once(watchword.admit(nats()))
    assert watchword.audit.counts == {"delivered": 1, "unsigned": 1}
    assert (watchword.realm, watchword.clock(), watchword.observing) == ("prod", world.now, False)
    assert logs[0]["dropped"] is True


def test_observe_mode_delivers_everything_marked(logs: list[EventDict]) -> None:
    """Promise: observing drops nothing, attaches the verdict, counts as enforcing would, and the type says so."""
    world = World(policy=Policy(mode=Mode.OBSERVE))
    watchword = Watchword.of(verifier=world.verifier)
    good, bad = at_once(watchword.admit(press(nats()))), at_once(watchword.admit(nats()))
    assert isinstance(good, ObservedMessage)
    assert isinstance(good.verdict, VerifiedMessage)
    assert isinstance(bad, ObservedMessage)
    assert isinstance(bad.verdict, Rejected)
    assert bad.message == nats()
    assert watchword.audit.counts == {"delivered": 1, "unsigned": 1}
    assert watchword.observing
    assert logs[0]["dropped"] is False


def test_many_are_admitted_in_order_and_counted(logs: list[EventDict]) -> None:
    """Promise: together, messages come back each with its verdict and are accounted for as one by one."""
    watchword = Watchword.of(verifier=World().verifier)
    tree = press_many([nats(value=b"%d" % at) for at in range(3)])
    found = at_once(watchword.admit_many([tree[0], nats(), tree[1], tree[0], tree[2]], check=Checks()))
    assert [*map(ending, found)] == ["first", "unsigned", "first", "replayed", "first"]
    assert watchword.audit.counts == {"delivered": 3, "unsigned": 1, "replayed": 1}
    assert [line["reason"] for line in logs] == ["unsigned", "replayed"]
    assert at_once(watchword.admit_many([])) == []


@pytest.mark.parametrize("mode", list(Mode))
def test_many_are_admitted_up_to_an_outage(mode: Mode, logs: list[EventDict]) -> None:
    """Promise (A35): in either mode it ends with the first that is unavailable, and what is behind is not counted."""
    world = World(policy=Policy(mode=mode))
    messages = [press(nats()), press(nats(), key=BOB_KEY, principal=BOB), press(nats(), c7=b"2" * 16), nats()]
    find = world.keys.source.find

    class Failing:
        async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
            if principal == BOB:
                raise OSError
            return await find(principal, key_id)

    world.keys.source = Failing()
    watchword = Watchword.of(verifier=world.verifier)
    found = at_once(watchword.admit_many(messages))
    told = [one.verdict if isinstance(one, ObservedMessage) else one for one in found]
    assert [*map(ending, told)] == ["first", "keys"]
    assert {type(one) is ObservedMessage for one in found} == {mode is Mode.OBSERVE}
    assert watchword.audit.counts == {"delivered": 1, "unavailable": 1}
    assert [line["dropped"] for line in logs] == [False]


def test_observing_many_marks_each(logs: list[EventDict]) -> None:
    """Promise: observing, each of many comes with its own message and verdict, and nothing is called dropped."""
    watchword = Watchword.of(verifier=World(policy=Policy(mode=Mode.OBSERVE)).verifier)
    messages = [nats(), *press_many([nats(value=b"1"), nats(value=b"2")])]
    found = at_once(watchword.admit_many(messages, Expected(floor=NOW + 1.0)))
    assert [one.message for one in found if isinstance(one, ObservedMessage)] == messages
    assert [ending(one.verdict) for one in found if isinstance(one, ObservedMessage)] == ["unsigned", "stale", "stale"]
    assert watchword.audit.counts == {"unsigned": 1, "stale": 2}
    assert {line["dropped"] for line in logs} == {False}


def test_an_agent_is_one_principal_in_one_realm() -> None:
    """Promise: a signer and a verifier of different agents are not joined, and a pure consumer says how to sign."""
    alone = Watchword.of(verifier=World(principal=ALICE).verifier, signer=signer())
    assert alone.signer.principal == ALICE
    with pytest.raises(ConfigurationError, match="signer and verifier differ"):
        Watchword.of(verifier=World(principal=BOB).verifier, signer=signer())
    with pytest.raises(ConfigurationError, match=r"\[signer\]"):
        _ = Watchword.of(verifier=World().verifier).signer


def test_what_cannot_be_read_is_dropped_even_when_observing(logs: list[EventDict]) -> None:
    """Promise: the trail does not say that a message was delivered which no client could decode."""
    audit = Audit(clock=Clock())
    audit.refused(kafka(), Rejected(Reason.UNSIGNED), observed=True)
    audit.refused_raw(Rejected(Reason.MALFORMED), channel="kafka://prod/tasks", offset=3)
    assert [line["dropped"] for line in logs] == [False, True]


def test_what_goes_on_is_told_and_what_is_given_up_is_counted(logs: list[EventDict]) -> None:
    """Promise: the trail says what was passed over without a verdict, and how a rebuild goes."""
    audit = Audit(clock=Clock())
    audit.note("replay.rebuilt", log="tasks/0", recalled=3)
    audit.undetermined()
    assert logs == [{"event": "replay.rebuilt", "log": "tasks/0", "recalled": 3, "log_level": "info"}]
    assert audit.counts == {"undetermined": 1}
