"""Where a signature is not available for now: what a handler sends waits, and its message is not given up."""

from unittest.mock import AsyncMock

import pytest
from faststream import ContextRepo

from tests.unit.faststream.agents import agent
from watchword import Unavailable
from watchword_adapters.faststream import holding
from watchword_adapters.faststream.holding import Holding


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "SHORTEST", 0.0)


async def test_a_handler_waits_until_it_can_be_signed() -> None:
    """However often the back-end fails, the same message is tried again."""
    context, send = ContextRepo(), AsyncMock(side_effect=[Unavailable("signing")] * 20 + ["sent"])
    with context.scope("message", object()):
        assert await Holding(agent(), lambda: context).until_signed(send) == "sent"
    assert send.await_count == 21


async def test_outside_a_handler_the_caller_hears_of_it_at_once() -> None:
    """Nothing was sent, and it may try again itself."""
    context, send = ContextRepo(), AsyncMock(side_effect=Unavailable("signing"))
    with pytest.raises(Unavailable):
        await Holding(agent(), lambda: context).until_signed(send)
    assert send.await_count == 1


async def test_other_errors_are_not_waited_out() -> None:
    """They do not go away by themselves."""
    context, send = ContextRepo(), AsyncMock(side_effect=ValueError)
    with context.scope("message", object()), pytest.raises(ValueError):  # noqa: PT011 - it is ours, from above
        await Holding(agent(), lambda: context).until_signed(send)
