"""Home-made phrases and what to write instead: `python -m tests.style.idioms`, a part of `make lint`.

A phrase is looked for in code comments, docstrings, messages and pages alike, a line at a time. Folders that still have
to be cleaned of a phrase stand beside it; `--left` lists what is left there, and `--left --count` how much.
CONTRIBUTING.md has the style guide that these phrases stand for.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
KINDS: Final = frozenset({".py", ".md", ".go", ".rs", ".sh", ".toml", ".yaml", ".yml"})
NOT_OURS: Final = frozenset({"build", "target", "node_modules", "site"})
"""Folders of what tools have made; hidden ones are passed over too."""


@dataclass(frozen=True, slots=True)
class Idiom:
    """A phrase as a regular expression, what to write instead, and the folders that are not yet clean."""

    pattern: str
    instead: str
    left: tuple[str, ...] = ()


OTHERS: Final = ("src", "adapters", "docs", "benchmarks", "chaos", "interop", "native")
IDIOMS: Final = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """A phrase in a line."""

    file: str
    line: int
    phrase: str
    idiom: Idiom

    @property
    def is_left(self) -> bool:
        """Return True if the file's folder is known not to be clean of this phrase."""
        return self.file.startswith(tuple(f"{each}/" for each in self.idiom.left)) or self.file in self.idiom.left

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.phrase!r}: write {self.idiom.instead}"


def files(root: Path = ROOT) -> Iterator[Path]:
    """Yield the files that people write, without this one, which names the phrases."""
    for directory, folders, names in root.walk() if hasattr(root, "walk") else ():
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in NOT_OURS)
        for name in sorted(names):
            if Path(name).suffix in KINDS and directory / name != Path(__file__):
                yield directory / name
