"""The programs under ``examples`` do what they say, each in a process of its own."""

import subprocess
import sys
from pathlib import Path
from shutil import copy

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> list[str]:
    """Run one to its end; return the lines that it prints."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)  # noqa: S603 - our own
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_planner_and_controller_on_nats(nats_url: str) -> None:
    """One request is answered; what the attacker invents or sends again is not."""
    assert run("nats_planner_and_controller.py", nats_url) == [
        "controller: agent://acme/planner wants 3 of web",
        "planner: agent://acme/controller answered 'done'",
        "controller: delivered 1, unsigned 1, replayed 1",
    ]


def test_a_group_on_kafka(kafka_bootstrap: str) -> None:
    """Every task is handled once, before and after a member left, and no copy is."""
    assert run("kafka_group.py", kafka_bootstrap) == ["40 of 40 tasks handled, 0 twice; copies were dropped: True"]


def test_a_key_source_of_ones_own() -> None:
    """An agent in the table is heard, one that is not there is unknown."""
    assert run("own_key_source.py") == [
        "agent://acme/planner says b'scale up'",
        "agent://acme/stranger is unknown_key",
    ]


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_a_handler_without_a_broker(tmp_path: Path, mode: str) -> None:
    """What the page on tests shows passes as it stands, whatever pytest's settings say of coroutines."""
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nasyncio_mode = {mode}\n")
    copied = copy(EXAMPLES / "test_a_handler.py", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(copied)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603 - our own
    assert "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_example_is_run_by_a_test(name: str) -> None:
    """One that nobody runs would soon show what no longer works."""
    tests = [path.read_text() for path in Path(__file__).parent.rglob("test_example*.py")]
    assert any(f'"{name}"' in text for text in tests)
