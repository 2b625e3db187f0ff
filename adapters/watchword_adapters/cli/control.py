"""``watchword contain``, ``release`` and ``control``: publish operators' statements, and show the control log."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from watchword import ConfigurationError, Unavailable
from watchword.principals import may_meet
from watchword.statements import MAX_WHY, Contain, GiveKey, Head, Release, Revoke, Unknown, verb_of
from watchword_adapters.cli import OK, REJECTED
from watchword_adapters.cli.operating import check_pattern, confirm, finish, moment, opened, seconds, tell
from watchword_adapters.cli.terminal import one_line
from watchword_adapters.config import open_presence
from watchword_adapters.control.desk import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from pathlib import Path

    from watchword.control import Issued
    from watchword.message import Message
    from watchword.statements import Saying
    from watchword_adapters.cli.operating import Opened
    from watchword_adapters.control.desk import Desk
    from watchword_adapters.control.following import Heard

_REST: Final = "**"
_LONGEST: Final = 3650 * 86_400.0


def run_contain(who: str, config: Path, lasting: str | None, why: str, *, yes: bool, as_json: bool) -> int:
    """Contain the principals that match a pattern; return the exit code."""
    check_pattern(who)
    if len(why) > MAX_WHY or not why.isprintable():
        raise ConfigurationError(f"--why: at most {MAX_WHY} printable characters; it is public, so write a ticket")
    length = None if lasting is None else seconds("--for", lasting)
    if length is not None and not 1 <= length <= _LONGEST:
        raise ConfigurationError("--for: write 1s to 3650d; omit it to contain for good")
    if _REST in who:
        confirm(f"Contain every principal that matches {who}?", yes=yes)
    return finish(_contain(opened(config), who, length, why, as_json=as_json))


async def _contain(with_: Opened, who: str, length: float | None, why: str, *, as_json: bool) -> int:
    async with with_.desk() as desk:
        until = None if length is None else int(with_.agent.clock() + length)
        position = await desk.say(Contain(who, until, why))
        told = {"who": who, "until": until, "why": why or None, "by": desk.by[0], "position": position}
        line = f"{who} is contained {'for good' if until is None else f'until {moment(until)}'}"
        tell(told, line, as_json=as_json)
        return OK


def run_release(who: str, config: Path, *, anyway: bool, as_json: bool) -> int:
    """End a containment; return the exit code."""
    check_pattern(who)
    return finish(_release(opened(config), who, anyway=anyway, as_json=as_json))


async def _release(with_: Opened, who: str, *, anyway: bool, as_json: bool) -> int:
    async with with_.desk() as desk:
        holding = desk.control.containments(with_.agent.clock())
        if who not in {one.who for one in holding} and not anyway:
            raise ConfigurationError(
                f"nothing contains exactly {who!r}; in force: {', '.join(repr(one.who) for one in holding) or 'none'}"
                f"{_also_contained(with_, who)}; if the log was recreated and readers still obey one, add --anyway"
            )
        position = await desk.say(Release(who))
        left = [one for one in desk.control.containments(with_.agent.clock()) if may_meet(one.who, who)]
        listed = sorted(name for name in with_.settings.policy.contained if may_meet(name, who))
        told: dict[str, object] = {"who": who, "by": desk.by[0], "position": position}
        told["still"] = [{"who": one.who, "until": _finite(one.until), "why": one.why, "by": one.by} for one in left]
        told["in_settings"] = listed
        lines = [f"{who} is released"]
        lines += [f"still contained: {one.who} {_until(one.until)}, by {one.by}: {one.why or '-'}" for one in left]
        lines += [f"still contained: {name}, in [policy] contained of {desk.by[0]}'s settings" for name in listed]
        tell(told, *lines, as_json=as_json)
        return REJECTED if left or listed else OK


def _also_contained(with_: Opened, who: str) -> str:
    listed = [name for name in with_.settings.policy.contained if may_meet(name, who)]
    return f"; and [policy] contained, in the settings: {', '.join(sorted(listed))}" if listed else ""


def _finite(until: float) -> int | None:
    return None if until == float("inf") else int(until)


def _until(until: float) -> str:
    return moment(until) if until == float("inf") else f"until {moment(until)}"


def run_init(config: Path, *, as_json: bool) -> int:
    """Create the control log, or check the existing one; return the exit code."""
    return finish(_init(opened(config), as_json=as_json))


async def _init(with_: Opened, *, as_json: bool) -> int:
    channel = with_.settings.to_control()
    name = "" if channel is None else channel.uri
    made = await _within(_make(with_), name)
    tell({"channel": name, "made": made}, f"{name} {'was created' if made else 'exists, and is fit'}", as_json=as_json)
    presence = with_.settings.to_presence()
    if presence is not None:
        making = open_presence(with_.agent, with_.settings, with_.directory, presence).make()
        made = await _within(making, presence.uri)
        line = f"{presence.uri} {'is stored for a day from now on' if made else 'exists'}"
        tell({"channel": presence.uri, "made": made}, line, as_json=as_json)
    return OK


async def _make(with_: Opened) -> bool:
    async with with_.parts.open_log() as log:
        return await log.make()


async def _within(making: Coroutine[Any, Any, bool], name: str) -> bool:
    try:
        async with asyncio.timeout(TIMEOUT):
            return await making
    except TimeoutError:
        raise Unavailable(
            "control",
            f"{name}: the broker did not answer within {TIMEOUT:g} s: is it running, and are servers, user and password"
            " in the settings right?",
        ) from None


def run_adopt(operator: str, config: Path, without: Sequence[int], *, yes: bool, as_json: bool) -> int:
    """Repeat another operator's statements in force, except some positions; return the exit code."""
    return finish(_adopt(opened(config), operator, without, yes=yes, as_json=as_json))


