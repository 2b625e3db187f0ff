"""``watchword policy check``: shows whether the settings let a principal publish on a channel, and by which rule."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import ValidationError

from watchword import ConfigurationError, SigningError
from watchword.principals import is_wild
from watchword.settings import AllowSettings, check_principal
from watchword.spi import Channel
from watchword_adapters.cli import OK, REJECTED
from watchword_adapters.cli.terminal import escaped
from watchword_adapters.regular_file import without_mark
from watchword_adapters.settings_file import read_text, settings_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from watchword.settings import Settings

_HEADER: Final = re.compile(r"[ \t]*\[")
_RULE: Final = re.compile(r"[ \t]*\[\[[ \t]*policy[ \t]*\.[ \t]*allow[ \t]*\]\]")
_MOST_LINES: Final = 20
_MOST_OTHERS: Final = 10


class _Written(NamedTuple):
    """A rule as written in the settings file."""

    line: int
    text: str


def run_check(principal: str, uri: str, config: Path, *, as_json: bool) -> int:
    """Print whether a principal may publish on a channel, and why; return the exit code."""
    try:
        check_principal(principal)
    except ValueError as error:
        raise ConfigurationError(f"principal: {error}") from None
    if is_wild(principal):
        raise ConfigurationError(f"principal {principal!r}: write one agent, as agent://acme/planner, not a pattern")
    data = read_text(config)
    settings = settings_of(data, config)
    channel = _channel(uri, settings.realm)
    try:
        found = _explained(principal, channel, settings, data)
    except ConfigurationError as error:
        raise ConfigurationError(f"{config}: {error}") from None
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        _print(found, config)
    return OK if found["allowed"] else REJECTED


def _channel(uri: str, realm: str) -> Channel:
    try:
        channel = Channel.parse(uri)
        channel.check_signable()
    except (ValueError, SigningError) as error:
        raise ConfigurationError(f"channel: {error}") from None
    if channel.realm != realm:
        raise ConfigurationError(f"channel {uri!r}: not in the settings' realm; write {channel.scheme}://{realm}/...")
    return channel


def _explained(principal: str, channel: Channel, settings: Settings, data: bytes) -> dict[str, Any]:
    policy = settings.to_policy()
    matching = policy.rules_matching(principal, channel)
    permitted, contained = bool(matching) or not policy.allow, policy.containing(principal)
    number = matching[0] if matching else None
    chosen = None if number is None else settings.policy.allow[number]
    return {
        "allowed": permitted and contained is None,
        "principal": principal,
        "channel": channel.uri,
        "reason": "not_permitted" if not permitted else None if contained is None else "contained",
        "rules": len(policy.allow),
        "rule": None if number is None or chosen is None else _rule(number, chosen, data),
        "rate": None if chosen is None else chosen.rate,
        "min_trust": (chosen and chosen.min_trust) or None,
        "contained": contained,
        "other_rules": matching[1:],
        "mode": "observe" if policy.observes(channel) else "enforce",
        "control": settings.control is not None,
    }


def _rule(number: int, rule: AllowSettings, data: bytes) -> dict[str, Any]:
    """Return a rule by its number, with its text, from the file if it is there."""
    fields = rule.model_dump(exclude_unset=True, exclude_none=True)
    written = _written(number, rule, data)
    line, text = (None, _rendered(fields)) if written is None else written
    return {"number": number, "line": line, "text": text, **fields}


def _written(number: int, rule: AllowSettings, data: bytes) -> _Written | None:
    """Find a rule in the file; None if it is written differently, or comes from the environment."""
    lines = without_mark(data).decode(errors="replace").splitlines()
    starts = [at for at, line in enumerate(lines) if _RULE.match(line)]
    if number >= len(starts):
        return None
    begin = starts[number]
    end = next((at for at in range(begin + 1, len(lines)) if _HEADER.match(lines[at])), len(lines))
    # A list may have a line that begins with a bracket, so the end of a rule is found by trying.
    for stop in (end, *range(end + 1, min(len(lines), begin + _MOST_LINES * 10) + 1)):
        text = "\n".join(lines[begin:stop]).strip()
        try:
            (found,) = tomllib.loads(text)["policy"]["allow"]
            if AllowSettings.model_validate(found) == rule:
                return _Written(begin + 1, text)
        except (tomllib.TOMLDecodeError, ValidationError, ValueError):
            continue
    return None


def _rendered(fields: dict[str, Any]) -> str:
    members = (f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())
    return "\n".join(["[[policy.allow]]", *members])


def _print(found: dict[str, Any], config: Path) -> None:
    who, where, rule = found["principal"], found["channel"], found["rule"]
    verdict, may = ("allowed", "may") if found["allowed"] else ("not allowed", "may not")
    lines = [f"{verdict}: {who} {may} speak on {where}"]
    if rule is not None:
        place = "from the environment" if rule["line"] is None else f"line {rule['line']} of {config}"
        lines.append(f"rule: policy.allow[{rule['number']}], {place}")
        lines += [f"  {line}" for line in _shortened(rule["text"].splitlines())]
    elif found["rules"]:
        lines.append(f"rule: none of {found['rules']} lets this principal speak here (not_permitted)")
    else:
        lines.append("rule: there are none, so anyone with a known key may speak anywhere")
    if rule is not None:
        lines.append(f"rate: {_rate(found['rate'])}")
    if found["min_trust"]:
        lines.append(f"min_trust: {found['min_trust']:g}")
    lines.append(f"contained: {_contained(found)}")
    if found["other_rules"]:
        lines.append(f"also matching, but less specific or written later: {_numbers(found['other_rules'])}")
    if found["mode"] == "observe":
        lines.append("mode: observe, so nothing is dropped here, whatever the rules say")
    sys.stdout.write("".join(f"{escaped(line)}\n" for line in lines))


def _shortened(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _MOST_LINES
    return [*lines[:_MOST_LINES], *([f"... {more} more lines"] if more > 0 else [])]


def _rate(rate: str | None) -> str:
    return "no limit" if rate is None else f"{rate}, for this principal alone, in each log"


def _contained(found: dict[str, Any]) -> str:
    if found["contained"] is not None:
        return f"yes, by {found['contained']!r} in [policy] contained"
    return "not by the settings; operators on the control log were not asked" if found["control"] else "no"


def _numbers(others: Sequence[int]) -> str:
    more = len(others) - _MOST_OTHERS
    return ", ".join(f"policy.allow[{number}]" for number in others[:_MOST_OTHERS]) + (
        f" and {more} more" if more > 0 else ""
    )
