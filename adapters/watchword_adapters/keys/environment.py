"""Key source over an environment variable: for a container that is given its keys and nothing else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from watchword import ConfigurationError, MemoryKeys
from watchword.settings import Section
from watchword_adapters.keys.public_files import parse_public

if TYPE_CHECKING:
    from collections.abc import Mapping

    from watchword.spi import Context


class Options(Section):
    """``[[keys]]`` with ``source = "env"``."""

    variable: str


def from_options(options: Mapping[str, Any], context: Context) -> MemoryKeys:
    """Return the keys in ``variable``."""
    return keys_in(context.validate(Options, options).variable)


def keys_in(variable: str) -> MemoryKeys:
    """Return the keys in a variable, which holds what a key file may hold; ConfigurationError says what is wrong."""
    text = os.environ.get(variable, "")
    if not text.strip():
        raise ConfigurationError(f"variable {variable}: not set; put a JWK Set into it, as 'watchword jwks' prints it")
    try:
        return MemoryKeys(parse_public(os.fsencode(text)))
    except ConfigurationError as error:
        raise ConfigurationError(f"variable {variable}: {error}") from None
