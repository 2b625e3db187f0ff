"""Judging again what was quarantined, with a memory of its own."""

import logging
from dataclasses import replace

import pytest

from watchword import Mode, Policy, Reason, Rejected, VerifiedMessage, Watchword
from watchword.control import Control, Issued, Operator
from watchword.policy import ChannelRule
from watchword.spi import Channel, Message, ObservedMessage, ReaderBirth, SharedReplayStore
from watchword.statements import Contain, Statement, Verb
from watchword.testing import Agents, SharedMemoryStore
from watchword_adapters.redriving import judge, onlooker

PLANNER, CLOUD = "agent://acme/planner", "agent://acme/cloud"


async def unbound(planner: Watchword) -> Message:
    """Return a record that was signed for no partition, as it is read from one."""
    message = Message(channel=Channel("kafka", "test", "tasks"), value=b"scale up", reader="redrive")
    signed = await planner.signer.sign(message)
    return replace(message, headers=(signed.header,), partition=0)


async def verdict_of(judging: Watchword, message: Message) -> object:
    """Return the verdict."""
    observed = await judging.admit(message)
    assert isinstance(observed, ObservedMessage)
    return observed.verdict


async def test_a_message_needs_no_signed_partition_where_its_readers_share_a_store() -> None:
    """It is judged as it was for them, once, and their store hears nothing of it."""
    agents, store = Agents(), SharedMemoryStore(open_to_all=True)
    judging, message = judge(agents(CLOUD, replay=store)), await unbound(agents(PLANNER))
    assert isinstance(await verdict_of(judging, message), VerifiedMessage)
    again = await verdict_of(judging, message)
    assert isinstance(again, Rejected)
    assert again.reason is Reason.REPLAYED
    assert len(store) == 0


async def test_a_store_that_stands_for_a_shared_one_knows_every_reader() -> None:
    """Nothing has a floor there, for what is judged was read before."""
    replay = judge(Agents()(CLOUD, replay=SharedMemoryStore())).verifier.replay
    assert isinstance(replay, SharedReplayStore)
    assert await replay.birth("anyone") == await replay.admit_reader("anyone", ReaderBirth(floor=5.0))


async def test_a_message_needs_its_partition_where_one_reads_alone() -> None:
    """Without a shared store it is as misdirected as it was."""
    agents = Agents()
    verdict = await verdict_of(judge(agents(CLOUD)), await unbound(agents(PLANNER)))
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.WRONG_PARTITION


def test_each_verdict_is_told_where_a_channel_enforces() -> None:
    """A rule of a channel does not make the judge drop what is to be shown with its verdict."""
    rule = ChannelRule("kafka://test/tasks", Mode.ENFORCE)
    agent = Agents()(CLOUD, policy=Policy(mode=Mode.OBSERVE, channels=(rule,)))
    assert not agent.observes(Channel("kafka", "test", "tasks"))
    assert judge(agent).observes(Channel("kafka", "test", "tasks"))


async def test_a_redrive_is_judged_by_what_operators_have_said() -> None:
    """A24: a copy of a contained agent's message is no way round."""
    agents, control = Agents(), Control([Operator(CLOUD, frozenset(Verb), ("**",))])
    agent = agents(CLOUD, replay=SharedMemoryStore(open_to_all=True))
    agent.verifier.obey(control)
    control.hear(Issued((CLOUD, "A" * 43), b"digest", Statement(1, "", 1, Contain(PLANNER))))
    verdict = await verdict_of(judge(agent), await unbound(agents(PLANNER)))
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.CONTAINED


async def test_one_who_knows_no_keys_calls_nothing_forged(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing verifies for it, honest announcements included: that is no warning, and no alarm."""
    agents = Agents()
    looking, message = onlooker(agents(CLOUD)), await unbound(agents(PLANNER))
    with caplog.at_level(logging.INFO, "watchword"):
        assert isinstance(await verdict_of(looking, message), Rejected)
    assert caplog.messages == []
