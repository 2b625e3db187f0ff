"""Keys: kinds, weak points, sources, files."""

import base64
import json
import pickle
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.unit.core.world import (
    ALICE,
    ALICE_EC_KEY,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    P256_ORDER,
    at_once,
    ec_key,
    ed_key,
    public,
)
from watchword import Algorithm, ConfigurationError, MemoryKeys, SigningKey, VerificationKey
from watchword.algorithms import signature_from_der
from watchword.spi import KeyChain

# Every encoding of a point of small order, canonical or not: the list that libsodium and others refuse.
SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("encoded", SMALL_ORDER)
def test_weak_keys_are_refused(encoded: str, sign: int) -> None:
    """Promise (A08): a key of small order, under which anyone's signature verifies, is refused when loaded."""
    raw = bytearray.fromhex(encoded)
    raw[-1] |= sign
    with pytest.raises(ConfigurationError):
        _wrap(bytes(raw))


@pytest.mark.parametrize("encoded", ["02" + "00" * 31, "ff" * 32, "f0" + "ff" * 30 + "7f"])
def test_what_is_no_point_is_refused(encoded: str) -> None:
    """Promise (A08): bytes that are no canonical point of the curve are refused when loaded."""
    with pytest.raises(ConfigurationError):
        _wrap(bytes.fromhex(encoded))


def _wrap(raw: bytes) -> VerificationKey:
    try:
        key = ed25519.Ed25519PublicKey.from_public_bytes(raw)
    except ValueError as error:  # a library that refuses it itself is as good
        raise ConfigurationError(str(error)) from None
    return VerificationKey.from_public_key(key, principal=ALICE, key_id=b"k")


def test_honest_keys_are_accepted() -> None:
    """Promise: the check for weak points refuses no honest key."""
    for seed in range(64):
        assert ed_key(seed).verification_key(ALICE).algorithm is Algorithm.ED25519


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256K1()),
        x25519.X25519PrivateKey.generate(),
    ],
)
def test_other_kinds_are_refused(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey) -> None:
    """Promise: keys of other kinds or curves are one clear error, private or public."""
    with pytest.raises(ConfigurationError, match="use an Ed25519, P-256, ML-DSA-44 or ML-DSA-65 key"):
        VerificationKey.from_public_key(key.public_key(), principal=ALICE, key_id=b"k")
    with pytest.raises(ConfigurationError, match="ML-DSA-65 private key"):
        SigningKey(key)
    with pytest.raises(ConfigurationError, match="str: use an Ed25519"):
        SigningKey("-----BEGIN PRIVATE KEY-----")


@pytest.mark.parametrize(
    ("principal", "key_id"), [("", b"k"), ("a\n", b"k"), (ALICE, b""), (ALICE, b"x" * 129), (ALICE, b"\xff")]
)
def test_names_of_keys_are_checked(principal: str, key_id: bytes) -> None:
    """Promise: a key without a proper owner or id is refused when made."""
    with pytest.raises(ConfigurationError):
        VerificationKey.from_public_key(ALICE_KEY.public, principal=principal, key_id=key_id)


@pytest.mark.parametrize("key", [ALICE_KEY, ALICE_EC_KEY], ids=["Ed25519", "ESP256"])
def test_signatures(key: SigningKey) -> None:
    """Promise: a key verifies what it signed, nothing else, and malformed signatures raise nothing."""
    known = key.verification_key(ALICE)
    signature = at_once(key.sign(b"data"))
    assert len(signature) == 64
    assert known.verifies(signature, b"data")
    assert not known.verifies(signature, b"Data")
    for wrong in (b"", signature[:-1], signature + b"\x00", bytes(64), b"\xff" * 64, signature[32:] + signature[:32]):
        assert not known.verifies(wrong, b"data")


def test_the_high_half_is_no_second_signature() -> None:
    """Promise: with ESP256 only low s verifies, so nobody can make a second signature from a first."""
    signature = at_once(ALICE_EC_KEY.sign(b"data"))
    s = int.from_bytes(signature[32:])
    assert s <= P256_ORDER // 2
    high = signature[:32] + (P256_ORDER - s).to_bytes(32)
    assert not ALICE_EC_KEY.verification_key(ALICE).verifies(high, b"data")


def test_every_low_s() -> None:
    """Promise: a key signs with low s each time, also where the library drew the other half."""
    known = ALICE_EC_KEY.verification_key(ALICE)
    assert all(known.verifies(at_once(ALICE_EC_KEY.sign(bytes([n]))), bytes([n])) for n in range(40))


