"""Creates the core's in-memory replay store from the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from watchword.quota import Bounds
from watchword.settings import Section
from watchword.spi import MemoryReplayStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from watchword.spi import Context


def from_options(options: Mapping[str, Any], context: Context) -> MemoryReplayStore:
    """Return a store that keeps ids for as long as the policy needs, within its memory limit; takes no options."""
    context.validate(Section, options)
    policy = context.policy
    return MemoryReplayStore(horizon=policy.horizon, bounds=Bounds.within(policy.memory))
