"""``watchword key``: publishes, lists, revokes and rotates agents' public keys, by statements on the control log.

``own_key`` has the commands for the key in an agent's own settings.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from watchword import ConfigurationError, SigningKey, VerificationKey
from watchword.jwk import to_jwk
from watchword.keys import listed, thumbprint, thumbprint_id
from watchword.statements import GiveKey, Revoke
from watchword_adapters.cli import OK, REJECTED
from watchword_adapters.cli.lines import warn
from watchword_adapters.cli.operating import confirm, finish, moment, opened, seconds, tell
from watchword_adapters.cli.who import Found, Place, hear
from watchword_adapters.keys.public_files import list_files, read_keys
from watchword_adapters.redriving import judge
from watchword_adapters.settings_file import read_settings
from watchword_adapters.signers.file import Options as FileSigner
from watchword_adapters.signers.file import passphrase_of, read_private_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchword.settings import Settings
    from watchword_adapters.cli.operating import Opened
    from watchword_adapters.control.desk import Desk
    from watchword_adapters.signers.secret import Secret

_THUMBPRINT: Final = 43
SEEN_WITHIN: Final = 30.0
"""Seconds for which a process counts as present after it announced itself."""

LOOK_EVERY: Final = 1.0
_LEAST_OVERLAP: Final = 30.0
"""Seconds, with a margin, for an agent that looks for its new key every 5 s."""


def run_publish(files: Sequence[Path], config: Path, *, as_json: bool) -> int:
    """Publish the public keys in files; return the exit code."""
    try:
        keys, _ = read_keys(list_files(files))
    except OSError as error:
        raise ConfigurationError(f"{error.filename}: {error.strerror}") from None
    for key in keys:
        if key.key_id != thumbprint_id(key.public):
            raise ConfigurationError(
                f'key {key.key_id.decode(errors="replace")} of {key.principal}: on the control log "kid" is'
                f" {thumbprint_id(key.public).decode()}, the start of the thumbprint; leave it out of the file"
            )
        if key.revoked_at is not None:
            raise ConfigurationError(f'key of {key.principal}: "revoked" in a file: use watchword key revoke instead')
    return finish(_publish(opened(config), keys, as_json=as_json))


async def _publish(with_: Opened, keys: Sequence[VerificationKey], *, as_json: bool) -> int:
    code = OK
    async with with_.desk() as desk:
        for key in keys:
            known = key in desk.control.keys
            position = None if known else await desk.say(GiveKey(key))
            dead = desk.control.revoked_at(key) is not None
            told = {"principal": key.principal, "kid": key.key_id.decode(), "known": known, "position": position}
            line = f"key {key.key_id.decode()} of {key.principal} is {'known already' if known else 'given'}"
            tell(told | {"revoked": dead}, f"{line}, and revoked for good" if dead else line, as_json=as_json)
            code = REJECTED if dead else code
    return code


class _Row(NamedTuple):
    key: VerificationKey
    source: str
    state: str
    ends_soon: bool


def run_list(principal: str | None, config: Path, ending: str, *, as_json: bool) -> int:
    """List public keys and their states; return the exit code."""
    return finish(_list(opened(config), principal, seconds("--ending", ending), as_json=as_json))


async def _list(with_: Opened, principal: str | None, ending: float, *, as_json: bool) -> int:
    async with with_.followed() as following:
        control, now = following.control, with_.agent.clock()
        found = [(key, "control") for key in control.keys]
        found += [(key, "settings") for key in listed(with_.parts.root)]
        limited = [(control.limited(key), source) for key, source in found if principal in {None, key.principal}]
        rows = [_row(key, source, [one for one, _ in limited], now, ending) for key, source in limited]
    if as_json:
        for row in rows:
            members = {**to_jwk(row.key), "source": row.source, "state": row.state, "ends_soon": row.ends_soon}
            tell(members, as_json=True)
    else:
        _print_keys(rows)
    return REJECTED if any(row.ends_soon for row in rows) else OK


def _row(key: VerificationKey, source: str, others: Sequence[VerificationKey], now: float, ending: float) -> _Row:
    """Return a key with its state; no warning that it ends soon if the same agent has one that ends later."""
    end, state = key.not_after, "valid"
    if key.revoked_at is not None and key.revoked_at <= now:
        state = "revoked"
    elif end is not None and end <= now:
        state = "ended"
    elif key.not_before is not None and key.not_before > now:
        state = "not yet valid"
    soon = state == "valid" and _until(key) < now + ending
    followed = any(
        one.principal == key.principal and _until(one) > _until(key) and _until(one) >= now + ending for one in others
    )
    return _Row(key, source, state, soon and not followed)


def _until(key: VerificationKey) -> float:
    ends = [float(time) for time in (key.not_after, key.revoked_at) if time is not None]
    return min(ends, default=float("inf"))


def _print_keys(rows: Sequence[_Row]) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only needed for a table
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(title=f"{len(rows)} public keys", title_justify="left")
    for name in ("principal", "kid", "algorithm", "source", "state", "end"):
        table.add_column(name, overflow="fold")
    for row in sorted(rows, key=lambda one: (one.key.principal, one.key.key_id)):
        key, until = row.key, _until(row.key)
        end = "" if until == float("inf") else f"{moment(until)}{' SOON' if row.ends_soon else ''}"
        cells = (key.principal, key.key_id.decode(errors="replace"), key.algorithm.label, row.source, row.state, end)
        table.add_row(*(Text(cell) for cell in cells))
    Console(file=sys.stdout, highlight=False, emoji=False).print(table)


def run_revoke(which: str, config: Path, *, yes: bool, as_json: bool) -> int:
    """Revoke a public key, now and for good; return the exit code."""
    return finish(_revoke(opened(config), which, yes=yes, as_json=as_json))


async def _revoke(with_: Opened, which: str, *, yes: bool, as_json: bool) -> int:
    async with with_.desk() as desk:
        known = [*desk.control.keys, *listed(with_.parts.root)]
        dead = _thumbprint_of(which, known)
        everybody = sorted({key.principal for key in known if thumbprint(key.public) == dead})
        operators = {one.principal: one for one in with_.parts.operators}
        found = next((name for name in everybody if name in operators), None)
        if found is not None:
            raise ConfigurationError(
                f"that is a key of {found}, an operator: revoke it in the source that [[keys]] names"
            )
        speaker = operators.get(desk.by[0])
        owners = [name for name in everybody if speaker is None or speaker.is_over(name)]
        if everybody and not owners:
            raise ConfigurationError(f"that is a key of {everybody[0]}, and {desk.by[0]} is not an operator over it")
        whose = ", ".join(owners) or "an unknown principal"
        await asyncio.to_thread(confirm, f"Revoke key {dead[:16]} of {whose}? It cannot be undone.", yes=yes)
        at = int(with_.agent.clock() - with_.agent.verifier.policy.max_skew)  # in force even if this clock is ahead
        position = await desk.say(Revoke(dead, at))
        told = {"thumbprint": dead, "principals": owners, "at": at, "position": position}
        tell(told, f"key {dead[:16]} of {whose} is revoked for good", as_json=as_json)
        return OK


def _thumbprint_of(which: str, known: Sequence[VerificationKey]) -> str:
    """Return the thumbprint of a key that is named by its id, its thumbprint or its file."""
    prints = {thumbprint(key.public) for key in known if key.key_id == which.encode()}
    if len(prints) > 1:
        raise ConfigurationError(f"{which} is the id of {len(prints)} keys: name one by its thumbprint or its file")
    if prints:
        return prints.pop()
    if len(which) == _THUMBPRINT and "/" not in which:
        return which
    try:
        keys, _ = read_keys([Path(which)])
    except OSError:
        raise ConfigurationError(
            f"{which!r} is not a key: name one by kid (watchword key list), thumbprint, or a file of one public key"
        ) from None
    if len(keys) != 1:
        raise ConfigurationError(f"{which}: contains {len(keys)} keys; name one by its kid")
    return thumbprint(keys[0].public)


class Rotation(NamedTuple):
    """What to rotate: the agent's settings file, and for how long both keys are valid."""

    agent: Path
    config: Path
    overlap: str
    wait: str
    life: str | None
    without: tuple[str, ...]


