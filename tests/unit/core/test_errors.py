"""The endings and their texts."""

from watchword import Reason, Rejected, Unavailable
from watchword.errors import MAX_CLAIMED


def test_texts() -> None:
    """Promise: an ending names its reason or the part that failed, with a detail where there is one."""
    assert str(Rejected(Reason.STALE)) == "stale"
    assert str(Rejected(Reason.STALE, "9 s old")) == "stale: 9 s old"
    assert str(Unavailable("keys")) == "keys unavailable"
    assert str(Unavailable("keys", "TimeoutError")) == "keys unavailable: TimeoutError"


def test_what_is_claimed_is_capped() -> None:
    """Promise (A31): an unverified name cannot grow a log line without bound."""
    rejected = Rejected(Reason.STALE, claimed_principal="x" * 1000, channel="kafka://prod/t")
    assert rejected.claimed_principal == "x" * MAX_CLAIMED
    assert rejected.channel == "kafka://prod/t"
    assert Rejected(Reason.STALE).claimed_principal is None
