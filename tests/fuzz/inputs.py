"""What a fuzzer gives to verifiers and signers: everything that one seed decides."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeVar

import cbor2
from aiokafka.structs import ConsumerRecord

from tests.fuzz import shapes
from tests.unit.core.world import (
    ABSENT,
    ALICE,
    ALICE_EC_KEY,
    ALICE_KEY,
    BOB,
    MALLORY,
    MALLORY_KEY,
    NOW,
    batch,
    bear,
    cbor,
    claims_of,
    direct,
    ed_key,
    kafka,
    known_keys,
    nats,
    public,
    raw_of,
    text,
)
from watchword import Allow, Policy, Rate, VerificationKey
from watchword.errors import Pending, Shed
from watchword.message import Expected, Request
from watchword.spi import Channel, Message, Position

if TYPE_CHECKING:
    from watchword.message import Header

ROGUE: Final = ed_key(9, kid=b"alice-1")
STRANGER: Final = ed_key(8, kid=b"nobody")
KEYS: Final = (ALICE_KEY, ALICE_EC_KEY, MALLORY_KEY, STRANGER)
REQUEST: Final = b"q" * 16
SIGNERS: Final = (
    (ALICE_KEY, ALICE),
    (ALICE_KEY, ALICE),
    (ALICE_EC_KEY, ALICE),
    (MALLORY_KEY, MALLORY),
    (STRANGER, ALICE),
)
LOGS: Final = ("tasks/0", "tasks/1")
GUARDED: Final = ("group#tasks/0", "group#tasks/0", "group#tasks/1", "sub#", "sub#TASKS", "another#tasks/0")
NAMES: Final = ("content-type", "a", "", "traceparent", "tracestate", "Nats-Msg-Id", "b" * 40, "ä")
"""Header names, two of which tracing libraries add."""

T = TypeVar("T")

LONG: Final = "p" * 255
"""A principal that is as long as one may be."""


class Name(str):
    """Text of another type."""

    __slots__ = ()


class Octets(bytes):
    """Bytes of another type."""

    __slots__ = ()


@dataclass
class Call:
    """What a verifier is asked, and what happens before; ``looks`` are there where it is given a client's records."""

    what: str
    messages: list[Message]
    records: list[ConsumerRecord[Any, Any]]
    looks: list[tuple[float, int, float]] | None
    expected: Expected
    enough: int | None
    own_keys: bool
    check: str
    step: float
    unacked: bool
    acts: list[tuple[Any, ...]] = field(default_factory=list)


