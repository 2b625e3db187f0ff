"""A world of three agents for the core's tests, and a press that makes envelopes of any shape.

The press is written from docs/spec.md on cbor2 and cryptography alone, so that signer and verifier are checked against
something that shares no code with them.
"""

import base64
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, TypeVar

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.vectors import trees
from watchword import MemoryKeys, Policy, Rejected, SigningKey, Unavailable, VerificationKey, VerifiedMessage
from watchword.journal import Journal
from watchword.message import Expected
from watchword.spi import (
    Admission,
    Channel,
    Claim,
    KeySource,
    MemoryReplayStore,
    Message,
    Position,
    ReplayStore,
    Signer,
    Verifier,
)
from watchword.testing import SharedMemoryStore

REALM: Final = "prod"
NOW: Final = 1_763_928_000
ALICE: Final = "agent://acme/planner"
BOB: Final = "agent://acme/cloud"
MALLORY: Final = "agent://acme/mallory"
ID: Final = bytes(range(16))
ABSENT: Final = object()
P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

T = TypeVar("T")
Fields = dict[Any, Any]


def ed_key(seed: int, *, kid: bytes | None = None) -> SigningKey:
    """Return the Ed25519 key of a fixed seed."""
    return SigningKey(ed25519.Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32), key_id=kid)


def ec_key(seed: int, *, kid: bytes | None = None) -> SigningKey:
    """Return the P-256 key of a fixed scalar."""
    return SigningKey(ec.derive_private_key(seed + 2**200, ec.SECP256R1()), key_id=kid)


ALICE_KEY: Final = ed_key(1, kid=b"alice-1")
BOB_KEY: Final = ed_key(2, kid=b"bob-1")
MALLORY_KEY: Final = ed_key(3, kid=b"mallory-1")
ALICE_EC_KEY: Final = ec_key(4, kid=b"alice-ec")


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run what never really waits without an event loop; the core does no I/O, and this shows it."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise AssertionError("the core waited for something")


def in_turns(work: Coroutine[Any, Any, T]) -> T:
    """Run what lets others run meanwhile, and waits for nothing."""
    while True:
        try:
            assert work.send(None) is None
        except StopIteration as done:
            result: T = done.value
            return result


def kafka(**fields: Any) -> Message:
    """Return a Kafka record as read from its partition."""
    given: Fields = {
        "channel": Channel("kafka", REALM, "tasks"),
        "value": b'{"scale": 3}',
        "key": b"k1",
        "headers": (("content-type", b"application/json"),),
        "partition": 0,
        "position": Position("tasks/0", 12),
        "appended_at": NOW + 0.5,
        "reader": "group",
    }
    return Message(**given | fields)


def nats(**fields: Any) -> Message:
    """Return a core NATS message."""
    given: Fields = {
        "channel": Channel("nats", REALM, "tasks.scale"),
        "value": b'{"scale": 3}',
        "headers": (("Content-Type", b"application/json"),),
        "reader": "sub",
    }
    return Message(**given | fields)


def claims_of(message: Message, principal: str = ALICE, **changes: Any) -> Fields:
    """Return the claims of a message as a map; a change names a claim (``c1`` for label 1) or sets it ABSENT."""
    covered = sorted({name for name, _ in message.headers} - {"traceparent", "tracestate"}, key=str.encode)
    fields: Fields = {1: principal, 6: NOW, 7: ID, "c": message.channel.uri}
    if message.value is not None:
        fields["v"] = sha256(message.value).digest()
    if covered:
        fields["h"] = covered
    if covered or message.key is not None:
        pairs = [[name, value] for name, value in message.headers if name in covered]
        fields["m"] = sha256(cbor2.dumps([message.key, pairs])).digest()
    if message.partition is not None:
        fields["p"] = message.partition
    if message.reply_to is not None:
        fields["r"] = message.reply_to
    for name, value in changes.items():
        label = int(name[1:]) if name[1:].isdigit() else name
        fields.pop(label, None)
        if value is not ABSENT:
            fields[label] = value
    return fields


