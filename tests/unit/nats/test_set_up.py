"""Every way to make something of ours says at once what is no Watchword."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import PATIENCE
from tests.unit.kafka.fakes import KEY, SENDER, Keys, watchword
from watchword import ConfigurationError
from watchword.jwk import to_jwks
from watchword_adapters.config import load
from watchword_adapters.nats import NatsQuarantine, WatchwordClient, connect, redrive


async def _made(make: Callable[..., Any], agent: Any) -> None:
    make(watchword=agent)


@pytest.mark.parametrize(
    "way",
    [
        lambda agent: _made(WatchwordClient, agent),
        lambda agent: connect("nats://127.0.0.1:1", watchword=agent),
        lambda agent: _made(lambda watchword: NatsQuarantine("copies", watchword=watchword), agent),
        lambda agent: redrive.copies("copies", watchword=agent, servers="nats://127.0.0.1:1"),
        lambda agent: anext(redrive.redrive("copies", watchword=agent, servers="nats://127.0.0.1:1")),
    ],
    ids=["client", "connect", "quarantine", "copies", "redrive"],
)
async def test_a_path_in_the_place_of_a_watchword_is_refused(way: Callable[[Any], Awaitable[Any]]) -> None:
    """The error names the call that makes one of it, before anything is connected."""
    with pytest.raises(ConfigurationError, match=r'write watchword\.load\("watchword.toml"\)'):
        await way("watchword.toml")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"recipient": "agent://acme/cloud"}, "recipient=: write a function"),
        ({"quarantine": "copies"}, "quarantine=: "),
        ({"reader": ""}, "reader=''"),
        ({"reader": 5}, "reader=5"),
        ({"reader": "a\n"}, r"reader='a\\n'"),
        ({"reader": "x" * 256}, "reader='xxx"),
    ],
)
async def test_what_a_client_cannot_use_is_refused_at_once(given: dict[str, Any], why: str) -> None:
    """The error says what to write instead, before anything is connected."""
    with pytest.raises(ConfigurationError, match=why):
        WatchwordClient(watchword=watchword(Keys()), **given)


@pytest.mark.parametrize("kept", [True, False], ids=["journal", "nothing"])
async def test_a_name_that_nothing_is_kept_under_is_told(tmp_path: Path, *, kept: bool) -> None:
    """One line says what the name needs; and that a journal is enough for one process at a time on one machine."""
    state = f'"{tmp_path}/state"' if kept else '""'
    (tmp_path / "agents.jwks").write_text(to_jwks([KEY.verification_key(SENDER)]))
    keys = '[[keys]]\nsource = "files"\npaths = ["agents.jwks"]\n'
    (tmp_path / "watchword.toml").write_text(f'realm = "test"\n{keys}[replay]\nstate = {state}\n')
    agent, told = load(tmp_path / "watchword.toml"), list[tuple[str, dict[str, Any]]]()
    agent.audit.warn = lambda event, **fields: told.append((event, fields))  # type: ignore[method-assign]  # a tap
    WatchwordClient(watchword=agent)
    assert told == []
    WatchwordClient(watchword=agent, reader="controller-1")
    ((event, fields),) = told
    assert (event, fields["reader"]) == ("replay.name_unused", "controller-1")
    assert 'store = "sqlite", "redis" or "nats_kv"' in fields["remedy"]
    assert ("omit reader=: the journal" in fields["remedy"]) is kept


async def test_a_name_in_a_store_is_used_without_a_word() -> None:
    """Where the store is shared the name is what it is for."""
    agent, told = watchword(Keys()), list[str]()
    agent.audit.warn = lambda event, **_: told.append(event)  # type: ignore[method-assign]  # a tap
    WatchwordClient(watchword=agent, reader="controller-1")
    assert told == []


@pytest.mark.parametrize("given", ["ORDERS", 1, None])
async def test_a_sole_reader_says_yes_or_no(given: Any) -> None:
    """Something that merely counts as true would leave out the store that several readers need."""
    client = WatchwordClient(watchword=watchword(Keys()))
    with pytest.raises(ConfigurationError, match=r"sole_reader=.*: write True if only this process"):
        client.jetstream(sole_reader=given)


async def test_connecting_that_is_cancelled_leaves_nothing_open() -> None:
    """A server that never introduces itself sees the connection end, though the client is still referenced."""
    reached, left = asyncio.Event(), asyncio.Event()

    async def serve(hears: asyncio.StreamReader, says: asyncio.StreamWriter) -> None:
        reached.set()
        await hears.read()
        left.set()
        says.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = WatchwordClient(watchword=watchword(Keys()))
    async with server, asyncio.timeout(PATIENCE):
        connecting = asyncio.ensure_future(client.connect(f"nats://127.0.0.1:{port}"))
        await reached.wait()
        while not connecting.done():  # on Python 3.11 a cancellation may be lost
            connecting.cancel()
            await asyncio.wait([connecting], timeout=0.05)
        await left.wait()
