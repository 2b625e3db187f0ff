"""Brokers as child processes."""

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class Process:
    """A child process that writes its output to `broker.log` in a directory of its own."""

    def __init__(
        self, command: Sequence[str], *, directory: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = list(command)
        self._directory = directory
        # A broker is configured by what is passed here, not by what the caller's shell happens to export.
        self._environment = {"PATH": os.environ["PATH"], **(environment or {})}
        self._child = self._start()

    def log(self) -> str:
        """Return what all starts of the process have printed."""
        return (self._directory / "broker.log").read_text(errors="replace")

    def running(self) -> bool:
        """Return True if the process is running."""
        return self._child.poll() is None

    def pause(self) -> None:
        """Freeze the process."""
        self._child.send_signal(signal.SIGSTOP)

    def unpause(self) -> None:
        """Let the process run on."""
        self._child.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """End the process and start the same command again."""
        self.stop()
        self._child = self._start()

    def stop(self) -> None:
        """Ask the process to end, and kill it if it does not."""
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGCONT)
            self._child.terminate()
        try:
            self._child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        with (self._directory / "broker.log").open("ab") as log:
            # A session of its own, so that Ctrl-C reaches the tests first and they can stop the broker in order.
            return subprocess.Popen(  # noqa: S603  (the command is ours)
                self._command,
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def free_port() -> int:
    """Return a port of the loopback address that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
