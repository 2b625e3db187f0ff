"""From nothing but Python to the first verified message: the commands that README names, and how long they take."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("children_not_traced")

CHECKOUT = Path(__file__).parents[2]
LIMIT = 60.0
"""Seconds after the installation."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build what would be published."""
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, timeout=120)  # noqa: S603 - ours
    (found,) = directory.glob("*.whl")
    return found


@pytest.mark.needs_index
@pytest.mark.parametrize("bus", ["nats", "kafka"])
def test_a_newcomer_sees_a_verified_message_after_three_commands(
    wheel: Path, tmp_path: Path, bus: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In an empty folder, with a fresh Python, a minute after the installation, without a broker to connect to."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=120)  # noqa: S603 - ours
    folder = tmp_path / "folder"
    folder.mkdir()
    binaries = tmp_path / "venv" / "bin"
    ours = ("PYTHON", "WATCHWORD", "COVERAGE", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment["PATH"] = f"{binaries}{os.pathsep}{environment['PATH']}"
    extras = f"[{bus},cli,brokers]"
    commands = (
        f"pip install --quiet --disable-pip-version-check '{wheel}{extras}'",
        f"watchword init --realm demo --principal agent://acme/planner --bus {bus}",
        "python first.py",
    )
    told, seconds = "", []
    for command in commands:
        begun = time.monotonic()
        ended = subprocess.run(  # noqa: S603 - ours
            [_program(command, binaries), *shlex.split(command)[1:]],
            cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        seconds.append(time.monotonic() - begun)
        assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
        told = ended.stdout
    assert "verified: agent://acme/planner wrote 'start 1 instance' on first.tasks\n" in told
    assert "1000" not in told
    with capsys.disabled():
        for command, took in zip(commands, seconds, strict=True):
            shown = command.replace(f"{wheel}", "watchword").replace("--quiet --disable-pip-version-check ", "")
            sys.stdout.write(f"\n{took:6.1f} s  $ {shown}")
        sys.stdout.write(f"\n{sum(seconds[1:]):6.1f} s after the installation, on {bus}\n")
    assert sum(seconds[1:]) < LIMIT


def _program(command: str, binaries: Path) -> str:
    """Return the program of a command in the new environment."""
    return str(binaries / shlex.split(command)[0])
