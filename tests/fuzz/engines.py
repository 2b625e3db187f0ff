"""Both engines before the same messages, in the same order: what differs is a fault.

Each input is a world (keys, policy, store, what the reader expects) and a few calls to its verifier with runs of
messages: honest ones in trees and alone, on both buses, and such ones changed in their bytes, their CBOR, their headers
or what surrounds them, some of them signed anew after the change. An input comes of one seed and is played twice.

    python -m tests.fuzz.engines --seconds 3600 --seed 1 --report build/reports/fuzz-1.json
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import cbor2

from tests.unit.core.world import (
    ABSENT,
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
    kafka,
    known_keys,
    nats,
    protected_of,
    public,
    raw_of,
    signature_of,
    structure,
    text,
)
from watchword import Allow, Policy, Rate, Rejected, Unavailable, VerificationKey, VerifiedMessage, engine
from watchword.errors import Pending, Shed
from watchword.message import Expected, Request, log_name
from watchword.quota import Bounds
from watchword.spi import Admission, Channel, Claim, MemoryReplayStore, Message, Position, Verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watchword.guard import Note

ROGUE: Final = ed_key(9, kid=b"alice-1")
STRANGER: Final = ed_key(8, kid=b"nobody")
REQUEST: Final = b"q" * 16
SIGNERS: Final = (
    (ALICE_KEY, ALICE),
    (ALICE_KEY, ALICE),
    (ALICE_EC_KEY, ALICE),
    (MALLORY_KEY, MALLORY),
    (STRANGER, ALICE),
)
LOGS: Final = ("tasks/0", "tasks/1")
NAMES: Final = ("content-type", "a", "", "traceparent", "tracestate", "Nats-Msg-Id", "Watchword", "b" * 40, "ä")
"""Header names, one of them ours in another case, and two that tracing libraries add."""


class Name(str):
    """Text of another type."""

    __slots__ = ()


class Octets(bytes):
    """Bytes of another type."""


class Recorder:
    """A journal that keeps what it is given, and may fail."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.given: list[Note] = []

    def write(self, notes: Sequence[Note]) -> None:
        """Keep them."""
        if self.fails:
            raise OSError
        self.given += notes


