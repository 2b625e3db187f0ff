"""The place where a message that is only observed asks for its answer."""

from __future__ import annotations

from typing import Any


class UnsignedReply(str):
    """A subject or topic where an answer goes out unsigned, for nobody verified who asks for it there.

    Signed, it would be this agent's word in a place of a stranger's choice, and worth something to readers that
    enforce. There is such a text in observe mode only. A copy of its characters is a mere text.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)
