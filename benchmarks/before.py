"""Another tree of Watchword's, beside which the Python engine is measured: by default the last one without engines."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final
from zipfile import ZipFile

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE: Final = "WATCHWORD_BENCH_BEFORE"
"""Names the tree: a directory, or a revision of this checkout."""

DEFAULT: Final = "d70608b"
_CHECKOUT: Final = Path(__file__).parents[1]


class NoTreeError(Exception):
    """There is no such tree; the message says why."""


def named() -> str:
    """Return what tree is meant."""
    return os.environ.get(VARIABLE) or DEFAULT


@contextmanager
def tree() -> Iterator[Path]:
    """Yield the directory of that tree; a revision is unpacked for as long as that."""
    if (Path(named()) / "src" / "watchword").is_dir():
        yield Path(named()).resolve()
        return
    with TemporaryDirectory(prefix="watchword-bench-before-") as directory:
        archive = Path(directory, "tree.zip")
        git = (
            "git",
            "-C",
            str(_CHECKOUT),
            "archive",
            "--format=zip",
            f"--output={archive}",
            named(),
            "src",
            "adapters",
        )
        try:
            done = subprocess.run(git, capture_output=True, text=True, check=False)  # noqa: S603 - in our own checkout
        except OSError as error:
            raise NoTreeError(f"no git: {error}") from None
        if done.returncode:
            raise NoTreeError(done.stderr.strip().rpartition("\n")[2])
        with ZipFile(archive) as packed:
            packed.extractall(directory)
        yield Path(directory).resolve()
