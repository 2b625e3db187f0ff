"""Makes a command that judges messages obey the control log."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from watchword_adapters.config import control_parts
from watchword_adapters.control.desk import followed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from watchword import Watchword
    from watchword.settings import Settings


@asynccontextmanager
async def obeying(agent: Watchword, settings: Settings, directory: Path) -> AsyncGenerator[None]:
    """Make an agent judge by the control log, if its settings name one, once the log has been read.

    Nothing is stored in the state directory, which another process may be using. Unavailable if the log cannot be read;
    ConfigurationError if it cannot be trusted.
    """
    control = agent.verifier.control
    if control is None:
        yield
        return
    async with followed(replace(control_parts(agent, settings, directory), control=control, state=None)):
        agent.verifier.obey(control)  # read by now, so nothing has to wait for it
        yield
