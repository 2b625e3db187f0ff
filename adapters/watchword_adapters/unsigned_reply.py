"""The reply subject or topic of a message that was only observed; answers there are sent unsigned."""

from __future__ import annotations

from typing import Any


class UnsignedReply(str):
    """A subject or topic to which an answer is sent unsigned, since the request was not verified.

    A signed answer would be this agent's word in a place that a stranger chose, and enforcing readers would accept it.
    Such a string exists in observe mode only. A copy of its characters is a plain string.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)
