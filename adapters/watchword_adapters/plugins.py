"""Key sources, signers and replay stores by name: ours and third parties' are registered alike, as entry points.

The groups are ``watchword.key_sources``, ``watchword.signers`` and ``watchword.replay_stores``. An entry point names a
callable that takes the options of its table and a ``Context``, and returns an implementation of the port. For invalid
options it raises ConfigurationError or pydantic's ValidationError.
"""

from __future__ import annotations

from importlib.metadata import entry_points, metadata
from typing import TYPE_CHECKING, Any, Final, Protocol

from watchword import ConfigurationError
from watchword.extras import what_to_install

if TYPE_CHECKING:
    from collections.abc import Mapping

    from watchword.spi import Context, KeySource, NamedBackend, ReplayStore

KEY_SOURCES: Final = "watchword.key_sources"
SIGNERS: Final = "watchword.signers"
REPLAY_STORES: Final = "watchword.replay_stores"


class _Factory(Protocol):
    """The callable that an entry point names."""

    def __call__(self, options: Mapping[str, Any], context: Context) -> KeySource | NamedBackend | ReplayStore: ...


def find(group: str, name: str, *, where: str) -> _Factory:
    """Return the factory registered under ``name``; ConfigurationError, led by ``where``, unless it is unique."""
    registered = entry_points(group=group)
    found = {entry.value: entry for entry in registered if entry.name == name}
    if not found:
        names = ", ".join(sorted(f'"{entry}"' for entry in {entry.name for entry in registered}))
        raise ConfigurationError(
            f'{where} = "{name}" is not available: write {names}, or install a plug-in that registers it in {group}'
        )
    if len(found) > 1:
        raise ConfigurationError(f'{where} = "{name}": registered by {" and ".join(sorted(found))}: uninstall one')
    (entry,) = found.values()
    try:
        factory: _Factory = entry.load()
    except Exception as error:
        # Two plug-ins may need one library: then the extra with this one's name installs everything it needs.
        extra = name if name in (metadata("watchword").get_all("Provides-Extra") or ()) else None
        hint = what_to_install(error, extra) if isinstance(error, ModuleNotFoundError) else None
        told = hint or f"{entry.value} cannot be loaded: {error}"
        raise ConfigurationError(f'{where} = "{name}": {told}') from error
    return factory