class Keys:
    """A key source that notes what it is asked, and fails where it is told to."""

    def __init__(
        self, keys: Sequence[VerificationKey], failures: dict[tuple[str, bytes], list[Exception | None]]
    ) -> None:
        self._keys = {(key.principal, key.key_id): key for key in keys}
        self._failures = {pair: [*answers] for pair, answers in failures.items()}
        self.asked: list[tuple[str, bytes]] = []

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See KeySource."""
        pair = principal, key_id
        self.asked.append(pair)
        answers = self._failures.get(pair)
        failure = answers.pop(0) if answers else None
        if failure is not None:
            raise failure
        others = [key for key in self._keys.values() if key.key_id == key_id]
        return self._keys.get(pair) or (others[0] if others else None)


class Shared:
    """A shared store that notes its claims."""

    def __init__(self) -> None:
        self.memory = MemoryReplayStore(horizon=None)
        self.claims: list[Claim] = []

    async def claim(self, claim: Claim) -> Admission:
        """See ReplayStore."""
        self.claims.append(claim)
        return self.memory.admit(claim)


class Input:
    """Everything that one seed decides."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random = Random(seed)  # noqa: S311 - an input is to come again
        self.pool = [message for _ in range(random.randint(1, 4)) for message in self.tree()]
        self.calls = [self.call() for _ in range(random.randint(1, 4))]
        self.keys = self.known()
        self.failures = self.failing() if random.random() < 0.25 else {}
        self.policy = self.ruled()
        self.store = random.choice(["guard", "guard", "guard", "shared"])
        self.small = random.random() < 0.15
        self.noted = random.choice([None, None, "works", "fails"])
        self.principal = random.choice([BOB, BOB, BOB, None, MALLORY])

    # Messages

    def tree(self) -> list[Message]:
        """Return messages of one sender, in one signed tree or each alone."""
        random = self.random
        key, principal = random.choice(SIGNERS)
        size = random.choice([1, 2, 3, 4, 5, 8, 13])
        bare = [self.bare(number) for number in range(size)]
        if random.random() < 0.7:
            channel = random.choice(bare).channel
            bare = [one if one.channel == channel else self.bare(9, channel) for one in bare]
        changes = self.changes()
        entries = [
            cbor(claims_of(one, principal, **({"c7": self.id(at), "c6": self.issued()} | changes)))
            for at, one in enumerate(bare)
        ]
        if size > 1 and random.random() < 0.7:
            raws = batch(entries, key, signed_size=None if random.random() < 0.97 else size + 1)
        else:
            raws = [direct(entry, key) for entry in entries]
        return [bear(one, raw) for one, raw in zip(bare, raws, strict=True)]

    def id(self, at: int) -> bytes:
        """Return a message's id, seldom one that another has."""
        seed = b"one" if self.random.random() < 0.05 else b"%d-%d-%d" % (self.seed, at, self.random.getrandbits(32))
        return sha256(seed).digest()[:16]

    def issued(self) -> int:
        """Return a time of issue, mostly of the last seconds."""
        ages = (0, 0, 0, 1, 3, 60, 300, 304, 305, 306, 400, -4, -5, -6, -7, -100, -400)
        return NOW - self.random.choice(ages)

    def changes(self) -> dict[str, Any]:
        """Return claims that are otherwise for all messages of a tree."""
        random = self.random
        if random.random() < 0.6:
            return {}
        several: list[dict[str, Any]] = [
            {"c3": BOB},
            {"c3": MALLORY},
            {"c4": NOW + random.choice([-1, 0, 1, 2, 100])},
            {"q": REQUEST},
            {"q": b"x" * 16},
            {"p": 1},
            {"p": ABSENT},
            {"r": random.choice(["reply.here", "$JS.API.X", ""])},
            {"c": "kafka://prod/other"},
            {"c": "kafka://dev/tasks"},
            {"v": ABSENT},
            {"m": ABSENT},
            {"h": ["content-type", "zzz"]},
            {"c6": random.choice([0, (1 << 33) - 1, 1 << 33, -1])},
            {"x": 1},
            {"c1": random.choice(["", " a", "a\x00", "b" * 255, "b" * 256, "ä"])},
        ]
        return random.choice(several)

    def bare(self, number: int, channel: Channel | None = None) -> Message:
        """Return a message that nobody has signed yet."""
        random = self.random
        value = random.choice([b"%d" % number, b"", b"x" * 600, None])
        scheme = random.choice(["kafka", "kafka", "nats"]) if channel is None else channel.scheme
        headers = tuple(self.header() for _ in range(random.choice([0, 1, 1, 2, 5])))
        if scheme == "kafka":
            log = random.choice(LOGS)
            fields: dict[str, Any] = {
                "value": value,
                "key": random.choice([None, b"k", b""]),
                "headers": headers,
                "partition": 0,
                "position": random.choice(
                    [Position(log, random.randint(0, 40)), Position(log, random.randint(0, 40)), None]
                ),
                "exclusive": random.random() < 0.9,
            }
            return kafka(**fields | self.stamps())
        stored: dict[str, Any] = {
            "position": Position("TASKS", random.randint(0, 20)),
            "delivered_by": random.choice([None, ("TASKS", "w"), ("TASKS", "v")]),
            "appended_at": NOW + random.choice([0.0, 0.5, -3.0]),
        }
        return nats(
            value=value or b"",
            headers=headers,
            reply_to=random.choice([None, None, "reply.here"]),
            exclusive=random.random() < 0.8,
            arrival=random.choice([None, b"arrival"]),
            **stored if random.random() < 0.5 else {},
        )

    def header(self) -> tuple[str, bytes | None]:
        """Return a header."""
        return self.random.choice(NAMES[:5] + NAMES[5:6] + NAMES[7:]), self.random.choice([b"1", b"", None, b"y" * 90])

    def stamps(self) -> dict[str, Any]:
        """Return what is known of when a record was appended."""
        random = self.random
        kind = random.random()
        if kind < 0.5:
            return {"appended_at": NOW + random.choice([0.5, 0.0, 0.25, -1, -299.5, 4.75, 6, math.nan, math.inf, NOW])}
        if kind < 0.95:
            low, high = sorted(
                random.choice([-math.inf, NOW - 400, NOW - 1, NOW, NOW + 0.5, NOW + 7]) for _ in range(2)
            )
            created = random.choice([None, NOW, NOW + 4.5, NOW - 6, math.nan, float(NOW)])
            return {"appended_at": None, "appended_between": (low, high), "created_at": created}
        return {"appended_at": None}

    # Changes

    def changed(self, message: Message) -> Message:
        """Return a message, changed in one way or not at all."""
        random = self.random
        if random.random() < 0.6:
            return message
        return random.choice([self.flipped, self.retyped, self.reshaped, self.reheaded, self.moved, self.otherwise])(
            message
        )

    def flipped(self, message: Message) -> Message:
        """Return it with one byte of its envelope otherwise."""
        raw = bytearray(raw_of(message))
        raw[self.random.randrange(len(raw))] ^= 1 << self.random.randrange(8)
        return bear(unsigned(message), bytes(raw))

    def retyped(self, message: Message) -> Message:
        """Return it with the text of its envelope otherwise."""
        random, value = self.random, text(raw_of(message))
        at = random.randrange(len(value) + 1)
        other = random.choice(
            [
                value + b"=",
                value[:-1],
                value + b"A",
                value[:at] + random.choice([b" ", b"+", b"/", b"\n", b"-", b"\xff"]) + value[at + 1 :],
                value[:-1]
                + bytes([random.choice(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")]),
                b"",
                value * 12,
            ]
        )
        return replace(unsigned(message), headers=(*unsigned(message).headers, ("watchword", other)))

    def reshaped(self, message: Message) -> Message:
        """Return it with another structure, some of the time signed for it."""
        random = self.random
        try:
            version, claims, (protected, unprotected, payload, signature) = cbor2.loads(raw_of(message))
            fields = cbor2.loads(claims)
            inclusion = cbor2.loads(unprotected[396][-1][0]) if unprotected else None
        except (ValueError, TypeError, KeyError, IndexError, cbor2.CBORDecodeError):
            return message
        match random.choice(
            ["claims", "order", "long", "protected", "proof", "payload", "signature", "tail", "signed"]
        ):
            case "claims":
                fields |= random.choice(
                    [{6: NOW - 1}, {7: b"z" * 16}, {"p": 0}, {"v": bytes(32)}, {9: 1}, {1: MALLORY}, {"h": ["a"]}]
                )
                claims = cbor(fields)
            case "order":
                claims = cbor2.dumps(dict(reversed(fields.items())))
            case "long":
                claims = claims.replace(b"\x07\x50", b"\x07\x58\x10", 1)
            case "protected":
                key = random.choice([ALICE_KEY, ALICE_EC_KEY, MALLORY_KEY])
                fault: dict[str, Any] = random.choice([{}, {"c395": 1}, {"c1": -8}, {"c4": b""}, {"c5": 1}])
                protected = protected_of(key, **fault)
            case "proof" if inclusion is not None:
                size, index, path = inclusion
                size, index = random.choice(
                    [(size + 1, index), (size, (index + 1) % size), (size, index), (1, 0), (4096, index)]
                )
                path = random.choice(
                    [path, path[::-1], path[:-1], [*path, bytes(32)], [bytes(32)] * len(path), [bytes(31)]]
                )
                unprotected = {396: {-1: [cbor2.dumps([size, index, path])]}}
            case "payload":
                payload = random.choice([b"", 0, False])
            case "signature":
                signature = random.choice(
                    [bytes(64), signature[:63], signature + b"0", signature[::-1], b"", bytes(129)]
                )
            case "tail":
                return bear(unsigned(message), raw_of(message) + b"\x00")
            case _:
                fields |= random.choice([{6: NOW}, {7: b"w" * 16}, {1: ALICE}])
                claims, unprotected, protected = cbor(fields), {}, protected_of(ALICE_KEY)
                signature = signature_of(ALICE_KEY, structure(protected, 0, claims))
        return bear(unsigned(message), cbor2.dumps([version, claims, [protected, unprotected, payload, signature]]))

    def reheaded(self, message: Message) -> Message:
        """Return it with other headers."""
        random, headers = self.random, [*message.headers]
        match random.choice(["more", "less", "order", "case", "null", "many", "large", "list", "id", "twice"]):
            case "more":
                headers.insert(random.randrange(len(headers) + 1), self.header())
            case "less":
                headers.pop(random.randrange(len(headers)))
            case "order":
                random.shuffle(headers)
            case "case":
                headers = [("WatchWord" if name == "watchword" else name, value) for name, value in headers]
            case "null":
                headers = [(name, None if random.random() < 0.5 else value) for name, value in headers]
            case "many":
                headers += [("", b"")] * 1100
            case "large":
                headers.append(("z", bytes(66_000)))
            case "list":
                headers = [(Name(name), value if value is None else Octets(value)) for name, value in headers]
            case "id":
                headers.append(("Nats-Msg-Id", random.choice([b"x", ident(message)])))
            case _:
                headers.append(headers[random.randrange(len(headers))])
        return replace(message, headers=tuple(headers))

    def moved(self, message: Message) -> Message:
        """Return a copy elsewhere in a log."""
        log, offset = self.random.choice(LOGS), self.random.randint(0, 60)
        return replace(message, position=self.random.choice([None, Position(log, offset)]))

    def otherwise(self, message: Message) -> Message:
        """Return it in other surroundings."""
        random = self.random
        several: list[dict[str, Any]] = [
            {"value": b"altered"},
            {"value": None},
            {"value": Octets(message.value or b"")},
            {"key": b"other"},
            {"partition": random.choice([None, 1, 0])},
            {"reply_to": random.choice([None, "reply.here", "elsewhere"])},
            {"reader": "another"},
            {"exclusive": not message.exclusive},
            {"delivered_by": random.choice([None, ("TASKS", "w"), ("S", "w")])},
            {"channel": Channel("kafka", "prod", "other")},
            {"channel": Channel("nats", "prod", "tasks.scale")},
            {"created_at": NOW + random.choice([-5.0, -5.5, 5.0, 0])},
            self.stamps(),
        ]
        return replace(message, **random.choice(several))

    # Calls and worlds

    def call(self) -> dict[str, Any]:
        """Return what the verifier is asked."""
        random = self.random
        chosen = [self.changed(random.choice(self.pool)) for _ in range(random.choice([0, 1, 2, 3, 8, 20]))]
        if random.random() < 0.5:
            begin = random.randrange(len(self.pool))
            chosen = [*self.pool[begin : begin + random.randint(1, 13)], *chosen]
        requests = {
            REQUEST: Request(
                id=REQUEST, channel=Channel("nats", "prod", "tasks.scale"), recipient=random.choice([None, ALICE])
            )
        }
        return {
            "what": random.choice(["verify", "verify", "verify", "verify", "recall", "reverify", "times", "authentic"]),
            "messages": chosen,
            "expected": Expected(
                requests=random.choice([{}, requests]),
                only_replies=random.random() < 0.1,
                consumer=random.choice([None, None, None, ("TASKS", "w")]),
                floor=random.choice([-math.inf, -math.inf, NOW - 1, NOW + 1]),
                was_passed=random.random() < 0.1,
            ),
            "enough": random.choice([None, None, 0, 1, 2]),
            "own_keys": random.random() < 0.1,
            "step": random.choice([0.0, 0.0, 0.5, 10.0, 400.0]),
            "begin": random.choice([None, None, None, NOW - 2.0]),
            "unacked": random.random() < 0.2,
        }

    def known(self) -> list[VerificationKey]:
        """Return the keys that the source knows."""
        random = self.random
        keys = known_keys()
        if random.random() < 0.3:
            limits: dict[str, int] = random.choice(
                [
                    {"not_before": NOW},
                    {"not_before": NOW + 1},
                    {"not_after": NOW},
                    {"not_after": NOW + 1},
                    {"revoked_at": NOW + 1},
                    {"revoked_at": NOW + 5},
                ]
            )
            keys[0] = public(ALICE_KEY, ALICE, **limits)
        if random.random() < 0.1:
            keys[0] = public(ROGUE, ALICE)
        return keys

    def failing(self) -> dict[tuple[str, bytes], list[Exception | None]]:
        """Return which look-ups fail, and how."""
        random = self.random
        pairs = [(ALICE, b"alice-1"), (ALICE, b"alice-ec"), (MALLORY, b"mallory-1"), (ALICE, b"nobody")]
        kinds: list[Exception | None] = [OSError(), Pending("soon"), Shed("too many"), None]
        return {random.choice(pairs): [random.choice(kinds) for _ in range(random.randint(1, 3))] for _ in range(2)}

    def ruled(self) -> Policy:
        """Return a policy."""
        rate = Allow(ALICE, ("kafka://prod/tasks",), Rate(3, 60.0))
        return self.random.choice(
            [
                Policy(),
                Policy(),
                Policy(allow=(rate, Allow(ALICE, ("nats://prod/>",)))),
                Policy(
                    allow=(
                        Allow(MALLORY, ("kafka://prod/tasks", "nats://prod/>")),
                        Allow(ALICE, ("kafka://prod/tasks",)),
                    )
                ),
                Policy(contained=frozenset({ALICE})),
                Policy(max_age=10.0, max_skew=0.25),
            ]
        )


def unsigned(message: Message) -> Message:
    """Return the message without its envelope."""
    return replace(message, headers=tuple(one for one in message.headers if one[0] != "watchword"))


def ident(message: Message) -> bytes:
    """Return a message's id as NATS has it."""
    try:
        found: bytes = cbor2.loads(cbor2.loads(raw_of(message))[1])[7]
    except (ValueError, TypeError, KeyError, IndexError, StopIteration, cbor2.CBORDecodeError):
        return b""
    return found.hex().encode()


def told(verdict: object) -> object:
    """Return all that a verdict says, NaN as something that is equal to itself."""
    if isinstance(verdict, VerifiedMessage):
        return repr(verdict), verdict.value, verdict.key, verdict.headers, hash(verdict), verdict.redelivered
    if isinstance(verdict, Rejected):
        return str(verdict), verdict.reason, verdict.channel, verdict.claimed_principal
    if isinstance(verdict, Unavailable):
        return type(verdict).__name__, str(verdict), repr(verdict.__cause__)
    return verdict


def play(given: Input) -> list[object]:  # noqa: C901 - a world, and one branch for each way to ask it
    """Return all that can be seen of a verifier before this input."""
    now = [NOW + 1.0]
    guard = MemoryReplayStore(
        horizon=given.policy.horizon,
        bounds=Bounds(per_principal=10, in_all=14, unverified=3) if given.small else Bounds.within(1 << 20),
    )
    shared = Shared()
    keys = Keys(given.keys, given.failures)
    journal = None if given.noted is None else Recorder(fails=given.noted == "fails")
    judge = Verifier(
        realm="prod",
        keys=keys,
        replay=guard if given.store == "guard" else shared,
        policy=given.policy,
        clock=lambda: now[0],
        principal=given.principal,
        journal=journal,  # type: ignore[arg-type] # as far as it is used
    )
    memory = judge._guard
    if journal is not None:
        memory.note("sub#")
        memory.note("group#tasks/0")
    checks = 0

    async def check(jobs: Sequence[Callable[[], bool]]) -> list[bool]:
        return [job() for job in jobs]

    def verifies(self: VerificationKey, signature: bytes, data: bytes) -> bool:
        nonlocal checks
        checks += 1
        return verify(self, signature, data)

    def watch() -> list[object]:  # noqa: C901 - as above
        seen: list[object] = []
        for call in given.calls:
            now[0] += call["step"]
            if call["begin"] is not None:
                judge.begin("group#tasks/0", floor=call["begin"])
            messages, expected = call["messages"], call["expected"]
            left = [call["enough"]]

            def enough(left: list[int | None] = left) -> bool:
                assert left[0] is not None
                left[0] -= 1
                return left[0] < 0

            try:
                match call["what"]:
                    case "verify":
                        verdicts = at_once(
                            judge.verify_many(
                                messages,
                                expected,
                                check=check,
                                enough=None if call["enough"] is None else enough,
                                keys=keys if call["own_keys"] else None,
                            )
                        )
                        seen.append([told(verdict) for verdict in verdicts])
                        for message, verdict in zip(messages, verdicts, strict=False):
                            if isinstance(verdict, VerifiedMessage) and message.position and verdict.issued_at % 2:
                                judge.acknowledge_at(log_name(message), message.position.offset)
                    case "recall":
                        seen.append(at_once(judge.recall_many(messages, unacked=call["unacked"], check=check)))
                    case "reverify":
                        seen.append([told(verdict) for verdict in at_once(judge.reverify(messages, check=check))])
                    case "times":
                        seen.append(at_once(judge.times_of_issue(messages, check=check)))
                    case _:
                        stamped = [one for one in messages if one.appended_at is not None]
                        seen.append([told(one) for one in at_once(judge.authenticate(stamped, check=check))])
            except Unavailable as down:
                seen.append(told(down))
            logs = sorted(memory._logs)
            seen.append(
                [
                    len(memory),
                    sorted(memory._quota.held().items()),
                    [(log, memory.floor(log), memory.lowest_needed(log), *inside(memory._logs[log])) for log in logs],
                    sorted(memory._proven),
                    list(memory.warnings),
                    memory._offered,
                ]
            )
        return seen

    verify = VerificationKey.verifies
    with mock.patch.object(VerificationKey, "verifies", verifies):
        seen = watch()
    evidence = sorted(judge.trust.score.held())  # type: ignore[attr-defined] # Demerits has it
    return [checks, *seen, keys.asked, shared.claims, None if journal is None else journal.given, evidence]


def inside(log: Any) -> list[object]:
    """Return what a guard knows of one log, but for the numbers that its secrets make."""
    return [
        sorted(log.ids.owners().items()),
        len(log.pins),
        sorted(log.latest.items()),
        log.unverified,
        log.ahead,
        log.highest,
        log.start,
        sorted(log.key_floors.own.items()),
        log.key_floors.shared,
    ]


def differ(seed: int) -> tuple[list[object], list[object]] | None:
    """Return what each engine shows of one input, if that differs; the native engine's first.

    It may check a signature less, where copies of one message stand in one run; never one more.
    """
    assert engine.native() is not None, "the native engine is not here: make native"
    native = play(Input(seed))
    with mock.patch.object(engine, "native", return_value=None):
        python = play(Input(seed))
    (checks, *shown), (most, *wanted) = native, python
    assert isinstance(checks, int)
    assert isinstance(most, int)
    return None if comparable(shown) == comparable(wanted) and checks <= most else (native, python)


def comparable(seen: object) -> str:
    """Return what was seen as text in which a number is the same whatever its type."""
    return re.sub(r"(\d)\.0\b", r"\1", repr(seen))


def main() -> None:
    """Fuzz for some time, and write down what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="the first one; each input counts one on")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    begun, seed, different = time.process_time(), options.seed, list[int]()
    while time.process_time() - begun < options.seconds:
        if differ(seed) is not None:
            different.append(seed)
            print(f"seed {seed}: the engines differ", flush=True)  # noqa: T201 - a program's output
        seed += 1
    found = {
        "inputs": seed - options.seed,
        "cpu_seconds": round(time.process_time() - begun, 1),
        "first": options.seed,
        "different": different,
    }
    print(json.dumps(found))  # noqa: T201 - as above
    if options.report is not None:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
