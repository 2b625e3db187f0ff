"""What many statements cost to learn: read from the log by one that is new, and from its state after a restart."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from watchword import MemoryKeys, SigningKey, Watchword
from watchword.control import Control, Operator
from watchword.statements import CONTENT_TYPE, GiveKey, Statement, Verb
from watchword_adapters.control.following import Following, Parts
from watchword_adapters.control.state import StateFile
from watchword_adapters.nats import connect
from watchword_adapters.nats.control_log import NatsControlLog

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
ONCALL: Final = "agent://acme/oncall"
_MIB: Final = 1024.0
_TOGETHER: Final = 200


def measured(address: str, count: int) -> dict[str, Any]:
    """Measure in a process of its own, so that what others hold is not counted."""
    command = [sys.executable, "-m", "benchmarks.trust.statements", address, str(count)]
    ran = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603 - our own module
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


class _Log:
    """An operator and what follows him, on a stream of their own."""

    def __init__(self, address: str, directory: Path) -> None:
        self.subject = f"statements{time.time_ns()}"
        self.address = address
        self.key = SigningKey.generate()
        self.agent = Watchword(
            realm="prod", principal=ONCALL, key=self.key, keys=MemoryKeys([self.key.verification_key(ONCALL)])
        )
        self.state = StateFile(directory, f"nats://prod/{self.subject}")

    def log(self) -> NatsControlLog:
        """Return the log, not connected."""
        return NatsControlLog(self.subject, watchword=self.agent, servers=[self.address])

    def parts(self, state: StateFile | None) -> Parts:
        """Return what a follower needs."""
        operators = (Operator(ONCALL, frozenset(Verb), ("**",)),)
        return Parts(
            realm="prod",
            control=Control(operators),
            operators=operators,
            root=MemoryKeys([self.key.verification_key(ONCALL)]),
            open_log=self.log,
            state=state,
            clock=time.time,
            audit=self.agent.audit,
        )

    async def fill(self, count: int) -> None:
        """Say so many statements: a key each, of as many agents."""
        async with self.log() as log:
            await log.make()
        client = await connect(self.address, watchword=self.agent)
        headers = {"content-type": CONTENT_TYPE}
        js = client.jetstream()
        for piece in _pieces(count):
            await asyncio.gather(*(js.publish(self.subject, value, headers=headers) for value in piece))
        await client.close()


def _pieces(count: int) -> Iterator[list[bytes]]:
    piece: list[bytes] = []
    for number in range(1, count + 1):
        key = SigningKey.generate().verification_key(f"agent://acme/{number}")
        previous = "" if number == 1 else "A" * 43
        piece.append(Statement(number, previous, 1, GiveKey(key)).to_json())
        if len(piece) == _TOGETHER or number == count:
            yield piece
            piece = []


async def _until_known(parts: Parts, count: int) -> float:
    begun = time.perf_counter()
    following = Following(parts)
    running = asyncio.create_task(following.run())
    while not following.is_known or following.control.held < count:  # noqa: ASYNC110 - it happens in a follower, which tells nobody
        await asyncio.sleep(0.01)
    taken = time.perf_counter() - begun
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return taken


async def _measure(address: str, count: int) -> dict[str, Any]:
    with TemporaryDirectory() as directory:
        log = _Log(address, Path(directory))
        await log.fill(count)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        from_log = await _until_known(log.parts(log.state), count)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        from_state = await _until_known(replace(log.parts(log.state)), count)
        return {
            "count": count,
            "seconds_from_log": round(from_log, 2),
            "seconds_from_state": round(from_state, 2),
            "mib": round(grown / _MIB, 1),
            "state_mib": round(log.state.path.stat().st_size / _MIB / _MIB, 1),
        }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(_measure(sys.argv[1], int(sys.argv[2])))) + "\n")
