"""What policy costs, how exactly a rate holds, and what a flood of invented keys does to honest senders.

``python -m benchmarks.trust.policy [--small]`` prints the figures as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from benchmarks import cast
from benchmarks.figures import async_rate, tidy
from benchmarks.processes import apart
from watchword import Allow, Policy, Rate, Unavailable, VerifiedMessage
from watchword.algorithms import Algorithm
from watchword.encoding import Layout, encode_direct, encode_protected
from watchword.quota import Bounds
from watchword.spi import MemoryReplayStore, Position, Verifier
from watchword_adapters.nats.look_ups import LookUps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from watchword import VerificationKey
    from watchword.spi import KeySource, Message

FLOOD: Final = 100_000
"""Forged messages, each under a key id of its own."""

FORGED_PER_HONEST: Final = 10
RULES: Final = (10, 10_000)
PIECES: Final = (0.25, 1.0, 7.0, 30.0)
"""Lengths of time, in seconds, over which a rate is measured."""

_RATE: Final = Rate(50, 1.0)
_OFFERED: Final = 1000
"""Messages a second that an agent sends which may send 50."""

_BLOCK: Final = 8
_TARGET: Final = f"kafka://{cast.REALM}/{cast.TOPIC}"
_RSS_PER_MIB: Final = 1 << 20 if sys.platform == "darwin" else 1 << 10


def measure(*, small: bool) -> dict[str, Any]:
    """Measure all of it, the flood in a process of its own for each way to read."""
    return {
        "flood": flood(small=small),
        "rate_error": rate_error(small=small),
        "rules_10000_over_10": rules_10000_over_10(small=small),
    }


def flood(*, small: bool) -> dict[str, Any]:
    """Measure a flood of invented keys, while the key source hangs, beside the same one while it answers at once.

    ``honest_share`` is the rate at which honest messages verify, over that beside a source that answers; the lower one
    of two ways to read: in no order (core NATS, JetStream) and in order (a partition, which has used up ``max_hold``).
    ``lookups`` is how often the source was asked for an invented key, ``peak_rss_mib`` how much the process grew
    meanwhile.
    """
    ways = {way: apart(_flooded, way, 2000 if small else FLOOD) for way in ("unordered", "ordered")}
    found = ways.values()
    return {
        "lookups": max(one["lookups"] for one in found),
        "peak_rss_mib": max(one["peak_rss_mib"] for one in found),
        "honest_share": min(one["honest_share"] for one in found),
        "shed": min(one["shed"] for one in found),
        "ways": ways,
    }


def _flooded(way: str, count: int) -> dict[str, Any]:
    return asyncio.run(_Flood(count, in_order=way == "ordered").measure())


class _Source:
    """A source that has the honest agent's key at hand; for any other it says that there is none, or nothing."""

    def __init__(self, *, hangs: bool) -> None:
        self.asked = 0
        self._hangs = hangs
        self._key = cast.signing_key().verification_key(cast.principal())

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        if (principal, key_id) == (self._key.principal, self._key.key_id):
            return self._key
        self.asked += 1
        if self._hangs:
            await asyncio.Event().wait()
        return None


class _Reader:
    """A verifier, the time that it took, and what came of the messages."""

    def __init__(self, source: _Source, *, in_order: bool) -> None:
        self.source = source
        self.seconds = 0.0
        self.delivered = self.undetermined = 0
        self._judge = _verifier(source)
        self._keys = None if in_order else LookUps(self._judge.keys)

    async def read(self, messages: Sequence[Message]) -> float:
        """Judge messages, and go on behind each that cannot be judged; return the seconds."""
        begun, at = time.perf_counter(), 0
        while at < len(messages):
            verdicts = await self._judge.verify_many(messages[at : at + cast.CHUNK], keys=self._keys)
            at += len(verdicts)
            for verdict in verdicts:
                self.delivered += isinstance(verdict, VerifiedMessage)
                self.undetermined += isinstance(verdict, Unavailable)
        took = time.perf_counter() - begun
        self.seconds += took
        return took

    def ask(self, messages: Sequence[Message]) -> list[asyncio.Task[object]]:
        """Judge messages side by side, as many readers do, each of which may wait for its key."""
        return [asyncio.create_task(self._judge.verify_many([one])) for one in messages]


class _Flood:
    def __init__(self, count: int, *, in_order: bool) -> None:
        self._count = count
        self._readers = [_Reader(_Source(hangs=hangs), in_order=in_order) for hangs in (False, True)]

    async def measure(self) -> dict[str, Any]:
        answering, hanging = self._readers
        own = _BLOCK * cast.CHUNK // (FORGED_PER_HONEST + 1)
        blocks = self._count // (own * FORGED_PER_HONEST) + 1
        honest = await cast.signed(cast.signer(batch=64), cast.messages(512, (blocks + 1) * own + 1))
        forged = _forged()
        for reader in self._readers:  # the agent has been heard before: its key is one that was found
            await reader.read(honest[-1:])
        waiting = hanging.ask([next(forged) for _ in range(1000)])
        for _ in range(5):
            await asyncio.sleep(0)
        before, shares = 0, []
        for block in range(blocks + 1):
            mixed = _mixed(honest[block * own : (block + 1) * own], forged)
            order = self._readers if block % 2 else self._readers[::-1]
            gc.collect()
            took = {reader: await reader.read(mixed) for reader in order}
            if block:  # the first one warms up
                shares.append(took[answering] / took[hanging])
            else:
                before = _resident()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        if answering.delivered != hanging.delivered:
            raise AssertionError(f"{answering.delivered} and {hanging.delivered} honest messages were delivered")
        return {
            "lookups": hanging.source.asked,
            "peak_rss_mib": (_resident() - before) / _RSS_PER_MIB,
            "honest_share": median(shares),
            "honest_per_s": hanging.delivered / hanging.seconds,
            "honest_per_s_beside_answers": answering.delivered / answering.seconds,
            "judged_per_s": (hanging.delivered + hanging.undetermined) / hanging.seconds,
            "shed": hanging.undetermined,
            "delivered": hanging.delivered,
        }


