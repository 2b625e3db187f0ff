"""``watchword bench``: runs the benchmarks, which are in the source checkout."""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from watchword import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NEEDED: Final = ("aiokafka", "celery", "cwt", "joserfc", "matplotlib", "nacl", "nats", "redis", "standardwebhooks")


def run_bench(parts: Sequence[str], *, small: bool, output: Path | None, addresses: Mapping[str, str | None]) -> None:
    """Measure and report; ConfigurationError if the extra or a broker is missing."""
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ConfigurationError(
            f"the benchmarks need an extra ({', '.join(missing)} missing): pip install 'watchword[bench]'"
        )
    # Either signal ends the brokers and processes that were started, and asyncio between two steps of its loop.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    benchmarks = _benchmarks()
    reports = Path("build/reports") / ("small" if small else "") if output is None else output

    def say(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    benchmarks.run(parts, benchmarks.Options(reports=reports, small=small, addresses=addresses, say=say))


def _benchmarks() -> Any:
    """Import the runner from this checkout."""
    checkout = Path(__file__).parents[3]
    if not (checkout / "benchmarks" / "run.py").is_file():
        raise ConfigurationError("the benchmarks come with the source only: clone it, and run make bench")
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    return import_module("benchmarks.run")
