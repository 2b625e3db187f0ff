"""The agents that read again what was quarantined."""

from watchword import Mode, Policy, SigningKey, Watchword
from watchword.policy import ChannelRule
from watchword.spi import Channel
from watchword_adapters.redriving import judge


def test_each_verdict_is_told_where_a_channel_enforces() -> None:
    """A rule of a channel does not make the judge drop what is to be shown with its verdict."""
    rule = ChannelRule("kafka://prod/tasks", Mode.ENFORCE)
    key = SigningKey.generate().verification_key("agent://a")
    agent = Watchword(realm="prod", keys=[key], policy=Policy(mode=Mode.OBSERVE, channels=(rule,)))
    assert not agent.observes(Channel("kafka", "prod", "tasks"))
    assert judge(agent).observes(Channel("kafka", "prod", "tasks"))
