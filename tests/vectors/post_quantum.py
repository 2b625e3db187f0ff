"""Messages and key sets with ML-DSA keys. These signatures are drawn again, so those that are written are kept."""

import base64
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import mldsa

from tests.unit.core.world import (
    ALICE,
    ALICE_KEY,
    BOB,
    batched,
    bear,
    cbor,
    claims_of,
    kafka,
    nats,
    protected_of,
    public,
    signature_of,
    structure,
)
from tests.vectors import trees
from tests.vectors.edges import Edge
from watchword import SigningKey, VerificationKey
from watchword.jwk import to_jwk
from watchword.spi import Message, Position

FILE: Final = Path(__file__).parent / "v1" / "ml_dsa.json"
ALICE_44: Final = SigningKey(mldsa.MLDSA44PrivateKey.from_seed_bytes(bytes([5]) * 32), key_id=b"alice-44")
ALICE_65: Final = SigningKey(mldsa.MLDSA65PrivateKey.from_seed_bytes(bytes([6]) * 32), key_id=b"alice-65")
KEYS: Final = {"ML-DSA-44": ALICE_44, "ML-DSA-65": ALICE_65}
LIMITS: Final = {"ML-DSA-44": 6453, "ML-DSA-65": 7342}
BAD: Final = "bad_signature"


@lru_cache(1)
def _written() -> frozenset[bytes]:
    """Return the signatures that stand in the file."""
    vectors = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else []
    headers = [base64.b64decode(message["headers"][-1][1]) for one in vectors for message in one["messages"]]
    return frozenset([cbor2.loads(base64.urlsafe_b64decode(header + b"=="))[2][3] for header in headers])


@lru_cache(256)
def sign(key: SigningKey, data: bytes, context: bytes | None = None) -> bytes:
    """Return a signature of ``data``: the one that is written already, if there is one."""
    for signature in sorted(_written()):
        try:
            key.public.verify(signature, data, context)  # type: ignore[call-arg, arg-type] # an ML-DSA key
        except InvalidSignature:
            continue
        return signature
    made: bytes = key._private.sign(data, context)
    return made


def enveloped(key: SigningKey, entry: bytes, signature: bytes | None = None, **protected: Any) -> bytes:
    """Return a direct envelope of encoded claims, with another signature or other protected fields."""
    header = protected_of(key, **protected)
    signature = sign(key, structure(header, 0, entry)) if signature is None else signature
    return cbor2.dumps([1, entry, [header, {}, None, signature]])


def edges() -> Iterator[Edge]:
    """Yield messages, one fault each."""
    for name, key in KEYS.items():
        yield from _alone(name, key)
        yield from _limits(name, key)
    yield from _confused()


def batches() -> Iterator[tuple[str, SigningKey, list[Message]]]:
    """Yield trees of messages whose ids are 16 times their number."""
    for name, key in KEYS.items():
        messages = [
            kafka(reader="", value=bytes([index]), position=Position("tasks/0", index), headers=())
            for index in range(3)
        ]
        entries = [cbor(claims_of(message, c7=bytes([index]) * 16)) for index, message in enumerate(messages)]
        header = protected_of(key, c395=1)
        signature = sign(key, structure(header, 3, trees.root(entries)))
        raws = [
            batched(entry, header, signature, size=3, index=index, path=trees.path(index, entries))
            for index, entry in enumerate(entries)
        ]
        yield name, key, [bear(message, raw) for message, raw in zip(messages, raws, strict=True)]


def keys() -> list[VerificationKey]:
    """Return what the reader of these messages knows."""
    return [public(ALICE_KEY, ALICE), public(ALICE_44, ALICE), public(ALICE_65, ALICE)]


def _edge(  # noqa: PLR0917 - one row of a table
    name: str, comment: str, raw: bytes, reason: str | None, key: SigningKey, message: Message
) -> Edge:
    return Edge(name, comment, bear(message, raw), reason, {"keys": keys()}, key_id=key.key_id.decode())


def _alone(name: str, key: SigningKey) -> Iterator[Edge]:
    for message, bus in ((kafka(reader=""), "Kafka"), (nats(reader=""), "NATS")):
        yield _edge(f"{name}, {bus}", "", enveloped(key, cbor(claims_of(message))), None, key, message)
    message = nats(reader="")
    entry = cbor(claims_of(message))
    good = sign(key, structure(protected_of(key), 0, entry))
    for what, signature, reason in (
        ("a byte short", good[:-1], BAD),
        ("a byte long", good + b"\0", "malformed"),
        ("empty", b"", BAD),
        ("128 bytes of zero", bytes(128), BAD),
        ("all of zero", bytes(len(good)), BAD),
        ("with one bit changed", bytes([good[0] ^ 1]) + good[1:], BAD),
        ("with its last hint changed", good[:-1] + bytes([good[-1] ^ 1]), BAD),
    ):
        yield _edge(f"{name}, signature {what}", "", enveloped(key, entry, signature), reason, key, message)
    data = structure(protected_of(key), 0, entry)
    comment = "The context of FIPS 204 is empty."
    signed = enveloped(key, entry, sign(key, data, b"watchword/1"))
    yield _edge(f"{name}, with a context", comment, signed, BAD, key, message)
    other = enveloped(key, entry, sign(key, structure(protected_of(key), 0, entry, context="watchword/2")))
    yield _edge(f"{name}, for another purpose", "", other, BAD, key, message)


