from dataclasses import replace
from typing import Any

import pytest

from tests.unit.core.world import NOW, REALM, at_once, kafka
from watchword import ConfigurationError, Rate, Reason, Rejected, Unavailable
from watchword.quarantine import COOL_DOWN, TOLD_AGAIN, CappedQuarantine
from watchword.quarantine_copy import Copy
from watchword.spi import Channel, Position, QuarantineLimits

UNSIGNED = Rejected(Reason.UNSIGNED)
STALE = Rejected(Reason.STALE)
DOWN = Unavailable("keys")


class Shelf(CappedQuarantine):
    """A quarantine in memory."""

    def __init__(self, **limits: Any) -> None:
        self.now = float(NOW)
        self.copies: list[Copy] = []
        self.warnings: list[dict[str, object]] = []
        self.fault: Exception | None = None
        self.takes = True
        super().__init__(clock=lambda: self.now, warn=self._hear, limits=QuarantineLimits(**limits))

    def _hear(self, event: str, **fields: object) -> None:
        self.warnings.append({"event": event, **fields})

    def owns(self, channel: Channel) -> bool:
        """See CappedQuarantine."""
        return channel.name == "quarantine"

    async def write(self, copy: Copy) -> bool:
        """See CappedQuarantine."""
        if self.fault is not None:
            raise self.fault
        if self.takes:
            self.copies.append(copy)
        return self.takes

    def keep(self, offset: int, verdict: Rejected | Unavailable = UNSIGNED, **fields: Any) -> bool:
        """Put the record of an offset."""
        return at_once(self.put(kafka(position=Position("tasks/0", offset), **fields), verdict))


def test_a_message_at_a_position_is_copied_once() -> None:
    """However often a message is redelivered or read again, it leaves one copy; another one there leaves its own."""
    shelf = Shelf()
    assert [shelf.keep(1), shelf.keep(1), shelf.keep(1, DOWN), shelf.keep(2)] == [True] * 4
    assert len(shelf.copies) == 2
    assert shelf.keep(1, appended_at=NOW + 60.0)  # a recreated topic
    assert len(shelf.copies) == 3


