"""Connection options of commands, from ``--servers`` or the settings, and explanations of clients' errors."""

from __future__ import annotations

import logging
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import ValidationError

from watchword import ConfigurationError, Unavailable, WatchwordError
from watchword.extras import what_to_install
from watchword.mistakes import explain
from watchword.settings import KafkaSettings, NatsSettings
from watchword_adapters.bus_options import kafka_options, nats_options

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping
    from pathlib import Path

    from watchword.settings import Settings
One = TypeVar("One")

_SOON: Final = {"allow_reconnect": False, "connect_timeout": 5, "max_reconnect_attempts": 1, "reconnect_time_wait": 0.2}
"""Options of nats-py with which a missing server is reported within seconds."""


def connection(bus: str, settings: Settings, directory: Path, servers: str | None) -> dict[str, Any]:
    """Return the options of a bus's client.

    ``servers``, addresses separated by commas, replaces the whole table, so that a login for one server is never sent
    to another. Without either, the default is a server on this machine.
    """
    told: dict[str, Any] = {} if servers is None else {"servers": addresses(bus, servers)}
    if bus == "kafka":
        kafka = settings.kafka if settings.kafka is not None and servers is None else KafkaSettings(**told)
        return kafka_options(kafka, directory)
    nats = settings.nats if settings.nats is not None and servers is None else NatsSettings(**told)
    return nats_options(nats, directory) | _SOON


def addresses(bus: str, servers: str) -> list[str]:
    """Return the addresses in ``--servers``; ConfigurationError for an invalid one."""
    parts = [one.strip() for one in servers.split(",")]
    try:
        return (KafkaSettings(servers=parts) if bus == "kafka" else NatsSettings(servers=parts)).servers
    except ValidationError as error:
        raise ConfigurationError(f"--servers: {explain(error).partition(': ')[2]}") from None


def silence() -> None:
    """Keep audit trail and clients' logs out of the output, which is for results."""
    logging.getLogger().addHandler(logging.NullHandler())


@contextmanager
def explained(what: str, options: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Raise a client's errors as ours: ``what`` does not respond, or an extra is not installed.

    ``options`` are the client's connection options, whose servers are named in the error.
    """
    try:
        yield
    except WatchwordError:
        raise
    except ModuleNotFoundError as error:
        line = what_to_install(error) or f"{error.name} is not installed: pip install {error.name}"
        raise ConfigurationError(line) from error
    except Exception as error:
        if hasattr(error, "rights"):  # NotAllowed, of a client that may not be installed
            raise ConfigurationError(str(error)) from error
        at = "" if options is None else f" (at {_servers(options)}; use --servers for another)"
        of_client = type(error).__module__.partition(".")[0] in {"aiokafka", "nats"}
        if of_client and "Authori" in type(error).__name__:
            raise ConfigurationError(f"the broker refuses this user: {_told(error)}{at}") from error
        if of_client or isinstance(error, OSError):  # includes TimeoutError
            raise Unavailable(what, f"{_told(error)}{at}") from error
        raise


def _servers(options: Mapping[str, Any]) -> str:
    return ", ".join(options["servers" if "servers" in options else "bootstrap_servers"])


def _told(error: Exception) -> str:
    """Return an error's name and text; some texts include the name already, and some errors have no text."""
    name, text = type(error).__name__, str(error)
    if not text:
        return f"{name}: no answer in time" if isinstance(error, TimeoutError) else name
    return text if name in text else f"{name}: {text}"


async def each_explained(
    what: str, found: AsyncGenerator[One], options: Mapping[str, Any] | None = None
) -> AsyncGenerator[One]:
    """Yield a client's results with its errors explained; errors of the consuming code are not affected."""
    async with aclosing(found):
        while True:
            with explained(what, options):
                try:
                    one = await anext(found)
                except StopAsyncIteration:
                    return
            yield one
