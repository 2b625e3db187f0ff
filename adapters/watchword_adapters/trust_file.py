"""What a principal's processes on one machine keep of trust over restarts: a small file beside the journal.

It holds the demerits of each principal that has any, one number and one time, and who is kept out. It is written in a
thread of its own, soon after something has changed and at the end of the process; never in the event loop. Processes of
one principal share the file: each adds its own to what is there, and of two accounts the graver one stands. A process
takes over what others know when it starts, and then judges by what it sees itself.

The file is replaced in one step, so a crash leaves the old one or the new one. One that cannot be read is told and put
aside, not deleted: somebody else has written it, or the disk is at fault.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
import time
import weakref
from contextlib import suppress
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from watchword.message import is_principal
from watchword.strict import json_object
from watchword.trust import MAX_PRINCIPALS, Demerits, Trust
from watchword_adapters.regular_file import check_ours, open_regular
from watchword_adapters.stores.journal import check_place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from watchword.spi import Warn

EVERY: Final = 5.0
"""Seconds between two writes, at least; the first fact after a quiet time is written at once."""

MAX_BYTES: Final = 64 * 1024 * 1024
_VERSION: Final = 1


class Kept(NamedTuple):
    """What a file holds: demerits and their time in seconds, and the bars below which principals are kept out."""

    held: Mapping[str, tuple[float, float]]
    out: Mapping[str, tuple[float, ...]]


NOTHING: Final = Kept({}, {})


class TrustFile:
    """Keeps the facts of one ``Trust`` in a file; making one takes over what the file holds.

    ``clock`` returns seconds since the epoch. What cannot be read or written is told by ``warn``, and changes nothing
    else. A score that is not Demerits keeps its own books: of it only who is kept out is kept.
    """

    def __init__(self, path: Path, trust: Trust, *, clock: Callable[[], float], warn: Warn) -> None:
        self.path: Final = path
        self._trust = trust
        self._clock = clock
        self._warn = warn
        self._begin()
        self._is_told = self._closes = False
        known = NOTHING
        try:
            if path.exists():
                check_place(path.parent)
                known = self._read()
        except OSError as error:
            self._tell(error)
        if isinstance(trust.score, Demerits):
            trust.score.restore(known.held)
        trust.restore(known.out)
        trust.changed = self._changed

    def _begin(self) -> None:
        """Begin without a thread: at first, and in a process that was forked from one that had some."""
        self._pid = os.getpid()
        self._writing = threading.Lock()
        self._state = threading.Lock()
        self._runs = self._is_due = False

    def close(self) -> None:
        """Write what is not written yet; a later change is written as before."""
        if self._pid != os.getpid():
            return
        with self._writing:  # the thread may be at it
            is_due = self._is_due
        if is_due:
            self._write()

    # What the event loop does

    def _changed(self) -> None:
        """Have it written soon. It is called for each fact, so it does next to nothing."""
        if self._pid != os.getpid():
            self._begin()
        with self._state:
            self._is_due = True
            if self._runs:
                return
            self._runs = True
        if not self._closes:
            self._closes = True
            atexit.register(_close, weakref.ref(self))
        threading.Thread(target=self._run, name="watchword-trust", daemon=True).start()

    # What the thread does: it is there while there is something to write, and some seconds longer

    def _run(self) -> None:
        while True:
            begun = time.monotonic()
            self._write()
            time.sleep(pause_after(time.monotonic() - begun))
            with self._state:
                if not self._is_due:
                    self._runs = False
                    return

    def _write(self) -> None:
        with self._writing:
            self._is_due = False
            try:
                check_place(self.path.parent)
                with _alone(self.path):
                    _replace(self.path, self._together(self._read()))
                self._is_told = False
            except OSError as error:
                self._tell(error)

    def _together(self, known: Kept) -> Kept:
        """Add what this process knows to what is known; who has come back since is not kept out any more."""
        own = self._trust
        score = own.score
        if isinstance(score, Demerits):
            score = Demerits(self._clock)
            score.restore(known.held)
            score.restore(own.score.held())  # type: ignore[attr-defined]  # it is Demerits, as above
        both = Trust(score)
        both.restore(known.out)
        both.restore(own.kept_out())
        for name, bars in both.kept_out().items():
            for bar in bars:
                both.admits(name, bar)
        return Kept(score.held() if isinstance(score, Demerits) else {}, both.kept_out())

    def _read(self) -> Kept:
        """Return what is known; nothing, where there is no file. One that is no file of ours is put aside.

        OSError where others may write to it, or it is no regular file.
        """
        try:
            with open_regular(self.path) as (file, status):
                check_ours(self.path, status)
                text = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return NOTHING
        try:
            return _parsed(text)
        except ValueError as error:
            aside = self.path.with_suffix(".trust-aside")
            self.path.replace(aside)
            self._warn(
                "trust.put_aside",
                path=str(aside),
                detail=str(error),
                cost="who was kept out before this process began is let in until new facts count",
            )
            return NOTHING

    def _tell(self, error: OSError) -> None:
        if not self._is_told:
            self._is_told = True
            self._warn(
                "trust.not_kept",
                path=str(self.path),
                detail=error.strerror or str(error),
                cost="a restart forgets what counts against principals, and lets in who is kept out",
            )


def pause_after(took: float) -> float:
    """Return how many seconds to wait after a write that took so many: it is a twentieth of the time at most."""
    return max(EVERY, 20 * took)


def _close(keeper: weakref.ref[TrustFile]) -> None:
    found = keeper()
    if found is not None:
        found.close()


class _alone:  # noqa: N801 - used as a function
    """Keep other processes from the file: they add their own to it, too."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_suffix(".trust-lock")

    def __enter__(self) -> None:
        import fcntl  # noqa: PLC0415 - not everywhere; check_place has seen to it

        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def _replace(path: Path, kept: Kept) -> None:
    beside = path.with_suffix(f".trust-{os.getpid()}")
    members = {"watchword_trust": _VERSION, "held": kept.held, "out": kept.out}
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(members, file, separators=(",", ":"), ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _parsed(text: bytes) -> Kept:
    """Read a file; ValueError says what is wrong with it."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"over {MAX_BYTES} bytes")
    try:
        members = json_object(text)
    except ValueError:
        members = {}
    held, out = members.get("held"), members.get("out")
    if members.get("watchword_trust") != _VERSION or not isinstance(held, dict) or not isinstance(out, dict):
        raise ValueError("not what a process of this version keeps of trust")
    if not all(len(table) <= MAX_PRINCIPALS and all(map(is_principal, table)) for table in (held, out)):
        raise ValueError("names that no principal has, or too many")
    return Kept(
        {name: _numbers(one, 2, most=float("inf")) for name, one in held.items()},  # type: ignore[misc]  # two of them
        {name: _numbers(bars, None, most=1.0) for name, bars in out.items()},
    )


def _numbers(value: Any, count: int | None, *, most: float) -> tuple[float, ...]:
    if not isinstance(value, list) or (count is not None and len(value) != count):
        raise ValueError("a principal without its numbers")
    for one in value:
        if isinstance(one, bool) or not isinstance(one, int | float) or not isfinite(one) or not 0 <= one <= most:
            raise ValueError("a number out of range")
    return tuple(map(float, value))
