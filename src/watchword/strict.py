"""Strict readers for untrusted JSON and base64: whatever two parsers might read differently is a ValueError.

Duplicate names, ``NaN``, very long integers, missing padding, non-zero unused bits and characters outside the alphabet
are refused, although Python's own parsers accept them. It also writes base64, with and without padding.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Final, NoReturn, overload

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_DIGITS: Final = 20


def json_object(text: str | bytes) -> dict[str, object]:
    """Return the members of one JSON object (RFC 8259); ValueError says what is wrong with the text."""
    document = json_value(text)
    if not isinstance(document, dict):
        raise ValueError('not a JSON object: write {"name": value, ...}')  # noqa: TRY004 - wrong text, not a wrong argument type
    return document


def json_value(text: str | bytes) -> object:
    """Return one JSON value (RFC 8259); ValueError says what is wrong with the text."""
    try:
        text = text.decode() if isinstance(text, bytes) else text
        value: object = json.loads(text, object_pairs_hook=_members, parse_constant=_no_constant, parse_int=_integer)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


@overload
def to_base64(raw: bytes) -> str: ...
@overload
def to_base64(raw: bytes | None) -> str | None: ...
def to_base64(raw: bytes | None) -> str | None:
    """Return standard base64 with padding (RFC 4648 section 4); None for None, which is JSON's null."""
    return None if raw is None else base64.b64encode(raw).decode()


def from_base64(text: object) -> bytes:
    """Decode standard base64 with padding; ValueError for any other spelling or type."""
    try:
        raw = base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except ValueError:
        raw = None
    if raw is None or to_base64(raw) != text:  # Python ignores unused bits that are not zero
        raise ValueError("not standard base64 with padding")
    return raw


def base64url(raw: bytes) -> str:
    """Return base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def from_base64url(text: object) -> bytes:
    """Decode base64url without padding; ValueError for any other spelling or type."""
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) if isinstance(text, str) else None
    except ValueError:
        raw = None
    if raw is None or base64url(raw) != text:
        raise ValueError("not base64url without padding")
    return raw


def _members(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a duplicate name in one object: write each name once")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)
