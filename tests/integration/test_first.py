"""The first example of ``watchword init --bus``, as a newcomer runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("children_not_traced")

SAID = "verified: agent://acme/planner wrote 'start 1 instance' on first.tasks\n"


def _run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=PATIENCE, check=True)  # noqa: S603 - ours


def _init(directory: Path, *options: str) -> None:
    _run(directory, "-m", "watchword_adapters.cli", "init", "-r", "demo", "-p", "agent://acme/planner", *options)


@pytest.mark.parametrize("bus", ["nats", "kafka"])
def test_the_first_example_prints_what_verifies(tmp_path: Path, bus: str) -> None:
    """With a broker of its own it prints the signed message and not the stranger's, at once and again."""
    _init(tmp_path, "--bus", bus)
    for program in (("first.py",), ("-m", f"watchword_adapters.first.{bus}")):
        assert [line for line in _run(tmp_path, *program).stdout.splitlines(keepends=True) if "instance'" in line] == [
            SAID
        ]


@pytest.mark.parametrize("bus", ["nats", "kafka"])
def test_the_first_example_passes_no_argument_over(tmp_path: Path, bus: str) -> None:
    """An option of another command is refused in one line, which names the command to use, and nothing runs."""
    command = [sys.executable, "-m", f"watchword_adapters.first.{bus}", "--servers", "localhost"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)  # noqa: S603 - ours
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert f"takes no arguments: for your own {'server' if bus == 'nats' else 'broker'}, watchword init" in ended.stderr


def test_the_first_example_on_a_nats_server_of_ones_own(tmp_path: Path, nats_url: str) -> None:
    """A server that was named is the one that is used."""
    _init(tmp_path, "--bus", "nats", "--servers", nats_url)
    assert SAID in _run(tmp_path, "first.py").stdout


def test_the_first_example_on_a_kafka_broker_of_ones_own(tmp_path: Path, kafka_bootstrap: str) -> None:
    """It works where the topic is there already, too."""
    _init(tmp_path, "--bus", "kafka", "--servers", kafka_bootstrap)
    for _ in range(2):
        assert SAID in _run(tmp_path, "first.py").stdout
