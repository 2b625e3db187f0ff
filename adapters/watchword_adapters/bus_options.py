"""Turns ``[nats]`` and ``[kafka]`` into connection options of their clients; imports no client."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from watchword import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from watchword.settings import KafkaSettings, NatsSettings, TlsSettings


def nats_options(settings: NatsSettings, directory: Path) -> dict[str, Any]:
    """Return ``servers`` and further options of nats-py; relative paths start from ``directory``.

    ConfigurationError for a missing or malformed file.
    """
    options: dict[str, Any] = {"servers": list(settings.servers)}
    if settings.tls is not None:
        options["tls"] = _context("nats.tls", settings.tls, directory)
    if settings.inbox_prefix is not None:
        options["inbox_prefix"] = settings.inbox_prefix
    if settings.credentials is not None:
        path = directory / settings.credentials
        if not path.is_file():
            raise ConfigurationError(f"nats: credentials: {path} is not a file: write this user's .creds file")
        options["user_credentials"] = str(path)
    if settings.user is not None and settings.password is not None:
        options |= {"user": settings.user, "password": settings.password.get_secret_value()}
    if settings.token is not None:
        options["token"] = settings.token.get_secret_value()
    return options


def kafka_options(settings: KafkaSettings, directory: Path) -> dict[str, Any]:
    """Return ``bootstrap_servers`` and further options of aiokafka; otherwise like ``nats_options``."""
    options: dict[str, Any] = {"bootstrap_servers": list(settings.servers)}
    if settings.tls is not None:
        options["ssl_context"] = _context("kafka.tls", settings.tls, directory)
    if settings.user is not None and settings.password is not None:
        options |= {
            "sasl_mechanism": settings.mechanism,
            "sasl_plain_username": settings.user,
            "sasl_plain_password": settings.password.get_secret_value(),
        }
    protocols = ("PLAINTEXT", "SASL_PLAINTEXT"), ("SSL", "SASL_SSL")
    options["security_protocol"] = protocols[settings.tls is not None][settings.user is not None]
    return options


def _context(table: str, settings: TlsSettings, directory: Path) -> ssl.SSLContext:
    name = "ca"
    try:
        context = ssl.create_default_context(cafile=None if settings.ca is None else directory / settings.ca)
        if settings.cert is not None and settings.key is not None:
            name = "cert and key"
            # An encrypted key would prompt for its passphrase on the terminal, or hang.
            context.load_cert_chain(directory / settings.cert, directory / settings.key, password="")
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        reason = "not in PEM, or not a pair" if isinstance(error, ssl.SSLError) else getattr(error, "strerror", error)
        raise ConfigurationError(f"{table}: {name}: {reason}: write PEM files, with an unencrypted key") from None
    return context
