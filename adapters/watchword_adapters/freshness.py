"""How long a verdict may be old when its message reaches the handler."""

from __future__ import annotations

from typing import Final

FRESH: Final = 1.0
"""Seconds for which a verdict holds; after that the message is judged again before delivery."""
