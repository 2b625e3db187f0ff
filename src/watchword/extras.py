"""Which extra brings which library: an import that fails says what to type."""

from __future__ import annotations

from typing import Final

_EXTRAS: Final = {
    "aiokafka": "kafka",
    "boto3": "kms",
    "botocore": "kms",
    "cbor2": "demo",
    "faststream": "faststream",
    "grpc": "spiffe",
    "httpx": "jwks",
    "nats": "nats",
    "pkcs11": "pkcs11",
    "pytest": "testing",
    "opentelemetry": "telemetry",
    "opentelemetry.exporter": "prometheus",
    "opentelemetry.sdk": "prometheus",
    "prometheus_client": "prometheus",
    "redis": "redis",
    "rfc8785": "a2a",
    "rich": "cli",
    "spiffe": "spiffe",
    "typer": "cli",
}


def what_to_install(error: ModuleNotFoundError, extra: str | None = None) -> str | None:
    """Return a line that says how to install what could not be imported; None if no extra of ours brings it.

    ``extra`` is the one that brings all of what was asked for, where the missing library alone would not tell.
    """
    parts = (error.name or "").split(".")
    library = parts[0]
    found = _EXTRAS.get(".".join(parts[:2])) or _EXTRAS.get(library)
    return found and f"{library} is not installed: pip install 'watchword[{extra or found}]'"


def told(error: ImportError, extra: str | None = None) -> ImportError:
    """Return the error to raise in its place from a front door; the same one if no extra of ours helps.

    A library may have an error of its own for what is missing: then that stands behind it, as its cause.
    """
    missing = error if isinstance(error, ModuleNotFoundError) else error.__cause__
    line = what_to_install(missing, extra) if isinstance(missing, ModuleNotFoundError) else None
    return error if line is None else ModuleNotFoundError(line, name=error.name)
