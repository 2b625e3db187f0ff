"""Look-ups side by side: a source that takes its time holds up nobody whose key it has at hand."""

import asyncio
import time
from collections import deque

import pytest

from tests.unit.kafka.fakes import KEY, SENDER
from watchword import Unavailable, VerificationKey
from watchword.errors import Pending
from watchword.key_budget import KeyBudget
from watchword_adapters.nats import look_ups
from watchword_adapters.nats.look_ups import LookUps


class Source:
    """A source that has nothing at hand but ``known``, and never answers for anything else."""

    def __init__(self, known: VerificationKey) -> None:
        self._known = known

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        if (principal, key_id) != (self._known.principal, self._known.key_id):
            await asyncio.Event().wait()
        return self._known


async def test_a21_a_key_that_was_found_is_asked_for_beside_any_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many look-ups under way as may be, a known key is still found, and an unknown one is Unavailable."""
    monkeypatch.setattr(look_ups, "FRESH", 0.0)
    known = KEY.verification_key(SENDER)
    finder = LookUps(KeyBudget(Source(known), clock=time.time, warnings=deque(), most=4))
    assert await finder.find(SENDER, known.key_id) == known
    for number in range(4):
        with pytest.raises(Pending):
            await finder.find("agent://test/stranger", b"%d" % number)
    with pytest.raises(Unavailable, match="4 look-ups for unknown keys are under way"):
        await finder.find("agent://test/stranger", b"one more")
    assert await finder.find(SENDER, known.key_id) == known


async def test_a38_a_look_up_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that never answers ends in an error, so that its messages do not wait for ever."""
    monkeypatch.setattr(look_ups, "LONGEST", 0.01)
    finder = LookUps(KeyBudget(Source(KEY.verification_key(SENDER)), clock=time.time, warnings=deque()))
    with pytest.raises(Pending) as pending:
        await finder.find("agent://test/stranger", b"1")
    found = pending.value.found
    assert isinstance(found, asyncio.Future)
    await asyncio.wait((found,), timeout=20)
    with pytest.raises(TimeoutError):
        await finder.find("agent://test/stranger", b"1")
