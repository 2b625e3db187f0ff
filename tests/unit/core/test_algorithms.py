"""The algorithms: their sizes, ML-DSA beside the others, and a ``cryptography`` that has none of it."""

import json
import sys
from dataclasses import replace
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import mldsa

from tests.unit.core.world import ALICE, ALICE_KEY, NOW, REALM, World, at_once, kafka, nats, raw_of, signed
from tests.vectors.post_quantum import ALICE_44, ALICE_65, KEYS
from watchword import Algorithm, ConfigurationError, SigningError, SigningKey, Unavailable, VerificationKey
from watchword.algorithms import LARGEST, SCHEMES, Limits, limits_of
from watchword.encoding import characters
from watchword.jwk import parse_jwks, parse_shared_jwks, to_jwk
from watchword.keys import thumbprint
from watchword.spi import Signer

MODULE = "cryptography.hazmat.primitives.asymmetric.mldsa"
WHAT_TO_DO = r"not support ML-DSA: pip install 'cryptography>=48'"
RFC_9964 = {  # appendix A: keys whose seeds are 32 zero bytes, and their thumbprints
    Algorithm.ML_DSA_44: "T4xl70S7MT6Zeq6r9V9fPJGVn76wfnXJ21-gyo0Gu6o",
    Algorithm.ML_DSA_65: "Suiu29qbfuaBaR4Ats-c6XQBePB_OpAxAwcTR_0KXVM",
}


def with_key(key: SigningKey, **options: Any) -> Signer:
    """Return a signer of Alice's."""
    return Signer(realm=REALM, principal=ALICE, key=key, clock=lambda: NOW, **options)


def test_a_shared_set_is_read_with_keys_of_all_algorithms() -> None:
    """Promise: where cryptography has ML-DSA, a set that serves others too gives these keys as well."""
    keys = [key.verification_key(ALICE) for key in (ALICE_KEY, ALICE_44, ALICE_65)]
    found = parse_shared_jwks(json.dumps({"keys": [to_jwk(key) for key in keys]}).encode())
    assert (found.keys, found.passed_over) == (keys, 0)


def test_what_is_read_goes_by_the_algorithm() -> None:
    """Promise: beside its signature an envelope has the same room with each algorithm, also with those of others."""
    assert {algorithm: limits_of(algorithm) for algorithm in Algorithm} == {
        Algorithm.ED25519: Limits(4096, 128),
        Algorithm.ESP256: Limits(4096, 128),
        Algorithm.ML_DSA_44: Limits(6453, 2420),
        Algorithm.ML_DSA_65: Limits(7342, 3309),
    }
    assert limits_of(-50) == limits_of(0) == limits_of(1 << 64) == Limits(4096, 128)
    assert Limits(7342, 3309) == LARGEST
    assert characters(LARGEST.envelope) == 9790


def test_names_are_those_that_people_type() -> None:
    """Promise: an algorithm has one name on the command line and in lists."""
    assert [algorithm.label for algorithm in Algorithm] == ["ed25519", "esp256", "ml-dsa-44", "ml-dsa-65"]


@pytest.mark.parametrize("algorithm", RFC_9964)
def test_thumbprints_are_those_of_rfc_9964(algorithm: Algorithm) -> None:
    """Promise: the RFC's example keys have the ids that it gives; readers of shared sets refuse them by name."""
    kind: Any = mldsa.MLDSA44PrivateKey if algorithm is Algorithm.ML_DSA_44 else mldsa.MLDSA65PrivateKey
    key = SigningKey(kind.from_seed_bytes(bytes(32)))
    assert thumbprint(key.public) == RFC_9964[algorithm]
    assert key.key_id == RFC_9964[algorithm][:16].encode()
    published = json.dumps({"keys": [to_jwk(key.verification_key(ALICE))]}).encode()
    with pytest.raises(ConfigurationError, match="from an RFC, whose private half is published"):
        parse_shared_jwks(published)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_message_is_signed_and_verified(key: SigningKey) -> None:
    """Promise: alone and in a tree, on both buses, and again once the reader knows the sender's envelopes."""
    world, by = World(keys=[key.verification_key(ALICE)]), with_key(key, batch=4)
    for number in range(3):
        assert world.verify(signed(nats(value=b"%d" % number), by)).key_id == key.key_id.decode()
    messages = [kafka(value=b"%d" % number) for number in range(10)]
    for message, made in zip(messages, at_once(by.sign_many(messages)), strict=True):
        assert len(made.header[1] or b"") <= by.prepare(message).largest <= by.max_characters
        assert world.verify(replace(message, headers=(*message.headers, made.header))).value == message.value


