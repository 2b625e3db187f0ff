"""Processes of a run: the driver tells them what to do on their standard input, they answer on standard output."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from chaos.plan import Plan

ROOT: Final = Path(__file__).parents[1]
_END_SECONDS: Final = 20.0


class EndedError(Exception):
    """A process that should live has ended; the message has its last lines."""


class Child:
    """One process, as the driver sees it; ``name`` is that of its log file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.name = name
        self._process = process
        self._errors = errors
        self._answers: asyncio.Queue[str] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, role: str, plan: Plan, name: str) -> Self:
        """Start ``python -m chaos.<role>``."""
        errors = Path(plan.directory, f"{name}.log")
        with errors.open("ab") as log:  # noqa: ASYNC230 - a file that is there at once
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"chaos.{role}",
                str(Path(plan.directory, "plan.json")),
                name,
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the driver, which ends its processes in order
            )
        return cls(name, process, errors)

    def say(self, *words: object) -> None:
        """Tell the process something; harmless if it has ended."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.write((" ".join(map(str, words)) + "\n").encode())  # type: ignore[union-attr] # a pipe

    async def answer(self, seconds: float) -> str:
        """Wait for the next line that the process writes."""
        async with asyncio.timeout(seconds):
            line = await self._answers.get()
        if not line:
            self._answers.put_nowait("")
            raise EndedError(f"{self.name} ended ({self._process.returncode}):\n{self._tail()}")
        return line

    @property
    def said(self) -> bool:
        """Whether an answer waits."""
        return not self._answers.empty()

    async def kill(self) -> bool:
        """Kill -9; True if that is what ended it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await asyncio.gather(self._reading, return_exceptions=True)
        return await self._process.wait() == -signal.SIGKILL

    async def end(self) -> None:
        """Ask the process to end, and see that it does so well."""
        self.say("stop")
        try:
            async with asyncio.timeout(_END_SECONDS):
                code = await self._process.wait()
        except TimeoutError:
            await self.kill()
            raise EndedError(f"{self.name} does not end:\n{self._tail()}") from None
        if code:
            raise EndedError(f"{self.name} ended with {code}:\n{self._tail()}")

    def _tail(self) -> str:
        return "\n".join(self._errors.read_text(errors="replace").splitlines()[-15:])

    async def _read(self) -> None:
        async for line in self._process.stdout:  # type: ignore[union-attr] # a pipe
            self._answers.put_nowait(line.decode().strip())
        self._answers.put_nowait("")


def tell(*words: object) -> None:
    """Answer the driver."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def commands() -> AsyncIterator[list[str]]:
    """Yield what the driver says until "stop", or until there is no driver any more."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        words = line.decode().split()
        if words == ["stop"]:
            return
        yield words


async def beside(work: Coroutine[object, object, None], until: Coroutine[object, object, None]) -> None:
    """Run ``work`` until ``until`` is done; work that fails before ends the process with its error."""
    tasks = [asyncio.create_task(work), asyncio.create_task(until)]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for task in done:
        task.result()


def run(main: Coroutine[object, object, None]) -> None:
    """Run a role; what the product logs goes to the process's log file."""
    logging.basicConfig()
    logging.getLogger("watchword").setLevel(logging.INFO)
    asyncio.run(main)
