import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Ended, Run
from watchword import Reason, Rejected, Unavailable
from watchword.quarantine_copy import make_copy, read_copy
from watchword.spi import Channel, HeaderStyle, Message, Position
from watchword_adapters.kafka import redrive as kafka
from watchword_adapters.nats import redrive as nats
from watchword_adapters.redriving import Choice, Redriven, Stored

HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202e[red]x[/red]:smile:\r\n"


def stored(offset: int, verdict: Rejected | Unavailable, **fields: Any) -> Stored:
    """Return a copy as it is read back."""
    given: dict[str, Any] = {
        "channel": Channel("kafka", "prod", "tasks"),
        "value": b"{}",
        "key": b"k",
        "headers": (("content-type", b"text/plain"),),
        "position": Position("tasks/0", offset),
        "reader": "group",
    }
    copy = make_copy(Message(**given | fields), verdict, now=0.0, style=HeaderStyle.WATCHWORD)
    return Stored(id=f"0/{offset}", kept=read_copy(copy.value, copy.key, copy.headers), size=len(copy.value or b""))


UNSIGNED = stored(1, Rejected(Reason.UNSIGNED))
WAITING = stored(2, Unavailable("keys", "ConnectionError"))
ODD = stored(
    3,
    Rejected(Reason.UNKNOWN_KEY, HOSTILE, claimed_principal=HOSTILE),
    channel=Channel("nats", "prod", HOSTILE),
    position=Position(HOSTILE, 3),
    headers=((HOSTILE, HOSTILE.encode()),),
)
NONE = Stored(id="0/4", kept=None, fault=HOSTILE, size=9)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Give the copies above in place of a broker's; return what was asked for."""
    seen: list[dict[str, Any]] = []

    async def copies(place: str, **options: Any) -> list[Stored]:
        seen.append({"place": place, **options})
        return [UNSIGNED, WAITING, ODD, NONE]

    for module in (kafka, nats):
        monkeypatch.setattr(module, "copies", copies)
    return seen


@pytest.fixture
def on_kafka(run: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a command of the quarantine on Kafka, on a wide terminal."""
    monkeypatch.setenv("COLUMNS", "1000")
    with config.open("a") as file:
        file.write('[quarantine]\nkafka = "agents.quarantine"\n')

    def run_it(command: str, *arguments: str) -> Ended:
        return run("quarantine", command, *arguments, "--config", str(config), "--bus", "kafka")

    return run_it


def test_copies_are_counted_and_listed(on_kafka: Run, asked: list[dict[str, Any]]) -> None:
    """A line of counts by reason, then a row each, under a warning that nothing is verified."""
    ended = on_kafka("list")
    assert ended.code == 0
    assert ended.out.startswith("4 copies: 1 unsigned, 1 undetermined, 1 unknown_key, 1 no copy\n")
    assert "Not verified: anyone with write access to the quarantine may have forged this." in ended.out
    assert all(identity in ended.out for identity in ("0/1", "0/2", "0/3", "0/4"))
    assert asked[0]["place"] == "agents.quarantine"
    assert (asked[0]["limit"], asked[0]["bootstrap_servers"]) == (1000, ["localhost:9092"])


def test_one_bus_needs_no_word(run: Run, config: Path, asked: list[dict[str, Any]]) -> None:
    """Where the settings name one bus it is the one; where they name both, or none, the error asks which."""
    config.write_text(config.read_text() + '[quarantine]\nnats = "copies"\n[nats]\nservers = ["nats://n:1"]\n')
    assert run("quarantine", "list", "-c", str(config)).code == 0
    assert (asked[0]["place"], asked[0]["servers"]) == ("copies", ["nats://n:1"])
    config.write_text(config.read_text().replace("[quarantine]\n", '[quarantine]\nkafka = "copies"\n'))
    ended = run("quarantine", "list", "-c", str(config))
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "on which bus? write --bus kafka, or --bus nats" in ended.err


def test_a_reader_that_has_gone_is_no_fault_of_the_broker(on_kafka: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in 'watchword quarantine redrive --all | head -1': a closed pipe ends it quietly; a full disk is reported."""
    for error, code, told in (
        (BrokenPipeError(), 141, ""),
        (OSError(28, "No space left on device"), 2, "watchword: standard input or output: No space left on device\n"),
    ):
        monkeypatch.setattr(kafka, "redrive", results(Rejected(Reason.STALE)))
        monkeypatch.setattr("watchword_adapters.cli.quarantine.write_line", _failing(error))
        monkeypatch.setattr("watchword_adapters.cli._drop_output", lambda: None)
        ended = on_kafka("redrive", "--all")
        assert (ended.code, ended.out, ended.err) == (code, "", told)


def _failing(error: OSError) -> Callable[[object], None]:
    def write_line(_: object) -> None:
        raise error

    return write_line


def test_copies_are_listed_as_json(on_kafka: Run, asked: list[dict[str, Any]]) -> None:
    """One object a line, with a fault where it is no copy."""
    ended = on_kafka("list", "--json", "--limit", "5", "--servers", "kafka:1", "--from", "other")
    assert ended.lines[0] == {
        "copy": "0/1",
        "reason": "unsigned",
        "time": "1970-01-01T00:00:00.000+00:00",
        "channel": "kafka://prod/tasks",
        "position": "tasks/0@1",
        "claimed_principal": "",
        "size": 2,
    }
    assert ended.lines[3] == {"copy": "0/4", "fault": HOSTILE, "size": 9}
    assert (asked[0]["place"], asked[0]["limit"], asked[0]["bootstrap_servers"]) == ("other", 5, ["kafka:1"])


def test_a_copy_is_shown_in_full(on_kafka: Run, asked: list[dict[str, Any]]) -> None:
    """Every field with its meaning, and all of it as JSON."""
    assert asked == []
    ended = on_kafka("show", "0/2")
    assert ended.code == 0
    for text in ("undetermined", "keys ConnectionError", "content-type", "its author, as claimed"):
        assert text in ended.out
    (fields,) = on_kafka("show", "0/2", "--json").lines
    assert fields["verified"] is False
    assert (fields["value"], fields["key"], fields["complete"]) == ("e30=", "aw==", True)
    assert fields["headers"] == [["content-type", "dGV4dC9wbGFpbg=="]]
    assert "fault" in on_kafka("show", "0/4").out


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["list", "--json"],
        ["show", "0/3"],
        ["show", "0/3", "--json"],
        ["show", "0/4"],
        ["show", "0/4", "--json"],
    ],
    ids=" ".join,
)
def test_what_others_wrote_cannot_move_the_cursor_or_hide(
    on_kafka: Run, asked: list[dict[str, Any]], arguments: list[str]
) -> None:
    """Control and bidirectional characters and markup in any field are shown as what they are (A31)."""
    assert asked == []
    ended = on_kafka(*arguments)
    assert ended.code == 0
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", ended.out)
    assert "[red]x[/red]:smile:" in squeezed(ended.out)