async def _adopt(with_: Opened, operator: str, without: Sequence[int], *, yes: bool, as_json: bool) -> int:
    async with with_.desk() as desk:
        if operator == desk.by[0]:
            raise ConfigurationError(f"{operator} is this operator: only another one can adopt its statements")
        standing = _chosen(desk, operator, without)
        if not yes:
            lines = (f"{place}  {moment(issued.appended_at)}  {_said(issued)}" for place, issued in standing.items())
            sys.stderr.write("".join(f"{one_line(line)}\n" for line in lines))
        await asyncio.to_thread(
            confirm, f"Repeat these {len(standing)} statements of {operator} as {desk.by[0]}?", yes=yes
        )
        for place, issued in standing.items():
            saying = issued.statement.saying
            position = await desk.say(saying)
            told = {"verb": verb_of(saying), "about": _about(saying), "of": place, "by": desk.by[0]}
            tell(told | {"position": position}, f"adopted: {_said(issued)}", as_json=as_json)
        return OK


def _chosen(desk: Desk, operator: str, without: Sequence[int]) -> dict[int, Issued]:
    """Return the statements to adopt by position; ConfigurationError if one would not count."""
    found = {place: issued for issued in desk.control.standing(operator) if (place := _place(issued)) is not None}
    if not found:
        raise ConfigurationError(f"no statement of {operator!r} is in force")
    unknown = sorted(set(without) - found.keys())
    if unknown:
        raise ConfigurationError(
            f"--without {unknown[0]}: no statement of {operator} in force is there; positions are"
            f" {', '.join(map(str, sorted(found)))}"
        )
    chosen = {place: found[place] for place in sorted(found.keys() - set(without))}
    if not chosen:
        raise ConfigurationError(f"no statement of {operator} is left to adopt")
    refused = {
        place: why for place, issued in chosen.items() if (why := desk.control.objection(desk.by, issued.statement))
    }
    if refused:
        told = ", ".join(f"{place} ({why})" for place, why in refused.items())
        left_out = " ".join(f"--without {place}" for place in refused)
        raise ConfigurationError(
            f"{desk.by[0]} may not repeat what is at {told}; nothing was adopted: omit these with {left_out}, and"
            " have them adopted by an operator who may"
        )
    return chosen


def _place(issued: Issued) -> int | None:
    return None if issued.message is None else _offset(issued.message)


def _said(issued: Issued) -> str:
    return f"{verb_of(issued.statement.saying)} {_about(issued.statement.saying)}"


def run_attend(config: Path, every: str) -> int:
    """Publish heads at intervals, which show that nothing is withheld, until interrupted."""
    pause = seconds("--every", every)
    if pause < 1:
        raise ConfigurationError("--every: at least 1s")
    return finish(_attend(opened(config), pause))


async def _attend(with_: Opened, pause: float) -> int:
    async with with_.desk() as desk:
        failed, attends = False, False
        while True:
            try:
                await desk.say(desk.control.attended())
                failed = False
                if not attends:
                    tell({}, f"{desk.by[0]} publishes a head every {pause:g} s", as_json=False)
                attends = True
            except Unavailable as error:
                if not failed:
                    sys.stderr.write(f"watchword: warning: {one_line(str(error))}; retrying\n")
                failed = True
            await wait(pause)


def run_log(config: Path, *, follow: bool, as_json: bool) -> int:
    """Print the entries of the log; return the exit code."""
    return finish(_log(opened(config), follow=follow, as_json=as_json))


async def _log(with_: Opened, *, follow: bool, as_json: bool) -> int:
    codes = {OK}

    def show(heard: Heard) -> None:
        if heard.why is not None:
            codes.add(REJECTED)
        members = _row(heard)
        words = [str(members["position"]), moment(heard.message.appended_at), heard.by[0] if heard.by else "?"]
        words += [f"{members['s']}", f"{members['verb']} {members['about']}"] if heard.statement else []
        words += [] if heard.why is None else [f"DOES NOT COUNT: {heard.why}"]
        tell(members, "  ".join(words), as_json=as_json)

    async with with_._replace(parts=replace(with_.parts, listen=show)).followed():
        if follow:
            await for_ever()
    return max(codes)


async def wait(seconds: float) -> None:
    """Wait until the next head is due."""
    await asyncio.sleep(seconds)


async def for_ever() -> None:
    """Wait until this process is ended."""
    await asyncio.get_running_loop().create_future()


def _row(heard: Heard) -> dict[str, Any]:
    statement, message = heard.statement, heard.message
    row: dict[str, Any] = {"position": _offset(message), "appended_at": message.appended_at}
    row |= {"operator": None, "key": None} if heard.by is None else {"operator": heard.by[0], "key": heard.by[1]}
    if statement is not None:
        row |= {"s": statement.number, "n": statement.rank, "verb": statement.verb, "about": _about(statement.saying)}
    return row | {"counts": heard.why is None, "why_not": heard.why}


def _offset(message: Message) -> int | None:
    return None if message.position is None else message.position.offset


def _about(saying: Saying) -> str:
    match saying:
        case GiveKey(key):
            end = "" if key.not_after is None else f", ends {moment(key.not_after)}"
            return f"{key.key_id.decode(errors='replace')} of {key.principal}{end}"
        case Revoke(dead, at):
            return f"{dead} from {moment(at)} on"
        case Contain(who, until, why):
            return f"{who} {'for good' if until is None else f'until {moment(until)}'}{f': {why}' if why else ''}"
        case Release(who):
            return who
        case Head():
            return ""
        case Unknown():
            return "(of a later version)"
