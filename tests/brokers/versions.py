"""What a broker says about itself, asked over its own protocol, and the versions pinned for the tests."""

import json
import os
import socket
import struct
from pathlib import Path
from urllib.parse import urlsplit

DOCKER = Path(__file__).parents[2] / "docker"


def pinned() -> dict[str, str]:
    """Return docker/versions.env as a mapping; the environment overrides it, as it does for compose."""
    lines = (DOCKER / "versions.env").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {name: os.environ.get(name, value) for name, value in settings.items()}


def nats_version(url: str, *, timeout: float = 5) -> str:
    """Return the server's version from the INFO line with which every NATS connection opens."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 4222), timeout=timeout) as connection:
        line = connection.makefile("rb").readline()
    if not line.startswith(b"INFO "):
        raise ConnectionError(f"{url} does not speak NATS")
    return f"nats-server {json.loads(line[5:])['version']}"


def redis_version(url: str, *, timeout: float = 5) -> str:
    """Return product and version from INFO; a password in the URL is not supported here."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout=timeout) as connection:
        connection.sendall(b"INFO server\r\n")
        stream = connection.makefile("rb")
        size = stream.readline()
        if not size.startswith(b"$"):
            raise ConnectionError(f"{url} does not speak Redis, or wants a password")
        lines = stream.read(int(size[1:])).decode().splitlines()
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    if "valkey_version" in told:
        return f"Valkey {told['valkey_version']}"
    return f"Redis {told['redis_version']}"


def kafka_metadata_level(address: str, *, timeout: float = 5) -> int | None:
    """Return the finalized `metadata.version` level (KIP-584), or None: the protocol tells no release number.

    Kafka 4.0 stands at level 25; brokers that are not Kafka in KRaft mode do not tell one.
    """
    host, _, port = address.rpartition(":")
    # ApiVersions v3: key, version, correlation id, no client id, no tags; client name "w", version "1", no tags.
    request = struct.pack(">hhih", 18, 3, 1, -1) + b"\x00" + b"\x02w\x021" + b"\x00"
    with socket.create_connection((host, int(port)), timeout=timeout) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        stream = connection.makefile("rb")
        (size,) = struct.unpack(">i", stream.read(4))
        answer = stream.read(size)
    # The features stand in tagged fields at the end, the finalized last; a compact string is its length + 1, its bytes.
    name = b"\x11metadata.version"
    finalized = answer.rfind(name)
    if finalized < 0:
        return None
    (level,) = struct.unpack_from(">h", answer, finalized + len(name))
    return int(level)
