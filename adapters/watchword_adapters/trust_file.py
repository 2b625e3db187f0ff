"""Stores what a principal's processes on one machine know of trust, across restarts: a small file by the journal.

It holds the demerits of each principal that has any, one number and one time, and the principals that are kept out. It
is written in a separate thread, soon after a change and at the end of the process, never in the event loop. Processes
of one principal share the file: each merges its own facts into it, and of two accounts the graver one counts. A process
loads the others' facts when it starts, and then judges by its own observations.

The file is replaced atomically, so a crash leaves the old one or the new one. An unreadable one is logged and set
aside, not deleted: another program has written it, or the disk is faulty.
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
"""Least seconds between two writes; the first fact after a quiet time is written at once."""

MAX_BYTES: Final = 64 * 1024 * 1024
_VERSION: Final = 1


class Kept(NamedTuple):
    """The contents of a file: demerits and their time in seconds, and the bars below which principals are kept out."""

    held: Mapping[str, tuple[float, float]]
    out: Mapping[str, tuple[float, ...]]


NOTHING: Final = Kept({}, {})


class TrustFile:
    """Stores the facts of one ``Trust`` in a file; the constructor loads what the file holds.

    ``clock`` returns seconds since the epoch. Failures to read or write are logged by ``warn``, and have no other
    effect. A score that is not Demerits stores itself: then only the principals kept out are stored here.
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
        """Reset to the state without a thread: at construction, and in a forked process."""
        self._pid = os.getpid()
        self._writing = threading.Lock()
        self._state = threading.Lock()
        self._runs = self._is_due = False

    def close(self) -> None:
        """Write pending changes; later changes are written as before."""
        if self._pid != os.getpid():
            return
        with self._writing:  # the thread may be writing
            is_due = self._is_due
        if is_due:
            self._write()

    # Called in the event loop

    def _changed(self) -> None:
        """Schedule a write. It is called for each fact, so it must be cheap."""
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

    # The thread, which exists while there is something to write, and some seconds longer

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
        """Merge this process's facts into the file's; principals whose score has recovered are let in again."""
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
        """Return the file's contents; NOTHING if there is no file. A file that is not ours is set aside.

        OSError if others may write to it, or it is not a regular file.
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
                cost="principals that were kept out before this process started are let in until new facts count",
            )
            return NOTHING

    def _tell(self, error: OSError) -> None:
        if not self._is_told:
            self._is_told = True
            self._warn(
                "trust.not_kept",
                path=str(self.path),
                detail=error.strerror or str(error),
                cost="a restart forgets what counts against principals, and lets in those kept out",
            )


def pause_after(took: float) -> float:
    """Return the pause in seconds after a write that took ``took``: writing uses at most 1/20 of the time."""
    return max(EVERY, 20 * took)


def _close(keeper: weakref.ref[TrustFile]) -> None:
    found = keeper()
    if found is not None:
        found.close()


class _alone:  # noqa: N801 - used as a function
    """Lock the file against other processes, which merge their facts into it too."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_suffix(".trust-lock")

    def __enter__(self) -> None:
        import fcntl  # noqa: PLC0415 - not everywhere; check_place has checked

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
    """Parse a file; ValueError says what is wrong with it."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"over {MAX_BYTES} bytes")
    try:
        members = json_object(text)
    except ValueError:
        members = {}
    held, out = members.get("held"), members.get("out")
    if members.get("watchword_trust") != _VERSION or not isinstance(held, dict) or not isinstance(out, dict):
        raise ValueError("not a trust file of this version")
    if not all(len(table) <= MAX_PRINCIPALS and all(map(is_principal, table)) for table in (held, out)):
        raise ValueError("invalid principal names, or too many")
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