def squeezed(out: str) -> str:
    """Return a table's text without blanks and lines."""
    return re.sub(r"[\s│]", "", out)


def test_a_long_quarantine_and_a_long_value_are_cut(on_kafka: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table shows the latest rows, the counts are of all; a large value is cut on the terminal, not in JSON."""
    found = [stored(at, Rejected(Reason.UNSIGNED), value=b"x" * 100_000) for at in range(250)]

    async def copies(*_: object, **__: object) -> list[Stored]:
        return found

    monkeypatch.setattr(kafka, "copies", copies)
    listed = on_kafka("list").out
    assert "250 copies: 250 unsigned" in listed
    assert "0/249 " in listed
    assert "0/49 " not in listed
    assert "allofthemwith--json" in squeezed(on_kafka("show", "0/7").out)
    assert len(str(on_kafka("show", "0/7", "--json").lines[0]["value"])) > 130_000


def test_reasons_that_nobody_knows_are_counted_under_one_name(on_kafka: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anyone who writes to the quarantine cannot fill the screen with labels of their own."""
    channel = ("watchword-channel", b"kafka://prod/tasks")
    labelled = [read_copy(b"", None, [("watchword-reason", b"%d" % at), channel]) for at in range(9)]
    found = [Stored(id="0/1", kept=kept) for kept in labelled]

    async def copies(*_: object, **__: object) -> list[Stored]:
        return found

    monkeypatch.setattr(kafka, "copies", copies)
    assert on_kafka("list").out.startswith("9 copies: 9 unknown reason\n")


def results(*verdicts: Rejected | Unavailable) -> Any:
    """Return a redrive with these results, which notes what it was asked for."""

    async def redrive(place: str, **options: Any) -> AsyncIterator[Redriven]:
        redrive.asked = {"place": place, **options}  # type: ignore[attr-defined]  # a note
        for at, verdict in enumerate(verdicts):
            assert UNSIGNED.kept is not None
            yield Redriven(id=f"0/{at}", read="original", kept=UNSIGNED.kept, verdict=verdict)

    return redrive


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([], 0),
        ([Rejected(Reason.STALE)], 1),
        ([Unavailable("keys")], 3),
        ([Rejected(Reason.STALE), Unavailable("keys"), Rejected(Reason.STALE)], 3),
    ],
)
def test_the_exit_code_tells_the_gravest_verdict(
    on_kafka: Run, monkeypatch: pytest.MonkeyPatch, verdicts: list[Rejected | Unavailable], code: int
) -> None:
    """0 where all verified, 1 where something was rejected, 3 where something could not be judged."""
    monkeypatch.setattr(kafka, "redrive", results(*verdicts))
    ended = on_kafka("redrive", "--all")
    assert ended.code == code
    assert [line["copy"] for line in ended.lines] == [f"0/{at}" for at in range(len(verdicts))]


