"""The settings of a control log's stream: those it is created with, and a check that it can lose or change nothing.

Settings are read and written as the server's own JSON, since nats-py knows only those of its own release.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from watchword import ConfigurationError
from watchword.message import is_subject

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SUBJECT: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")

_LEAST_ROOM: Final = 64 * 1024
"""Bytes of a message with its headers: a statement of 8 KiB with its envelope, plus a reserve (docs/decisions/0017)."""

_MADE: Final[Mapping[str, Any]] = {
    "description": "Watchword: what operators say",
    "retention": "limits",
    "storage": "file",
    "discard": "new",
    "max_consumers": -1,
    "max_msgs": -1,
    "max_bytes": -1,
    "max_msgs_per_subject": -1,
    "max_msg_size": _LEAST_ROOM,
    "deny_delete": True,
    "deny_purge": True,
}

_MOST: Final[Mapping[str, str]] = {
    "max_age": "deletes older statements",
    "max_msgs": "drops or refuses statements beyond a number",
    "max_bytes": "drops or refuses statements beyond a size",
    "max_msgs_per_subject": "stores only the latest statements",
    "max_consumers": "keeps readers out",
}
"""Limits that must be off, which is -1 or 0."""

_CHOICES: Final[Mapping[str, tuple[str, str, str]]] = {
    "retention": ("limits", "limits", "deletes read statements"),
    "storage": ("file", "file", "forgets everything at a restart"),
    "persist_mode": ("default", "default", "acknowledges statements before they are written"),
    "discard": ("new", "old", "makes space by dropping old statements"),
}
"""The required choice, the server's default, and the effect of any other choice."""

_SWITCHES: Final = (
    ("deny_delete", True, "is off, so that statements can be deleted"),
    ("deny_purge", True, "is off, so that statements can be purged"),
    ("allow_rollup_hdrs", False, "lets one message replace all before it"),
    ("allow_msg_ttl", False, "lets a statement expire"),
    ("allow_msg_schedules", False, "lets the server append messages by itself"),
    ("allow_msg_counter", False, "stores counters instead of statements"),
    ("no_ack", False, "does not acknowledge a stored statement"),
    ("sealed", False, "accepts no more statements"),
)

_ABSENT: Final[Mapping[str, str]] = {
    "mirror": "is a copy of another stream",
    "sources": "copies in the messages of other streams",
    "republish": "republishes each statement on another subject",
    "subject_transform": "stores statements under another subject than the signed one",
    "subject_delete_marker_ttl": "lets the server append messages by itself",
    "consumer_limits": "may keep readers out",
}
"""Settings that must be absent."""


def stream_name(subject: str) -> str:
    """Return the name of the stream created for a subject; ConfigurationError if the subject is unsuitable."""
    if not (_SUBJECT.fullmatch(subject) and is_subject(subject)):
        raise ConfigurationError(
            f"control subject {subject[:128]!r}: use 1 to 200 of a-z, A-Z, 0-9, '_' and '-', in tokens separated by '.'"
        )
    return subject.replace(".", "-")


def settings_for(subject: str, *, replicas: int | None) -> dict[str, Any]:
    """Return the settings with which the stream is created; ``replicas`` None is the server's default, one."""
    made = {"name": stream_name(subject), "subjects": [subject], **_MADE}
    return made if replicas is None else made | {"num_replicas": replicas}


def check_settings(config: Mapping[str, Any], subject: str) -> None:
    """Raise ConfigurationError if a setting is wrong; it names each one with the value to write."""
    wrong = list(_faults(config, subject))
    if wrong:
        raise ConfigurationError(
            f"stream {config.get('name')!r} cannot be the control log of {subject!r}: {'; '.join(wrong)}. Settings that"
            " NATS does not let you change need a new stream: watchword control init creates one once no stream has"
            " this subject"
        )


def _faults(config: Mapping[str, Any], subject: str) -> Iterator[str]:
    if config.get("subjects") != [subject]:
        yield f"it has the subjects {config.get('subjects') or []}: write subjects = [{subject!r}]"
    for name, (right, default, effect) in _CHOICES.items():
        found = config.get(name) or default
        if found != right:
            yield f'{name} "{found}" {effect}: write {name} = "{right}"'
    yield from _limits(config)
    for name, wanted, effect in _SWITCHES:
        if bool(config.get(name)) is not wanted:
            yield f"{name} {effect}: write {name} = {str(wanted).lower()}"
    for name, effect in _ABSENT.items():
        if config.get(name):
            yield f"{name} {effect}: omit {name}"


def _limits(config: Mapping[str, Any]) -> Iterator[str]:
    for name, effect in _MOST.items():
        if (config.get(name) or -1) > 0:
            yield f"{name} {effect}: write {name} = {0 if name == 'max_age' else -1}"
    if 0 < (config.get("max_msg_size") or -1) < _LEAST_ROOM:
        yield f"max_msg_size refuses longer statements: write max_msg_size = {_LEAST_ROOM} or more"
