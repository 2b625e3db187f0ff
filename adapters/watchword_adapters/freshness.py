"""How long what was judged ahead of its handler may wait for it."""

from __future__ import annotations

from typing import Final

FRESH: Final = 1.0
"""Seconds for which a verdict stands: whoever is slower to take a message has it judged once more."""
