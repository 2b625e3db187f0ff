"""Reads ``watchword.toml`` and the environment; every mistake becomes a one-line error that says what to write."""

from __future__ import annotations

import os
import re
import tomllib
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from watchword import ConfigurationError
from watchword.mistakes import Location, explain, fields_at
from watchword.settings import Settings
from watchword_adapters.regular_file import open_regular, without_mark

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PREFIX: Final = "WATCHWORD_"
DELIMITER: Final = "__"
MAX_FILE_BYTES: Final = 8 * 1024 * 1024
"""Enough for tens of thousands of rules; such a file takes seconds to read."""

_SECTIONS: Final = ("policy", "quarantine", "replay", "signer", "nats", "kafka", "telemetry")
_SIMILAR: Final = 0.75

SERVICE_VARIABLE: Final = re.compile(
    r"_(?:(?P<host>SERVICE_HOST|PORT_\d+_(?:TCP|UDP|SCTP)_ADDR)|(?P<port>SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_\d+_(?:TCP|UDP|SCTP)_PORT)"
    r"|(?P<url>PORT(?:_\d+_(?:TCP|UDP|SCTP))?)|(?P<protocol>PORT_\d+_(?:TCP|UDP|SCTP)_PROTO))$"
)
"""Suffixes of the variables that Kubernetes sets for each service, by the kind of value."""

_SERVICE_VALUES: Final = {
    "host": re.compile(r"[0-9A-Fa-f.:]+"),
    "port": re.compile(r"\d{1,5}"),
    "url": re.compile(r"(?:tcp|udp|sctp)://[0-9A-Fa-f.:\[\]]+"),
    "protocol": re.compile(r"tcp|udp|sctp"),
}


class _Environment(Settings, BaseSettings):
    """The same settings, read from environment variables; lists stay text until they are validated."""

    model_config = SettingsConfigDict(
        extra="forbid", env_prefix=PREFIX, env_nested_delimiter=DELIMITER, enable_decoding=False
    )


def read_settings(path: Path) -> Settings:
    """Return the settings of a file, overridden by the environment; ConfigurationError names the first mistake.

    A value's variable is ``WATCHWORD_`` and its name, such as ``WATCHWORD_REALM`` or ``WATCHWORD_POLICY__MAX_AGE``;
    lists are written as JSON.
    """
    return settings_of(read_text(path), path)


def settings_of(data: bytes, path: Path) -> Settings:
    """As ``read_settings``, from the file's text."""
    merged = _merge(_parsed(data, path), _environment())
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {explain(error, Settings, origin=_variable)}") from None


def read_text(path: Path) -> bytes:
    """Return the text of a settings file; ConfigurationError if it cannot be read."""
    try:
        with open_regular(path) as (file, _):
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"settings file {path}: {error.strerror}; create one with 'watchword init'") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
    return data


def _parsed(data: bytes, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(without_mark(data).decode())
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: not UTF-8") from None
    except ValueError as error:  # TOMLDecodeError, or a number with thousands of digits
        raise ConfigurationError(f"{path}: not TOML: {error}") from None
    except RecursionError:
        raise ConfigurationError(f"{path}: nested too deeply") from None


def _environment() -> dict[str, Any]:
    """Return what the environment sets; ConfigurationError for a variable with our prefix that would be ignored.

    Other variables may have the prefix too: an orchestrator names a service's variables after it.
    """
    source = EnvSettingsSource(_Environment)
    source.env_vars = {
        variable: value for variable, value in source.env_vars.items() if not _is_of_service(variable, value or "")
    }
    for variable, value in sorted(os.environ.items()):
        if variable.upper().startswith(PREFIX) and not _is_of_service(variable, value):
            _check_variable(variable)
    return source()


def _is_of_service(variable: str, value: str) -> bool:
    """Return True if Kubernetes sets such a variable for a service: an address, a port or a protocol."""
    found = SERVICE_VARIABLE.search(variable.upper())
    return found is not None and bool(_SERVICE_VALUES[found.lastgroup or ""].fullmatch(value))


def _check_variable(variable: str) -> None:
    field, nested, _ = variable[len(PREFIX) :].lower().partition(DELIMITER)
    if nested and field == "keys":
        raise ConfigurationError(f"{variable}: write all key sources as one JSON list in {PREFIX}KEYS")
    if (nested and field not in _SECTIONS) or (not nested and field in _SECTIONS):
        tables = ", ".join(f"{PREFIX}{section.upper()}{DELIMITER}..." for section in _SECTIONS)
        raise ConfigurationError(f"{variable}: no such table; use {tables}")
    if field not in Settings.model_fields:
        section, _, name = field.partition("_")
        if section in _SECTIONS and name in fields_at(Settings, (section,)):
            similar = [f"{section}{DELIMITER}{name}"]
        else:
            similar = get_close_matches(field, Settings.model_fields, 1, _SIMILAR)
        if similar:
            raise ConfigurationError(f"{variable}: unknown; did you mean {PREFIX}{similar[0].upper()}?")


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _variable(location: Location) -> str | None:
    """Return the environment variable that a value came from; None if it did not."""
    names = [str(part) for part in location]
    given = {variable.upper(): variable for variable in os.environ}
    for length in range(len(names), 0, -1):
        variable = given.get(PREFIX + DELIMITER.join(names[:length]).upper())
        if variable is not None:
            return variable
    deeper = PREFIX + DELIMITER.join([*names, ""]).upper()
    return next((variable for upper, variable in given.items() if upper.startswith(deeper)), None)
