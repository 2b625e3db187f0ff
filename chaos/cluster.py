"""Three nats-servers that are one cluster; restarts and pauses take one of them after the other."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Final

from tests.brokers.broker import Broker
from tests.brokers.nats import wheel
from tests.brokers.process import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVERS: Final = 3


class _Turns:
    """A Host that is all of them: whatever is done is done to the next one."""

    def __init__(self, servers: list[Broker]) -> None:
        self._servers = servers
        self._turn = cycle(servers)
        self._paused: Broker | None = None

    def log(self) -> str:
        return "".join(server.host.log() for server in self._servers if server.host is not None)

    def running(self) -> bool:
        return True

    def pause(self) -> None:
        self._paused = next(self._turn)
        self._paused.pause()

    def unpause(self) -> None:
        if self._paused is not None:
            self._paused.unpause()

    def restart(self) -> None:
        next(self._turn).restart()

    def stop(self) -> None:
        for server in self._servers:
            server.stop()


@contextmanager
def cluster(directory: Path) -> Iterator[Broker]:
    """Run the servers; the address is all of theirs, separated by commas."""
    routes = [free_port() for _ in range(SERVERS)]
    with ExitStack() as stack:
        servers = []
        for number, port in enumerate(routes):
            home = directory / f"server-{number}"
            home.mkdir()
            settings = home / "nats.conf"
            others = ", ".join(f'"nats://127.0.0.1:{other}"' for other in routes)
            settings.write_text(
                f'server_name: "s{number}"\n'
                f'cluster {{ name: "chaos", listen: "127.0.0.1:{port}", routes: [{others}] }}\n'
            )
            server = wheel(home, "-c", str(settings))
            stack.callback(server.stop)
            servers.append(server)
        address = ",".join(server.address for server in servers)
        yield Broker(
            bus="nats",
            kind="process",
            address=address,
            version=f"{SERVERS} times {servers[0].version}",
            host=_Turns(servers),
            ready_line="Server is ready",
        )
