"""The report: ``bench.json`` holds every figure; a run of some parts keeps those of the others."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .figures import METHOD
from .stages import engine_name

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME: Final = "bench.json"
FORMAT: Final = 2
"""What is written otherwise is not added to, but started over."""

OWN_FILES: Final = ("memory", "stores", "ready", "starts")
"""Parts whose figures are in a file of their own as well."""

_SHARED: Final = ("ratios", "latency_us", "brokers", "parts")
"""What several parts fill."""

_PACKAGES: Final = (
    "watchword",
    "watchword-native",
    "cryptography",
    "cbor2",
    "aiokafka",
    "nats-py",
    "redis",
    "celery",
    "cwt",
    "joserfc",
    "PyNaCl",
    "standardwebhooks",
)


class Report:
    """What has been measured so far; it is written after every part."""

    def __init__(self, directory: Path) -> None:
        self.path: Final = directory / NAME
        self._directory = directory
        try:
            self.content: dict[str, Any] = json.loads(self.path.read_text())
        except (OSError, ValueError):
            self.content = {}
        if self.content.get("format") != FORMAT:
            self.content = {"format": FORMAT}

    def add(self, part: str, found: Mapping[str, Any], *, small: bool, seconds: float) -> None:
        """Put in what a part found, with when and on what it was found, and write.

        A ratio that is None could not be found this time, and is in the report no more.
        """
        machine = machine_here()
        about = {"when": f"{datetime.now(tz=UTC):%Y-%m-%d %H:%M} UTC", "small": small, "seconds": round(seconds, 1)}
        news = {**found, "parts": {part: about | {"machine": machine, "engine": engine_name()}}}
        self.content |= {"machine": machine, "engine": engine_name(), "versions": versions(), "method": METHOD}
        for name, value in news.items():
            self.content[name] = {**self.content.get(name, {}), **value} if name in _SHARED else value
        ratios = self.content.get("ratios", {})
        for name in [name for name, ratio in ratios.items() if ratio is None]:
            del ratios[name]
        self._write(self.path, self.content)
        if part in OWN_FILES:
            self._write(self._directory / f"{part}.json", {"machine": machine | versions(), **found[part]})

    def _write(self, path: Path, content: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")


def machine_here() -> dict[str, Any]:
    """Describe this machine."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.platform(terse=True),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def versions() -> dict[str, str]:
    """Name the version of everything that is measured."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
