"""Maps libraries to the extras that install them, so that a failed import says which command to run."""

from __future__ import annotations

from typing import Final

EXTRAS: Final = {
    "aiokafka": "kafka",
    "boto3": "kms",
    "botocore": "kms",
    "cbor2": "demo",
    "faststream": "faststream",
    "grpc": "spiffe",
    "httpx": "jwks",
    "nats": "nats",
    "nkeys": "nkeys",
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
    """Return a line that says how to install a missing library; None if no extra of ours installs it.

    ``extra`` names the extra to suggest instead, if the missing library alone does not show which one is needed.
    """
    parts = (error.name or "").split(".")
    library = parts[0]
    found = EXTRAS.get(".".join(parts[:2])) or EXTRAS.get(library)
    return found and f"{library} is not installed: pip install 'watchword[{extra or found}]'"


def told(error: ImportError, extra: str | None = None) -> ImportError:
    """Return the error that a public module raises instead of ``error``; the same one if no extra of ours helps.

    A library may raise its own error for a missing module, with the ModuleNotFoundError as its cause.
    """
    missing = error if isinstance(error, ModuleNotFoundError) else error.__cause__
    line = what_to_install(missing, extra) if isinstance(missing, ModuleNotFoundError) else None
    return error if line is None else ModuleNotFoundError(line, name=error.name)
