"""The topic of a control log: how it is made, and what a topic must be to lose and change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from watchword import ConfigurationError
from watchword.message import is_topic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ROOM: Final = "max.message.bytes"
_LEAST_ROOM: Final = 64 * 1024
"""Bytes of a batch: a statement of 8 KiB with its envelope, and some more (docs/decisions/0017)."""

MADE: Final[Mapping[str, str]] = {
    "cleanup.policy": "delete",
    "message.timestamp.type": "LogAppendTime",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "unclean.leader.election.enable": "false",
    _ROOM: str(_LEAST_ROOM),
}
"""The settings with which a topic is made, and which it must have; of room it may have more."""

_EFFECTS: Final[Mapping[str, str]] = {
    "cleanup.policy": "drops earlier statements",
    "message.timestamp.type": "lets whoever publishes choose the time of a statement",
    "retention.ms": "deletes what is older",
    "retention.bytes": "deletes what is beyond a size",
    "unclean.leader.election.enable": "lets a replica lead that lacks what was acknowledged",
}

SETTINGS: Final = tuple(MADE)
"""What a broker is asked about."""


def checked_topic(topic: str) -> str:
    """Return the name of a topic; ConfigurationError for what Kafka allows no topic to be called."""
    if not is_topic(topic):
        raise ConfigurationError(f"control topic {topic[:128]!r}: write 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'")
    return topic


def check_settings(topic: str, partitions: int, found: Mapping[str, str | None]) -> None:
    """Raise ConfigurationError, which names each setting that is wrong and what to set, unless all is well."""
    wrong = list(_faults(partitions, found))
    if wrong:
        raise ConfigurationError(
            f"topic {topic!r} cannot be the control log: {'; '.join(wrong)}. kafka-configs --alter changes settings; a"
            " topic of more than one partition has to be made anew, under another name"
        )


def _faults(partitions: int, found: Mapping[str, str | None]) -> Iterator[str]:
    if partitions != 1:
        yield f"it has {partitions} partitions: a control log has one"
    for name, effect in _EFFECTS.items():
        value, right = found.get(name), MADE[name]
        if value is None:
            yield f"the broker does not tell its {name}: set {name}={right}"
        elif value != right:
            yield f"{name}={value} {effect}: set {name}={right}"
    room = found.get(_ROOM) or ""
    if not room.isdecimal() or int(room) < _LEAST_ROOM:
        yield f"{_ROOM}={room} refuses statements that are longer: set {_ROOM}={_LEAST_ROOM} or more"
