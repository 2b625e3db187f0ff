"""Key source ``env``: keys in an environment variable, for a container that is configured only by variables."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

from watchword import ConfigurationError, MemoryKeys
from watchword.settings import Section
from watchword_adapters.keys.public_files import parse_public

if TYPE_CHECKING:
    from collections.abc import Mapping

    from watchword.spi import Context


_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


class Options(Section):
    """``[[keys]]`` with ``source = "env"``."""

    variable: str


def from_options(options: Mapping[str, Any], context: Context) -> MemoryKeys:
    """Return the keys in ``variable``."""
    return keys_in(context.validate(Options, options).variable)


def keys_in(variable: str) -> MemoryKeys:
    """Return the keys in a variable, which holds what a key file may hold; ConfigurationError says what is wrong."""
    if not _NAME.fullmatch(variable):  # it may be the keys themselves, or a secret: do not show it
        raise ConfigurationError('variable: write the name of an environment variable, such as "AGENT_KEYS"')
    text = os.environ.get(variable, "")
    if not text.strip():
        raise ConfigurationError(f"variable {variable}: not set; set it to a JWK Set, as 'watchword jwks' prints it")
    try:
        return MemoryKeys(parse_public(os.fsencode(text)))
    except ConfigurationError as error:
        raise ConfigurationError(f"variable {variable}: {error}") from None
