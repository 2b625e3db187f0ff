"""Runs the suites in two processes side by side: what needs processors, and what waits for brokers.

`python -m tests.side_by_side` prints the output of the suites that need brokers as it comes, and that of the others as
a whole; its last lines say what was tested on. It ends with an exit code that is not 0 if either of them does.
"""

import subprocess
import sys
from pathlib import Path

WITHOUT_BROKERS = ("tests/unit", "tests/properties", "tests/vectors", "tests/attacks/core", "tests/typing")


def start(*arguments: str) -> subprocess.Popen[str]:
    """Run pytest, and measure what it covers."""
    command = [sys.executable, "-m", "coverage", "run", "-m", "pytest", *arguments]
    root = Path(__file__).parent.parent
    return subprocess.Popen(  # noqa: S603 - our own tests
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def main() -> int:
    """Run both, and wait for both."""
    others = start(*WITHOUT_BROKERS)
    on_brokers = start(*(f"--ignore={path}" for path in WITHOUT_BROKERS))
    assert on_brokers.stdout is not None
    told: list[str] = []
    for line in on_brokers.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        told += [line] if line.startswith("brokers: ") else []
    sys.stdout.write(f"\n==> the suites without brokers\n{others.communicate()[0]}\n{''.join(told)}")
    return on_brokers.wait() or others.returncode


if __name__ == "__main__":
    sys.exit(main())
