"""JWK Sets, read strictly."""

import json
from typing import Any

import pytest

from tests.unit.core.world import ALICE, ALICE_EC_KEY, ALICE_KEY, public
from watchword import ConfigurationError, SigningKey
from watchword.jwk import MAX_SET_BYTES, MAX_SET_KEYS, parse_jwks, to_jwk, to_jwks

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
    assert key.key_id == SigningKey(ALICE_KEY._private).key_id


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
        (b'{"keys": [], "keys": []}', "twice"),
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