def run_rotate(wanted: Rotation, *, as_json: bool) -> int:
    """Publish a new key for an agent, switch its signer and let the old key end; return the exit code."""
    overlap, wait = seconds("--overlap", wanted.overlap), seconds("--wait", wanted.wait)
    life = None if wanted.life is None else seconds("--life", wanted.life)
    if overlap < _LEAST_OVERLAP:
        raise ConfigurationError(f"--overlap: at least {_LEAST_OVERLAP:g}s, in which the agent finds its new key")
    if life is not None and life <= overlap:
        raise ConfigurationError("--life: longer than --overlap")
    settings = read_settings(wanted.agent)
    agent = _signer_of(settings, wanted.agent)
    with_ = opened(wanted.config)
    if settings.principal in {one.principal for one in with_.parts.operators}:
        raise ConfigurationError(
            f"{settings.principal} is an operator: rotate operators' keys in the source that [[keys]] names; their"
            " statements stay in force"
        )
    if wait and with_.settings.to_presence() is None:
        raise ConfigurationError(
            "no way to see which agents know the new key: name a channel in [control] presence, or add --wait 0"
        )
    times = _Times(overlap, wait, life, wanted.without)
    return finish(_rotate(with_, str(settings.principal), agent, times, as_json=as_json))


class _Times(NamedTuple):
    overlap: float
    wait: float
    life: float | None
    without: tuple[str, ...]


