"""Both engines accept the same Ed25519 signatures, for every key that loads: not one less, and not one more."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.vectors.curve import BASE, EIGHTH, ORDER, P, Point, add, challenge, encoded, times
from watchword import Rejected, VerificationKey, engine
from watchword.algorithms import Algorithm
from watchword.envelope import parse
from watchword.jwk import parse_jwks

VECTORS: Final = sorted((Path(__file__).parents[1] / "vectors" / "v1").glob("*.json"))
SMALL: Final = [times(number, EIGHTH) for number in range(8)]
SECRETS: Final = (2**252 - 12345, 2**200 + 7)
Case = tuple[VerificationKey, bytes, bytes]


def key_of(public: bytes) -> VerificationKey:
    """Return a key that loads."""
    loaded = ed25519.Ed25519PublicKey.from_public_bytes(public)
    return VerificationKey.from_public_key(loaded, principal="agent://acme/planner", key_id=b"k")


def of_vectors() -> Iterator[Case]:
    """Yield what each vector's message has for a signature, under the key that it names."""
    vectors: list[dict[str, Any]] = [one for path in VECTORS for one in json.loads(path.read_text(encoding="utf-8"))]
    for vector in vectors:
        keys = {key.key_id: key for key in parse_jwks(json.dumps(vector["keys"]).encode())}
        for message in vector["messages"]:
            values = [value for name, value in message["headers"] if name == "watchword" and value is not None]
            try:
                envelopes = [parse(base64.b64decode(value)) for value in values]
            except Rejected:
                continue
            for envelope in envelopes:
                key, root = keys.get(envelope.common.key_id), envelope.root()
                if key is not None and key.algorithm is Algorithm.ED25519 and root is not None:
                    yield key, envelope.signature, envelope.to_be_signed(root)


def made() -> Iterator[Case]:
    """Yield signatures by keys and with nonces that have parts of small order, and such as are changed."""
    random = Random(14)  # noqa: S311 - they are to come again
    bases = {secret: times(secret, BASE) for secret in SECRETS}
    keys = [(secret, key_of(encoded(add(bases[secret], small)))) for secret in SECRETS for small in SMALL]
    nonce = 2**251 + 99
    points: list[tuple[int, Point]] = [(number, small) for number in (nonce, 0) for small in SMALL]
    starts = [(number, encoded(add(times(number, BASE), small) if number else small)) for number, small in points]
    starts += [(0, (y + P).to_bytes(32, "little")) for y in (0, 1)]  # encodings of which none is canonical
    starts += [(0, bytes([*start[:31], start[31] ^ 0x80])) for _, start in starts[8:16]]
    for secret, key in keys:
        for number, start in starts:
            data = random.randbytes(random.randrange(80))
            answer = (number + challenge(start, key.public_bytes, data) * secret) % ORDER
            for one in (answer, answer + ORDER, answer + 8 * ORDER, (answer + 1) % ORDER, -answer % ORDER):
                signature = start + one.to_bytes(32, "little")
                yield key, signature, data
                flipped = bytearray(signature)
                flipped[random.randrange(64)] ^= 1 << random.randrange(8)
                yield key, bytes(flipped), data
            yield key, start + random.randbytes(32), data
    for size in (0, 32, 63, 65, 128):
        yield keys[0][1], random.randbytes(size), b""


@pytest.mark.skipif(engine.native() is None, reason="the native engine is not here: make native")
@pytest.mark.parametrize(("cases", "good", "bad"), [(of_vectors, 150, 20), (made, 30, 3000)])
def test_both_engines_accept_the_same_signatures(
    monkeypatch: pytest.MonkeyPatch, cases: Any, good: int, bad: int
) -> None:
    """Promise (A08): a sender cannot make a signature that holds for some readers, and not for others."""
    held = []
    for key, signature, data in cases():
        monkeypatch.undo()
        held.append(key.verifies(signature, data))
        monkeypatch.setattr(engine, "native", lambda: None)
        assert key.verifies(signature, data) == held[-1], (key.public_bytes, signature, data)
    assert held.count(True) > good
    assert held.count(False) > bad
