"""Which extra brings which library: an import that fails says what to type."""

from __future__ import annotations

from typing import Final

_EXTRAS: Final = {
    "aiokafka": "kafka",
    "faststream": "faststream",
    "nats": "nats",
    "pytest": "testing",
    "opentelemetry": "telemetry",
    "opentelemetry.exporter": "prometheus",
    "opentelemetry.sdk": "prometheus",
    "prometheus_client": "prometheus",
    "redis": "redis",
    "rich": "cli",
    "typer": "cli",
}


def what_to_install(error: ModuleNotFoundError) -> str | None:
    """Return a line that says how to install what could not be imported; None if no extra of ours brings it."""
    parts = (error.name or "").split(".")
    library = parts[0]
    extra = _EXTRAS.get(".".join(parts[:2])) or _EXTRAS.get(library)
    return extra and f"{library} is not installed: pip install 'watchword[{extra}]'"


def told(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Return the error to raise in its place from a front door; the same one if no extra of ours helps."""
    line = what_to_install(error)
    return error if line is None else ModuleNotFoundError(line, name=error.name)
