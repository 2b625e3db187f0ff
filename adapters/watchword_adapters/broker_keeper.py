"""Keeps a broker running for as long as its caller lives; a separate program, since a signal may kill the caller.

``python broker_keeper.py SECONDS DIRECTORY COMMAND...`` runs the command in the directory. When standard input ends,
because the caller closes it or has ended in any way, it ends the command, within ``SECONDS`` or by force, and removes
the directory. It uses the standard library only.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path


def main(seconds: float, directory: str, command: list[str]) -> None:
    """Run the command until standard input ends, or SIGTERM comes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with (Path(directory) / "broker.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603 - the caller's
    try:
        sys.stdin.buffer.read()
    finally:
        process.terminate()
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2], sys.argv[3:])
