"""Checks that each record in docs/decisions has a status and a date, and stands in the list: part of `make lint`."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[2] / "docs" / "decisions"
_HEAD: Final = re.compile(
    r"# (?P<number>\d{4}) (?P<title>.+)\n\n- Status: (?P<status>(?:accepted|replaced by \d{4}).*)\n"
    r"- Date: (?P<date>\d{4}-\d\d-\d\d)\n\n"
)


def faults(folder: Path = FOLDER) -> Iterator[str]:
    """Yield what is wrong, each with what to write."""
    listed = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    for path in sorted(folder.glob("[0-9]*.md")):
        head = _HEAD.match(path.read_text(encoding="utf-8"))
        if head is None or head["number"] != path.name[:4]:
            yield f"{path.name}: begin it with '# {path.name[:4]} Title', a blank line, '- Status: ...', '- Date: ...'"
            continue
        line = f"| [{head['number']}]({path.name}) | {head['title']} | {head['status']} | {head['date']} |"
        if line not in listed:
            yield f"README.md: add the line {line}"


def main() -> int:
    """Print what is wrong; return the exit code."""
    found = list(faults())
    for one in found:
        print(f"docs/decisions/{one}")  # noqa: T201 - a command
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
