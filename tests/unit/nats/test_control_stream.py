"""What a stream must be to be a control log, setting by setting."""

import re
from typing import Any

import pytest

from watchword import ConfigurationError
from watchword_adapters.nats.control_stream import check_settings, settings_for, stream_name

SUBJECT = "watchword.control"

WRONG: list[tuple[str, Any, str]] = [
    ("subjects", [SUBJECT, "other"], "subjects = ['watchword.control']"),
    ("subjects", ["watchword.*"], "subjects = ['watchword.control']"),
    ("subjects", None, "subjects = ['watchword.control']"),
    ("retention", "workqueue", 'retention = "limits"'),
    ("retention", "interest", 'retention = "limits"'),
    ("storage", "memory", 'storage = "file"'),
    ("persist_mode", "async", 'persist_mode = "default"'),
    ("discard", "old", 'discard = "new"'),
    ("discard", None, 'discard = "new"'),
    ("max_age", 1, "max_age = 0"),
    ("max_msgs", 1, "max_msgs = -1"),
    ("max_bytes", 1, "max_bytes = -1"),
    ("max_msgs_per_subject", 1, "max_msgs_per_subject = -1"),
    ("max_msg_size", 1, "max_msg_size = 65536 or more"),
    ("max_msg_size", 65535, "max_msg_size = 65536 or more"),
    ("max_consumers", 1, "max_consumers = -1"),
    ("deny_delete", False, "deny_delete = true"),
    ("deny_delete", None, "deny_delete = true"),
    ("deny_purge", False, "deny_purge = true"),
    ("allow_rollup_hdrs", True, "allow_rollup_hdrs = false"),
    ("allow_msg_ttl", True, "allow_msg_ttl = false"),
    ("allow_msg_schedules", True, "allow_msg_schedules = false"),
    ("allow_msg_counter", True, "allow_msg_counter = false"),
    ("no_ack", True, "no_ack = false"),
    ("sealed", True, "sealed = false"),
    ("mirror", {"name": "a"}, "omit mirror"),
    ("sources", [{"name": "a"}], "omit sources"),
    ("republish", {"dest": "a"}, "omit republish"),
    ("subject_transform", {"src": ">", "dest": "a"}, "omit subject_transform"),
    ("subject_delete_marker_ttl", 1, "omit subject_delete_marker_ttl"),
    ("consumer_limits", {"inactive_threshold": 1}, "omit consumer_limits"),
]


def with_setting(name: str, value: object) -> dict[str, Any]:
    """Return good settings but for one, which is left out where it is None."""
    config = settings_for(SUBJECT, replicas=None) | {name: value}
    return {key: one for key, one in config.items() if one is not None}


@pytest.mark.parametrize("extra", [{}, {"num_replicas": 3, "allow_direct": True, "compression": "s2", "max_age": 0}])
def test_what_is_made_is_accepted(extra: dict[str, Any]) -> None:
    """Promise (A52): the settings with which a log is made pass; what loses nothing is the operator's choice."""
    check_settings(settings_for(SUBJECT, replicas=None) | extra, SUBJECT)


def test_what_no_statement_can_be_is_refused_by_the_server() -> None:
    """Promise (A52): a stranger's megabytes are not stored, for every start would read them, for good."""
    assert settings_for(SUBJECT, replicas=None)["max_msg_size"] == 65536


@pytest.mark.parametrize("size", [-1, 0, 65536, 1 << 20])
def test_a_limit_that_no_statement_can_reach_is_accepted(size: int) -> None:
    """A log that was made without a limit, or with a greater one, continues."""
    check_settings(with_setting("max_msg_size", size), SUBJECT)


def test_replicas_are_asked_for() -> None:
    """The number of replicas is the caller's, else the server's default."""
    assert settings_for(SUBJECT, replicas=3)["num_replicas"] == 3
    assert "num_replicas" not in settings_for(SUBJECT, replicas=None)


@pytest.mark.parametrize(("name", "value", "remedy"), WRONG)
def test_a_wrong_setting_is_refused_with_what_to_write(name: str, value: object, remedy: str) -> None:
    """Promise (A52): each setting that could lose or change a statement is refused, named, with what to write."""
    with pytest.raises(ConfigurationError, match=re.escape(remedy)) as refusal:
        check_settings(with_setting(name, value), SUBJECT)
    assert str(refusal.value).count("write ") + str(refusal.value).count("omit ") == 1


def test_all_that_is_wrong_is_told_at_once() -> None:
    """Nobody has to start as many times as there are mistakes."""
    with pytest.raises(ConfigurationError) as refusal:
        check_settings({"name": "s", "subjects": [SUBJECT], "max_msgs": 5, "no_ack": True}, SUBJECT)
    for remedy in ("max_msgs = -1", "no_ack = false", "deny_delete = true", "deny_purge = true", 'discard = "new"'):
        assert remedy in str(refusal.value)


@pytest.mark.parametrize("subject", ["", ">", "a.*", "a..b", "a b", "$JS.x", "a/b", "é", "a" * 201])
def test_a_subject_that_will_not_do_is_refused(subject: str) -> None:
    """A name of which no stream could be named, or with a wildcard, is refused before anything connects."""
    with pytest.raises(ConfigurationError, match="control subject"):
        stream_name(subject)
