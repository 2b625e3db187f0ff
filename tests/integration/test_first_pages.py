"""``docs/tutorial.md`` and ``docs/quickstart.md``, followed as a newcomer would: each command, each file, in order."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.pages import ROOT, Shown, files_on, shown_on
from tests.support.patience import PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("children_not_traced")]


@pytest.fixture
def environment() -> dict[str, str]:
    """Return what a shell in a newcomer's virtual environment has: ours has all that the pages install."""
    ours = ("WATCHWORD", "COVERAGE", "VIRTUAL_ENV", "PYTHON")
    named = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**named, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}


def run(step: Shown, folder: Path, environment: Mapping[str, str], names: Mapping[str, str]) -> None:
    """Type a command into a shell, and see that it prints what the page shows, and nothing else."""
    command = step.shell
    for ours, theirs in names.items():
        command = command.replace(ours, theirs)
    ended = subprocess.run(  # noqa: S602 - the page's own commands
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert step.prints(ended.stdout, names), f"{step.place}\n{ended.stdout}{ended.stderr}"
    rejected = any('"rejected"' in line for line in step.told)
    assert ended.returncode == (1 if rejected else 0), f"{step.place}\n{ended.stdout}{ended.stderr}"


def installs(step: Shown) -> bool:
    """Return True for a command that installs us; its extras must be some that there are."""
    found = re.fullmatch(r"pip install 'watchword\[([a-z,]+)\]'", step.shell)
    if found is None:
        return False
    text = (ROOT / "pyproject.toml").read_text()
    assert [extra for extra in found[1].split(",") if f"\n{extra} = [" not in text] == [], step.place
    return True


def test_the_tutorial_does_what_it_says(tmp_path: Path, environment: dict[str, str]) -> None:
    """Promise: typed from top to bottom, with the lines added that it says, the page shows what you see."""
    files = files_on("tutorial.md")
    steps = shown_on("tutorial.md")
    assert (len(steps) > 12, len(files)) == (True, 2)
    for step in steps:
        while files and files[0].line < step.line:
            files.pop(0).write(tmp_path, {})
        if not installs(step):
            run(step, tmp_path, environment, {})
    assert files == []


@contextmanager
def going(command: list[str], folder: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """Run a program that continues until it is interrupted; what it prints is in a file."""
    printed = folder / f"{command[-1]}.out"
    with (
        printed.open("w") as out,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out) as process,  # noqa: S603 - ours
    ):
        try:
            yield printed
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:  # a shell's background jobs, and what they start, ignore Control-C
                process.terminate()


def has_printed(printed: Path, pattern: str) -> None:
    """Wait until a program has printed a line."""
    deadline = time.monotonic() + PATIENCE
    while re.search(pattern, printed.read_text(), re.MULTILINE) is None:
        assert time.monotonic() < deadline, f"{pattern}\n{printed.read_text()}"
        time.sleep(0.02)  # nothing to wait on: another process writes a file


def test_the_quickstart_does_what_it_says(tmp_path: Path, environment: dict[str, str]) -> None:
    """Promise: in two terminals the signed message arrives, the stranger's does not, and the reader says why."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    names = {"localhost:4222": f"localhost:{port}"}
    *programs, told = files_on("quickstart.md")
    for file in programs:
        file.write(tmp_path, names)
    install, init, serve, read, *write = shown_on("quickstart.md")
    assert installs(install)
    run(init, tmp_path, environment, names)
    assert serve.shell == "nats-server --addr 127.0.0.1 --log nats.log &"
    server = ["nats-server", "--addr", "127.0.0.1", "--log", "nats.log", "--port", str(port)]
    with going(server, tmp_path, environment):
        has_printed_there = tmp_path / "nats.log"
        has_printed_there.touch()
        has_printed(has_printed_there, "Server is ready")
        with going(read.shell.split(), tmp_path, environment) as printed:
            has_printed(printed, f"^{read.told[0]}$")
            for step in write:
                run(step, tmp_path, environment, names)
            for line in told.text.splitlines():
                has_printed(printed, "^" + re.escape(line).replace(r"\.\.\.", ".*") + "$")
            assert "1000" not in printed.read_text()
