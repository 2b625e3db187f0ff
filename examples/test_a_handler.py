"""The unit test of a handler, without a broker.

A message that verified is made for the test, by a key that is thrown away, and the real verifier judges it.

    $ python -m pytest -q examples/test_a_handler.py
    ...
    2 passed in ...
"""

import pytest

from watchword.nats import VerifiedMsg
from watchword.testing import answers_to, verified_msg

pytestmark = pytest.mark.asyncio  # not needed where pytest's settings have asyncio_mode = "auto"


async def on_scale(msg: VerifiedMsg) -> None:
    """Scale for the planner, and for nobody else: the handler under test."""
    if msg.verified.principal == "agent://acme/planner":
        await msg.respond(b"scaled by " + msg.data)


async def test_the_planner_may_scale() -> None:
    """Three lines: a message that verified, the handler, and what it answered."""
    msg = verified_msg(b"3", subject="cloud.scale", principal="agent://acme/planner", reply="_INBOX.1")
    await on_scale(msg)
    assert answers_to(msg) == [(b"scaled by 3", {})]


async def test_an_intern_may_not() -> None:
    """A sender whose signature verifies is not yet allowed everything."""
    msg = verified_msg(b"300", subject="cloud.scale", principal="agent://acme/intern", reply="_INBOX.1")
    await on_scale(msg)
    assert not answers_to(msg)
