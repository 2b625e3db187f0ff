"""JWK Sets, read strictly."""

import json
from typing import Any

import pytest

from tests.unit.core.world import ALICE, ALICE_EC_KEY, ALICE_KEY, public
from watchword import ConfigurationError, SigningKey
from watchword.jwk import MAX_SET_BYTES, MAX_SET_KEYS, parse_jwks, parse_shared_jwks, to_jwk, to_jwks

GOOD = to_jwk(public(ALICE_KEY, ALICE))
GOOD_EC = to_jwk(public(ALICE_EC_KEY, ALICE))


def _set(**changes: Any) -> bytes:
    return json.dumps({"keys": [{**GOOD, **changes}]}).encode()


def _ec(**changes: Any) -> bytes:
    return json.dumps({"keys": [{**GOOD_EC, **changes}]}).encode()


def test_a_set_survives_writing_and_reading() -> None:
    """Promise: what is written is read, with owners, ids and times."""
    keys = [public(ALICE_KEY, ALICE, not_before=1, not_after=2, revoked_at=3), public(ALICE_EC_KEY, ALICE)]
    assert parse_jwks(to_jwks(keys).encode()) == keys


def test_the_default_id_is_the_thumbprint() -> None:
    """Promise: a key without kid gets the id that its owner signs with by default."""
    entry = {name: value for name, value in GOOD.items() if name != "kid"}
    (key,) = parse_jwks(json.dumps({"keys": [entry]}).encode())
    assert key.key_id == SigningKey.from_pem(ALICE_KEY.to_pem()).key_id


@pytest.mark.parametrize("more", [{"alg": "EdDSA"}, {"alg": "Ed25519"}, {"key_ops": ["verify"]}, {"x5t": "y"}])
def test_common_members_are_accepted(more: dict[str, Any]) -> None:
    """Promise: a JWK as other tools write it is read."""
    assert parse_jwks(_set(**more))[0].principal == ALICE


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"keys": [], "keys": []}', "duplicate name"),
        (b"[]", "keys"),
        (b'{"keys": {}}', "keys"),
        (b'{"keys": [1]}', "key 1: not an object"),
        (b" " * (MAX_SET_BYTES + 1), "at most"),
        (json.dumps({"keys": [0] * (MAX_SET_KEYS + 1)}).encode(), "at most"),
        (_set(d="x"), "private key material"),
        (_set(k="x"), "private key material"),
        (_set(principal=None), "principal"),
        (_set(principal=5), "principal"),
        (_set(principal=""), "principal"),
        (_set(principal="\ud800"), "principal"),
        (_set(use="enc"), "not for signatures"),
        (_set(key_ops=["sign"]), "not for signatures"),
        (_set(key_ops=5), "not for signatures"),
        (_set(key_ops="verify"), "not for signatures"),
        (_set(kid=5), "kid"),
        (_set(kid=""), "key id"),
        (_set(kid="x" * 129), "key id"),
        (_set(kid="\ud800"), "Unicode"),
        (_set(kty="RSA"), 'use "kty"'),
        (_set(kty="oct"), 'use "kty"'),
        (_set(kty={}), 'use "kty"'),
        (_set(crv="Ed448"), 'use "kty"'),
        (_set(alg="none"), 'use "kty"'),
        (_set(alg="HS256"), 'use "kty"'),
        (_set(x=""), "32 bytes"),
        (_set(x=5), "32 bytes"),
        (_set(x="é"), "32 bytes"),
        (_set(x=str(GOOD["x"]) + "="), "32 bytes"),
        (_set(x=str(GOOD["x"])[:-1]), "32 bytes"),
        (_set(x="A" * 43), "full order"),
        (_ec(y="A" * 43), "P-256"),
        (_set(nbf="1"), "nbf"),
        (_set(exp=True), "exp"),
        (_set(exp=1.5), "exp"),
        (_set(revoked=-1), "revoked"),
        (_set(revoked=1 << 33), "revoked"),
    ],
)  # fmt: skip
def test_wrong_sets_are_refused(data: bytes, why: str) -> None:
    """Promise (A32): every mistake in a key set is one error that says which key and what to write."""
    with pytest.raises(ConfigurationError, match=why):
        parse_jwks(data)


