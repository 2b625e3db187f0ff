"""Key source ``files``: reads key files again when they change; keeps the last good set while they cannot be read."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

from watchword import ConfigurationError, MemoryKeys, Unavailable
from watchword.settings import Duration, Listed, Section
from watchword_adapters.keys import public_files
from watchword_adapters.keys.public_files import state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from watchword import VerificationKey
    from watchword.spi import Context, Warn
    from watchword_adapters.keys.public_files import State

CHECK_CEILING: Final = 3600.0
STALENESS_CEILING: Final = 7 * 86400.0
UNKNOWN_COOLDOWN: Final = 1.0
"""Minimum seconds between two checks of the files for unknown keys."""

READ_LIMIT: Final = 5.0
"""Most seconds that a message waits for the files to be read."""

_SETTLED_NS: Final = 2_000_000_000
"""A file changed this recently may change again with the same state: some file systems store times in steps of 2 s."""


class Options(Section):
    """``[[keys]]`` with ``source = "files"``; paths are relative to the settings file."""

    paths: Annotated[list[str], Listed]
    check_every: Duration = 5.0
    max_staleness: Duration = 3600.0


def from_options(options: Mapping[str, Any], context: Context) -> FileKeys:
    """Return the source that ``paths`` describe."""
    chosen = context.validate(Options, options)
    return FileKeys(
        [context.directory / path for path in chosen.paths],
        check_every=chosen.check_every,
        max_staleness=chosen.max_staleness,
        warn=context.warn,
    )


class KeyFiles(Protocol):
    """Reads keys from one kind of files; ``public_files`` is one."""

    @property
    def REMEDY(self) -> str:  # noqa: N802 - a module is one of these
        """What an error says to do about a missing file."""
        ...

    def list_files(self, paths: Iterable[Path]) -> list[Path]:
        """Return the files in ``paths``, which may be directories; ConfigurationError for a directory without any."""
        ...

    def read_keys(self, files: Sequence[Path]) -> tuple[list[VerificationKey], State]:
        """Read all keys of all files, and the state that was read; OSError or ConfigurationError if that fails."""
        ...


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A set that was read; ``state`` is None if the files changed so recently that it may not show the next change."""

    keys: tuple[VerificationKey, ...]
    lookup: MemoryKeys
    state: State | None


class FileKeys:
    """Keys in JWK Set files, JWK files, PEM files and directories of these (docs/keys/files.md has the formats).

    The files are checked every ``check_every`` seconds at most, or once a second while keys are unknown. A key that was
    removed is gone after the next check. While a file is missing, unreadable or faulty, the last good set is used for
    ``max_staleness`` seconds since it was last known to be current; that is at least ``check_every``, and the time that
    a read may take. A key that is not in it raises Unavailable. ``clock`` returns seconds and must not step back.
    ConfigurationError at construction says what is wrong with which file; later, ``warn`` logs it. ``kind`` reads
    another kind of files.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        check_every: float = 5.0,
        max_staleness: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
        warn: Warn | None = None,
        kind: KeyFiles = public_files,
    ) -> None:
        if isinstance(paths, str) or not paths:
            raise ConfigurationError('key files: name at least one path, as paths = ["agents.jwks"]')
        _within("check_every", check_every, CHECK_CEILING)
        # A set is known to be current from the start of one check until the end of the next.
        _within("max_staleness", max_staleness, STALENESS_CEILING, least=max(READ_LIMIT, check_every))
        self._paths = tuple(Path(path) for path in paths)
        self._kind = kind
        self._check_every = check_every
        self._max_staleness = max_staleness
        self._clock = clock
        self._warn = warn
        self._reading: asyncio.Future[_Loaded | None] | None = None
        self._failure: str | None = None
        self._looked = self._current = clock()
        try:
            self._loaded = _read(self._kind, self._paths)
        except OSError as error:
            raise ConfigurationError(f"key file {error.filename}: {error.strerror}; {kind.REMEDY}") from None
        except ConfigurationError as error:
            raise ConfigurationError(f"key file {error}") from None

    @property
    def keys(self) -> tuple[VerificationKey, ...]:
        """The keys of the set that answers now."""
        return self._loaded.keys

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``; Unavailable if the files cannot be read."""
        stale = self._is_stale()
        if self._clock() - self._looked >= self._check_every or (stale and self._reading is not None):
            await self._look(wait_for_others=stale)
        key = await self._loaded.lookup.find(principal, key_id)
        if key is None or key.principal != principal:
            if self._reading is not None or self._clock() - self._looked >= UNKNOWN_COOLDOWN:
                await self._look(wait_for_others=True)
            key = await self._loaded.lookup.find(principal, key_id)
            if self._failure is not None and (key is None or key.principal != principal):
                raise Unavailable("keys", self._failure)
        if self._is_stale():
            raise Unavailable("keys", "key files could not be read for longer than max_staleness")
        return key

    def _is_stale(self) -> bool:
        return self._clock() - self._current > self._max_staleness

    async def _look(self, *, wait_for_others: bool) -> None:
        """Read the files in another thread, since a disk or network share may be slow; one read at a time."""
        loop = asyncio.get_running_loop()
        reading = self._reading
        if reading is None or reading.get_loop() is not loop:
            self._looked = self._clock()
            reading = loop.run_in_executor(None, _read_if_changed, self._kind, self._paths, self._loaded.state)
            self._reading = reading
            reading.add_done_callback(self._take)
        elif not wait_for_others:
            return
        left = self._looked + READ_LIMIT - self._clock()
        _, waiting = await asyncio.wait([reading], timeout=max(0.0, left))
        if waiting:
            self._failed(f"reading key files takes longer than {READ_LIMIT:g} s")

    def _take(self, reading: asyncio.Future[_Loaded | None]) -> None:
        if reading is not self._reading:  # started in an event loop that has ended since
            return
        self._reading = None
        if reading.cancelled():
            return
        error = reading.exception()
        if isinstance(error, OSError):
            self._failed(f"{error.filename}: {error.strerror}")
        elif error is not None:
            self._failed(str(error) if isinstance(error, ConfigurationError) else type(error).__name__)
        else:
            self._loaded = reading.result() or self._loaded
            self._current = self._looked
            self._failure = None

    def _failed(self, failure: str) -> None:
        if failure != self._failure and self._warn is not None:
            self._warn("keys.files_not_read", failure=failure, kept_keys=len(self._loaded.keys))
        self._failure = failure


def _read_if_changed(kind: KeyFiles, paths: tuple[Path, ...], state: State | None) -> _Loaded | None:
    if state is not None and state_of(kind.list_files(paths)) == state:
        return None
    return _read(kind, paths)


def _read(kind: KeyFiles, paths: tuple[Path, ...]) -> _Loaded:
    keys, state = kind.read_keys(kind.list_files(paths))
    newest = max((max(modified, changed) for *_, modified, changed in state), default=0)
    settled = newest + _SETTLED_NS < time.time_ns()
    try:
        lookup = MemoryKeys(keys)
    except ConfigurationError as error:
        raise ConfigurationError(f"{', '.join(map(str, paths))}: {error}") from None
    return _Loaded(tuple(keys), lookup, state if settled else None)


def _within(name: str, value: float, most: float, *, least: float = 0.0) -> None:
    if not (math.isfinite(value) and least <= value <= most):
        raise ConfigurationError(f"{name} of {value:g} s: choose {least:g} s to {most:g} s")
