import io
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.control.memory_log import CHANNEL, Entries, MemoryLog
from watchword_adapters.cli import main
from watchword_adapters.control import desk as desks

ONCALL, SEC, PLANNER = "agent://acme/oncall", "agent://acme/sec", "agent://acme/planner"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, object]]:
        """Return what was printed, one JSON object a line."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ended]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty directory, with no settings from outside."""
    for name in [name for name in os.environ if name.upper().startswith("WATCHWORD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a command with some standard input."""

    def run(*arguments: str, stdin: str | bytes = b"") -> Ended:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        code = main(arguments)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture
def config(run: Run, directory: Path) -> Path:
    """Return the settings of a planner that knows its own key."""
    assert run("keygen", "-p", PLANNER).code == 0
    assert run("jwks", "planner.jwk", "-o", "agents.jwks").code == 0
    path = directory / "watchword.toml"
    path.write_text(
        f"""realm = "prod"
principal = "{PLANNER}"
[signer]
key = "planner.pem"
[[keys]]
source = "files"
paths = ["agents.jwks"]
"""
    )
    return path


@pytest.fixture
def entries(run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Entries:
    """Return what the log keeps; two operators and an agent have keys and settings."""
    kept = Entries()
    kept.clock = time.time  # as the commands': what they say is never ahead, however long it takes
    monkeypatch.setattr("watchword_adapters.config._open_log", lambda agent, *_: MemoryLog(kept, agent))
    monkeypatch.setattr(desks, "TIMEOUT", 60.0)  # nothing ends by it but what never comes
    for name in ("oncall", "sec", "planner"):
        assert run("keygen", "-p", f"agent://acme/{name}").code == 0
    assert run("jwks", "oncall.jwk", "sec.jwk", "planner.jwk", "-o", "agents.jwks").code == 0
    for name in ("oncall", "sec", "planner"):
        (directory / f"{name}.toml").write_text(
            f"""realm = "prod"
principal = "agent://acme/{name}"
[signer]
key = "{name}.pem"
[[keys]]
source = "control"
[[keys]]
source = "files"
paths = ["agents.jwks"]
[policy]
contained = ["agent://acme/old"]
[control]
channel = "{CHANNEL.uri}"
[[control.operators]]
principal = "{ONCALL}"
may = ["key", "revoke", "contain", "release", "head"]
over = ["agent://acme/**"]
[[control.operators]]
principal = "{SEC}"
may = ["key", "revoke", "contain", "release", "head"]
over = ["**"]
"""
        )
    return kept
