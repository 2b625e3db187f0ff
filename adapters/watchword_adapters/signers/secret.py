"""Reads secrets (PINs, passphrases, tokens) from the variables or files that the settings name instead of them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final, final

from watchword import ConfigurationError
from watchword_adapters.regular_file import open_regular, without_mark

if TYPE_CHECKING:
    from pathlib import Path

    from watchword.spi import Context, Warn

MAX_BYTES: Final = 16 * 1024


@final
class Secret:
    """The place of a secret: an environment variable or a file. It is read whenever it is needed, and not stored."""

    def __init__(self, name: str, *, variable: str | None, path: Path | None, warn: Warn) -> None:
        self._name = name
        self._variable = variable
        self._path = path
        self._warn = warn

    @classmethod
    def named(cls, name: str, *, variable: str | None, file: str | None, directory: Path, warn: Warn) -> Secret | None:
        """Return the secret that ``{name}_env`` or ``{name}_file`` names; None if neither does.

        ``directory`` is where relative paths start. ConfigurationError if both do.
        """
        if variable and file:
            raise ConfigurationError(f"{name}_env and {name}_file: write only one of them")
        if not (variable or file):
            return None
        return cls(name, variable=variable, path=directory / file if file else None, warn=warn)

    @classmethod
    def required(cls, name: str, *, variable: str | None, file: str | None, context: Context) -> Secret:
        """Return what ``named`` does; ConfigurationError if there is none."""
        secret = cls.named(name, variable=variable, file=file, directory=context.directory, warn=context.warn)
        if secret is None:
            raise ConfigurationError(f'{name}: missing; write {name}_env = "VARIABLE" or {name}_file = "PATH"')
        return secret

    def read(self) -> str:
        """Return the secret; ConfigurationError, which shows nothing of it, if there is none."""
        where = f"{self._name}_env" if self._path is None else f"{self._name}_file: {self._path}"
        try:
            text = self._raw().decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise ConfigurationError(f"{where}: not UTF-8") from None
        if not text:
            if self._path is None:  # do not show the name: often it is the secret itself, by mistake
                raise ConfigurationError(f"{where}: there is no variable of this name, or it is empty")
            raise ConfigurationError(f"{where}: it is empty")
        return text

    def _raw(self) -> bytes:
        if self._path is None:
            return os.environ.get(self._variable or "", "").encode(errors="surrogateescape")
        return read_guarded(f"{self._name}_file:", self._path, warn=self._warn)

    def __repr__(self) -> str:
        return f"Secret({self._name})"


def read_guarded(what: str, path: Path, *, warn: Warn, most: int = MAX_BYTES, remedy: str | None = None) -> bytes:
    """Return the contents of a file; ConfigurationError if it is missing or too large, or others may write to it.

    If others may read it, or it belongs to another user, that is logged, not refused: mounted secrets and checked-out
    test keys are often like that. ``most`` is in bytes.
    """
    try:
        with open_regular(path) as (file, status):
            data = file.read(most + 1)
    except OSError as error:
        raise ConfigurationError("; ".join(filter(None, (f"{what} {path}: {error.strerror}", remedy)))) from None
    if os.name == "posix" and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(f"{what} {path}: others may write it; run chmod 600, or replace what is in it")
    if os.name == "posix" and status.st_mode & stat.S_IROTH:
        warn("signer.key_readable_by_others", path=str(path), advice="chmod 600")
    if os.name == "posix" and status.st_uid not in {os.geteuid(), 0}:
        warn("signer.key_of_another_user", path=str(path), advice=f"chown {os.geteuid()}")
    if len(data) > most:
        raise ConfigurationError(f"{what} {path}: over {most} bytes, which no secret has")
    return without_mark(data)
