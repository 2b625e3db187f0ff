"""Commands that judge messages obey operators, over a control log in memory."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import PLANNER, Run
from tests.unit.control.memory_log import Entries
from watchword import Watchword, load
from watchword.quarantine_copy import Kept
from watchword.spi import Channel, Message
from watchword.wire_json import message_to_json
from watchword_adapters.control import desk as desks
from watchword_adapters.redriving import Redriven, Stored, judge, judged_copy

TASKS = Channel("nats", "prod", "tasks")
NEW = "agent://acme/new"


@pytest.fixture(params=["tail", "redrive", "verify"])
def judges(
    request: pytest.FixtureRequest, entries: Entries, run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Return what lets a command judge a message of an agent whose key comes from the control log alone."""
    assert entries.kept == []
    assert run("keygen", "-p", NEW).code == 0
    path = directory / "sender.toml"
    path.write_text(f'realm = "prod"\nprincipal = "{NEW}"\n[signer]\nkey = "new.pem"\n')
    message = Message(channel=TASKS, value=b"x")
    message = replace(message, headers=(asyncio.run(load(path).signer.sign(message)).header,))

    async def tail(*_: object, **__: object) -> AsyncGenerator[Message]:
        yield message

    async def redrive(*_: object, watchword: Watchword, **__: object) -> AsyncGenerator[Redriven]:
        kept = Kept(
            reason="contained", detail="", channel=TASKS, position=None, appended_at=None, time="", principal=NEW,
            reader="", digest="", complete=True, message=message,
        )  # fmt: skip
        judging = judge(watchword)
        await judging.verifier.start()  # as a client does
        yield await judged_copy(judging, Stored(id="1", kept=kept), kept)

    monkeypatch.setattr("watchword_adapters.cli.tail.reader_has_gone", lambda: False)  # there is no pipe here
    monkeypatch.setattr("watchword_adapters.nats.tail.tail", tail)
    monkeypatch.setattr("watchword_adapters.nats.redrive.redrive", redrive)
    command = {
        "tail": ("tail", TASKS.uri),
        "verify": ("verify",),
        "redrive": ("quarantine", "redrive", "--all", "--from", "q", "--bus", "nats"),
    }[request.param]
    verdicts = ("--verify",) if request.param == "tail" else ()
    line = json.dumps(message_to_json(message))
    return lambda *, verify=True: run(*command, *(verdicts if verify else ()), "-c", "planner.toml", stdin=line)


def test_a_command_judges_by_what_operators_say(judges: Callable[..., Any], run: Run, directory: Path) -> None:
    """Promise (A23, A24): who looks on sees what readers see: keys, containments and revocations, to the newest."""
    assert judges().lines[0]["reason"] == "unknown_key"
    run("key", "publish", "new.jwk", "-c", "oncall.toml")
    verified = judges()
    assert (verified.code, verified.lines[0]["principal"]) == (0, NEW)
    run("contain", NEW, "-c", "oncall.toml")
    assert judges().lines[0]["reason"] == "contained"
    run("release", NEW, "-c", "oncall.toml")
    run("key", "revoke", "new.jwk", "-c", "oncall.toml", "--yes")
    rejected = judges()
    assert (rejected.code, rejected.lines[0]["reason"]) == (1, "key_revoked")
    assert list((directory / ".watchword").glob("control-*")) == [], "the agent itself may be running on its state"


def test_a_control_log_that_is_away_is_told(
    judges: Callable[..., Any], entries: Entries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it no verdict would be true, so none is given."""
    entries.down = True
    monkeypatch.setattr(desks, "TIMEOUT", 0.1)
    ended = judges()
    assert (ended.code, ended.out) == (3, "")
    assert "control" in ended.err
    assert PLANNER not in ended.err


def test_settings_without_a_control_log_are_enough(judges: Callable[..., Any], directory: Path) -> None:
    """Most have none."""
    path = directory / "planner.toml"
    path.write_text(path.read_text().partition("[control]")[0].replace('[[keys]]\nsource = "control"\n', ""))
    assert judges().lines[0]["reason"] == "unknown_key"


@pytest.mark.parametrize("judges", ["tail"], indirect=True)
def test_who_only_reads_along_needs_no_control_log(judges: Callable[..., Any], entries: Entries) -> None:
    """Nothing is judged, so nothing of it has to be known."""
    entries.down = True
    shown = judges(verify=False)
    assert (shown.code, shown.lines[0]["channel"]) == (0, TASKS.uri)
