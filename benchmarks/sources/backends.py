"""How fast each back-end signs: alone, in groups, and on both buses by one that takes 20 ms a call.

SoftHSM stands for tokens, OpenBao on this machine for Transit, and moto for KMS, which is a stand-in: its times say
what the SDK costs, and nothing of AWS. The SVID comes from a stand-in, too, and signs in memory. ``python -m
benchmarks.sources.backends`` prints the figures alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from benchmarks.brokers import server
from tests.brokers.broker import NotHereError
from tests.custody.kms import ACCESS, REGION, Kms
from tests.custody.openbao import OpenBao
from tests.custody.softhsm import SoftHsm
from tests.support.board import Board
from tests.support.identities import PLANNER
from tests.support.workload_api import Authority, WorkloadApi
from watchword import Algorithm, Policy, SigningKey, Watchword
from watchword.spi import Channel, Context, Message, Signer
from watchword_adapters.kafka import SigningProducer
from watchword_adapters.nats import connect
from watchword_adapters.signers import aws_kms, file, pkcs11, transit
from watchword_adapters.signers.held import HeldKey, HeldOptions
from watchword_adapters.signing_queue import SigningQueue
from watchword_adapters.spiffe.signer import SvidSigner
from watchword_adapters.spiffe.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from watchword.algorithms import PublicKey
    from watchword.spi import NamedBackend

ALICE: Final = "agent://bench/alice"
TASKS: Final = Channel("nats", "bench", "tasks")
SLOW_MS: Final = 20.0
AT_ONCE: Final = 256
"""Tasks that send at the same time."""

BATCHES: Final = (64, 256)
_SECRETS: Final = {"BENCH_PIN": "", "BENCH_TOKEN": "", "BENCH_PASSPHRASE": "correct horse battery staple"}


def measure(*, small: bool = False) -> dict[str, Any]:
    """Return the figures of each back-end that is available here, by its name; ``{"missing": why}`` of another.

    Each has ``sign_ms`` (median of calls one after the other), ``messages_per_s_alone`` (each awaited before the next)
    and ``messages_per_s_in_groups`` (256 tasks send at once, 64 messages a signature).
    """
    found: dict[str, Any] = {}
    # A socket's path may have 107 bytes.
    with TemporaryDirectory(prefix="ww-") as folder, _environment():
        for name, make in _BACKENDS.items():
            directory = Path(folder) / name
            directory.mkdir()
            try:
                with make(directory) as backend:
                    found[name] = asyncio.run(_of(backend, seconds=0.2 if small else 3.0))
            except NotHereError as error:
                found[name] = {"missing": str(error)}
    return found


def on_buses(*, small: bool = False) -> dict[str, Any]:
    """Return messages a second on a NATS server and a Kafka broker, by a back-end that takes 20 ms a call.

    By how they are sent (``alone``, ``in_groups``, and on Kafka ``in_batches`` of the caller's) and the size of batch.
    """
    found: dict[str, Any] = {"sign_ms": SLOW_MS}
    seconds = 0.3 if small else 5.0
    for bus, of in (("nats", _on_nats), ("kafka", _on_kafka)):
        with server(bus, None) as broker:  # type: ignore[arg-type]  # one of both
            found[bus] = {"broker": broker.told}
            for batch in BATCHES:
                found[bus][f"batch_{batch}"] = asyncio.run(of(broker.address, batch, seconds))
    return found


class SlowKey:
    """A custodian that takes its time."""

    def __init__(self, milliseconds: float) -> None:
        self._key = SigningKey.generate()
        self._seconds = milliseconds / 1000

    def public(self) -> PublicKey:
        """See ``Custodian``."""
        return self._key.public

    def sign(self, data: bytes, algorithm: Algorithm) -> bytes:
        """See ``Custodian``."""
        del algorithm
        time.sleep(self._seconds)
        return self._key.sign_now(data)


async def _of(backend: NamedBackend, seconds: float) -> dict[str, Any]:
    signer = Signer(
        realm="bench", principal=ALICE, key=backend, clock=time.time, key_id=backend.key_id, algorithm=backend.algorithm
    )
    queue, message = SigningQueue(signer), Message(channel=TASKS, value=bytes(256))

    async def send() -> None:
        await queue.sign(signer.prepare(message))

    times = list[float]()
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begun = time.perf_counter()
        await backend.sign(os.urandom(64))
        times.append(time.perf_counter() - begun)
    return {
        "algorithm": backend.algorithm.name,
        "sign_ms": round(statistics.median(times) * 1000, 3),
        "messages_per_s_alone": await _rate(send, 1, seconds),
        "messages_per_s_in_groups": await _rate(send, AT_ONCE, seconds),
    }


async def _rate(send: Callable[[], Awaitable[object]], at_once: int, seconds: float) -> int:
    """Return how often a second tasks can send that each wait for their own."""
    count, begun = 0, time.perf_counter()
    end = begun + seconds

    async def one() -> None:
        nonlocal count
        while True:  # at least once: a busy machine may begin when the time is over
            await send()
            count += 1
            if time.perf_counter() >= end:
                return

    await asyncio.gather(*(one() for _ in range(at_once)))
    return round(count / (time.perf_counter() - begun))


async def _on_nats(address: str, batch: int, seconds: float) -> dict[str, int]:
    client = await connect(address, watchword=_slow_agent(batch))
    try:

        async def send() -> None:
            await client.publish("backends", bytes(256))

        found = {"alone": await _rate(send, 1, seconds), "in_groups": await _rate(send, 4 * batch, seconds)}
        await client.flush()
        return found
    finally:
        await client.close()


async def _on_kafka(address: str, batch: int, seconds: float) -> dict[str, int]:
    admin, topic = AIOKafkaAdminClient(bootstrap_servers=address), f"backends-{os.urandom(4).hex()}"
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
    finally:
        await admin.close()
    agent = _slow_agent(batch)
    async with SigningProducer(bootstrap_servers=address, watchword=agent, max_batch_size=1 << 18) as producer:

        async def send() -> None:
            await producer.send(topic, bytes(256), partition=0)

        async def send_batch() -> None:
            filled = producer.create_batch(topic=topic)
            while filled.record_count() < batch:
                filled.append(key=None, value=bytes(256), timestamp=None)
            await producer.send_batch(filled, topic, partition=0)

        found = {"alone": await _rate(send, 1, seconds), "in_groups": await _rate(send, 4 * batch, seconds)}
        found["in_batches"] = batch * await _rate(send_batch, 1, seconds)
        await producer.flush()
        return found


def _slow_agent(batch: int) -> Watchword:
    key = HeldKey.of(SlowKey(SLOW_MS), HeldOptions(timeout=60.0), _context(Path()))
    return Watchword(realm="bench", principal=ALICE, key=key, batch=batch)


@contextmanager
def _in_file(directory: Path) -> Iterator[NamedBackend]:
    (directory / "key.pem").touch(mode=0o600)
    (directory / "key.pem").write_bytes(SigningKey.generate().to_pem())
    yield file.from_options({"key": "key.pem"}, _context(directory))


@contextmanager
def _in_encrypted_file(directory: Path) -> Iterator[NamedBackend]:
    (directory / "key.pem").touch(mode=0o600)
    (directory / "key.pem").write_bytes(SigningKey.generate().to_pem(_SECRETS["BENCH_PASSPHRASE"].encode()))
    yield file.from_options({"key": "key.pem", "passphrase_env": "BENCH_PASSPHRASE"}, _context(directory))


@contextmanager
def _in_token(directory: Path) -> Iterator[NamedBackend]:
    hsm = SoftHsm(directory)
    hsm.make_token("bench")
    os.environ["BENCH_PIN"] = hsm.pin
    options = {"module": hsm.module, "token": "bench", "key": "alice", "pin_env": "BENCH_PIN", "timeout": "60s"}
    yield pkcs11.generate(options, _context(directory), Algorithm.ED25519)


@contextmanager
def _in_engine(directory: Path) -> Iterator[NamedBackend]:
    bao = OpenBao(directory)
    try:
        bao.make_key("alice", "ed25519")
        os.environ["BENCH_TOKEN"] = bao.token
        options = {"address": bao.address, "key": "alice", "version": 1, "token_env": "BENCH_TOKEN", "timeout": "60s"}
        yield transit.from_options(options, _context(directory))
    finally:
        bao.stop()


@contextmanager
def _in_kms(directory: Path) -> Iterator[NamedBackend]:
    kms = Kms(directory)
    try:
        options = {"key": kms.make_key(), "region": REGION, "endpoint": kms.address, "timeout": "60s"}
        yield aws_kms.from_options(options, _context(directory))
    finally:
        kms.stop()


@contextmanager
def _of_svid(directory: Path) -> Iterator[NamedBackend]:
    root = Authority()
    api = WorkloadApi(directory, [root.issue()], [root])
    signer = SvidSigner(
        realm="prod",  # the board's
        principal=PLANNER,
        workload=Workload(api.socket, warn=_ignore),
        open_presence=Board().open,
        policy=Policy(),
        warn=_ignore,
        clock=time.time,
        timeout=10.0,
    )
    try:
        assert signer.wait(10.0)  # noqa: S101 - the premise
        yield signer
    finally:
        signer.close()
        api.stop()


@contextmanager
def _slow(directory: Path) -> Iterator[NamedBackend]:
    yield HeldKey.of(SlowKey(SLOW_MS), HeldOptions(timeout=60.0), _context(directory))


_BACKENDS: Final = {
    "file": _in_file,
    "file_encrypted": _in_encrypted_file,
    "svid": _of_svid,
    "pkcs11_softhsm": _in_token,
    "transit_openbao": _in_engine,
    "aws_kms_moto": _in_kms,
    "slow_20_ms": _slow,
}


def _ignore(*_: object, **__: object) -> None:
    """Warn nobody."""


def _context(directory: Path) -> Context:
    return Context(realm="bench", directory=directory, clock=time.time, policy=Policy(), warn=_ignore)


@contextmanager
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(ACCESS | _SECRETS)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def main() -> int:
    """Measure and print; ``--small`` takes seconds, and measures nothing."""
    small = "--small" in sys.argv[1:]
    found = {"backends": measure(small=small), "on_buses": on_buses(small=small)}
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