def _limits(name: str, key: SigningKey) -> Iterator[Edge]:
    """Yield an envelope of the largest size, and one that is larger by a byte."""
    limit = LIMITS[name]
    bare = len(enveloped(key, cbor(claims_of(nats(headers=(), reply_to="x" * 3000)))))
    for more, reason in ((0, None), (1, "malformed")):
        message = nats(reader="", headers=(), reply_to="x" * (3000 + limit - bare + more))
        raw = enveloped(key, cbor(claims_of(message)))
        assert len(raw) == limit + more
        yield _edge(f"{name}, envelope of {len(raw)} bytes", "", raw, reason, key, message)


def _confused() -> Iterator[Edge]:
    """Yield messages that claim another algorithm than the key has."""
    message = nats(reader="")
    entry = cbor(claims_of(message))
    for name, key in KEYS.items():
        for alg in {-48, -49, -50, -19, -9, -8} - {int(key.algorithm)}:
            signature = sign(key, structure(protected_of(key, c1=alg), 0, entry))
            fits = len(signature) <= {-48: 2420, -49: 3309}.get(alg, 128)
            raw = enveloped(key, entry, signature, c1=alg)
            comment = "It is over what this algorithm has, or it is not the key's algorithm."
            yield _edge(f"{name}, its signature as {alg}", comment, raw, BAD if fits else "malformed", key, message)
        ed = signature_of(ALICE_KEY, structure(protected_of(ALICE_KEY, c4=key.key_id), 0, entry))
        raw = enveloped(ALICE_KEY, entry, ed, c4=key.key_id)
        yield _edge(f"Ed25519 under the id of {name}", "A downgrade.", raw, BAD, key, message)
        upgraded = protected_of(key, c4=ALICE_KEY.key_id)
        raw = enveloped(key, entry, sign(key, structure(upgraded, 0, entry)), c4=ALICE_KEY.key_id)
        yield _edge(f"{name} under the id of Ed25519", "", raw, BAD, key, message)
    large = nats(reader="", headers=(), reply_to="x" * 4000)
    entry = cbor(claims_of(large))
    for alg, reason in ((-19, "malformed"), (-48, BAD), (-50, "malformed")):
        signature = signature_of(ALICE_KEY, structure(protected_of(ALICE_KEY, c1=alg), 0, entry))
        raw = enveloped(ALICE_KEY, entry, signature, c1=alg)
        comment = "How much is read goes by the algorithm that is claimed."
        yield _edge(f"Ed25519, envelope over 4096 bytes as {alg}", comment, raw, reason, ALICE_KEY, large)


def keysets() -> Iterator[dict[str, Any]]:
    """Yield JWK Sets that may be used, and sets that must be refused whole."""
    small, large = dict(to_jwk(public(ALICE_44, ALICE))), dict(to_jwk(public(ALICE_65, ALICE)))
    ed = dict(to_jwk(public(ALICE_KEY, ALICE)))
    raw = ALICE_44.public.public_bytes_raw()  # type: ignore[union-attr] # an ML-DSA key
    good: dict[str, Sequence[dict[str, Any]]] = {
        "both, and another": [small, large, ed],
        "no use": [_without(small, "use")],
        "no kid": [_without(large, "kid")],
        "a crv, which says nothing here": [small | {"crv": "P-256"}],
        "as far from 0 as it must be": [small | {"pub": text(raw[:32] + far(96) + raw[352:])}],
    }
    bad: dict[str, Sequence[dict[str, Any]]] = {
        "no alg": [_without(small, "alg")],
        "alg null": [small | {"alg": None}],
        "alg of the other": [small | {"alg": "ML-DSA-65"}],
        "alg ML-DSA-87": [small | {"alg": "ML-DSA-87"}],
        "alg EdDSA": [small | {"alg": "EdDSA"}],
        "kty OKP": [small | {"kty": "OKP"}],
        "kty AKP, key of Ed25519": [ed | {"kty": "AKP"}],
        "no pub": [_without(small, "pub")],
        "a pub of 1311 bytes": [small | {"pub": text(raw[:-1])}],
        "a pub of 1313 bytes": [small | {"pub": text(raw + b"\0")}],
        "a pub with padding": [small | {"pub": f"{small['pub']}="}],
        "a private priv": [small | {"priv": text(bytes(32))}],
        "t1 of zeros": [small | {"pub": text(raw[:32] + bytes(1280))}],
        "t1 of ones": [large | {"pub": text(raw[:32] + b"\xff" * 1920)}],
        "one polynomial close to 0": [small | {"pub": text(raw[:32] + far(95) + raw[352:])}],
        "the last polynomial close to 0": [small | {"pub": text(raw[:-320] + bytes(320))}],
        "one public key, two principals": [small, small | {"principal": BOB}],
        "one id, two algorithms": [small, large | {"kid": small["kid"]}],
    }
    for is_good, sets in ((True, good), (False, bad)):
        for name, found in sets.items():
            yield {"name": name, "good": is_good, "text": json.dumps({"keys": found})}


def far(count: int) -> bytes:
    """Return a polynomial in which so many numbers are as little far from 0 as counts."""
    numbers = [128, 895] * (count // 2) + [128] * (count % 2) + [127] * (256 - count)
    return sum([number << 10 * at for at, number in enumerate(numbers)]).to_bytes(320, "little")


def text(raw: bytes) -> str:
    """Return base64url."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _without(key: dict[str, Any], name: str) -> dict[str, Any]:
    return {member: value for member, value in key.items() if member != name}