class Input:
    """A world (keys, policy, store, what the reader expects), and a few calls to its verifier.

    It is honest on the whole or hardly at all, by ``odd``: that is how likely each thing is to be unusual.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random = Random(seed)  # noqa: S311 - an input is to come again
        self.odd = random.choice([0.01, 0.03, 0.1, 0.3])
        self.pool = [message for _ in range(random.randint(1, 4)) for message in self.tree()]
        self.calls = [self.call() for _ in range(random.randint(1, 4))]
        self.keys = self.known()
        self.failures = self.failing() if self.is_odd() else {}
        self.policy = self.ruled()
        self.store = random.choice(["guard", "guard", "guard", "guard", "shared", "bulk"])
        self.small = random.random() < 0.15
        self.noted = random.choice([None, None, "works", self.mostly("works", "fails")])
        self.principal = self.mostly(BOB, None, MALLORY)

    def is_odd(self) -> bool:
        """Return True if something is unusual."""
        return self.random.random() < self.odd

    def mostly(self, usual: T, *others: T) -> T:
        """Return what is usual, or one of the others."""
        return self.random.choice(others) if self.is_odd() else usual

    # Messages

    def tree(self) -> list[Message]:
        """Return messages of one sender, in one signed tree or each alone."""
        random = self.random
        key, principal = random.choice(SIGNERS) if self.is_odd() else random.choice(SIGNERS[:4])
        size = random.choice([1, 2, 3, 4, 5, 8, 13])
        kinds = random.choice(["kafka", "kafka", "nats"]), random.choice(["stamped", "between", "nothing"])
        begin, made = random.randint(0, 40), []
        headers = tuple(self.header() for _ in range(self.mostly(1, 0, 2, 5)))
        if random.random() < 0.01:  # names as long as an envelope may just bear, or not
            headers = tuple((f"{at:03}" + "n" * 47, b"") for at in range(random.randint(60, 75)))
        for at in range(size):
            scheme, kind = self.mostly(kinds, ("kafka", "stamped"), ("nats", "nothing"), ("kafka", "between"))
            theirs = tuple((name, self.mostly(value, b"2")) for name, value in headers)
            made.append(self.bare(at, begin + at, scheme, kind, headers=self.mostly(theirs, (*headers, self.header()))))
        changes = self.changes() if self.is_odd() or self.is_odd() else {}
        entries = [
            cbor(
                claims_of(
                    one,
                    principal,
                    **({"c7": self.id(at), "c6": self.issued()} | (self.changes() if self.is_odd() else changes)),
                )
            )
            for at, one in enumerate(made)
        ]
        if size > 1 and random.random() < 0.7:
            raws = batch(entries, key, signed_size=None if random.random() < 0.97 else size + 1)
        else:
            raws = [direct(entry, key) for entry in entries]
        return [bear(one, raw) for one, raw in zip(made, raws, strict=True)]

    def id(self, at: int) -> bytes:
        """Return a message's id, seldom one that another has."""
        seed = b"one" if self.random.random() < 0.05 else b"%d-%d-%d" % (self.seed, at, self.random.getrandbits(32))
        return sha256(seed).digest()[:16]

    def issued(self) -> int:
        """Return a time of issue, mostly of the last seconds."""
        ages = (60, 300, 304, 305, 306, 400, -4, -5, -6, -7, -100, -400)
        return NOW - self.mostly(self.random.choice((0, 0, 1, 3)), *ages)

    def changes(self) -> dict[str, Any]:
        """Return claims that are otherwise than a message says, if only by naming whom it is for."""
        random = self.random
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
            {"c1": random.choice(["", " a", "a\x00", LONG, LONG + "p", "ä"])},
        ]
        return random.choice(several)

    def bare(self, number: int, offset: int, scheme: str, kind: str, headers: tuple[Header, ...]) -> Message:
        """Return a message that nobody has signed yet."""
        random = self.random
        value = random.choice([b"%d" % number, b"", b"x" * 600, None])
        if scheme == "kafka":
            log = self.mostly("tasks/0", "tasks/1")
            fields: dict[str, Any] = {
                "value": value,
                "key": random.choice([None, b"k", b""]),
                "headers": headers,
                "partition": 0,
                "position": self.mostly(Position(log, offset), Position(log, random.randint(0, 40)), None),
                "exclusive": not self.is_odd(),
            }
            return kafka(**fields | self.stamps(kind))
        stored: dict[str, Any] = {
            "position": Position("TASKS", offset),
            "delivered_by": self.mostly(None, ("TASKS", "w"), ("TASKS", "v")),
            "appended_at": NOW + self.mostly(0.5, 0.0, -3.0),
        }
        return nats(
            value=value or b"",
            headers=headers,
            reply_to=self.mostly(None, "reply.here"),
            exclusive=not self.is_odd(),
            arrival=self.mostly(None, b"arrival"),
            **stored if kind == "stamped" else {},
        )

    def header(self) -> Header:
        """Return a header."""
        return self.random.choice(NAMES), self.mostly(b"1", b"", None, b"y" * 90)

    def stamps(self, kind: str) -> dict[str, Any]:
        """Return what is known of when a record was appended."""
        random = self.random
        if kind == "stamped":
            others = (0.0, 0.25, -1, -299.5, 4.75, 6, math.nan, math.inf, NOW)
            return {"appended_at": NOW + self.mostly(0.5, *others)}
        if kind == "between":
            low, high = sorted(
                self.mostly(usual, -math.inf, NOW - 400, NOW - 1, NOW, NOW + 7)
                for usual in (random.choice([-math.inf, NOW - 2.0]), NOW + 0.5)
            )
            created = self.mostly(NOW, None, NOW + 4.5, NOW - 6, math.nan, float(NOW))
            return {"appended_at": None, "appended_between": (low, high), "created_at": created}
        return {"appended_at": None}

    # Changes

    def changed(self, message: Message) -> Message:
        """Return a message, changed in one way or not at all."""
        random = self.random
        if not self.is_odd():
            return message
        ways = [self.flipped, self.retyped, self.reshaped, self.reshaped, self.reheaded, self.moved, self.otherwise]
        return random.choice(ways)(message)

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
        """Return it with another structure, most of the time signed for it."""
        return bear(unsigned(message), shapes.changed(self.random, raw_of(message), KEYS))

    def reheaded(self, message: Message) -> Message:  # noqa: C901 - one branch for each way
        """Return it with other headers."""
        random, headers = self.random, [*message.headers]
        match random.choice(["more", "less", "order", "case", "null", "many", "large", "type", "id", "twice", "ours"]):
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
                headers += [("", b"")] * (1025 - len(headers) - random.choice([0, 1, 2]))
            case "large":
                size = sum(len(name.encode()) + len(value or b"") for name, value in headers)
                headers.append(("z", bytes((64 << 10) - size - random.choice([0, 1, 2]))))
            case "type":
                headers = [(Name(name), value if value is None else Octets(value)) for name, value in headers]
            case "id":
                headers.append(("Nats-Msg-Id", random.choice([b"x", ident(message)])))
            case "ours":
                ours = random.choice(["watchword", "Watchword"]), random.choice([None, b"", b"x"])
                headers.insert(random.randrange(len(headers) + 1), ours)
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
            {"reply_to": random.choice([None, "reply.here", "elsewhere", "\ud800"])},
            {"reader": "another"},
            {"exclusive": not message.exclusive},
            {"delivered_by": random.choice([None, ("TASKS", "w"), ("S", "w")])},
            {"channel": Channel("kafka", "prod", "other")},
            {"channel": Channel("nats", "prod", "tasks.scale")},
            {"created_at": NOW + random.choice([-5.0, -5.5, 5.0, 0])},
            self.stamps(random.choice(["stamped", "between", "nothing"])),
        ]
        return replace(message, **random.choice(several))

    # A client's records

    def record(self, message: Message) -> ConsumerRecord[Any, Any]:
        """Return a message as aiokafka's consumer gives it."""
        random, stamp = self.random, message.appended_at
        stamped = stamp is not None and math.isfinite(stamp)
        made = NOW * 1000 + self.mostly(random.choice([0, 500]), -1000, 4500, -5000, -5001)
        timestamp: Any = round(stamp * 1000) if stamp is not None and stamped else self.mostly(made, made, None)
        kind: Any = 1 if stamped else self.mostly(0, None)
        offset = random.randint(0, 60) if message.position is None else message.position.offset
        headers: Any = self.mostly(message.headers, [*message.headers])
        return ConsumerRecord("tasks", 0, offset, timestamp, kind, message.key, message.value, None, -1, -1, headers)

    def looks(self) -> list[tuple[float, int, float]]:
        """Return some looks at a log's end: asked, end, answered."""
        random, found, end = self.random, list[tuple[float, int, float]](), 0
        time = NOW - self.mostly(3.0, 500.0)
        for _ in range(random.choice([0, 1, 3])):
            time += self.mostly(1.0, 100.0, 497.0)
            end += random.randint(0, 40)
            found.append((time, end, time + random.choice([0.0, 0.25])))
        return found

    # Calls and worlds

    def call(self) -> Call:
        """Return what the verifier is asked."""
        random = self.random
        begin = random.randrange(len(self.pool))
        chosen = self.pool[begin : begin + random.randint(1, 26)]
        if random.random() < 0.4:
            chosen = [*chosen, *(random.choice(self.pool) for _ in range(random.choice([0, 1, 2, 3, 8])))]
        chosen = [self.changed(one) for one in chosen]
        answered = Request(
            id=REQUEST, channel=Channel("nats", "prod", "tasks.scale"), recipient=random.choice([None, ALICE])
        )
        return Call(
            what=random.choice(["verify", "verify", "verify", "verify", "recall", "reverify", "times", "authentic"]),
            messages=chosen,
            records=[self.record(message) for message in chosen],
            looks=self.looks() if chosen[0].channel.scheme == "kafka" and random.random() < 0.4 else None,
            expected=Expected(
                requests=random.choice([{}, {REQUEST: answered}]),
                only_replies=self.is_odd(),
                consumer=self.mostly(None, ("TASKS", "w")),
                floor=self.mostly(-math.inf, NOW - 1, NOW + 1),
                was_passed=self.is_odd(),
            ),
            enough=self.mostly(None, 0, 1, 2),
            own_keys=self.is_odd(),
            check=random.choice(["together", "together", "none", "fails"]),
            step=self.mostly(random.choice([0.0, 0.5]), 10.0, 400.0),
            unacked=self.is_odd(),
            acts=[self.act() for _ in range(self.mostly(0, 1, 2))],
        )

    def act(self) -> tuple[Any, ...]:
        """Return what happens to the verifier or its memory before a call."""
        random, log = self.random, self.random.choice(GUARDED)
        floor = NOW + random.choice([-400.0, -2.0, 0.0])
        several: list[tuple[Any, ...]] = [
            ("begin", log, floor),
            ("raise", log, floor),
            ("resume", log, floor),
            ("forget", log),
            ("pass", log, NOW + random.choice([-100.0, 0.0, 300.0])),
            ("acknowledge", log, random.randint(0, 40)),
            ("unjudged", self.changed(random.choice(self.pool)), random.random() < 0.5),
            ("switch", self.ruled(), self.known()),
        ]
        return random.choice(several)

    def known(self) -> list[VerificationKey]:
        """Return the keys that the source knows."""
        random = self.random
        keys = [*known_keys(), public(ALICE_KEY, LONG), public(ALICE_KEY, "ä")]
        if self.is_odd():
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
        if self.is_odd():
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
        return self.mostly(
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
        )