def test_generate_and_pem() -> None:
    """Promise: a generated key survives its PEM file, id included."""
    for algorithm in Algorithm:
        key = SigningKey.generate(algorithm)
        again = SigningKey.from_pem(key.to_pem())
        assert (again.algorithm, again.key_id) == (algorithm, key.key_id)
        assert len(key.key_id) == 16
        assert SigningKey.from_pem(key.to_pem(), key_id=b"mine").key_id == b"mine"


def test_an_encrypted_key_opens_with_its_passphrase_only() -> None:
    """Promise: an encrypted PEM hides the key; for a missing, wrong or needless passphrase an error says so."""
    for algorithm in Algorithm:
        key = SigningKey.generate(algorithm)
        locked = key.to_pem(b"s3cret")
        assert b"ENCRYPTED" in locked
        assert SigningKey.from_pem(locked, passphrase=b"s3cret").key_id == key.key_id
        with pytest.raises(ConfigurationError, match="encrypted: set passphrase_env"):
            SigningKey.from_pem(locked)
        with pytest.raises(ConfigurationError, match="passphrase is wrong") as caught:
            SigningKey.from_pem(locked, passphrase=b"s4cret")
        assert "s4cret" not in str(caught.value)
        with pytest.raises(ConfigurationError, match="not encrypted: leave its passphrase out"):
            SigningKey.from_pem(key.to_pem(), passphrase=b"s3cret")


@pytest.mark.parametrize(
    "der",
    [b"", b"junk", bytes(64), bytes.fromhex("30060201ff020101"), encode_dss_signature(1, 1 << 256)],
    ids=["empty", "text", "zeros", "negative", "too large"],
)
def test_what_holds_no_signature_of_the_curve_is_refused(der: bytes) -> None:
    """Promise: of malformed ASN.1, or ASN.1 that holds numbers of another size, nothing is made."""
    with pytest.raises(ValueError, match=r"."):
        signature_from_der(der)


def test_asn1_gives_the_signature_with_low_s() -> None:
    """Promise: whichever of the two a KMS returns, and however short its numbers are, out come 64 bytes that verify."""
    for r, s in ((1, 2), (1 << 255, P256_ORDER - 2)):
        assert signature_from_der(encode_dss_signature(r, s)) == r.to_bytes(32) + (2).to_bytes(32)


