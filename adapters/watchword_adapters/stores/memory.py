"""The core's replay store in memory, as the configuration names it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from watchword.quota import Bounds
from watchword.settings import Section
from watchword.spi import MemoryReplayStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from watchword.spi import Context


def from_options(options: Mapping[str, Any], context: Context) -> MemoryReplayStore:
    """Return a store that keeps ids as long as the policy needs them, in the policy's memory; it takes no options."""
    context.validate(Section, options)
    policy = context.policy
    return MemoryReplayStore(horizon=policy.horizon, bounds=Bounds.within(policy.memory))
