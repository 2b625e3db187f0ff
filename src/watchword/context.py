"""``Context``, which every plug-in's factory receives besides the plug-in's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from watchword.errors import ConfigurationError
from watchword.mistakes import explain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from watchword.policy import Policy

Model = TypeVar("Model", bound=BaseModel)


class Warn(Protocol):
    """Logs a warning about the deployment: a dotted event name, and the operator's own names and numbers."""

    def __call__(self, event: str, **fields: str | float | None) -> None:
        """Log it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a plug-in may use; relative paths start from ``directory``, and ``clock`` is the wall clock in seconds.

    ``principal`` is that of this process; None if the settings name none.
    """

    realm: str
    directory: Path
    clock: Callable[[], float]
    policy: Policy
    warn: Warn
    principal: str | None = None

    @staticmethod
    def validate(model: type[Model], options: Mapping[str, Any]) -> Model:
        """Return the options as an instance of ``model``; ConfigurationError names the first mistake."""
        try:
            return model.model_validate(options)
        except ValidationError as error:
            raise ConfigurationError(explain(error, model)) from None
