"""Pages of the documentation whose commands are typed in a test: each command of a page, and what it is to print."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"^```[a-z]+ title=\"(added to )?([^\"]+)\"\n(.*?)^```", re.DOTALL | re.MULTILINE)
_VARIES = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"), r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"),
    (re.compile(r"\.\.\."), ".*"),
    (re.compile(r"(?<![\w.-])\d+(\.\d+)?(?![\w.-])"), r"\d+(\.\d+)?"),
)
"""What is another one each time: times of day; what the page leaves out; numbers that stand alone."""


@dataclass(frozen=True)
class Shown:
    """A command as a page shows it, and the lines below it."""

    page: str
    line: int
    text: str
    told: tuple[str, ...]
    shell: str = ""
    """The command with what only a shell understands: pipes, redirections, ``&``."""

    @property
    def place(self) -> str:
        """Where it stands, for an error."""
        return f"{self.page}:{self.line}: {self.text}"

    def words(self, names: Mapping[str, str]) -> list[str]:
        """Return the words that a shell makes of it, with other names."""
        return shlex.split(renamed(self.text, names))

    def prints(self, printed: str, names: Mapping[str, str]) -> bool:
        """Return True if this was printed, where the page shows anything; a line of three dots stands for any lines."""
        pattern = "".join(
            r"(?:.*\n)*" if line == "..." else f"{_pattern(renamed(line, names))}\n" for line in self.told
        )
        return not self.told or re.fullmatch(pattern, printed) is not None


def shown_on(page: str) -> list[Shown]:
    """Return the commands of a page under ``docs``, in order, comments left out."""
    text = (ROOT / "docs" / page).read_text()
    found: list[Shown] = []
    for block in _BLOCK.finditer(text):
        begins = text[: block.start()].count("\n") + 2
        for number, line in enumerate(block[1].splitlines(), begins):
            if line.startswith("$ "):
                words = shlex.split(line[2:], comments=True)
                found.append(Shown(page, number, shlex.join(words), (), line[2:]))
            else:
                assert found, f"{page}:{number}: printed before any command"
                last = found.pop()
                found.append(replace(last, told=(*last.told, line)))
    return found


@dataclass(frozen=True)
class File:
    """A file that a page tells its reader to write, or what is to be added to one."""

    line: int
    name: str
    text: str
    added: bool

    def write(self, folder: Path, names: Mapping[str, str]) -> None:
        """Write it into a folder, with other names."""
        with (folder / self.name).open("a" if self.added else "w") as file:
            file.write(("\n" if self.added else "") + renamed(self.text, names))


def files_on(page: str) -> list[File]:
    """Return the files of a page under ``docs``, in order: blocks of code that have a title."""
    text = (ROOT / "docs" / page).read_text()
    return [
        File(text[: block.start()].count("\n") + 1, block[2], block[3], added=block[1] is not None)
        for block in _FILE.finditer(text)
    ]


def renamed(text: str, names: Mapping[str, str]) -> str:
    """Return a text with other names, longer ones first."""
    if not names:
        return text
    any_of = re.compile("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)))
    return any_of.sub(lambda found: names[found[0]], text)


def _pattern(line: str) -> str:
    """Return a regular expression for a line."""
    parts: Sequence[str] = [line]
    for varies, pattern in _VARIES:
        parts = [piece for part in parts for piece in (_split(part, varies, pattern) if part[:1] != "\0" else [part])]
    return "".join(part[1:] if part[:1] == "\0" else re.escape(part) for part in parts)


def _split(text: str, varies: re.Pattern[str], pattern: str) -> list[str]:
    """Part a text at what varies, which is marked as a pattern."""
    pieces, at = [], 0
    for found in varies.finditer(text):
        pieces += [text[at : found.start()], f"\0{pattern}"]
        at = found.end()
    return [*pieces, text[at:]]
