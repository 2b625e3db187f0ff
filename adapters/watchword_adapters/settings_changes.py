"""Describes how two settings differ: by name, and for the policy by value, since other values must not be logged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watchword.settings import Settings


def changes(before: Settings, after: Settings) -> list[str]:
    """Return a short text for each setting that differs, such as ``policy.mode observe -> enforce``."""
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
    """Yield the fields that differ, including options of plug-ins, with old and new value."""
    was, now = ({**dict(model), **(model.model_extra or {})} for model in (old, new))
    for field in dict.fromkeys((*was, *now)):
        if was.get(field) != now.get(field):
            yield field, was.get(field), now.get(field)


def _values(was: object, now: object) -> str:
    """Return an old and a new value of the policy as text; for a list, its length."""
    if isinstance(was, list) and isinstance(now, list):
        return f" {len(was)} -> {len(now)} entries"
    if isinstance(was, float) and isinstance(now, float):
        return f" {was:g} s -> {now:g} s"
    return f" {was} -> {now}"
