import io
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError
from nats.errors import AuthorizationError
from rich.console import Console

from tests.unit.cli.conftest import PLANNER, Run
from watchword import Reason, Rejected, Unavailable
from watchword.spi import Channel, Message, Position
from watchword_adapters.cli.tail import MAX_ROWS, LiveTable

HOSTILE = "\x1b[2J\u202e[red]x[/red]:smile:\r\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        *(
            ((channel,), f"channel '{channel}': write kafka://prod/<topic> or nats://prod/<subject>, with the realm")
            for channel in (
                "",
                "tasks",
                "prod/tasks",
                "nats:/prod/a",
                "nats://localhost:4222/a",
                "amqp://prod/a",
                "nats://a",
            )
        ),
        (("nats://other/tasks",), "watchword.toml is of realm 'prod': write nats://prod/..., or use other settings"),
        (("kafka://prod/tasks.*",), "channel: 'kafka://prod/tasks.*': write a single topic; wildcards are for"),
        (("nats://prod/a.>.b",), "channel: 'nats://prod/a.>.b': "),
        (("nats://prod/a b",), "channel: 'nats://prod/a b': "),
        (("nats://prod/.a",), "channel: 'nats://prod/.a': "),
        (("kafka://prod/tasks", "--servers", "localhost:port"), "--servers: write the addresses of one or more"),
        (("kafka://prod/tasks", "--servers", "nats://localhost:4222"), 'servers, as ["localhost:9092"]'),
        (("nats://prod/tasks", "--servers", "http://localhost:4222"), 'servers, as ["nats://localhost:4222"]'),
        (("kafka://prod/tasks", "--stream", "S"), "--stream: Kafka has topics only; omit it"),
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
    line = ended.err.splitlines()[-1]
    assert line.startswith("watchword: broker unavailable: ")
    assert line.endswith(f" (at {servers}; use --servers for another)")
    assert line.count("Error") == 1


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (TimeoutError(), 3, "broker unavailable: TimeoutError: no answer in time (at nats://a:1; use --servers"),
        (ConnectionResetError(), 3, "broker unavailable: ConnectionResetError (at nats://a:1;"),
        (KafkaConnectionError("no"), 3, "broker unavailable: KafkaConnectionError: no (at nats://a:1;"),
        (TopicAuthorizationFailedError("t"), 2, "the broker refuses this user: [Error 29] TopicAuthorizationFailed"),
        (
            AuthorizationError(),
            2,
            "the broker refuses this user: AuthorizationError: nats: authorization failed (at nats://a:1;",
        ),
    ],
)
@pytest.mark.usefixtures("config")
def test_what_a_client_raises_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, told: str
) -> None:
    """What the broker does not answer can be tried again; what it forbids cannot; both say where that was."""

    async def fail(*_: object, **__: object) -> AsyncGenerator[Message]:
        for one in [error]:
            raise one
        yield Message(channel=Channel("nats", "prod", "a"), value=b"")

    monkeypatch.setattr("watchword_adapters.nats.tail.tail", fail)
    ended = run("tail", "nats://prod/a", "--servers", "nats://a:1")
    assert (ended.code, ended.out) == (code, "")
    assert told in ended.err


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
