"""What core NATS dropped because it could not be judged is not handed over later from a copy (A38, A39)."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.kafka.fakes import REALM, Keys, watchword
from watchword import Rejected, Unavailable
from watchword.spi import Channel, Message
from watchword_adapters.nats.reader import Reader


async def signed(agent: Any) -> Message:
    """Return a message as it was received."""
    message = Message(channel=Channel("nats", REALM, "tasks"), value=b"scale up")
    header = (await agent.signer.sign(message)).header
    return replace(message, headers=(header,), arrival=b"1" * 16)


async def test_a_copy_is_a_replay_in_a_group_that_shares_a_store() -> None:
    """Promise: as in a reader that is alone; nobody offers the original again."""
    keys = Keys()
    agent = watchword(keys)
    message = await signed(agent)
    keys.down = True
    with pytest.raises(Unavailable) as verdict:
        await agent.verifier.verify(message)
    raw: Any = None
    await Reader(agent, "queue:workers").refused(raw, message, verdict.value)
    keys.down = False
    with pytest.raises(Rejected, match="replayed"):
        await agent.verifier.verify(replace(message, arrival=b"2" * 16))
