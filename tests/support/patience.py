"""How long a test waits for what has to happen: only a fault makes one wait so long, on any machine."""

from typing import Final

PATIENCE: Final = 120.0
"""Seconds."""