def _mixed(honest: Sequence[Message], forged: Iterator[Message]) -> list[Message]:
    return [one for own in honest for one in (own, *(next(forged) for _ in range(FORGED_PER_HONEST)))]


def _forged() -> Iterator[Message]:
    """Make forged messages in the honest agent's partition, under names of choice and key ids that nobody has."""
    (bare,) = cast.messages(512, 1)
    number = 0
    while True:
        number += 1
        sender = cast.principal(number % 100)
        layout = Layout(issuer=sender, channel=bare.channel.uri, recipient=None, covered=(), partition=0)
        claims = layout.claims(number.to_bytes(16), int(cast.clock()), None, None)
        protected = encode_protected(int(Algorithm.ED25519), b"invented-%d" % number)
        header = ("watchword", encode_direct(claims, protected, bytes(64)))
        place = Position(f"{cast.TOPIC}/0", 10_000_000 + number)
        yield replace(bare, headers=(*bare.headers, header), position=place, appended_at=cast.clock())


def rate_error(*, small: bool) -> float:
    """Return by which part a rate is passed or missed, at worst, by an agent with a valid key at machine speed."""
    return max((asyncio.run(_rate_error(piece)) for piece in PIECES[: 2 if small else None]), key=abs)


async def _rate_error(seconds: float) -> float:
    count = int(seconds * _OFFERED)
    made = await cast.signed(cast.signer(batch=256), cast.messages(512, count))
    begin = cast.clock()
    sent = [replace(one, appended_at=begin + at / _OFFERED) for at, one in enumerate(made)]
    judge = _verifier(_Source(hangs=False), Policy(allow=(Allow("agent://**", (_TARGET,), _RATE),)))
    verdicts = [
        verdict for at in range(0, count, cast.CHUNK) for verdict in await judge.verify_many(sent[at : at + cast.CHUNK])
    ]
    accepted = sum(isinstance(verdict, VerifiedMessage) for verdict in verdicts)
    allowed = _RATE.count + (count - 1) / _OFFERED * _RATE.count / _RATE.seconds
    return accepted / min(count, allowed) - 1


def rules_10000_over_10(*, small: bool) -> float:
    """Return the throughput of verifying with ten thousand rules, over that with ten."""
    count, repeats = (2 * cast.CHUNK, 1) if small else (16 * cast.CHUNK, 40)
    made = asyncio.run(cast.signed(cast.signer(batch=64), cast.messages(512, count)))
    policies = {number: Policy(allow=_rules(number)) for number in RULES}

    def run(policy: Policy) -> float:
        judge = _verifier(_Source(hangs=False), policy)
        tidy()
        return async_rate(count, lambda: cast.verify_in_bulk(judge, made))

    few, many = RULES
    ratios = []
    for turn in range(repeats + 1):
        order = RULES if turn % 2 else RULES[::-1]
        rates = {number: run(policies[number]) for number in order}
        ratios.append(rates[many] / rates[few])
    return median(ratios[1:])  # the first one warms up


def _rules(count: int) -> tuple[Allow, ...]:
    """Return so many rules of all kinds (one more than a multiple of three); the last one lets the agent speak."""
    rules: list[Allow] = []
    for at in range((count - 1) // 3):
        rules += [
            Allow(f"agent://acme/worker-{at}", (f"kafka://{cast.REALM}/tasks.{at}",), Rate(200, 1.0)),
            Allow(f"agent://team-{at}/**", (f"kafka://{cast.REALM}/team-{at}.*",)),
            Allow(cast.principal(), (f"nats://{cast.REALM}/*.{at}", f"kafka://{cast.REALM}/own.{at}")),
        ]
    return (*rules, Allow("agent://acme/*", (f"kafka://{cast.REALM}/tasks.*",), Rate(1_000_000, 1.0)))


def _verifier(source: KeySource, policy: Policy | None = None) -> Verifier:
    policy = policy or Policy()
    bounds = Bounds(per_principal=cast.IDS, in_all=cast.IDS, unverified=cast.IDS // 40)
    return Verifier(
        realm=cast.REALM,
        keys=source,
        replay=MemoryReplayStore(horizon=policy.horizon, bounds=bounds),
        policy=policy,
        clock=cast.clock,
    )


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(json.dumps(measure(small="--small" in sys.argv[1:]), indent=1))  # noqa: T201 - what it is for
