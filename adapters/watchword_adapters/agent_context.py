"""What our own plug-ins are given besides: the presence channel, which is opened for an agent that they make."""

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
"""Opens the presence channel: it signs by that agent's key, and reads for nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentContext(Context):
    """A context of settings; ``presence`` is None where they name no presence channel."""

    presence: OpenPresence | None = None


def presence_of(context: Context) -> OpenPresence:
    """Return how the presence channel is opened; ConfigurationError where there is none."""
    presence = context.presence if isinstance(context, AgentContext) else None
    if presence is None:
        raise ConfigurationError(
            f'spiffe: certificates go over the presence channel: write presence = "nats://{context.realm}/<subject>" or'
            f' "kafka://{context.realm}/<topic>" under [control]'
        )
    return presence
