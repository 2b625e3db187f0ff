"""The settings of a control log's topic: those it is created with, and a check that it can lose or change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from watchword import ConfigurationError
from watchword.message import is_topic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ROOM: Final = "max.message.bytes"
_LEAST_ROOM: Final = 64 * 1024
"""Bytes of a batch: a statement of 8 KiB with its envelope, and a reserve (docs/decisions/0017)."""

MADE: Final[Mapping[str, str]] = {
    "cleanup.policy": "delete",
    "message.timestamp.type": "LogAppendTime",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "unclean.leader.election.enable": "false",
    _ROOM: str(_LEAST_ROOM),
}
"""The settings with which the topic is created, and which it must have; ``max.message.bytes`` may be larger."""

_EFFECTS: Final[Mapping[str, str]] = {
    "cleanup.policy": "removes earlier statements",
    "message.timestamp.type": "lets the publisher choose the time of a statement",
    "retention.ms": "deletes older statements",
    "retention.bytes": "deletes statements beyond that size",
    "unclean.leader.election.enable": "allows a leader that lacks acknowledged statements",
}

SETTINGS: Final = tuple(MADE)
"""The settings that are requested from the broker."""


def checked_topic(topic: str) -> str:
    """Return the topic's name; ConfigurationError if Kafka does not allow it."""
    if not is_topic(topic):
        raise ConfigurationError(f"control topic {topic[:128]!r}: use 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'")
    return topic


def check_settings(topic: str, partitions: int, found: Mapping[str, str | None]) -> None:
    """Raise ConfigurationError if a setting is wrong; it names each one with the value to set."""
    wrong = list(_faults(partitions, found))
    if wrong:
        raise ConfigurationError(
            f"topic {topic!r} cannot be the control log: {'; '.join(wrong)}. kafka-configs --alter changes settings; a"
            " topic of more than one partition must be replaced by a new one with another name"
        )


def _faults(partitions: int, found: Mapping[str, str | None]) -> Iterator[str]:
    if partitions != 1:
        yield f"it has {partitions} partitions: a control log has one"
    for name, effect in _EFFECTS.items():
        value, right = found.get(name), MADE[name]
        if value is None:
            yield f"the broker does not report its {name}: set {name}={right}"
        elif value != right:
            yield f"{name}={value} {effect}: set {name}={right}"
    room = found.get(_ROOM) or ""
    if not room.isdecimal() or int(room) < _LEAST_ROOM:
        yield f"{_ROOM}={room} refuses longer statements: set {_ROOM}={_LEAST_ROOM} or more"
