"""The command ``watchword``; ``docs/cli.md`` describes it."""

from __future__ import annotations

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

BROKEN_PIPE: Final = 141
"""Whoever read the output has gone; as a shell reports it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (``sys.argv`` by default) and return its exit code; an error is one line on stderr."""
    try:
        from watchword_adapters.cli.app import app  # noqa: PLC0415 - what it needs comes with an extra
    except ModuleNotFoundError as error:
        if error.name not in {"rich", "typer"}:
            raise
        return _fail("the command line needs an extra: pip install 'watchword[cli]'", WRONG_USE)
    from watchword import Unavailable, WatchwordError  # noqa: PLC0415 - as late as what is above

    code: object = OK
    try:
        app(args=None if arguments is None else list(arguments), prog_name="watchword")
    except SystemExit as end:
        code = end.code
    except Unavailable as error:
        return _fail(str(error), UNAVAILABLE)
    except WatchwordError as error:
        return _fail(str(error), WRONG_USE)
    return code if isinstance(code, int) else OK


def _fail(line: str, code: int) -> int:
    from watchword_adapters.cli.text import one_line  # noqa: PLC0415 - as late as the rest

    sys.stderr.write(f"watchword: {one_line(line)}\n")
    return code
