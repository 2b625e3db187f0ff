"""Which engine does the work that each message costs: this package's own Python, or watchword-native beside it.

The Python engine is complete and always there. The native one reads, hashes and compares whole runs of messages, and it
only ever says yes: about whatever it doubts the Python engine judges from the beginning, and says what is wrong. So a
verdict, its reason and its words have one home, and both engines give the same.
"""

# ruff: noqa: D102 - the methods of Native are told of in its stub

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
"""Environment variable that chooses: ``python`` or ``native``; without it the native one is used where installed."""

INTERFACE: Final = 5
"""Number of the interface below; a native engine that was built for another one is refused."""


@runtime_checkable
class Runnable(Protocol):
    """Messages that a run can be made of before they are made themselves."""

    def run(self, native: Native, now: float, max_age: float, max_skew: float, *, recalled: bool) -> Run:
        """Return that run."""
        ...


class Native(Protocol):
    """The module ``watchword_native``; its stub says what its parts are for."""

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
    """Return the native engine; None where the Python one does all of it. ConfigurationError for one that is no use."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in {"", "python", "native"}:
        raise ConfigurationError(f"{VARIABLE}={wanted}: write python or native, or leave it out")
    if wanted == "python":
        return None
    try:
        import watchword_native  # noqa: PLC0415 - it may not be installed
    except ImportError:
        if wanted:
            raise ConfigurationError(f"{VARIABLE}=native: type pip install watchword-native, or leave it out") from None
        return None
    if watchword_native.INTERFACE != INTERFACE:
        raise ConfigurationError("watchword-native and watchword do not fit: install both of one version")
    engine: Native = watchword_native
    return engine


def has_panicked(error: BaseException) -> bool:
    """Tell whether this is a fault of the native engine, which PyO3 makes a BaseException of its own."""
    return type(error).__name__ == "PanicException"


def name() -> str:
    """Return what operators are told: ``native`` with its version, or ``python``."""
    engine = native()
    return "python" if engine is None else f"native {engine.__version__}"
