"""Key sources, signers and replay stores by name: ours and third parties' register alike, as entry points.

The groups are ``watchword.key_sources``, ``watchword.signers`` and ``watchword.replay_stores``. An entry point names a
callable that takes the options of its table and a ``Context``, and returns the port's implementation. It raises
ConfigurationError, or lets pydantic's ValidationError out, for options that it does not like.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ValidationError

from watchword import ConfigurationError, SigningBackend
from watchword_adapters.settings_file import explain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from watchword import Algorithm, KeySource, Policy, ReplayStore

Model = TypeVar("Model", bound=BaseModel)

KEY_SOURCES: Final = "watchword.key_sources"
SIGNERS: Final = "watchword.signers"
REPLAY_STORES: Final = "watchword.replay_stores"


class Warn(Protocol):
    """Logs a warning about the set-up: a dotted event name, and the operator's own names and numbers."""

    def __call__(self, event: str, **fields: str | float | None) -> None:
        """Log it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a plug-in may need; relative paths start from ``directory``, and ``clock`` is the wall clock, in seconds."""

    realm: str
    directory: Path
    clock: Callable[[], float]
    policy: Policy
    warn: Warn

    @staticmethod
    def validate(model: type[Model], options: Mapping[str, Any]) -> Model:
        """Return the options as ``model`` describes them; ConfigurationError names the first mistake."""
        try:
            return model.model_validate(options)
        except ValidationError as error:
            raise ConfigurationError(explain(error, model)) from None


@runtime_checkable
class NamedBackend(SigningBackend, Protocol):
    """What a signer plug-in returns: a back-end that also knows its public key's id and algorithm."""

    @property
    def key_id(self) -> bytes:
        """The key id, UTF-8."""
        ...

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm."""
        ...


class _Factory(Protocol):
    """What an entry point names."""

    def __call__(self, options: Mapping[str, Any], context: Context) -> KeySource | NamedBackend | ReplayStore: ...


def find(group: str, name: str, *, where: str) -> _Factory:
    """Return the factory registered under ``name``; ConfigurationError, led by ``where``, unless there is just one."""
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
        raise ConfigurationError(f'{where} = "{name}": {entry.value} cannot be loaded: {error}') from error
    return factory