def test_wrong_pem_files() -> None:
    """Promise: an encrypted, broken or foreign file is one clear error."""
    locked = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    with pytest.raises(ConfigurationError, match="encrypted"):
        SigningKey.from_pem(locked)
    for wrong in (b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", ALICE_KEY.to_pem()[:60]):
        with pytest.raises(ConfigurationError, match="PKCS#8"):
            SigningKey.from_pem(wrong)


@pytest.mark.parametrize("other", [b"", b"pa55"])
def test_one_file_holds_one_private_key(other: bytes) -> None:
    """Promise: which of two keys signs is not left to their order; a certificate beside the key does no harm."""
    second = SigningKey.generate().to_pem(other or None)
    for both in (ALICE_KEY.to_pem() + second, second + ALICE_KEY.to_pem()):
        with pytest.raises(ConfigurationError, match="2 private keys in it: leave one"):
            SigningKey.from_pem(both)
    certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    for both in (ALICE_KEY.to_pem() + certificate, certificate + ALICE_KEY.to_pem()):
        assert SigningKey.from_pem(both).public == ALICE_KEY.public


def test_the_default_key_id_is_the_rfc_7638_thumbprint() -> None:
    """Promise: the id of RFC 8037's example key begins its published thumbprint (appendix A.3)."""
    d = base64.urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    assert (
        SigningKey(ed25519.Ed25519PrivateKey.from_private_bytes(d)).key_id
        == b"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"[:16]
    )


def test_secrets_do_not_leak() -> None:
    """Promise (A31): a private key shows nothing in repr and is not pickled."""
    secret = ALICE_KEY.to_pem().decode().splitlines()[1]
    shown = repr(ALICE_KEY) + repr(vars(ALICE_KEY)) + repr(ALICE_KEY.verification_key(ALICE))
    assert secret not in shown
    assert "0101010101" not in shown
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(ALICE_KEY)


def test_memory_keys_find_by_principal_and_id() -> None:
    """Promise: the principal's key, else another's of this id (so that it is ``wrong_principal``), else nothing."""
    same_id = ed_key(9, kid=BOB_KEY.key_id)
    keys = MemoryKeys([public(ALICE_KEY, ALICE), public(BOB_KEY, BOB), public(same_id, ALICE)])
    assert len(keys) == 3
    assert (at_once(keys.find(ALICE, b"alice-1")) or _none()).principal == ALICE
    assert (at_once(keys.find(ALICE, b"bob-1")) or _none()).public_bytes == same_id.public.public_bytes_raw()  # type: ignore[union-attr] # an Ed25519 key
    assert (at_once(keys.find(BOB, b"alice-1")) or _none()).principal == ALICE
    assert at_once(keys.find(ALICE, b"other")) is None


def _none() -> VerificationKey:
    raise AssertionError("no key found")


def test_memory_keys_refuse_doubles() -> None:
    """Promise (A10): one public key under two principals, or one id twice for one, is refused when loaded."""
    with pytest.raises(ConfigurationError, match="one public key"):
        MemoryKeys([public(ALICE_KEY, ALICE), public(ALICE_KEY, BOB)])
    with pytest.raises(ConfigurationError, match="two keys"):
        MemoryKeys([public(ALICE_KEY, ALICE), public(ed_key(9, kid=b"alice-1"), ALICE)])
    assert len(MemoryKeys([public(ALICE_KEY, ALICE), public(ed_key(1, kid=b"again"), ALICE)])) == 2


class Failing:
    """A key source that is down."""

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """Fail."""
        raise TimeoutError(principal, key_id)


def test_a_chain_asks_in_order() -> None:
    """Promise: the first source that knows the principal's key answers; another's key only if none does."""
    alices, bobs = MemoryKeys([public(ALICE_KEY, ALICE)]), MemoryKeys([public(ed_key(9, kid=b"alice-1"), BOB)])
    chain = KeyChain([alices, bobs])
    assert (at_once(chain.find(BOB, b"alice-1")) or _none()).principal == BOB
    assert (at_once(chain.find("agent://acme/x", b"alice-1")) or _none()).principal == ALICE
    assert at_once(chain.find(ALICE, b"other")) is None


def test_a_source_that_fails_does_not_silence_the_others() -> None:
    """Promise (A21): with one source down the others' keys are found, but nothing is called unknown."""
    chain = KeyChain([Failing(), MemoryKeys([public(ALICE_KEY, ALICE)])])
    assert (at_once(chain.find(ALICE, b"alice-1")) or _none()).principal == ALICE
    for principal, key_id in ((ALICE, b"other"), (BOB, b"alice-1")):
        with pytest.raises(TimeoutError):
            at_once(chain.find(principal, key_id))


class Closed(MemoryKeys):
    """A key source that went down after it had listed its keys."""

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """Fail."""
        raise TimeoutError(principal, key_id)


@pytest.mark.parametrize(
    ("said", "known", "holds"),
    [
        ({"revoked_at": 5}, {}, {"revoked_at": 5}),
        ({"revoked_at": 5}, {"revoked_at": 3}, {"revoked_at": 3}),
        ({"not_after": 5}, {"not_after": 9}, {"not_after": 5}),
        ({"not_before": 5}, {"not_before": 3, "not_after": 9}, {"not_before": 5, "not_after": 9}),
        ({}, {"not_after": 9}, {"not_after": 9}),
    ],
)
def test_what_a_source_has_said_of_a_key_holds_while_it_is_down(
    said: dict[str, Any], known: dict[str, Any], holds: dict[str, Any]
) -> None:
    """Promise (A23): an outage of the stricter source gives a key neither its life nor its time back."""
    key = public(ALICE_KEY, ALICE)
    closed = Closed([replace(key, **said), public(ed_key(9), BOB)])
    chain = KeyChain([closed, Failing(), MemoryKeys([replace(key, **known)])])
    for _ in range(2):
        assert at_once(chain.find(ALICE, key.key_id)) == replace(key, **holds)
    lone = KeyChain([closed, MemoryKeys()])
    with pytest.raises(TimeoutError):
        at_once(lone.find(ALICE, key.key_id))


def test_public_members_are_the_thumbprints() -> None:
    """Promise: P-256 keys have thumbprints as well, over crv, kty, x and y."""
    key = ec_key(5)
    assert len(key.key_id) == 16
    assert key.key_id != ec_key(6).key_id
    assert json.loads('{"crv": "P-256"}')["crv"] == "P-256"