class Outgoing:
    """Messages that are to be signed, and how."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)  # noqa: S311 - an input is to come again
        self.batch = random.choice([1, 2, 3, 8, 64])
        self.recipient = random.choice([None, None, BOB, "", 5])
        self.expires_at = random.choice([None, None, None, NOW + 9, NOW])
        self.many = random.random() < 0.8
        ways = [self.way() for _ in range(random.randint(1, 3))]
        self.messages = [self.message(random.choice(ways)) for _ in range(random.choice([0, 1, 2, 5, 9, 20]))]

    def way(self) -> dict[str, Any]:
        """Return what many messages may have alike."""
        random = self.random
        channel = random.choice([Channel("kafka", "prod", "tasks")] * 4 + [Channel("nats", "prod", "tasks.scale")])
        headers: tuple[tuple[str, bytes | None], ...] = tuple(
            (random.choice(["a", "content-type", "traceparent", "Nats-Msg-Id"]), random.choice([b"1", b"2", b""]))
            for _ in range(random.choice([0, 1, 2]))
        )
        if random.random() < 0.05:
            headers = random.choice([(("watchword", b"1"),), (("a", None),), (("a", b"1"),) * 1001])
        return {
            "channel": channel,
            "partition": random.choice([0, 0, 0, 1]) if channel.scheme == "kafka" else None,
            "headers": headers,
            "key": random.choice([None, b"k", b""]),
        }

    def message(self, way: dict[str, Any]) -> Message:
        """Return one message, which seldom is otherwise or no message at all."""
        random = self.random
        message = Message(**way, value=random.choice([b"v", b"", b"x" * 300, None]))
        if random.random() < 0.75:
            return message
        several: list[dict[str, Any]] = [
            {"key": random.choice([None, b"other", Octets(b"k"), "k"])},
            {"value": random.choice([Octets(b"v"), bytearray(b"v"), "v", 5])},
            {"headers": random.choice([[*message.headers], (), (("a", b"9"),), (("a", bytearray(b"9")),)])},
            {"partition": random.choice([None, 2, True, False, 0.0, -1, 1 << 31])},
            {"channel": random.choice([Channel("kafka", "prod", "other"), Channel("kafka", "dev", "tasks")])},
            {"channel": random.choice([Channel("kafka", "prod", "a b"), Channel("nats", "prod", "tasks.*")])},
            {"reply_to": random.choice(["reply.here", "$SYS", "a b", 5])},
        ]
        return replace(message, **random.choice(several))


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
