"""Turns pydantic's errors about settings into one line that says what to write."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, TypeAlias, get_args

from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydantic_core import ErrorDetails

Location: TypeAlias = tuple[int | str, ...]

_ADVICE: Final = {
    "int_parsing": "write a whole number",
    "int_type": "write a whole number",
    "int_from_float": "write a whole number",
    "missing": "missing: add it",
    "string_type": 'write text in quotes, "..."',
    "list_type": "write a list, [...]",
    "model_type": "write a table",
    "enum": "write one of {expected}",
}

_GRAVE: Final = {"extra_forbidden": 0, "list_type": 1, "model_type": 1}
"""Mistakes that are reported before others, such as a missing value."""


def explain(
    error: ValidationError,
    model: type[BaseModel] | None = None,
    *,
    origin: Callable[[Location], str | None] = lambda _: None,
) -> str:
    """Return the most telling mistake against ``model`` in one line; ``origin`` names a value's source, if known."""
    # A misspelt name shows as an unknown and a missing one: the unknown one tells more, and so do wrong brackets.
    first = min(error.errors(include_url=False), key=lambda details: _GRAVE.get(details["type"], len(_GRAVE)))
    location = first["loc"]
    name, source = _name(location), origin(location)
    if source is not None:
        name = f"{name} (from {source})"
    advice = (_table_advice(first, model) if source is None else None) or _advice(first, model)
    return f"{name}: {advice}" if name else advice


def _table_advice(details: ErrorDetails, model: type[BaseModel] | None) -> str | None:
    """Return what to write if a table is not one, or has the wrong kind of brackets; else None."""
    names = [part for part in details["loc"] if isinstance(part, str)]
    if details["type"] not in {"list_type", "model_type"} or not fields_at(model, names):
        return None
    table = ".".join(names)
    if details["type"] == "list_type" or names != list(details["loc"]):
        return f"write [[{table}]], in double brackets, above the settings of each"
    return f"write [{table}], in single brackets and once, above its settings"


def _name(location: Iterable[int | str]) -> str:
    name = ""
    for part in location:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name


def _advice(details: ErrorDetails, model: type[BaseModel] | None) -> str:
    kind = details["type"]
    if kind == "extra_forbidden":
        known = fields_at(model, details["loc"][:-1])
        similar = get_close_matches(str(details["loc"][-1]), known, 1)
        if similar:
            return f'unknown; did you mean "{similar[0]}"?'
        return f"unknown; use {', '.join(known)}" if known else "unknown: remove it"
    context = details.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    advice = _ADVICE.get(kind)
    return details["msg"] if advice is None else advice.format(expected=context.get("expected"))


def fields_at(model: type[BaseModel] | None, location: Iterable[int | str]) -> list[str]:
    """Return the names that are allowed in the table at ``location``."""
    for part in location:
        if model is not None and isinstance(part, str):
            model = _model_in(model.model_fields[part].annotation)
    return [] if model is None else list(model.model_fields)


def _model_in(annotation: object) -> type[BaseModel] | None:
    """Find the model in ``Model``, ``list[Model]`` or ``Model | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for argument in get_args(annotation) if (model := _model_in(argument))), None)
