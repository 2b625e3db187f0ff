"""What a topic must be to be a control log, setting by setting."""

import re

import pytest

from watchword import ConfigurationError
from watchword_adapters.kafka.control_topic import MADE, SETTINGS, check_settings, checked_topic

TOPIC = "watchword.control"

WRONG: list[tuple[str, str | None, str]] = [
    ("cleanup.policy", "compact", "cleanup.policy=delete"),
    ("cleanup.policy", "compact,delete", "cleanup.policy=delete"),
    ("cleanup.policy", None, "cleanup.policy=delete"),
    ("message.timestamp.type", "CreateTime", "message.timestamp.type=LogAppendTime"),
    ("message.timestamp.type", None, "message.timestamp.type=LogAppendTime"),
    ("retention.ms", "604800000", "retention.ms=-1"),
    ("retention.ms", "0", "retention.ms=-1"),
    ("retention.ms", None, "retention.ms=-1"),
    ("retention.bytes", "1073741824", "retention.bytes=-1"),
    ("retention.bytes", None, "retention.bytes=-1"),
    ("unclean.leader.election.enable", "true", "unclean.leader.election.enable=false"),
    ("unclean.leader.election.enable", None, "unclean.leader.election.enable=false"),
    ("max.message.bytes", "65535", "max.message.bytes=65536 or more"),
    ("max.message.bytes", "", "max.message.bytes=65536 or more"),
    ("max.message.bytes", None, "max.message.bytes=65536 or more"),
]


def good(**changes: str | None) -> dict[str, str | None]:
    """Return how a broker describes a topic that we made, with some settings changed."""
    return {**MADE, **changes}


def test_what_is_made_is_accepted() -> None:
    """Promise (A52): the settings with which a log is made pass, and what loses nothing is the operator's choice."""
    check_settings(TOPIC, 1, good())
    check_settings(TOPIC, 1, good(**{"segment.ms": "1"}))


def test_what_no_statement_can_be_is_refused_by_the_broker() -> None:
    """Promise (A52): a stranger's megabytes are not stored, for every start would read them, for good."""
    assert MADE["max.message.bytes"] == "65536"


@pytest.mark.parametrize("size", ["65536", "1048588", "2147483647"])
def test_a_limit_that_no_statement_can_reach_is_accepted(size: str) -> None:
    """A topic that was made with the broker's own limit, or with a greater one, continues."""
    check_settings(TOPIC, 1, good(**{"max.message.bytes": size}))


def test_only_what_is_looked_at_is_asked_for() -> None:
    """Each setting that is checked is among those that a broker is asked about."""
    assert {name for name, _, _ in WRONG} == set(SETTINGS)


@pytest.mark.parametrize(("name", "value", "remedy"), WRONG)
def test_a_wrong_setting_is_refused_with_what_to_set(name: str, value: str | None, remedy: str) -> None:
    """Promise (A52): an unknown setting, or one that could lose or change a statement, is refused with what to set."""
    with pytest.raises(ConfigurationError, match=re.escape(f"set {remedy}")) as refusal:
        check_settings(TOPIC, 1, good(**{name: value}))
    assert str(refusal.value).count("set ") == 1
    assert TOPIC in str(refusal.value)
    assert "None" not in str(refusal.value)


def test_a_second_partition_is_refused() -> None:
    """Promise (A52): nobody reads what stands in another partition, and none can be taken away again."""
    with pytest.raises(ConfigurationError, match="it has 2 partitions: a control log has one"):
        check_settings(TOPIC, 2, good())


def test_all_that_is_wrong_is_told_at_once() -> None:
    """Nobody has to start as many times as there are mistakes."""
    with pytest.raises(ConfigurationError) as refusal:
        check_settings(TOPIC, 3, {})
    for name in ("3 partitions", *SETTINGS):
        assert name in str(refusal.value)


@pytest.mark.parametrize("topic", ["", ".", "..", "a b", "a/b", "é", "a" * 250])
def test_a_name_that_will_not_do_is_refused(topic: str) -> None:
    """What Kafka allows no topic to be called is refused before anything connects."""
    with pytest.raises(ConfigurationError, match="control topic"):
        checked_topic(topic)


def test_a_name_that_will_do_is_kept() -> None:
    """It comes back as it is."""
    assert checked_topic(TOPIC) == TOPIC
