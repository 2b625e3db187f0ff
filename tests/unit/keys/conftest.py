"""A key server on this machine, its authority, and a name server that says what a test wants."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.key_server import HOST, Authority, KeyServer, authority, serving
from watchword_adapters.keys import https


@pytest.fixture(scope="session")
def ca() -> Iterator[Authority]:
    """Return an authority that only these tests trust."""
    with authority() as made:
        yield made


@pytest.fixture
def server(ca: Authority) -> Iterator[KeyServer]:
    """Return a server with a certificate for its name."""
    with serving(ca.server_side(HOST, "127.0.0.1")) as running:
        yield running


class Names(dict[str, list[str]]):
    """What the name server says of hosts; ``asked`` are the hosts that it was asked for."""

    def __init__(self) -> None:
        super().__init__({HOST: ["127.0.0.1"]})
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        """See ``resolve``."""
        del port
        self.asked.append(host)
        return self.get(host, [host])


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Return a name server, which is asked instead of the machine's own."""
    made = Names()
    monkeypatch.setattr(https, "resolve", made)
    return made


@pytest.fixture
def trusting(ca: Authority, names: Names) -> https.Https:
    """Return what fetches from servers of that authority on this machine."""
    del names
    return https.Https(ca=Path(ca.path), allow_private=True)