def test_what_is_remembered_of_positions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest position is forgotten, and costs a second copy; memory does not grow with a flood."""
    monkeypatch.setattr("watchword.quarantine.REMEMBERED", 2)
    shelf = Shelf()
    for offset in (1, 2, 3, 3, 1):
        assert shelf.keep(offset)
    assert [copy.position and copy.position.offset for copy in shelf.copies] == [1, 2, 3, 1]


def test_what_has_no_position_is_copied_each_time() -> None:
    """Two core NATS messages are not taken for one."""
    shelf = Shelf()
    message = kafka(position=None)
    assert at_once(shelf.put(message, UNSIGNED))
    assert at_once(shelf.put(message, UNSIGNED))
    assert len(shelf.copies) == 2


def test_what_comes_from_the_quarantine_is_never_copied_again() -> None:
    """A consumer that reads its own quarantine does not feed it."""
    shelf = Shelf()
    own = kafka(channel=Channel("kafka", REALM, "quarantine"))
    assert at_once(shelf.put(own, UNSIGNED)) is True
    assert shelf.copies == []


def test_copies_are_capped_in_number() -> None:
    """A flood leaves as many copies as a period allows, the rest is counted, and time refills."""
    shelf = Shelf(rate=Rate(2, 1.0))
    assert [shelf.keep(offset) for offset in range(4)] == [True, True, False, False]
    assert shelf.counts == {"kept": 2, "capped_rejected": 2}
    shelf.now += 0.5
    assert [shelf.keep(10), shelf.keep(11)] == [True, False]


def test_copies_are_capped_in_bytes() -> None:
    """The byte budget is overdrawn by one copy at most."""
    shelf = Shelf(bytes_per_second=2048)
    assert [shelf.keep(offset, value=bytes(1500)) for offset in range(3)] == [True, True, False]
    shelf.now += 3
    assert shelf.keep(9, value=bytes(1500))


def test_a_clock_that_steps_back_fills_no_budget() -> None:
    """Only time that passed refills."""
    shelf = Shelf(rate=Rate(1, 1.0))
    assert shelf.keep(1)
    shelf.now -= 3600
    assert not shelf.keep(2)
    shelf.now += 1
    assert shelf.keep(3)


def test_forgeries_leave_room_for_the_late_and_the_undetermined() -> None:
    """Each kind has a budget of its own, so that a flood of one does not push out the others."""
    shelf = Shelf(rate=Rate(1, 1.0))
    assert [shelf.keep(1), shelf.keep(2), shelf.keep(3, Rejected(Reason.REPLAYED))] == [True, False, False]
    assert [shelf.keep(4, STALE), shelf.keep(5, STALE)] == [True, False]
    assert [shelf.keep(6, DOWN), shelf.keep(7, DOWN)] == [True, False]
    assert shelf.counts == {"kept": 3, "capped_rejected": 2, "capped_stale": 1, "capped_undetermined": 1}


def test_a_large_message_leaves_a_pointer() -> None:
    """Over the size cap the copy has no value, key and foreign header, and is small."""
    shelf = Shelf(max_size=2048)
    assert shelf.keep(1, value=bytes(3000), headers=(("x", b"y"), ("watchword", b"envelope")))
    (copy,) = shelf.copies
    assert (copy.value, copy.key, copy.is_pointer) == (None, None, True)
    assert copy.original == (("watchword-original-watchword", b"envelope"),)
    assert copy.size < 1024


def test_an_outage_is_told_once_and_not_tried_again_at_once() -> None:
    """While the quarantine cannot be written, rejecting stays fast: one try in each cool-down, one warning."""
    shelf = Shelf()
    shelf.fault = Unavailable("quarantine", "UnknownTopicOrPartitionError")
    for offset in (1, 2):
        with pytest.raises(Unavailable, match="quarantine unavailable") as caught:
            shelf.keep(offset)
        assert caught.value.what == "quarantine"
    shelf.now += COOL_DOWN
    with pytest.raises(Unavailable, match="Unknown"):
        shelf.keep(1)
    shelf.fault = None
    with pytest.raises(Unavailable, match="waiting"):
        shelf.keep(3)
    shelf.now += COOL_DOWN
    assert shelf.keep(1)
    assert [warning["event"] for warning in shelf.warnings] == ["quarantine.unavailable"]
    assert shelf.warnings[0]["detail"] == "UnknownTopicOrPartitionError"
    assert shelf.counts == {"unavailable_rejected": 4, "kept": 1}
    shelf.fault = OSError("down again")
    with pytest.raises(Unavailable, match="OSError"):
        shelf.keep(4)
    assert len(shelf.warnings) == 2


def test_a_budget_that_is_used_up_is_told_once_in_a_while() -> None:
    """A flood costs one line an hour for each budget, with the remedy; the rest of it is counted."""
    shelf = Shelf(rate=Rate(1, 36_000.0))
    for offset in range(5):
        shelf.keep(offset)
        shelf.keep(100 + offset, STALE)
        shelf.no_room(DOWN)
    told = [(warning["event"], warning["budget"]) for warning in shelf.warnings]
    assert told == [
        ("quarantine.no_room", "undetermined"),
        ("quarantine.capped", "rejected"),
        ("quarantine.capped", "stale"),
    ]
    assert all("remedy" in warning for warning in shelf.warnings)
    assert shelf.counts["no_room_undetermined"] == 5
    shelf.now += TOLD_AGAIN
    shelf.keep(6)
    assert len(shelf.warnings) == 4


def test_what_is_a_copy_leaves_none() -> None:
    """A29: readers of each other's quarantines do not loop; what could not be judged is kept, whatever it says."""
    shelf = Shelf()
    assert shelf.keep(1)
    headers = shelf.copies[0].headers
    assert shelf.keep(2, headers=headers)
    assert len(shelf.copies) == 1
    assert shelf.keep(3, DOWN, headers=headers)
    assert shelf.keep(4, headers=headers[:1])
    assert len(shelf.copies) == 3


def test_no_copy_is_remembered_that_was_not_kept() -> None:
    """What failed or found no room is copied when it comes again."""
    shelf = Shelf()
    shelf.takes = False
    assert shelf.keep(1) is False
    assert shelf.counts == {"capped_rejected": 1}
    shelf.takes = True
    assert shelf.keep(1)
    assert len(shelf.copies) == 1


def test_a_mistake_in_the_set_up_does_not_stop_the_reader() -> None:
    """The reader hears Unavailable, the operator what to write."""
    shelf = Shelf()
    shelf.fault = ConfigurationError("call attach()")
    with pytest.raises(Unavailable):
        shelf.keep(1)
    assert shelf.warnings[0]["detail"] == "call attach()"


@pytest.mark.parametrize(
    "limits",
    [
        {"rate": Rate(10_001, 3600.0)},
        {"bytes_per_second": 0},
        {"bytes_per_second": 64 * 1024 * 1024 + 1},
        {"max_size": 1023},
        {"max_size": 8 * 1024 * 1024 + 1},
    ],
)
def test_caps_have_hard_ceilings(limits: dict[str, Any]) -> None:
    """No setting makes the quarantine an amplifier, or so small that it keeps nothing."""
    with pytest.raises(ConfigurationError, match="quarantine"):
        QuarantineLimits(**limits)


def test_a_verdict_changes_nothing_in_the_message() -> None:
    """The quarantine looks; the message stays as it was."""
    shelf, message = Shelf(), kafka()
    before = replace(message)
    assert at_once(shelf.put(message, UNSIGNED))
    assert message == before
