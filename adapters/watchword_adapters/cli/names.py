"""Chooses file names for agents: the end of the principal, with as much before it as is needed to be unique."""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from watchword import ConfigurationError
from watchword.settings import check_principal
from watchword_adapters.keys.public_files import read_keys
from watchword_adapters.signers.file import read_private_key

if TYPE_CHECKING:
    from pathlib import Path

KEY_SET: Final = "agents.jwks"

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_DIGITS: Final = 8


def check_typed(principal: str) -> None:
    """Raise ConfigurationError, with what to write, for a principal that settings would refuse."""
    try:
        check_principal(principal)
    except ValueError as error:
        raise ConfigurationError(f"principal: {error}") from None


def file_name(principal: str, directory: Path) -> str:
    """Return a file name for an agent in ``directory`` that no other agent uses; "" if there is none.

    For ``agent://acme/planner`` it is ``planner``; if another team's planner has that name, ``acme-planner``.
    """
    parts = principal.rpartition("://")[2].split("/")
    if not _NAME.fullmatch(parts[-1]):
        return ""
    names = ["-".join(parts[-count:]) for count in range(1, len(parts) + 1)]
    names.append(f"{parts[-1]}-{sha256(principal.encode()).hexdigest()[:_DIGITS]}")
    return next((name for name in names if _NAME.fullmatch(name) and _owner(directory, name) in {None, principal}), "")


def _owner(directory: Path, name: str) -> str | None:
    """Return the owner of the files with this name, if they show it; faults are reported when they matter."""
    public, settings, private = (directory / f"{name}.{suffix}" for suffix in ("jwk", "toml", "pem"))
    with suppress(ConfigurationError, LookupError, OSError, ValueError):
        if public.exists():
            return read_keys([public])[0][0].principal
        if settings.exists():
            return str(tomllib.loads(settings.read_text("utf-8-sig"))["principal"])
        if private.exists():
            key = read_private_key(private, warn=lambda *_, **__: None)
            known, _ = read_keys([directory / KEY_SET])
            return next((one.principal for one in known if one.key_id == key.key_id), None)
    return None
