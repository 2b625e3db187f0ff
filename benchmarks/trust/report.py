"""``make trust-report``: how fast revocation, containment and release reach readers; what keys cost to rotate and hold.

The operators' commands are typed as on a shell. Times run from a command's return to the last (for a release: the
first) delivery at any of three readers, each a process of its own, while an agent sends 200 messages a second.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from benchmarks.brokers import server
from benchmarks.trust import policy
from benchmarks.trust.statements import measured
from benchmarks.trust.world import CONTROLLER, PLANNER, World, ends, flows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.trust.world import Member

REPORT: Final = Path("build/reports/trust.json")
RUNS: Final = 20
BESIDE_FORGERIES: Final = 3
RATE: Final = 200.0
FORGERIES: Final = 1000.0
OVERLAP: Final = 30
TIMES: Final = ("contain_seconds", "release_seconds", "revocation_seconds")


def main() -> int:
    """Measure, write and print; ``--small`` takes a run of each, and measures nothing."""
    small = "--small" in sys.argv[1:]
    found: dict[str, Any] = policy.measure(small=small)
    on_bus: dict[str, dict[str, Any]] = {}
    for bus in ("nats", "kafka"):
        with server(bus, None) as broker, TemporaryDirectory(prefix="watchword-trust-") as directory:
            say(f"==> {bus}: {broker.told}")
            on_bus[bus] = asyncio.run(_on(bus, broker.address, Path(directory), 1 if small else RUNS))
            on_bus[bus]["broker"] = broker.told
            if bus == "nats":
                found["statements"] = measured(broker.address, 1_000 if small else 100_000)
    for name in (*TIMES, "beside_forgeries", "broker"):
        found[name] = {bus: figures[name] for bus, figures in on_bus.items()}
    rotations = {bus: figures["rotation"] for bus, figures in on_bus.items()}
    found["rotation"] = rotations | {
        name: sum(one[name] for one in rotations.values()) for name in ("honest_rejected", "accepted_after_end")
    }
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(found, indent=2) + "\n")
    say(json.dumps(found, indent=2))
    say(f"==> {REPORT}")
    return 0


async def _on(bus: str, address: str, directory: Path, runs: int) -> dict[str, Any]:
    async with World.on(directory, bus, address, f"trust{int(time.time())}") as world:
        readers = await world.readers()
        found: dict[str, Any] = await _times(world, readers, runs)
        forger = await world.member("forger", "planner", world.control, FORGERIES)
        found["beside_forgeries"] = {
            "forgeries_a_second": FORGERIES,
            **await _times(world, readers, min(runs, BESIDE_FORGERIES)),
        }
        await forger.end()
        found["rotation"] = await _rotation(world, readers)
        return found


async def _times(world: World, readers: Sequence[Member], runs: int) -> dict[str, Any]:
    contained, released, revoked = [], [], []
    for _ in range(runs):
        await world.give("planner")
        agent = await world.member("agent", "planner", world.tasks, RATE)
        await flows(readers, PLANNER)
        await world.types("contain", PLANNER, "--for", "1h", "--why", "DRILL-1")
        contained.append(await ends(readers, PLANNER))
        await world.types("release", PLANNER)
        released.append(await flows(readers, PLANNER))
        await world.types("key", "revoke", str(world.directory / "planner.jwk"), "--yes")
        revoked.append(await ends(readers, PLANNER))
        await agent.end()
    return {
        "contain_seconds": _spread(contained),
        "release_seconds": _spread(released),
        "revocation_seconds": _spread(revoked),
    }


def say(text: str) -> None:
    """Print at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "min": round(min(seconds), 4),
        "median": round(statistics.median(seconds), 4),
        "max": round(max(seconds), 4),
        "runs": len(seconds),
    }


async def _rotation(world: World, readers: Sequence[Member]) -> dict[str, Any]:
    """Rotate the key of an agent that sends, and go on sending with the old one after its end, as a thief would."""
    world.write("controller")
    await world.types("key", "publish", str(world.directory / "controller.jwk"))
    before = [await reader.counts() for reader in readers]
    honest = await world.member("agent", "controller", world.tasks, RATE)
    await flows(readers, CONTROLLER)
    (world.directory / "thief.pem").write_bytes((world.directory / "controller.pem").read_bytes())
    (world.directory / "thief.pem").chmod(0o600)
    settings = (world.directory / "controller.toml").read_text()
    (world.directory / "thief.toml").write_text(
        settings.replace('key = "controller.pem"', 'key = "thief.pem"').replace("state-controller", "state-thief")
    )
    begun = time.time()
    told = await world.types(
        "key", "rotate", str(world.directory / "controller.toml"), "--overlap", f"{OVERLAP}s", "--json"
    )
    end = next(step["end"] for step in map(json.loads, told.splitlines()) if step["step"] == "ending")
    await asyncio.sleep(max(0.0, end + 2 - time.time()))
    after = [await reader.counts() for reader in readers]
    sent_on = min(len(reader.delivered(CONTROLLER, end)) for reader in readers)
    await honest.end()
    quiet = time.time() + 1.0
    await asyncio.sleep(1.0)
    thief = await world.member("agent", "thief", world.tasks, RATE)
    await asyncio.sleep(2.0)
    accepted = sum(len(reader.delivered(CONTROLLER, quiet)) for reader in readers)
    refused = [await reader.counts() for reader in readers]
    await thief.end()
    rejected = [
        sum(count - one.get(reason, 0) for reason, count in two.items() if reason != "delivered")
        for one, two in zip(before, after, strict=True)
    ]
    return {
        "overlap_seconds": OVERLAP,
        "seconds": round(end - begun + 2, 1),
        "honest_delivered": min(len(reader.delivered(CONTROLLER, begun)) for reader in readers),
        "honest_delivered_after_end": sent_on,
        "honest_rejected": sum(rejected),
        "accepted_after_end": accepted,
        "refused_after_end": min(
            two["key_not_valid"] - one.get("key_not_valid", 0) for one, two in zip(after, refused, strict=True)
        ),
    }


if __name__ == "__main__":
    sys.exit(main())
