"""A08, A09, A10, A32 with post-quantum keys: confused algorithms, weak keys, sizes."""

import json
from hashlib import shake_256
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import mldsa

from tests.unit.core.world import (
    ALICE,
    ALICE_EC_KEY,
    ALICE_KEY,
    BOB,
    World,
    bear,
    cbor,
    claims_of,
    kafka,
    known_keys,
    nats,
    protected_of,
    public,
    signature_of,
    structure,
)
from tests.vectors.post_quantum import ALICE_44, ALICE_65, KEYS, far, text
from watchword import ConfigurationError, MemoryKeys, Reason, Rejected, SigningKey, VerificationKey
from watchword.jwk import parse_jwks, to_jwk
from watchword.spi import Message

ALL = [*known_keys(), public(ALICE_44, ALICE), public(ALICE_65, ALICE)]
CLAIMS = cbor(claims_of(nats()))


def rejected(message: Message, world: World | None = None) -> Rejected:
    """Return why a message is rejected by a reader who knows keys of all algorithms."""
    with pytest.raises(Rejected) as caught:
        (world or World(keys=ALL)).verify(message)
    return caught.value


def enveloped(protected: bytes, signature: bytes, claims: bytes = CLAIMS) -> bytes:
    """Return a direct envelope."""
    return cbor2.dumps([1, claims, [protected, {}, None, signature]])


@pytest.mark.parametrize("named", [ALICE_KEY, ALICE_EC_KEY, ALICE_44, ALICE_65], ids=["Ed25519", "ESP256", *KEYS])
@pytest.mark.parametrize("signing", [ALICE_KEY, ALICE_EC_KEY, ALICE_44, ALICE_65], ids=["Ed25519", "ESP256", *KEYS])
def test_a08_no_algorithm_stands_in_for_another(signing: SigningKey, named: SigningKey) -> None:
    """Promise: whatever algorithm a message claims, only the named key's own signature counts: up, down and across."""
    for alg in (-19, -9, -48, -49, -50):
        protected = protected_of(signing, c1=alg, c4=named.key_id)
        message = bear(nats(), enveloped(protected, signature_of(signing, structure(protected, 0, CLAIMS))))
        if signing is named and alg == int(named.algorithm):
            assert World(keys=ALL).verify(message).key_id == named.key_id.decode()
        else:
            assert rejected(message).reason in {Reason.BAD_SIGNATURE, Reason.MALFORMED}


@pytest.mark.parametrize("name", KEYS)
def test_a08_a_public_key_that_is_close_to_zero_is_refused(name: str) -> None:
    """Promise: under a key whose t1 is 0 a signature takes no secret; such a key cannot be loaded, from anywhere."""
    kind: Any = mldsa.MLDSA44PublicKey if name == "ML-DSA-44" else mldsa.MLDSA65PublicKey
    raw = bytes(range(32)) + bytes(len(KEYS[name].verification_key(ALICE).public_bytes) - 32)
    weak, data = kind.from_public_bytes(raw), structure(protected_of(KEYS[name]), 0, CLAIMS)
    weak.verify(_forged(name, raw, data), data)  # the attack, without the check
    with pytest.raises(ConfigurationError, match="ML-DSA public key: close to 0"):
        VerificationKey.from_public_key(weak, principal=ALICE, key_id=b"k")
    jwk = to_jwk(KEYS[name].verification_key(ALICE)) | {"pub": text(raw)}
    with pytest.raises(ConfigurationError, match="key 1: ML-DSA public key: close to 0"):
        parse_jwks(json.dumps({"keys": [jwk]}).encode())


def _forged(name: str, raw: bytes, data: bytes) -> bytes:
    """Return a signature with z = 0 and no hint, whose commitment is 0 where t1 is (FIPS 204, algorithm 8)."""
    rows, columns, bits, strength, gamma, width, hints = {
        "ML-DSA-44": (4, 4, 6, 32, 1 << 17, 18, 80),
        "ML-DSA-65": (6, 5, 4, 48, 1 << 19, 20, 55),
    }[name]
    mu = shake_256(shake_256(raw).digest(64) + b"\0\0" + data).digest(64)
    challenge = shake_256(mu + bytes(32 * bits * rows)).digest(strength)
    z = sum([gamma << width * at for at in range(256 * columns)]).to_bytes(32 * columns * width, "little")
    return challenge + z + bytes(hints + rows)


@pytest.mark.parametrize("name", KEYS)
def test_a08_each_part_of_a_public_key_is_looked_at(name: str) -> None:
    """Promise: one short polynomial of several is enough to be refused, and an honest key never is."""
    raw = KEYS[name].verification_key(ALICE).public_bytes
    kind: Any = mldsa.MLDSA44PublicKey if name == "ML-DSA-44" else mldsa.MLDSA65PublicKey
    for at in range(32, len(raw), 320):
        for polynomial, is_good in ((far(96), True), (far(95), False), (b"\xff" * 320, False)):
            key = kind.from_public_bytes(raw[:at] + polynomial + raw[at + 320 :])
            if is_good:
                VerificationKey.from_public_key(key, principal=ALICE, key_id=b"k")
                continue
            with pytest.raises(ConfigurationError, match="close to 0"):
                VerificationKey.from_public_key(key, principal=ALICE, key_id=b"k")


def test_a10_one_public_key_for_two() -> None:
    """Promise: one ML-DSA key under two principals is refused when loaded."""
    stolen = VerificationKey.from_public_key(ALICE_44.public, principal=BOB, key_id=b"new")
    with pytest.raises(ConfigurationError, match="one public key"):
        MemoryKeys([*ALL, stolen])


def test_a09_a_key_inside_the_message_is_not_looked_at() -> None:
    """Promise: anyone who puts his public key into the headers of the proof gains nothing."""
    raw = ALICE_44.verification_key(ALICE).public_bytes
    for label in (-1, 33, 34):
        header = protected_of(ALICE_44, **{f"c{label}": raw} if label > 0 else {})
        unprotected = {} if label > 0 else {label: raw}
        forged = cbor2.dumps([1, CLAIMS, [header, unprotected, None, bytes(2420)]])
        assert rejected(bear(nats(), forged)).reason is Reason.MALFORMED


@pytest.mark.parametrize("size", [4097, 6453, 6454, 7342, 7343, 20_000])
def test_a32_a_claimed_algorithm_buys_no_more_than_its_signature(size: int) -> None:
    """Promise: how much is read goes by the algorithm claimed; no look-up is made for what is over, nor for garbage."""
    for alg, most in ((-19, 4096), (-9, 4096), (-50, 4096), (-48, 6453), (-49, 7342)):
        world, signature = World(keys=ALL), bytes({-48: 2420, -49: 3309}.get(alg, 64))
        protected = protected_of(ALICE_KEY, c1=alg)
        bare = len(enveloped(protected, signature, cbor(claims_of(kafka(), r="x" * 300))))
        message = kafka()
        claims = cbor(claims_of(message, r="x" * (300 + size - bare)))
        raw = enveloped(protected, signature, claims)
        assert abs(len(raw) - size) <= 2
        reason = rejected(bear(message, raw), world).reason
        assert (reason is Reason.MALFORMED) == (len(raw) > most)
        assert world.keys.asked == 0


def test_a32_an_oversize_header_costs_no_decoding() -> None:
    """Promise: what is longer than any envelope is malformed by its length alone."""
    assert "envelope of 9791 characters" in rejected(kafka(headers=(("watchword", b"A" * 9791),))).detail
    assert "characters" not in rejected(kafka(headers=(("watchword", b"A" * 9790),))).detail