class _KeyFile(NamedTuple):
    """An agent's private key and its file; ``passphrase`` is None if the file is not encrypted."""

    file: Path
    key: SigningKey
    passphrase: Secret | None


def _signer_of(settings: Settings, path: Path) -> _KeyFile:
    """Return an agent's private key and its file; ConfigurationError if this command cannot replace it."""
    signer = settings.signer
    if settings.principal is None or signer is None:
        raise ConfigurationError(f"{path}: no principal, or no [signer], so there is no key to replace")
    if signer.source != "file":
        raise ConfigurationError(
            f'{path}: signer.source = "{signer.source}": the key is not in a file: create a new one where it is held,'
            " publish it by 'watchword key public' and 'watchword key publish', then name it in [signer]"
            " (docs/rotation.md)"
        )
    chosen = FileSigner.model_validate(signer.options)
    if chosen.key_id is not None:
        raise ConfigurationError(f"{path}: signer.key_id: leave it out, or the new key would have the old one's id")
    file, passphrase = path.parent / chosen.key, passphrase_of(chosen, path.parent, warn)
    return _KeyFile(file, read_private_key(file, warn=warn, passphrase=passphrase), passphrase)


async def _rotate(with_: Opened, principal: str, agent: _KeyFile, times: _Times, *, as_json: bool) -> int:
    file, old, passphrase = agent
    new = SigningKey.generate(old.algorithm)
    async with with_.desk() as desk:
        clock = with_.agent.clock
        key = new.verification_key(principal)
        if times.life is not None:
            key = replace(key, not_after=int(clock() + times.life))
        step: dict[str, Any] = {"principal": principal, "new": new.key_id.decode(), "old": old.key_id.decode()}
        await desk.say(GiveKey(key))
        tell(step | {"step": "published"}, f"key {key.key_id.decode()} of {principal} is given", as_json=as_json)
        missing = await _heard_by_all(with_, desk, times) if times.wait else []
        if missing:
            raise ConfigurationError(
                f"after {times.wait:g} s the new key is not known to {', '.join(missing)}; nothing was switched:"
                " repair these, wait longer (--wait) or exclude an agent that lies (--without), and run it again"
            )
        _replace_key(file, new, passphrase)
        tell(step | {"step": "switched", "file": str(file)}, f"{file} has the new key", as_json=as_json)
        end = int(clock() + times.overlap)
        await desk.say(GiveKey(_ending(old, principal, end, desk)))
        line = f"key {old.key_id.decode()} ends {moment(end)}; the agent signs with the new one within seconds"
        tell(step | {"step": "ending", "end": end}, line, as_json=as_json)
    return OK


def _ending(old: SigningKey, principal: str, end: int, desk: Desk) -> VerificationKey:
    """Return the old key with its end time; an earlier end that it already has stays."""
    key = VerificationKey.from_public_key(old.public, principal=principal, key_id=thumbprint_id(old.public))
    known = desk.control.limited(key)
    return replace(key, not_after=end if known.not_after is None else min(end, known.not_after))


async def _heard_by_all(with_: Opened, desk: Desk, times: _Times) -> list[str]:
    """Wait until all processes that announce themselves have the last statement; return those that do not in time.

    An announcement may be a lie, so contained agents are ignored, and others can be excluded by name.
    """
    loop, clock = asyncio.get_running_loop(), with_.agent.clock
    end, number = loop.time() + times.wait, desk.control.link(desk.by).number
    judging, found = judge(with_.agent), Found()
    judging.verifier.obey(desk.control)
    place, contained = Place(with_.agent, with_.settings, with_.directory), desk.control.containment

    def is_contained(principal: str) -> bool:
        return contained(principal, clock) is not None

    while True:
        await hear(found, judging, place, since=clock() - SEEN_WITHIN)
        present = found.presence.look(since=clock() - SEEN_WITHIN, is_contained=is_contained)
        missing = [
            f"{one.principal} ({instance.said.instance})"
            for one in present
            if not one.contained and one.principal not in times.without
            for instance in one.instances
            if not instance.said.has_heard(desk.by, number, "key")
        ]
        if not missing or loop.time() >= end:
            return missing
        await asyncio.sleep(min(LOOK_EVERY, max(0.0, end - loop.time())))


def _replace_key(file: Path, key: SigningKey, passphrase: Secret | None) -> None:
    """Replace a private key atomically, with the same encryption."""
    try:
        descriptor, beside = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # readable by its owner only
        try:
            with os.fdopen(descriptor, "wb") as out:
                out.write(key.to_pem(None if passphrase is None else passphrase.read().encode()))
                out.flush()
                os.fsync(descriptor)
            Path(beside).replace(file)
        except OSError:
            Path(beside).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}; the agent still uses its old key") from None
