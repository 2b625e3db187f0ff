"""Every way to make something of ours says at once what is no Watchword."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.unit.kafka.fakes import Keys, watchword
from watchword import ConfigurationError
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


@pytest.mark.parametrize("given", ["ORDERS", 1, None])
async def test_a_sole_reader_says_yes_or_no(given: Any) -> None:
    """Something that merely counts as true would leave out the store that several readers need."""
    client = WatchwordClient(watchword=watchword(Keys()))
    with pytest.raises(ConfigurationError, match=r"sole_reader=.*: write True where this process alone"):
        client.jetstream(sole_reader=given)
