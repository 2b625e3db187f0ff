"""The context of our own plug-ins: also opens the presence channel for an agent that a plug-in creates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from watchword import ConfigurationError
from watchword.spi import Context

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword import Watchword
    from watchword_adapters.control.presence import PresenceChannel

OpenPresence: TypeAlias = "Callable[[Watchword], PresenceChannel]"
"""Opens the presence channel for an agent, whose key signs; it has no reader of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentContext(Context):
    """A context of settings; ``presence`` is None if they name no presence channel."""

    presence: OpenPresence | None = None


def presence_of(context: Context) -> OpenPresence:
    """Return the function that opens the presence channel; ConfigurationError if there is none."""
    presence = context.presence if isinstance(context, AgentContext) else None
    if presence is None:
        raise ConfigurationError(
            f'spiffe: certificates use the presence channel: write presence = "nats://{context.realm}/<subject>" or'
            f' "kafka://{context.realm}/<topic>" under [control]'
        )
    return presence
