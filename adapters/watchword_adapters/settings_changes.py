"""Says in what two settings differ: by name, and of the policy by value; nothing else's value is shown in a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watchword.settings import Settings


def changes(before: Settings, after: Settings) -> list[str]:
    """Return a few words for each setting that differs, as ``policy.mode observe -> enforce``."""
    told = []
    for name in type(after).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        if not (isinstance(old, BaseModel) and isinstance(new, BaseModel)):
            told.append(name)
            continue
        for field, was, now in _fields(old, new):
            told.append(f"{name}.{field}{_values(was, now)}" if name == "policy" else f"{name}.{field}")
    return told


def _fields(old: BaseModel, new: BaseModel) -> Iterator[tuple[str, object, object]]:
    """Yield the fields that differ, the options of plug-ins included, and what they were and are."""
    was, now = ({**dict(model), **(model.model_extra or {})} for model in (old, new))
    for field in dict.fromkeys((*was, *now)):
        if was.get(field) != now.get(field):
            yield field, was.get(field), now.get(field)


def _values(was: object, now: object) -> str:
    """Show what a value of the policy was and is; of a list, how many stand in it."""
    if isinstance(was, list) and isinstance(now, list):
        return f" {len(was)} -> {len(now)} entries"
    if isinstance(was, float) and isinstance(now, float):
        return f" {was:g} s -> {now:g} s"
    return f" {was} -> {now}"
