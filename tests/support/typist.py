"""Types commands of ``watchword`` as a person would: each is a process of its own.

They are forks of one process that has imported everything, so that a page of commands is typed in seconds.
"""

import asyncio
import contextlib
import json
import os
import pty
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, Self

from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]
_COMMANDS = ("app", "control", "keys", "who", "tail", "quarantine", "policy", "keygen", "jwks", "init")
_CLIENTS = ("nats.control_log", "nats.presence", "nats.redrive", "nats.tail", "kafka.control_log", "kafka.presence")
_IMPORTED = (
    *(f"watchword_adapters.cli.{name}" for name in _COMMANDS),
    *(f"watchword_adapters.{name}" for name in (*_CLIENTS, "kafka.redrive", "kafka.tail")),
    "rich.console",
    "rich.table",
)


class Ended(NamedTuple):
    """How a command ended: its exit code, and what it printed."""

    code: int
    out: str
    err: str


class Typist:
    """Runs one command after the other; ``answer`` is what is typed when a command asks, at a terminal."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._process = process
        self._folder = folder

    @classmethod
    @contextlib.asynccontextmanager
    async def at_work(cls, folder: Path) -> AsyncIterator[Self]:
        """Start one, who notes what is printed in a folder; he ends with the block."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.typist", cwd=ROOT, stdin=PIPE, stdout=PIPE
        )
        try:
            yield cls(process, folder)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()

    async def type(self, *command: str, cwd: Path, answer: str | None = None) -> Ended:
        """Run a command; it must end within a minute."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        keyboard, terminal = pty.openpty()
        out, err = self._folder / "typed.out", self._folder / "typed.err"
        told = {"command": command, "cwd": str(cwd), "out": str(out), "err": str(err)}
        told["stdin"] = os.devnull if answer is None else os.ttyname(terminal)
        try:
            os.write(keyboard, (answer or "").encode())
            self._process.stdin.write(json.dumps(told).encode() + b"\n")
            async with asyncio.timeout(PATIENCE):
                code = int(await self._process.stdout.readline())
        finally:
            os.close(keyboard)
            os.close(terminal)
        return Ended(code, out.read_text(), err.read_text())


def main() -> None:
    """Run each command of standard input in a fork, and print its exit code."""
    for name in _IMPORTED:
        import_module(name)
    for line in sys.stdin:
        told = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(told)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _run(told: dict[str, str]) -> None:
    code = 70
    try:
        os.chdir(told["cwd"])
        written = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(told["stdin"], os.O_RDONLY), 0)
        os.dup2(os.open(told["out"], written), 1)
        os.dup2(os.open(told["err"], written), 2)
        code = import_module("watchword_adapters.cli").main(told["command"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
