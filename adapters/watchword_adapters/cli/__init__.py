"""Entry point of the command ``watchword``, with its exit codes; see ``docs/cli.md``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

OK: Final = 0
REJECTED: Final = 1
"""At least one message was rejected, or an envelope is malformed."""

WRONG_USE: Final = 2
"""Wrong arguments, settings, files or input; standard error says what to write."""

UNAVAILABLE: Final = 3
"""At least one message could not be judged or signed (key source or signer down); try again."""

INTERRUPTED: Final = 130
"""Control-C, as a shell reports it."""

BROKEN_PIPE: Final = 141
"""The reader of the output has gone, as a shell reports it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (``sys.argv`` by default) and return its exit code; an error is one line on stderr."""
    try:
        from watchword_adapters.cli.app import run  # noqa: PLC0415 - its dependencies come with an extra
    except ModuleNotFoundError as error:
        if error.name not in {"rich", "typer"}:
            raise
        return _fail("the command line needs an extra: pip install 'watchword[cli]'", WRONG_USE)
    from watchword import WatchwordError  # noqa: PLC0415 - as late as above
    from watchword.extras import what_to_install  # noqa: PLC0415 - as above

    try:
        code = run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except ModuleNotFoundError as error:  # of an import on use
        if (line := what_to_install(error)) is None:
            raise
        return _fail(line, WRONG_USE)
    except (WatchwordError, OSError, KeyboardInterrupt, SystemExit) as error:
        return _ended(error)
    return code


def _ended(error: BaseException) -> int:
    from watchword import Unavailable  # noqa: PLC0415 - as late as the rest

    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, SystemExit) and not error.code:  # typer's own, after showing or installing a completion
        return OK
    if isinstance(error, BrokenPipeError | SystemExit):  # rich turns the first into the second
        _drop_output()
        return BROKEN_PIPE
    if isinstance(error, OSError):
        _drop_output()
        return _fail(f"{error.filename or 'standard input or output'}: {error.strerror}", WRONG_USE)
    return _fail(str(error), UNAVAILABLE if isinstance(error, Unavailable) else WRONG_USE)


def _drop_output() -> None:
    """Discard output buffered for a reader that has gone, or a full disk, so that it is not reported again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(line: str, code: int) -> int:
    from watchword_adapters.cli.terminal import one_line  # noqa: PLC0415 - as late as the rest

    sys.stderr.write(f"watchword: {one_line(line)}\n")
    return code