def cbor(fields: object) -> bytes:
    """Return deterministic CBOR; its map keys here sort alike under RFC 8949 and under the older rule."""
    return cbor2.dumps(fields, canonical=True)


def protected_of(key: SigningKey, **changes: Any) -> bytes:
    """Return protected fields: 1 the algorithm, 4 the key id, as changed (``c395=1`` adds the tree algorithm)."""
    fields: Fields = {1: int(key.algorithm), 4: key.key_id}
    fields |= {int(name[1:]): value for name, value in changes.items()}
    return cbor({label: value for label, value in fields.items() if value is not ABSENT})


def structure(protected: bytes, size: int, payload: bytes, *, context: object = "watchword/1") -> bytes:
    """Return the Sig_structure that is signed."""
    return cbor2.dumps(["Signature1", protected, cbor2.dumps([context, size]), payload])


def signature_of(key: SigningKey, data: bytes) -> bytes:
    """Sign; ECDSA by RFC 6979, so that vectors come out the same every time."""
    private = _private_of(key)
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return private.sign(data)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        return _ml_dsa_signature(private, data)
    r, s = decode_dss_signature(private.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
    return r.to_bytes(32) + min(s, P256_ORDER - s).to_bytes(32)


@lru_cache(64)
def _private_of(key: SigningKey) -> Any:
    return load_pem_private_key(key.to_pem(), None)


@lru_cache(4096)
def _ml_dsa_signature(private: Any, data: bytes) -> bytes:
    """Sign by ML-DSA, which draws its signatures: once for the same data, so that it comes out the same every time."""
    signature: bytes = private.sign(data)
    return signature


def direct(claims: bytes, key: SigningKey = ALICE_KEY, *, context: object = "watchword/1", **protected: Any) -> bytes:
    """Return a directly signed envelope, before base64url."""
    header = protected_of(key, **protected)
    return cbor2.dumps(
        [1, claims, [header, {}, None, signature_of(key, structure(header, 0, claims, context=context))]]
    )


def batch(entries: Sequence[bytes], key: SigningKey = ALICE_KEY, *, signed_size: int | None = None) -> list[bytes]:
    """Return the envelopes of a signed tree over encoded claims."""
    header = protected_of(key, c395=1)
    size = len(entries) if signed_size is None else signed_size
    signature = signature_of(key, structure(header, size, trees.root(entries)))
    return [
        batched(entry, header, signature, size=len(entries), index=index, path=trees.path(index, entries))
        for index, entry in enumerate(entries)
    ]


def batched(claims: bytes, header: bytes, signature: bytes, *, size: int, index: int, path: Sequence[bytes]) -> bytes:
    """Return one envelope with the inclusion proof given."""
    proof = cbor2.dumps([size, index, list(path)])
    return cbor2.dumps([1, claims, [header, {396: {-1: [proof]}}, None, signature]])


def text(raw: bytes) -> bytes:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def raw_of(message: Message) -> bytes:
    """Return the envelope that a message bears, decoded."""
    value = next(value for name, value in message.headers if name == "watchword")
    assert value is not None
    return base64.urlsafe_b64decode(value + b"==")


def bear(message: Message, raw: bytes) -> Message:
    """Return the message with an envelope as its last header."""
    return replace(message, headers=(*message.headers, ("watchword", text(raw))))


def press(message: Message, *, key: SigningKey = ALICE_KEY, principal: str = ALICE, **changes: Any) -> Message:
    """Return the message directly signed, its claims as changed."""
    return bear(message, direct(cbor(claims_of(message, principal, **changes)), key))


def press_many(
    messages: Sequence[Message], *, key: SigningKey = ALICE_KEY, principal: str = ALICE, **changes: Any
) -> list[Message]:
    """Return the messages in one signed tree, each with an id of its own; a single one directly signed."""
    entries = [
        cbor(claims_of(message, principal, **({"c7": sha256(b"%d" % at).digest()[:16]} | changes)))
        for at, message in enumerate(messages)
    ]
    raws = batch(entries, key) if len(entries) > 1 else [direct(entry, key) for entry in entries]
    return [bear(message, raw) for message, raw in zip(messages, raws, strict=True)]


class CountingKeys:
    """A key source that tells how often it was asked."""

    def __init__(self, source: KeySource) -> None:
        self.source = source
        self.asked = 0

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """Count, and ask the other."""
        self.asked += 1
        return await self.source.find(principal, key_id)


@dataclass
class CountingStore:
    """A replay store that keeps the claims it was offered; ``answer`` stands in for the other's."""

    store: ReplayStore
    answer: Admission | None = None
    claims: list[Claim] = field(default_factory=list)

    async def claim(self, claim: Claim) -> Admission:
        """Keep the claim, and ask the other."""
        self.claims.append(claim)
        return self.answer or await self.store.claim(claim)


def public(key: SigningKey, principal: str, **times: int) -> VerificationKey:
    """Return the public half, valid at the times given."""
    return VerificationKey.from_public_key(key.public, principal=principal, key_id=key.key_id, **times)


def known_keys() -> list[VerificationKey]:
    """Return what the world's key source knows."""
    return [public(ALICE_KEY, ALICE), public(ALICE_EC_KEY, ALICE), public(BOB_KEY, BOB), public(MALLORY_KEY, MALLORY)]


class World:
    """A verifier of BOB's with its clock, key source and replay store within reach."""

    def __init__(
        self,
        *,
        policy: Policy | None = None,
        principal: str | None = BOB,
        keys: Sequence[VerificationKey] | None = None,
        shared_replay: bool = False,
        journal: Journal | None = None,
    ) -> None:
        self.now = NOW + 1.0
        self.policy = policy or Policy()
        self.keys = CountingKeys(MemoryKeys(known_keys() if keys is None else keys))
        self.memory = MemoryReplayStore(horizon=self.policy.horizon)
        self.store = CountingStore(self.memory)
        self.verifier = Verifier(
            realm=REALM,
            keys=self.keys,
            replay=SharedMemoryStore(clock=lambda: self.now, open_to_all=True) if shared_replay else self.store,
            policy=self.policy,
            clock=lambda: self.now,
            principal=principal,
            journal=journal,
        )

    def verify(self, message: Message, expected: Expected | None = None) -> VerifiedMessage:
        """Verify without an event loop."""
        return at_once(self.verifier.verify(message) if expected is None else self.verifier.verify(message, expected))


def ending(verdict: object) -> str:
    """Return how a message ended, in a word."""
    if isinstance(verdict, VerifiedMessage):
        return "again" if verdict.redelivered else "first"
    if isinstance(verdict, Rejected):
        return str(verdict.reason)
    assert isinstance(verdict, Unavailable)
    return verdict.what


def endings(world: World, messages: Iterable[Message], expected: Expected | None = None, **options: Any) -> list[str]:
    """Return how messages end that are judged together."""
    return [
        ending(verdict) for verdict in at_once(world.verifier.verify_many(messages, expected or Expected(), **options))
    ]


class Checks:
    """A checker that makes its checks at once, and keeps how many it was given each time."""

    def __init__(self) -> None:
        self.given: list[int] = []

    async def __call__(self, jobs: Sequence[Callable[[], bool]]) -> list[bool]:
        """Make them."""
        self.given.append(len(jobs))
        return [job() for job in jobs]


def signer(key: SigningKey = ALICE_KEY, principal: str = ALICE, *, clock: Callable[[], float] = lambda: NOW) -> Signer:
    """Return a signer of the world."""
    return Signer(realm=REALM, principal=principal, key=key, clock=clock)


def signed(message: Message, by: Signer | None = None, **options: Any) -> Message:
    """Return the message as the product's own signer signs it."""
    header = at_once((by or signer()).sign(message, **options)).header
    return replace(message, headers=(*message.headers, header))


def with_headers(message: Message, change: Mapping[str, bytes | None]) -> Message:
    """Return the message with the values of some headers replaced."""
    return replace(message, headers=tuple((name, change.get(name, value)) for name, value in message.headers))


def rejected(message: Message, world: World | None = None, expected: Expected | None = None) -> Rejected:
    """Return the rejection of a message that must not be delivered."""
    with pytest.raises(Rejected) as caught:
        (world or World()).verify(message, expected)
    return caught.value