@pytest.mark.parametrize(
    "other",
    [
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "AKP", "alg": "ML-DSA-87", "pub": "AA"},
        {"kty": ["OKP"]},
        {**GOOD, "crv": "X25519"},
        {**GOOD_EC, "crv": "P-384"},
        {**GOOD_EC, "alg": "ECDH-ES"},
        {**GOOD_EC, "alg": "ECDH-ES+A128KW"},
        {**GOOD_EC, "alg": "HPKE-0"},
        {**GOOD_EC, "alg": "EdDSA", "use": "enc"},
        {**GOOD, "use": "enc"},
        {**GOOD, "key_ops": ["sign"]},
    ],
)
def test_a_set_that_serves_others_too_is_read_for_what_it_has_for_us(other: dict[str, Any]) -> None:
    """Promise: keys of another kind or purpose are passed over and counted, and no verdict depends on them."""
    found = parse_shared_jwks(json.dumps({"keys": [other, GOOD]}).encode())
    assert (found.keys, found.passed_over) == ([public(ALICE_KEY, ALICE)], 1)


def test_the_owner_of_a_set_owns_the_keys_that_name_nobody() -> None:
    """Promise: a key that names its owner keeps it, one that names nobody is the set's owner's, or refused."""
    nameless = {name: value for name, value in GOOD_EC.items() if name != "principal"}
    both = json.dumps({"keys": [GOOD, nameless]}).encode()
    owners = [key.principal for key in parse_shared_jwks(both, owner="agent://acme/set").keys]
    assert owners == [ALICE, "agent://acme/set"]
    with pytest.raises(ConfigurationError, match='key 2: no "principal"'):
        parse_shared_jwks(both)


def test_keys_of_others_are_counted_and_not_read() -> None:
    """Promise: whatever is wrong with a key of someone for whom the set does not speak, the rest stands (A32)."""
    broken = {**GOOD, "principal": "agent://elsewhere/x", "x": 5, "d": "AA"}
    found = parse_shared_jwks(json.dumps({"keys": [broken, GOOD]}).encode(), speaks_for=lambda name: name == ALICE)
    assert (found.keys, found.foreign) == ([public(ALICE_KEY, ALICE)], ["agent://elsewhere/x"])


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"kty": "RSA", "n": "AQAB", "d": "AQAB"}, "key 1: private key material"),
        ({**GOOD, "use": "enc", "d": "AA"}, "key 1: private key material"),
        ({"kty": "oct", "alg": "HS256"}, "key 1: a symmetric key"),
        ({"kty": "oct", "k": "AA"}, "key 1: private key material"),
        ({**GOOD, "x": "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs"}, "key 1: an example from an RFC"),
        ({**GOOD, "x": "AA"}, 'key 1: "x" is not 32 bytes'),
        ({**GOOD, "x": ["AA"]}, 'key 1: "x" is not 32 bytes'),
        ({**GOOD, "exp": 1_715_385_600_000}, 'key 1: "exp" is not a time'),
        ({**GOOD, "alg": "ES256"}, 'key 1: "alg" is not of this key: write "EdDSA" for Ed25519, "ES256" for P-256'),
        ({**GOOD_EC, "alg": "EdDSA"}, 'key 1: "alg" is not of this key'),
        ({**GOOD_EC, "alg": 5}, 'key 1: "alg" is not of this key'),
        ("key", "key 1: not an object"),
    ],
)
def test_a_secret_is_refused_whatever_it_is_for(entry: Any, why: str) -> None:
    """Promise (A32): a set with a secret in it, of any kind, is refused as a whole, and so is a broken key of ours."""
    with pytest.raises(ConfigurationError, match=why):
        parse_shared_jwks(json.dumps({"keys": [entry]}).encode(), owner=ALICE)


def test_the_number_of_keys_has_the_bound_that_was_asked_for() -> None:
    """Promise (A32): a set of more keys than its reader wants is refused before any key is made."""
    assert len(parse_shared_jwks(json.dumps({"keys": [GOOD]}).encode(), most=1).keys) == 1
    with pytest.raises(ConfigurationError, match="key set of 2 keys: at most 1"):
        parse_shared_jwks(json.dumps({"keys": [GOOD, {"kty": "oct"}]}).encode(), most=1)
