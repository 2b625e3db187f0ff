import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.unit.cli.conftest import PLANNER, Run
from watchword import Reason, Rejected, Unavailable
from watchword.spi import Channel, Message, Position
from watchword_adapters.cli.tail import MAX_ROWS, LiveTable

HOSTILE = "\x1b[2J\u202e[red]x[/red]:smile:\r\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("tasks",), "write kafka://<realm>/<topic> or nats://<realm>/<subject>"),
        (("nats://other/tasks",), "is of realm 'prod'"),
        (("kafka://prod/tasks", "--stream", "S"), "--stream: Kafka has topics only; leave it out"),
        (("nats://prod/tasks", "--from-start"), "name the stream that does, by --stream NAME"),
        (("kafka://prod/tasks", "--servers", "a b"), "--servers: write the addresses"),
        (("nats://prod/tasks", "-c", "none.toml"), "none.toml: No such file or directory"),
    ],
)
def test_what_cannot_be_read_is_told(run: Run, config: Path, arguments: tuple[str, ...], complaint: str) -> None:
    """A slip in the arguments is exit code 2 and one line that says what to write."""
    assert config.exists()
    ended = run("tail", *arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert complaint in ended.err


@pytest.mark.parametrize("address", ["kafka://prod/tasks:127.0.0.1:1", "nats://prod/tasks:nats://127.0.0.1:1"])
def test_a_broker_that_is_not_there_is_told(run: Run, config: Path, address: str) -> None:
    """Nobody at that address is exit code 3, in one line, soon."""
    assert config.exists()
    channel, servers = address.split("tasks:")
    ended = run("tail", f"{channel}tasks", "--servers", servers)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.splitlines()[-1].startswith("watchword: broker unavailable: ")


def shown(table: LiveTable) -> str:
    """Return what a wide terminal shows."""
    out = io.StringIO()
    Console(file=out, width=400, force_terminal=False).print(table.render())
    return out.getvalue()


def test_the_table_shows_text_of_others_as_text() -> None:
    """A name that nobody verified is marked as claimed; nothing moves the cursor or is read as markup; rows are few."""
    table = LiveTable(f"nats://prod/{HOSTILE}")
    assert "nothing yet" in shown(table)
    message = Message(channel=Channel("nats", "prod", HOSTILE), value=b"", position=Position("S", 7))
    for _ in range(2 * MAX_ROWS):
        table.add(message, Rejected(Reason.UNKNOWN_KEY, HOSTILE, claimed_principal=HOSTILE))
    table.add(message, Unavailable("keys", HOSTILE))
    told = shown(table)
    assert "\x1b" not in told
    assert "\u202e" not in told
    assert "claimed: \\x1b[2J\\u202e[red]x[/red]:smile:" in told
    assert f"{2 * MAX_ROWS} rejected (unknown_key), 1 unavailable" in told
    assert told.count("claimed:") == MAX_ROWS - 1
    assert PLANNER not in told
