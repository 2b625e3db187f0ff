"""Selects the engine for the per-message work: this package's Python code, or ``watchword-native`` if installed.

The Python engine is complete and always available. The native one parses, hashes and compares runs of messages, and
can only accept: a message that it does not accept is judged by the Python engine from the beginning. So rejections and
their reasons come from one place, and both engines give the same verdicts.
"""

# ruff: noqa: D102 - the methods of Native are documented in its stub

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from watchword.errors import ConfigurationError

if TYPE_CHECKING:
    import watchword_native
    from watchword_native import Run

    from watchword.message import Header

VARIABLE: Final = "WATCHWORD_ENGINE"
"""Environment variable that selects ``python`` or ``native``; if not set, the native engine is used if installed."""

INTERFACE: Final = 5
"""Version of the interface below; a native engine that was built for another version is refused."""


@runtime_checkable
class Runnable(Protocol):
    """A lazy sequence of messages that can start a native run without creating each ``Message``."""

    def run(self, native: Native, now: float, max_age: float, max_skew: float, *, recalled: bool) -> Run:
        """Return a run of these messages; arguments as for ``watchword_native.Run``."""
        ...


class Native(Protocol):
    """The module ``watchword_native``; see its stub for documentation."""

    INTERFACE: int
    __version__: str
    Bucket: type[watchword_native.Bucket]
    Entries: type[watchword_native.Entries]
    Hasher: type[watchword_native.Hasher]
    Layout: type[watchword_native.Layout]
    Run: type[watchword_native.Run]
    Tree: type[watchword_native.Tree]

    def verifies(self, public: bytes, signature: bytes, data: bytes) -> bool: ...
    def sha256(self, data: bytes) -> bytes: ...
    def read_envelope(self, header: bytes) -> tuple[Any, ...] | None: ...
    def read_block(self, block: bytes) -> tuple[Header, ...] | None: ...
    def sound_until(self, raw: bytes, at: int, most: int, log_end: int) -> int: ...
    def are_sound(self, records: bytes, count: int, last_delta: int) -> bool: ...


@lru_cache(1)
def native() -> Native | None:
    """Return the native engine, or None for the Python one; ConfigurationError if it is missing or does not fit."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in {"", "python", "native"}:
        raise ConfigurationError(f"{VARIABLE}={wanted}: write python or native, or leave it out")
    if wanted == "python":
        return None
    try:
        import watchword_native  # noqa: PLC0415 - it may not be installed
    except ImportError:
        if wanted:
            raise ConfigurationError(f"{VARIABLE}=native: pip install watchword-native, or leave it out") from None
        return None
    if watchword_native.INTERFACE != INTERFACE:
        raise ConfigurationError("watchword-native and watchword do not match: install the same version of both")
    engine: Native = watchword_native
    return engine


def has_panicked(error: BaseException) -> bool:
    """Return True if this is a panic in the native engine, which PyO3 raises as a BaseException."""
    return type(error).__name__ == "PanicException"


def name() -> str:
    """Return the engine's name for logs and reports: ``native`` with its version, or ``python``."""
    engine = native()
    return "python" if engine is None else f"native {engine.__version__}"
