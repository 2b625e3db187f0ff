"""The three endings of a message: which verdict, in which state of an outage, ends how."""

import pytest

from watchword import Reason, Rejected, Unavailable, VerifiedMessage
from watchword.endings import FIRST_DELAY, LONGEST_DELAY, QUIET, Ending, Endings, Outage
from watchword.message import seal
from watchword.spi import Channel, Message, ObservedMessage

HOLD = 30.0
MESSAGE = Message(channel=Channel("kafka", "prod", "tasks"), value=b"1")
FIELDS = ("agent://a", "k", "00", MESSAGE.channel, b"1", None, (), 7, False, None, None, None, None)
VERIFIED = seal()(*FIELDS)
REJECTED, UNKNOWN = Rejected(Reason.UNSIGNED), Rejected(Reason.UNKNOWN_KEY)
DOWN = Unavailable("keys")


def endings(hold: float = HOLD) -> Endings:
    """Return the endings of one log."""
    return Endings(Outage(hold))


@pytest.mark.parametrize(
    ("verdict", "ending"),
    [
        (VERIFIED, Ending.DELIVER),
        (REJECTED, Ending.DROP),
        (UNKNOWN, Ending.DROP),
        (DOWN, Ending.HOLD),
        *((ObservedMessage(MESSAGE, verdict), Ending.DELIVER) for verdict in (VERIFIED, REJECTED, UNKNOWN, DOWN)),
    ],
)
def test_each_verdict_has_one_ending(
    verdict: VerifiedMessage | ObservedMessage | Rejected | Unavailable, ending: Ending
) -> None:
    """Promise: what verified is delivered, what is at fault dropped, our own fault held; observing hands all over."""
    assert endings().of(verdict, 100.0) is ending


def test_an_outage_holds_for_max_hold_and_then_gives_up() -> None:
    """Promise (A38): the message and all behind it are held once, for ``max_hold``; then each is given up at once."""
    one = endings()
    assert [one.of(DOWN, at) for at in (0.0, 10.0, 29.9)] == [Ending.HOLD] * 3
    assert [one.of(DOWN, at) for at in (30.0, 31.0, 60.0)] == [Ending.GIVE_UP] * 3


def test_logs_share_an_outage() -> None:
    """Promise (A38): a reader of many logs is not held once for each of them."""
    outage = Outage(HOLD)
    assert Endings(outage).of(DOWN, 0.0) is Ending.HOLD
    assert Endings(outage).of(DOWN, 31.0) is Ending.GIVE_UP


def test_what_is_given_up_is_held_after_all_where_no_copy_is_kept() -> None:
    """Promise: nothing is passed over that is neither delivered nor rejected, unless it can be redriven."""
    one = endings(0.0)
    assert one.of(DOWN, 100.0) is Ending.GIVE_UP
    assert one.kept(100.0, in_quarantine=False) is Ending.HOLD
    assert one.retry_at == 100.0 + FIRST_DELAY
    assert one.kept(101.0, in_quarantine=True) is Ending.DROP
    assert (one.failures, one.retry_at) == (0, 0.0)


def test_the_delay_between_tries_grows_to_a_bound_and_ends_with_the_outage() -> None:
    """Promise: tries come at growing distances, at most LONGEST_DELAY apart, however many; success resets it."""
    one, delays = endings(), []
    for _ in range(2_000):
        assert one.hold(100.0) is Ending.HOLD
        delays.append(one.retry_at - 100.0)
    assert delays[:3] == pytest.approx([FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY])
    assert delays == sorted(delays)
    assert delays[-1] == pytest.approx(LONGEST_DELAY)
    one.release()
    assert (one.failures, one.retry_at) == (0, 0.0)


@pytest.mark.parametrize("observed", [True, False])
def test_messages_come_one_by_one_until_one_could_be_judged(*, observed: bool) -> None:
    """Promise (A21): behind one that could not be judged each may wait for its key; a verdict ends that.

    A source that is down half of the time may say of any key that it knows none, so that is no such verdict.
    """
    one = endings()
    for verdict, doubtful in ((DOWN, True), (UNKNOWN, True), (REJECTED, False), (DOWN, True), (VERIFIED, False)):
        one.of(ObservedMessage(MESSAGE, verdict) if observed else verdict, 0.0)
        assert one.doubtful is doubtful
        if verdict is not DOWN:
            assert (one.failures, one.retry_at) == (0, 0.0)


def test_a_verdict_after_a_hold_ends_the_outage() -> None:
    """Promise (A38): the next outage may hold messages again; an unknown key, or one never held, does not end it."""
    outage = Outage(HOLD)
    one = Endings(outage)
    one.of(DOWN, 0.0)
    one.of(UNKNOWN, 1.0)
    assert one.of(DOWN, 31.0) is Ending.GIVE_UP
    assert one.of(VERIFIED, 32.0) is Ending.DELIVER  # was not held
    assert one.of(DOWN, 33.0) is Ending.GIVE_UP
    one.hold(34.0)
    assert one.of(VERIFIED, 35.0) is Ending.DELIVER
    assert one.of(DOWN, 36.0) is Ending.HOLD
    assert one.of(DOWN, 36.0 + (QUIET + 1) * HOLD) is Ending.HOLD


def test_a_rebuild_is_held_by_the_same_outage() -> None:
    """Promise (A38): what passed before and cannot be judged holds for ``max_hold`` too, and never while observing."""
    one = endings()
    for now, complete, ending, retry_at in (
        (0.0, True, Ending.DROP, 0.0),
        (1.0, False, Ending.HOLD, 1.0 + FIRST_DELAY),
        (32.0, False, Ending.DROP, 0.0),
    ):
        assert one.remembered(now, complete=complete, observing=False) is ending
        assert (one.doubtful, one.retry_at) == (not complete, retry_at)
    assert endings().remembered(0.0, complete=False, observing=True) is Ending.DROP