def test_what_to_drive_is_handed_on(run: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids, reasons and channels choose; on NATS the client gives up soon."""
    redrive = results(Rejected(Reason.STALE))
    monkeypatch.setattr(nats, "redrive", redrive)
    chosen = ["0/0", "--reason", "undetermined", "--reason", "stale", "--channel", "nats://prod/a"]
    where = ["--config", str(config), "--bus", "nats", "--from", "copies", "--servers", "nats://nats:1"]
    assert run("quarantine", "redrive", *chosen, *where).code == 1
    only = redrive.asked["only"]
    assert only == Choice(ids=["0/0"], reasons=["undetermined", "stale"], channels=["nats://prod/a"])
    assert (redrive.asked["place"], redrive.asked["servers"]) == ("copies", ["nats://nats:1"])
    assert redrive.asked["allow_reconnect"] is False


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["redrive"], "redrive: write the ids of copies, or --all"),
        (["redrive", "0/1", "--all"], "redrive: write the ids of copies, or --all"),
        (["redrive", "--all", "--reason", "late\x1b"], "--reason 'late\\x1b': use one of altered, bad_signature"),
        (["redrive", "0/7"], "copy '0/7': not among the latest 1000, or not selected"),
        (["show", "9/9\x1b[2J"], "copy '9/9\\x1b[2J': not among the latest 1000; use an id of 'quarantine list'"),
        (["list", "--limit", "0"], "Invalid value for '--limit'"),
        (["show"], "Missing argument 'ID'"),
    ],
)
def test_wrong_use_is_told(
    on_kafka: Run, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, arguments: list[str], complaint: str
) -> None:
    """A slip in the arguments is exit code 2 and says what to write."""
    assert asked == []
    monkeypatch.setattr(kafka, "redrive", results())
    ended = on_kafka(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert complaint in ended.err.replace("\n", " ") or complaint in ended.err
    assert "\x1b[2J" not in ended.err


def test_a_quarantine_that_is_nowhere_is_told(run: Run, config: Path, asked: list[dict[str, Any]]) -> None:
    """Without a name in the settings or the arguments the error says where to put one."""
    for command in (["list"], ["show", "1"], ["redrive", "--all"]):
        ended = run("quarantine", *command, "--config", str(config), "--bus", "nats")
        assert ended.code == 2
        assert "quarantine: no nats in [quarantine]; add it there, or write --from NAME" in ended.err
    assert asked == []


@pytest.mark.parametrize("bus", ["kafka", "nats"])
@pytest.mark.parametrize("command", [["list"], ["redrive", "--all"]], ids=lambda command: command[0])
def test_a_broker_that_is_not_there_is_told(run: Run, config: Path, bus: str, command: list[str]) -> None:
    """Nobody at that address is exit code 3, in one line, soon."""
    address = {"kafka": "127.0.0.1:1", "nats": "nats://127.0.0.1:1"}[bus]
    ended = run("quarantine", *command, "-c", str(config), "--bus", bus, "--from", "copies", "--servers", address)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.splitlines()[-1].startswith("watchword: broker unavailable: ")


def test_a_missing_extra_is_told(on_kafka: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the bus's client is not installed the error says what to install."""

    async def copies(*_: object, **__: object) -> list[Stored]:
        raise ModuleNotFoundError(name="aiokafka")

    monkeypatch.setattr(kafka, "copies", copies)
    ended = on_kafka("list")
    assert ended.code == 2
    assert "aiokafka is not installed: pip install 'watchword[kafka]'" in ended.err


def test_an_error_of_ours_is_not_called_the_brokers(on_kafka: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw is shown as what it is."""

    async def copies(*_: object, **__: object) -> list[Stored]:
        raise ZeroDivisionError

    monkeypatch.setattr(kafka, "copies", copies)
    with pytest.raises(ZeroDivisionError):
        on_kafka("list")
