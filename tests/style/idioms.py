"""Home-made phrases and what to write instead: `python -m tests.style.idioms`, a part of `make lint`.

A phrase is looked for line by line in code, comments, messages and pages alike. Each phrase names the folders that have
not been cleaned of it yet, and files that quote a message with it; `--left` lists the lines there and counts them.
CONTRIBUTING.md has the style guide.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
KINDS: Final = frozenset({".py", ".pyi", ".md", ".go", ".rs", ".sh", ".toml", ".yaml", ".yml"})
GENERATED: Final = frozenset({"build", "dist", "target", "__pycache__"})
"""Folders that tools write; hidden ones are skipped as well."""

_TITLE: Final = ("docs/decisions/0006-a-store-that-forgot-is-born-anew.md", "docs/decisions/README.md")
"""Where a record's title has it."""


@dataclass(frozen=True, slots=True)
class Idiom:
    """A phrase as a regular expression, what to write instead, and where it may still stand."""

    pattern: str
    instead: str
    left: tuple[str, ...] = ()


IDIOMS: Final = (
    Idiom(r"Tell whether", '"Return True if"'),
    Idiom(
        r"(?<![Tt]here )\bis none\b(?! of)",
        'what it is: "is invalid", "is not a key"',
    ),
    Idiom(
        r"\banew\b",
        '"again", "recreate", "start over"',
        _TITLE,
    ),
    Idiom(
        r"\b(?i:whoever)\b",
        'who it is: "anyone who", "a publisher"',
    ),
    Idiom(r"\bso that (it|they|he|she|we) be\b", '"so that it is"'),
    Idiom(r"\b(to|can|could|cannot) be had\b", '"available"'),
    Idiom(r"\bof one's own\b", 'whose it is: "your own", "a custom"'),
    Idiom(r"\b(there|here|where|what)(by|of|upon|to|after|in)\b", "a word of today"),
    Idiom(r"\bfor ever\b", '"forever"'),
    Idiom(r"\b(?:driven?|driving) again\b", '"redrive"'),
    Idiom(r"\bheld against\b", '"compared with", "checked against"'),
    Idiom(r"\b[Gg]o(es)? round\b", '"bypass"'),
    Idiom(r"\bheed(s|ed)?\b", '"obey", "notice"'),
    Idiom(r"\b(is|are|was|were) told\b(?! apart| from)", 'who learns it: "sees", "gets", "reports"'),
    Idiom(r"\b([Aa]ny|[Ss]ome)body\b", '"anyone", "someone", or who it is'),
    Idiom(r"\bof his own\b", 'whose it is: "its own", "another"'),
    Idiom(r"\b(told|tells) of\b", '"learns of", "reports"'),
    Idiom(r"\bthe very\b", '"the same", "exactly the"'),
    Idiom(r"\b(goes|went) on\b", '"continues"'),
    Idiom(r"\bsends us on\b", '"redirects"'),
    Idiom(r"\bdearest\b", '"most expensive", "slowest"'),
    Idiom(r"\bin the manner of\b", '"in the style of", "like"'),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A phrase in a line of a file."""

    file: str
    line: int
    phrase: str
    idiom: Idiom

    @property
    def is_left(self) -> bool:
        """Return True if the phrase may still stand there."""
        return any(self.file == place or self.file.startswith(f"{place}/") for place in self.idiom.left)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.phrase!r}: write {self.idiom.instead}"


def files(root: Path = ROOT) -> Iterator[Path]:
    """Yield the files that people write, apart from this folder, which names the phrases."""
    for path in sorted(root.iterdir()):
        if path.name.startswith(".") or path.name in GENERATED or path == Path(__file__).parent:
            continue
        if path.is_dir():
            yield from files(path)
        elif path.suffix in KINDS or path.name == "Makefile":
            yield path


def findings(root: Path = ROOT, idioms: Sequence[Idiom] = IDIOMS) -> Iterator[Finding]:
    """Yield every phrase in every line, those in places that may still have it too."""
    each = [(re.compile(idiom.pattern), idiom) for idiom in idioms]
    for path in files(root):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            for pattern, idiom in each:
                if found := pattern.search(line):
                    yield Finding(path.relative_to(root).as_posix(), number, found[0], idiom)


def main(arguments: Sequence[str]) -> int:
    """Print what has to change, or what is ``--left``; return the exit code."""
    left = "--left" in arguments
    found = [one for one in findings() if one.is_left is left]
    for one in found:
        print(one)  # noqa: T201 - a command
    if left:
        counts = Counter((one.idiom.pattern, one.file.split("/")[0]) for one in found)
        for (phrase, folder), count in sorted(counts.items()):
            print(f"{count:5} {folder:14} {phrase}")  # noqa: T201 - as above
    return 0 if left else bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
