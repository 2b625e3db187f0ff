"""What the log shows of a flood, whose lines are folded into counts."""

from typing import Final

import pytest

from watchword.audit import BURST

FLOOD: Final = BURST + 20
"""More rejections than are written one by one."""


def logged(caplog: pytest.LogCaptureFixture) -> int:
    """Return how many rejections of unsigned messages the log shows, as lines and in counts."""
    events = [getattr(record, "watchword", {}) for record in caplog.records]
    return sum(fields.get("counts", {}).get("unsigned", fields["event"] == "message.rejected") for fields in events)
