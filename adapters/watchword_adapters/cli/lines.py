"""``watchword sign`` and ``watchword verify``: sign and verify messages in JSON, one per line."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from watchword import ConfigurationError, Rejected, SigningError, Unavailable
from watchword.agent import require
from watchword.quota import Bounds
from watchword.spi import Admission, MemoryReplayStore
from watchword.strict import json_object
from watchword.trust import Demerits, Trust
from watchword.wire_json import (
    message_from_json,
    message_from_members,
    message_to_json,
    verdict_to_json,
)
from watchword_adapters.cli import OK
from watchword_adapters.cli.obeying import obeying
from watchword_adapters.cli.terminal import code_of, one_line, standard_input
from watchword_adapters.config import load
from watchword_adapters.regular_file import without_mark
from watchword_adapters.settings_file import read_settings

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping
    from pathlib import Path

    from watchword import Watchword
    from watchword.spi import Claim, Signer

MAX_LINE_BYTES: Final = 64 * 1024 * 1024
_REQUEST_ID_DIGITS: Final = 32
_UNBOUNDED: Final = Bounds(per_principal=sys.maxsize, in_all=sys.maxsize, unverified=sys.maxsize)


class OneWindow:
    """The replay store of a run: all lines are one log, with or without positions, and ids never expire."""

    def __init__(self) -> None:
        self._ids = MemoryReplayStore(horizon=None, bounds=_UNBOUNDED)

    async def claim(self, claim: Claim) -> Admission:
        """See ``ReplayStore.claim``."""
        return await self._ids.claim(replace(claim, log=claim.scope, unacked=False))


def run_sign(config: Path) -> int:
    """Sign the messages on standard input; return the exit code."""
    signer = load(config, warn=warn, telemetry=False).signer
    return _run(_sign(signer))


def run_verify(config: Path) -> int:
    """Verify the messages on standard input; return the exit code."""
    own = Trust(Demerits(time.time))  # lines must not affect the agents' scores
    watchword = load(config, replay=OneWindow(), trust=own, warn=warn, telemetry=False)
    require(watchword, reads=True)
    return _run(_verify(watchword, config))


def _run(work: Coroutine[Any, Any, int]) -> int:
    """Run to the end; Control-C ends it at once, while ``asyncio.run`` would wait for the next line first."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


async def _sign(signer: Signer) -> int:
    for where, line in _lines(standard_input()):
        try:
            members = json_object(line)
            chosen = _Chosen(members)
            message = message_from_members(members)
            signed = await signer.sign(
                message, recipient=chosen.recipient, expires_at=chosen.expires_at, in_reply_to=chosen.in_reply_to
            )
        except (ValueError, SigningError) as error:
            raise ConfigurationError(f"{where}: {error}") from None
        write_line(message_to_json(message, signed.header))
    return OK


async def _verify(watchword: Watchword, config: Path) -> int:
    code, verifier = OK, watchword.verifier
    async with obeying(watchword, read_settings(config), config.parent):
        for where, line in _lines(standard_input()):
            try:
                message = message_from_json(line)
            except ValueError as error:
                raise ConfigurationError(f"{where}: {error}") from None
            try:
                write_line(verdict_to_json(await verifier.verify(message)))
            except (Rejected, Unavailable) as verdict:
                write_line(verdict_to_json(verdict))
                code = max(code, code_of(verdict))
    return code


class _Chosen:
    """The signing options of a line, removed from ``members``."""

    def __init__(self, members: dict[str, object]) -> None:
        recipient, expires_at, request = (
            members.pop(name, None) for name in ("recipient", "expires_at", "in_reply_to")
        )
        if not (recipient is None or isinstance(recipient, str)):
            raise ValueError("recipient: write a principal, or null")
        if isinstance(expires_at, bool) or not (expires_at is None or isinstance(expires_at, int)):
            raise ValueError("expires_at: write whole seconds since the epoch, or null")
        self.recipient: Final = recipient
        self.expires_at: Final = expires_at
        self.in_reply_to: Final = None if request is None else _message_id(request)


def _message_id(value: object) -> bytes:
    try:
        raw = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        raw = b""
    if raw.hex() != value or len(value) != _REQUEST_ID_DIGITS:
        raise ValueError(
            f"in_reply_to: write the {_REQUEST_ID_DIGITS} lower-case hex digits of the request's id, or null"
        )
    return raw


def _lines(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Yield the lines that are not blank, each with its number for errors."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise ConfigurationError(f"line {number}: longer than {MAX_LINE_BYTES} bytes")
        line = without_mark(line) if number == 1 else line
        if line.strip():
            yield f"line {number}", line


def write_line(members: Mapping[str, object]) -> None:
    """Write a line and flush: its reader may wait for it before sending the next one."""
    sys.stdout.write(json.dumps(members) + "\n")
    sys.stdout.flush()


def warn(event: str, **fields: str | float | None) -> None:
    """Write a warning to standard error, since standard output is for verdicts."""
    told = " ".join(f"{name}={value}" for name, value in fields.items())
    sys.stderr.write(f"watchword: warning: {one_line(f'{event} {told}')}\n")
