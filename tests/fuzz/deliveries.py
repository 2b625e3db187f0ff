"""Both engines before the same NATS messages, as the client hands them over with their header blocks unread.

Each input is a reader, of core NATS or of a stream, and a few runs of messages for it: honest ones in trees and alone,
their blocks changed in their bytes and lines, their payloads, places, and what surrounds them. It is played twice.

    python -m tests.fuzz.deliveries --seconds 3600 --seed 1
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import replace
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from nats.aio.msg import Msg

from tests.fuzz.engines import comparable, inside, told
from tests.unit.core.world import (
    ALICE,
    ALICE_EC_KEY,
    ALICE_KEY,
    BOB,
    MALLORY,
    MALLORY_KEY,
    NOW,
    at_once,
    batch,
    bear,
    cbor,
    claims_of,
    direct,
    ed_key,
    known_keys,
    nats,
)
from watchword import MemoryKeys, Mode, Policy, Unavailable, VerifiedMessage, Watchword, engine
from watchword.quota import Bounds
from watchword.spi import Admission, Channel, Claim, Expected, MemoryReplayStore, ObservedMessage, Verifier
from watchword_adapters.nats.deliveries import Deliveries
from watchword_adapters.nats.headers import read_block
from watchword_adapters.nats.jetstream_reader import StreamReader
from watchword_adapters.nats.reader import Reader

if TYPE_CHECKING:
    from watchword.engine import Native
    from watchword.spi import Message

SIGNERS: Final = (
    (ALICE_KEY, ALICE),
    (ALICE_KEY, ALICE),
    (ALICE_EC_KEY, ALICE),
    (MALLORY_KEY, MALLORY),
    (ed_key(8, kid=b"nobody"), ALICE),
)
SUBJECTS: Final = ("tasks", "tasks", "tasks", "other", "t\u00e4sks")
HEADERS: Final = (
    ("a", b"1"),
    ("content-type", b"application/json"),
    ("traceparent", b"00-1"),
    ("Nats-Msg-Id", b"x"),
    ("b", b""),
    ("c", b"\xff\xfe"),
)
LINES: Final = (
    b"a: 1",
    b"a:1",
    b"a:\t 1 \t",
    b"b",
    b": 1",
    b"a b: 1",
    b"WATCHWORD: x",
    b"Status: 503",
    b"a: \r",
    b"a: \n",
    b"c: \xff",
    b"\xff: 1",
    b"",
    b"d: " + b"x" * 66_000,
)


class Input:
    """Everything that one seed decides."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random = Random(seed)  # noqa: S311 - an input is to come again
        self.of_stream = random.random() < 0.6
        self.exclusive = random.random() < 0.85
        self.pool = [raw for _ in range(random.randint(1, 4)) for raw in self.tree()]
        self.calls = [self.call() for _ in range(random.randint(1, 5))]
        self.policy = random.choice(
            [Policy(), Policy(), Policy(mode=Mode.OBSERVE), Policy(max_age=10.0), Policy(contained=frozenset({ALICE}))]
        )
        self.small = random.random() < 0.15
        self.late = random.random() < 0.1

    def tree(self) -> list[dict[str, Any]]:
        """Return what one sender publishes, under one signature or each alone, as fields of the client's messages."""
        random = self.random
        key, principal = random.choice(SIGNERS)
        subject, size = random.choice(SUBJECTS), random.choice([1, 2, 3, 5, 8, 13])
        reply = None if self.of_stream or random.random() < 0.7 else random.choice(["reply.here", "_INBOX.x.1"])
        headers = tuple(random.sample(HEADERS[:3], random.choice([0, 0, 1, 2])))
        if random.random() < 0.2:
            headers += (random.choice(HEADERS),)
        bare = [
            nats(
                channel=Channel("nats", "prod", subject),
                value=random.choice([b"%d" % number, b"", b"x" * 600]),
                headers=headers,
                reply_to=reply,
            )
            for number in range(size)
        ]
        issued = [NOW - random.choice([0, 0, 0, 1, 3, 300, 306, 400, -5, -6]) for _ in bare]
        entries = [
            cbor(
                claims_of(
                    one,
                    principal,
                    c7=self.id(at),
                    c6=issued[at],
                    **({} if random.random() < 0.95 else {"q": b"q" * 16}),
                )
            )
            for at, one in enumerate(bare)
        ]
        raws = batch(entries, key) if size > 1 and random.random() < 0.7 else [direct(entry, key) for entry in entries]
        return [self.wired(bear(one, raw)) for one, raw in zip(bare, raws, strict=True)]

    def id(self, at: int) -> bytes:
        """Return a message's id, seldom one that another has."""
        seed = b"one" if self.random.random() < 0.05 else b"%d-%d-%d" % (self.seed, at, self.random.getrandbits(32))
        return sha256(seed).digest()[:16]

    def wired(self, message: Message) -> dict[str, Any]:
        """Return a message as it comes over the wire."""
        lines = [name.encode() + b": " + (value or b"") for name, value in message.headers]
        return {
            "subject": message.channel.name,
            "reply": self.ack() if self.of_stream else message.reply_to or "",
            "data": message.value or b"",
            "block": b"NATS/1.0\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n",
        }

    def ack(self) -> str:
        """Return the ack subject of a delivery, seldom an odd one."""
        random = self.random
        sequence, stamp = (
            random.randint(1, 30),
            (NOW + random.choice([0, 1, 1, 2, -3])) * 10**9 + random.randint(0, 999),
        )
        if random.random() < 0.03:
            return random.choice(["", "reply.here", "$JS.ACK.S.w", f"$JS.ACK.S.w.1.{10**20 - 1}.1.{10**20 - 1}.0"])
        consumer = "w" if random.random() < 0.95 else "v"
        return f"$JS.ACK.{random.choice(['', '_.h.'])}S.{consumer}.1.{sequence}.{sequence}.{stamp}.0"

    def changed(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return a message, changed in one way or not at all."""
        random = self.random
        if random.random() < 0.65:
            return fields
        changes: dict[str, Any] = {
            "data": b"altered",
            "reply": self.ack() if self.of_stream else random.choice(["", "elsewhere"]),
            "subject": random.choice(SUBJECTS),
            "block": self.bent(fields["block"]),
        }
        name = random.choice(["data", "reply", "subject", "block", "block", "block", "block"])
        return {**fields, name: changes[name]}

    def bent(self, block: bytes) -> bytes | None:
        """Return a header block, changed in one way."""
        random, lines = self.random, block.split(b"\r\n")
        match random.choice(["byte", "line", "less", "order", "twice", "none", "status"]):
            case "byte":
                at = random.randrange(len(block))
                return block[:at] + bytes([block[at] ^ 1 << random.randrange(8)]) + block[at + 1 :]
            case "line":
                lines.insert(random.randint(0, len(lines)), random.choice(LINES))
            case "less":
                lines.pop(random.randrange(len(lines)))
            case "order":
                middle = lines[1:-2]
                random.shuffle(middle)
                lines = [lines[0], *middle, *lines[-2:]]
            case "twice":
                lines.insert(1, random.choice(lines[1:-2] or [b"a: 1"]))
            case "none":
                return random.choice([None, b"", b"NATS/1.0\r\n\r\n", b"NATS/1.0"])
            case _:
                lines[0] = random.choice([b"NATS/1.0 503", b"NATS/1.1", b"NATS/1.0 x"])
        return b"\r\n".join(lines)

    def call(self) -> dict[str, Any]:
        """Return what is asked."""
        random = self.random
        chosen = [random.choice(self.pool) for _ in range(random.choice([0, 1, 2, 8, 20]))]
        if random.random() < 0.7:
            begin = random.randrange(len(self.pool))
            chosen = [*self.pool[begin : begin + random.randint(1, 13)], *chosen]
        return {
            "what": random.choice(["admit", "admit", "admit", "recall", "reverify"]),
            "messages": [self.changed(fields) for fields in chosen],
            "step": random.choice([0.0, 0.0, 0.5, 10.0, 400.0]),
            "unacked": random.random() < 0.5,
            "was_passed": random.random() < 0.1,
            "acknowledged": random.choice([0, 1, 2, 3]),
        }


class Shared:
    """A shared store that notes its claims."""

    def __init__(self) -> None:
        self.memory = MemoryReplayStore(horizon=None)
        self.claims: list[Claim] = []

    async def claim(self, claim: Claim) -> Admission:
        """See ReplayStore."""
        self.claims.append(claim)
        return self.memory.admit(claim)


def shown(verdict: object) -> object:
    """Return all that a verdict says."""
    if isinstance(verdict, ObservedMessage):
        return told(verdict.verdict), replace(verdict.message, arrival=None)
    return told(verdict)


def play(given: Input) -> list[object]:
    """Return all that can be seen of a reader before this input."""
    now = [NOW + 1.0]
    guard = MemoryReplayStore(
        horizon=given.policy.horizon,
        bounds=Bounds(per_principal=10, in_all=14, unverified=3) if given.small else Bounds.within(1 << 20),
    )
    shared, keys = Shared(), known_keys()
    judge = Verifier(
        realm="prod",
        keys=MemoryKeys(keys[1:] if given.late else keys),
        replay=guard if given.exclusive else shared,
        policy=given.policy,
        clock=lambda: now[0],
        principal=BOB,
    )
    agent, memory = Watchword.of(judge), judge._guard
    nobody: Any = None
    reader: Reader
    if given.of_stream:
        reader = StreamReader(
            agent, nobody, "js:S:w", stream="S", consumer="w", acknowledged=True, exclusive=given.exclusive, copies=None
        )
    else:
        reader = Reader(agent, "sub:tasks#0", exclusive=given.exclusive)

    async def check(jobs: Any) -> list[bool]:
        return [job() for job in jobs]

    seen: list[object] = []
    for call in given.calls:
        now[0] += call["step"]
        raws = [
            Msg(
                _client=nobody,
                subject=fields["subject"],
                reply=fields["reply"],
                data=fields["data"],
                headers=read_block(fields["block"]) if fields["block"] else None,  # type: ignore[arg-type]
            )
            for fields in call["messages"]
        ]
        messages = Deliveries(reader, raws)
        expected = Expected(consumer=("S", "w") if given.of_stream else None, was_passed=call["was_passed"])
        try:
            match call["what"]:
                case "admit" if raws:
                    verdicts = at_once(agent.admit_many(messages, expected, check=check))
                    seen.append([shown(verdict) for verdict in verdicts])
                    for raw, verdict in zip(raws, verdicts, strict=False):
                        if isinstance(verdict, VerifiedMessage) and call["acknowledged"]:
                            place = reader.where(raw)
                            if place is not None and place.sequence % call["acknowledged"] == 0:
                                judge.acknowledge_at(reader.log, place.sequence)
                case "recall":
                    seen.append(at_once(judge.recall_many(messages, unacked=call["unacked"], check=check)))
                case _:
                    seen.append([shown(verdict) for verdict in at_once(judge.reverify(messages, check=check))])
        except Unavailable as down:
            seen.append(told(down))
        logs = sorted(memory._logs)
        held = sorted(memory._quota.held().items())
        logged = [(log, memory.floor(log), memory.lowest_needed(log), *inside(memory, log)) for log in logs]
        seen.append([len(memory), held, logged, list(memory.warnings), dict(agent.audit.counts)])
    return [*seen, [replace(claim, arrival=None) for claim in shared.claims]]


def differ(seed: int, native: Native) -> tuple[list[object], list[object]] | None:
    """Return what each engine shows of one input, if that differs; the native engine's first."""
    with mock.patch.object(engine, "native", return_value=native):
        shown = play(Input(seed))
    with mock.patch.object(engine, "native", return_value=None):
        wanted = play(Input(seed))
    return None if comparable(shown) == comparable(wanted) else (shown, wanted)


def main() -> None:
    """Fuzz for some time, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="the first one; each input counts one on")
    options = parser.parse_args()
    logging.disable()
    native = engine.native()
    assert native is not None, "the native engine is not here: make native"
    begun, seed, different = time.process_time(), options.seed, list[int]()
    while time.process_time() - begun < options.seconds:
        if differ(seed, native) is not None:
            different.append(seed)
            print(f"seed {seed}: the engines differ", flush=True)  # noqa: T201 - a program's output
        seed += 1
    print(json.dumps({"inputs": seed - options.seed, "different": different}))  # noqa: T201 - as above


if __name__ == "__main__":
    main()
