"""A realm with a control log: two operators at their commands, three readers, and agents that send."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from watchword import SigningKey
from watchword.jwk import to_jwk, to_jwks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

ROOT: Final = Path(__file__).parents[2]
ONCALL, SECURITY = "agent://acme/oncall", "agent://acme/security"
PLANNER, CONTROLLER = "agent://acme/planner", "agent://acme/controller"
READERS: Final = ("reader-1", "reader-2", "reader-3")
PATIENCE: Final = 120.0
QUIET: Final = 0.5
"""Seconds without a delivery after which there has been a last one."""


class Member:
    """A process of ``benchmarks.trust.member``; ``heard`` are its lines, in the order in which they came."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.heard: list[dict[str, Any]] = []
        self._process = process
        self._log = log
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - a pipe
        async for line in self._process.stdout:
            self.heard.append(json.loads(line))

    def delivered(self, who: str, since: float = 0.0, *, key: str | None = None) -> list[float]:
        """Return when messages of a principal (by one key) were delivered to it, in seconds, from some time on."""
        found = [one for one in list(self.heard) if one.get("who") == who and one["at"] >= since]
        return [one["at"] for one in found if key in {None, one["key"]}]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for what comes of it; its last lines are the error where nothing does."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end or self._process.returncode is not None:
                raise RuntimeError(f"{self.name} ({self._process.returncode}):\n{self._log.read_text()[-3000:]}")
            await asyncio.sleep(0.01)

    async def trust(self, who: str) -> float:
        """Ask a reader how far it trusts a principal, 0 to 1."""
        await self.counts()
        found: dict[str, float] = [one["trust"] for one in self.heard if "counts" in one][-1]
        return found.get(who, 1.0)

    async def counts(self) -> dict[str, int]:
        """Ask a reader for what it has counted."""
        known = sum("counts" in one for one in self.heard)
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        self._process.stdin.write(b"\n")
        await self.until(lambda: sum("counts" in one for one in self.heard) > known)
        found: dict[str, int] = [one["counts"] for one in self.heard if "counts" in one][-1]
        return found

    async def end(self) -> None:
        """Kill it: nothing that it knows is written down in peace."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        await self._process.wait()
        await self._reading


class World:
    """Keys and settings in a directory, a channel for tasks and one for control, on one bus."""

    def __init__(self, directory: Path, bus: str, address: str, name: str) -> None:
        self.directory = directory
        self.bus = bus
        self.address = address
        self.tasks = f"{name}.tasks"
        self.orders = f"{name}.orders"
        self.control = f"{name}.control"
        self.keys: dict[str, SigningKey] = {}
        self.policy = ""
        self._members: list[Member] = []

    @classmethod
    @asynccontextmanager
    async def on(cls, directory: Path, bus: str, address: str, name: str, policy: str = "") -> AsyncIterator[Self]:
        """Make it, its control log included; ``policy`` is TOML, for readers. All processes end with it."""
        world = cls(directory, bus, address, name)
        world.policy = policy
        async with world.made():
            yield world

    @asynccontextmanager
    async def made(self) -> AsyncIterator[None]:
        """Make what it needs, and end all processes in the end."""
        roles = ("oncall", "security", *READERS)
        for role in roles:
            self.write(role)
        keys = [self.keys[role].verification_key(f"agent://acme/{role}") for role in roles]
        (self.directory / "operators.jwks").write_text(to_jwks(keys))
        try:
            if self.bus == "kafka":
                await _make_topics(self.address, self.tasks, self.orders)
            await self.types("control", "init")
            for reader in READERS:
                await self.types("init", by=reader)
            yield
        finally:
            for member in self._members:
                await member.end()

    def write(self, role: str, *, follows: bool = True) -> None:
        """Write the private key and the settings of ``agent://acme/<role>``; one that has gone bad obeys nobody."""
        key = self.keys[role] = SigningKey.generate()
        pem = self.directory / f"{role}.pem"
        pem.write_bytes(key.to_pem())
        pem.chmod(0o600)
        (self.directory / f"{role}.jwk").write_text(json.dumps(to_jwk(key.verification_key(f"agent://acme/{role}"))))
        servers = f'[{self.bus}]\nservers = ["{self.address}"]\n'
        control = f"""
[[keys]]
source = "control"
[control]
channel = "{self.bus}://prod/{self.control}"
presence = "{self.bus}://prod/{self.control}-presence"
announce_every = "1s"
[[control.operators]]
principal = "{ONCALL}"
may = ["key", "revoke", "contain", "release", "head"]
over = ["agent://acme/**"]
[[control.operators]]
principal = "{SECURITY}"
may = ["key", "revoke", "contain", "release", "head"]
over = ["**"]
"""
        (self.directory / f"{role}.toml").write_text(
            f"""realm = "prod"
principal = "agent://acme/{role}"
[signer]
key = "{role}.pem"
[[keys]]
source = "files"
paths = ["operators.jwks"]
[replay]
state = "state-{role}"
{servers}{control if follows else ""}{self.policy if role in READERS else ""}
"""
        )

    async def types(self, *command: str, by: str = "oncall", code: int = 0) -> str:
        """Type a command as an operator, and return what it prints; RuntimeError for another exit code."""
        config = (str(self.directory / f"{by}.toml"),)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "watchword_adapters.cli", *command, "-c", *config,
            cwd=self.directory, stdin=DEVNULL, stdout=PIPE, stderr=PIPE,
        )  # fmt: skip
        out, errors = await process.communicate()
        if process.returncode != code:
            raise RuntimeError(f"watchword {' '.join(command)}: {process.returncode}: {errors.decode()}{out.decode()}")
        return out.decode()

    async def give(self, role: str) -> None:
        """Give an agent a key that nobody has seen."""
        self.write(role, follows=False)
        await self.types("key", "publish", str(self.directory / f"{role}.jwk"))

    async def member(self, role: str, name: str, channel: str, *rate: float) -> Member:
        """Start a process, and wait until it is ready."""
        log = self.directory / f"{name}-{len(self._members)}.log"
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "benchmarks.trust.member", role, str(self.directory / f"{name}.toml"), self.bus,
                self.address, channel, *map(str, rate), cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=errors,
            )  # fmt: skip
        member = Member(name, process, log)
        self._members.append(member)
        await member.until(lambda: any("ready" in one for one in member.heard))
        return member

    async def readers(self) -> list[Member]:
        """Start three readers."""
        both = f"{self.tasks},{self.orders}"
        return list(await asyncio.gather(*(self.member("reader", name, both) for name in READERS)))


async def _make_topics(address: str, *names: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        stamped = {"message.timestamp.type": "LogAppendTime"}
        await admin.create_topics([NewTopic(name, 1, 1, topic_configs=stamped) for name in names])
    finally:
        await admin.close()


async def flows(readers: Sequence[Member], who: str) -> float:
    """Wait until a principal's messages come to all readers; return how long that took from now on, in seconds."""
    since = time.time()
    for reader in readers:
        await reader.until(partial(reader.delivered, who, since))
    return max(reader.delivered(who, since)[0] for reader in readers) - since


async def ends(readers: Sequence[Member], who: str) -> float:
    """Wait until nothing of a principal's comes any more; return how long after now the last came, in seconds."""
    since = time.time()
    end = since + PATIENCE
    while time.time() < end:
        last = max((at for reader in readers for at in reader.delivered(who, since)), default=since)
        if time.time() - max(last, since) > QUIET:
            return last - since
        await asyncio.sleep(0.02)
    raise RuntimeError(f"{who} is delivered {PATIENCE:g} s after it should not be")
