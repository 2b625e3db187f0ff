"""A08, A09, A10, A11: confused algorithms, foreign keys, foreign signatures."""

import hashlib
import hmac
from dataclasses import replace

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.unit.core.world import (
    ABSENT,
    ALICE,
    ALICE_EC_KEY,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    MALLORY,
    MALLORY_KEY,
    REALM,
    World,
    bear,
    cbor,
    claims_of,
    direct,
    kafka,
    known_keys,
    nats,
    protected_of,
    public,
    signature_of,
    signed,
    structure,
)
from watchword import ConfigurationError, MemoryKeys, Reason, Rejected, VerificationKey
from watchword.spi import Channel, Message

CLAIMS = cbor(claims_of(nats()))


def reason_of(message: Message, world: World | None = None) -> Reason:
    """Return why the message is rejected."""
    with pytest.raises(Rejected) as caught:
        (world or World()).verify(message)
    return caught.value.reason


def _with(protected: bytes, signature: bytes, unprotected: object = None) -> Message:
    return bear(nats(), cbor2.dumps([1, CLAIMS, [protected, unprotected or {}, None, signature]]))


@pytest.mark.parametrize("signature", [b"", bytes(64), bytes(32)])
def test_a08_no_signature_at_all(signature: bytes) -> None:
    """Promise: an empty or null signature verifies nothing."""
    assert reason_of(_with(protected_of(ALICE_KEY), signature)) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("alg", [5, 4, 6, -8, -7, -9, 0, -65535])
def test_a08_the_messages_algorithm_chooses_nothing(alg: int) -> None:
    """Promise: HMAC with the public key as secret, or a valid signature under another algorithm's name, is bad."""
    protected = protected_of(ALICE_KEY, c1=alg)
    data = structure(protected, 0, CLAIMS)
    mac = hmac.new(ALICE_KEY.verification_key(ALICE).public_bytes, data, hashlib.sha256).digest()
    for signature in (mac, mac * 2, signature_of(ALICE_KEY, data)):
        assert reason_of(_with(protected, signature)) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("alg", ["none", "EdDSA", None, ABSENT])
def test_a08_algorithms_that_are_no_number(alg: object) -> None:
    """Promise: ``none`` and the like are malformed, before any lookup."""
    world = World()
    protected = protected_of(ALICE_KEY, c1=alg)
    assert reason_of(_with(protected, signature_of(ALICE_KEY, structure(protected, 0, CLAIMS))), world) is (
        Reason.MALFORMED
    )
    assert world.keys.asked == 0


def test_a08_a_key_of_the_other_kind() -> None:
    """Promise: an Ed25519 signature under the id of a P-256 key, and the other way round, is bad."""
    for signing, named in ((ALICE_KEY, ALICE_EC_KEY), (ALICE_EC_KEY, ALICE_KEY)):
        for alg in (-19, -9):
            raw = direct(CLAIMS, signing, c4=named.key_id, c1=alg)
            assert reason_of(bear(nats(), raw)) is Reason.BAD_SIGNATURE


def test_a08_small_order_keys() -> None:
    """Promise: the key of small order, for which R = identity, s = 0 signs everything, cannot be loaded."""
    weak = ed25519.Ed25519PublicKey.from_public_bytes(bytes([1]) + bytes(31))
    weak.verify(bytes([1]) + bytes(31) + bytes(32), b"anything at all")  # the attack, without the check
    with pytest.raises(ConfigurationError, match="full order"):
        VerificationKey.from_public_key(weak, principal=ALICE, key_id=b"k")


def test_a09_the_attackers_own_key() -> None:
    """Promise: a key or certificate inside the message is not looked at; an unknown id is ``unknown_key``."""
    raw = direct(CLAIMS, MALLORY_KEY, c4=b"mallory-own")
    assert reason_of(bear(nats(), raw)) is Reason.UNKNOWN_KEY
    certificate = b"0\x82" + bytes(40)
    protected = protected_of(ALICE_KEY, c33=certificate)
    assert reason_of(_with(protected, bytes(64))) is Reason.MALFORMED
    for label in (33, 34, -1, 1, 4):
        forged = _with(protected_of(ALICE_KEY), bytes(64), unprotected={label: certificate})
        assert reason_of(forged) is Reason.MALFORMED


def test_a10_speaking_as_another() -> None:
    """Promise: B's valid key does not make B into A, under its own id or under A's."""
    world = World()
    own_id = bear(nats(), direct(CLAIMS, BOB_KEY))
    assert reason_of(own_id, world) is Reason.WRONG_PRINCIPAL
    alices_id = bear(nats(), direct(CLAIMS, BOB_KEY, c4=ALICE_KEY.key_id))
    assert reason_of(alices_id, world) is Reason.BAD_SIGNATURE
    honest = bear(nats(), direct(cbor(claims_of(nats(), BOB)), BOB_KEY))
    assert world.verify(honest).principal == BOB


def test_a10_one_public_key_for_two() -> None:
    """Promise: one public key registered by two principals is refused when loaded, under any id."""
    stolen = VerificationKey.from_public_key(ALICE_KEY.public, principal=MALLORY, key_id=b"new")
    with pytest.raises(ConfigurationError, match="one public key"):
        MemoryKeys([*known_keys(), stolen])


def test_a10_keys_that_share_an_id() -> None:
    """Promise: an id that two principals use leads each to its own key."""
    same = public(MALLORY_KEY, MALLORY)
    same = replace(same, key_id=ALICE_KEY.key_id)
    world = World(keys=[same, public(ALICE_KEY, ALICE)])
    forged = bear(nats(), direct(CLAIMS, MALLORY_KEY, c4=ALICE_KEY.key_id))
    assert reason_of(forged, world) is Reason.BAD_SIGNATURE
    assert world.verify(bear(nats(), direct(CLAIMS))).principal == ALICE


@pytest.mark.parametrize("context", ["", "watchword/2", "watchword", "other protocol", b"watchword/1", None])
def test_a11_signatures_for_another_purpose(context: object) -> None:
    """Promise: a signature by the same key for another protocol or version verifies nothing here."""
    assert reason_of(bear(nats(), direct(CLAIMS, context=context))) is Reason.BAD_SIGNATURE


def test_a11_signatures_over_the_bare_bytes() -> None:
    """Promise: a plain signature of the claims, or a COSE one without our external data, is no envelope."""
    protected = protected_of(ALICE_KEY)
    plain_cose = cbor2.dumps(["Signature1", protected, b"", CLAIMS])
    for data in (CLAIMS, plain_cose):
        assert reason_of(_with(protected, signature_of(ALICE_KEY, data))) is Reason.BAD_SIGNATURE


def test_a11_transplanted_envelopes() -> None:
    """Promise: an envelope moved onto another message of the same channel fits nothing there."""
    one, other = signed(kafka(value=b"scale down")), kafka(value=b"scale up")
    assert reason_of(replace(other, headers=(*other.headers, one.headers[-1]))) is Reason.ALTERED
    elsewhere = kafka(channel=Channel("kafka", REALM, "other"))
    assert reason_of(replace(elsewhere, headers=one.headers)) is Reason.WRONG_CHANNEL
