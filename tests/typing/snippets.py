"""The pieces of Python in the documentation, as programs: each is checked by both type checkers, and run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_ELSEWHERE = "opentelemetry.instrumentation"
"""What a reader has who needs it: its own packages pin others than ours do."""

_BLOCK = re.compile(r"^```(python|diff)\n(.*?)^```", re.DOTALL | re.MULTILINE)

CONTEXT = '''\
"""What the documentation takes for granted: a program that has what its reader's program has."""

import json
from typing import Any, Protocol

from watchword import Watchword
from watchword.kafka import SigningProducer, VerifyingConsumer
from watchword.nats import WatchwordClient

__all__ = ["Handle", "SigningProducer", "VerifyingConsumer", "Watchword", "WatchwordClient"]


class Handle(Protocol):
    """The reader's own function, which acts on what came."""

    async def __call__(self, value: object, *, author: str = ...) -> None: ...


def encode(value: object) -> bytes:
    """Serialize."""
    return json.dumps(value).encode()


def decode(value: bytes | None) -> Any:
    """Deserialize."""
    return None if value is None else json.loads(value)
'''
"""Module ``context`` beside the snippets."""

_NAMES = {
    "agent": "Watchword",
    "producer": "SigningProducer",
    "consumer": "VerifyingConsumer",
    "client": "WatchwordClient",
    "handle": "Handle",
    "BROKERS": "str",
    "SERVERS": "str",
    "group_id": "str",
}


@dataclass(frozen=True)
class Snippet:
    """One piece of Python; ``source`` is what the reader would have in the end."""

    page: str
    line: int
    source: str

    @property
    def name(self) -> str:
        """Its place."""
        return f"{self.page}:{self.line}"

    @property
    def arguments(self) -> list[str]:
        """The names that it takes for granted."""
        return [name for name in _NAMES if self._mentions(name) and not self._makes(name)]

    @property
    def program(self) -> str:
        """A module with one coroutine function, ``main``, that does what the snippet does."""
        typed = ", ".join(f"{name}: {_NAMES[name]}" for name in self.arguments)
        kinds = {_NAMES[name] for name in self.arguments} - {"str"}
        helpers = {name for name in ("encode", "decode") if self._mentions(name)}
        head = f"from context import {', '.join(sorted(kinds | helpers))}\n\n\n" if kinds | helpers else ""
        return f"{head}async def main({typed}) -> None:\n{indent(self.source, '    ')}"

    def _mentions(self, name: str) -> bool:
        return re.search(rf"(?<![.\w]){name}\b(?!=)", self.source) is not None

    def _makes(self, name: str) -> bool:
        return re.search(rf"^ *{name} =|\bas {name}\b|\bdef {name}\(", self.source, re.MULTILINE) is not None


def snippets() -> list[Snippet]:
    """Return all that the documentation has; of a diff, what stands there afterwards."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in _BLOCK.finditer(text):
            lines = match[2].splitlines()
            if match[1] == "diff":
                lines = [line[1:] for line in lines if not line.startswith("-")]
            if _ELSEWHERE in match[2]:
                continue
            line = text[: match.start()].count("\n") + 1
            found.append(Snippet(str(page.relative_to(ROOT)), line, "\n".join(lines) + "\n"))
    return found