@pytest.mark.parametrize(("key", "batch"), [(ALICE_KEY, 64), (ALICE_44, 256), (ALICE_65, 256)])
def test_a_batch_has_a_size_for_each_algorithm(key: SigningKey, batch: int) -> None:
    """Promise: where nobody says how many messages share a signature, the dear ones share it with more."""
    assert with_key(key).batch == batch
    assert with_key(key, batch=8).batch == 8


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_the_largest_envelope_that_is_signed_is_read(key: SigningKey) -> None:
    """Promise: what a signer lets pass a reader reads, up to the limit of the algorithm."""
    by, limit = with_key(key, batch=1), limits_of(key.algorithm).envelope
    alone = limit - 4  # a signer counts the protected field of a tree
    room = alone - len(raw_of(signed(nats(reply_to="x" * 3000), by))) + 3000
    made = signed(nats(reply_to="x" * room), by)
    assert len(raw_of(made)) == alone
    assert World(keys=[key.verification_key(ALICE)]).verify(made).principal == ALICE
    with pytest.raises(SigningError, match=f"envelope over {limit} bytes"):
        by.prepare(nats(reply_to="x" * (room + 1)))
    largest = nats(headers=(("x", b"v" * (65536 - by.max_characters)),))
    with pytest.raises(SigningError, match=f"at most {65536 - by.max_characters}"):
        by.prepare(largest)


def test_a_signer_keeps_to_signatures_of_one_length() -> None:
    """Promise: what is prepared has its largest size, so no key whose signatures are longer takes over meanwhile."""
    by = with_key(SigningKey.from_pem(ALICE_KEY.to_pem(), key_id=b"alice-44"))
    with pytest.raises(ConfigurationError, match="signatures have another length: restart"):
        by.switch(ALICE_44)
    with_key(ALICE_44).switch(SigningKey(SCHEMES[Algorithm.ML_DSA_44].generate(), key_id=b"alice-45"))


async def test_a_backend_that_answers_too_little_is_an_outage() -> None:
    """Promise: a signature has the length of its algorithm, or nothing is sent."""

    class Backend:
        async def sign(self, data: bytes) -> bytes:
            return ALICE_44.sign_now(data)

    by = Signer(
        realm=REALM, principal=ALICE, key=Backend(), clock=lambda: NOW, key_id=b"k", algorithm=Algorithm.ML_DSA_65
    )
    with pytest.raises(Unavailable, match="did not return 3309 bytes"):
        await by.sign(nats())


def _as_if_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no module of ML-DSA, as ``cryptography`` before version 47."""
    monkeypatch.setitem(sys.modules, MODULE, None)
    monkeypatch.delattr("cryptography.hazmat.primitives.asymmetric.mldsa")


def _as_if_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one that says that it cannot, as where OpenSSL has no ML-DSA."""

    def refuse(*_: object) -> None:
        raise UnsupportedAlgorithm("ML-DSA is not supported by this backend.")

    for kind in (mldsa.MLDSA44PublicKey, mldsa.MLDSA65PublicKey):
        monkeypatch.setattr(kind, "from_public_bytes", refuse)
    for private in (mldsa.MLDSA44PrivateKey, mldsa.MLDSA65PrivateKey):
        monkeypatch.setattr(private, "generate", refuse)


@pytest.mark.parametrize("lacking", [_as_if_old, _as_if_without])
def test_without_it_these_keys_are_refused_and_all_others_work(lacking: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a ``cryptography`` that lacks ML-DSA gives one error that says what to install; a shared set is read."""
    ours = {"keys": [to_jwk(ALICE_44.verification_key(ALICE)), to_jwk(ALICE_KEY.verification_key(ALICE))]}
    lacking(monkeypatch)
    with pytest.raises(ConfigurationError, match=f"key 1: .*{WHAT_TO_DO}"):
        parse_jwks(json.dumps(ours).encode())
    for algorithm in (Algorithm.ML_DSA_44, Algorithm.ML_DSA_65):
        assert not SCHEMES[algorithm].is_available
        with pytest.raises(ConfigurationError, match=WHAT_TO_DO):
            SigningKey.generate(algorithm)
    shared = parse_shared_jwks(json.dumps(ours).encode())
    assert (shared.keys, shared.passed_over) == ([ALICE_KEY.verification_key(ALICE)], 1)
    assert World().verify(signed(nats())).principal == ALICE
    assert all(SCHEMES[algorithm].is_available for algorithm in (Algorithm.ED25519, Algorithm.ESP256))


@pytest.mark.parametrize("kind", [ValueError, UnsupportedAlgorithm])
@pytest.mark.parametrize("passphrase", [None, b"s3cret"])
def test_a_file_that_cryptography_does_not_know_says_why(
    kind: type[Exception], passphrase: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: an ML-DSA key in a file, under an old ``cryptography``, is no file that is damaged."""
    pem = ALICE_65.to_pem(passphrase)

    def refuse(*_: object, **__: object) -> None:
        raise kind("Unknown key type: 2.16.840.1.101.3.4.3.18")  # what versions 45 and 47 say

    monkeypatch.setattr("cryptography.hazmat.primitives.serialization.load_pem_private_key", refuse)
    with pytest.raises(ConfigurationError, match=WHAT_TO_DO):
        SigningKey.from_pem(pem, passphrase=passphrase)


def test_a_key_is_of_the_half_that_is_asked_for() -> None:
    """Promise: a private key is no public one, and the other way round, whatever the algorithm."""
    for algorithm in Algorithm:
        private = SCHEMES[algorithm].generate()
        with pytest.raises(ConfigurationError, match="use an Ed25519"):
            VerificationKey.from_public_key(private, principal=ALICE, key_id=b"k")
        with pytest.raises(ConfigurationError, match="private key"):
            SigningKey(private.public_key())
