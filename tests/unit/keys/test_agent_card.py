"""Agent cards of A2A: whose key signed them, and what a card that someone made up can do."""

import base64
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from watchword import Algorithm, ConfigurationError, SigningKey, VerificationKey
from watchword.jwk import parse_shared_jwks
from watchword.strict import base64url
from watchword_adapters.keys.agent_card import Signature, read_card, signers

PLANNER = "agent://acme/planner"
NOW = 1_800_000_000.0
CARD: dict[str, Any] = {
    "name": "Größter Planer",
    "description": "",
    "version": "1.0",
    "capabilities": {"streaming": False, "pushNotifications": False, "extensions": []},
    "skills": [],
    "supportedInterfaces": [{"url": "https://a.test", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
}
SPECIFIED = {**CARD, "capabilities": {"streaming": False, "pushNotifications": False}}
"""What is signed of it: the example of the specification, 8.4.1."""


async def signed(key: SigningKey, payload: bytes, **header: Any) -> dict[str, Any]:
    """Return a signature over a payload, with what its protected header says besides or instead."""
    algorithm = {Algorithm.ED25519: "EdDSA", Algorithm.ESP256: "ES256"}.get(key.algorithm, key.algorithm.label.upper())
    protected = base64url(json.dumps({"alg": algorithm, "typ": "JOSE", "kid": "key-1", **header}).encode())
    signature = await key.sign(f"{protected}.{base64url(payload)}".encode())
    return {"protected": protected, "signature": base64url(signature)}


def text(*signatures: Any, card: dict[str, Any] = CARD) -> bytes:
    """Return a card with signatures as it is served."""
    return json.dumps({**card, "signatures": list(signatures)}).encode()


def known(key: SigningKey, key_id: bytes = b"key-1", **validity: int) -> VerificationKey:
    """Return the public half under the id that a card names."""
    return VerificationKey.from_public_key(key.public, principal=PLANNER, key_id=key_id, **validity)


def found(data: bytes, *keys: VerificationKey) -> list[VerificationKey]:
    """Return which of these keys signed a card."""
    return [*signers(read_card(data), lambda _: keys, NOW)]


@pytest.mark.parametrize("algorithm", Algorithm)
async def test_the_key_that_signed_a_card_is_found(algorithm: Algorithm) -> None:
    """Each algorithm, over what the specification says is signed, whatever the server left in the card."""
    key = SigningKey.generate(algorithm)
    for payload in (SPECIFIED, CARD):
        data = text(await signed(key, rfc8785.dumps(payload)))
        assert found(data, known(key), known(SigningKey.generate(algorithm))) == [known(key)]


async def test_either_twin_of_an_ecdsa_signature_counts() -> None:
    """Others than us may make the one with the higher s."""
    key = SigningKey.generate(Algorithm.ESP256)
    one = await signed(key, rfc8785.dumps(SPECIFIED))
    low = base64.urlsafe_b64decode(f"{one['signature']}==")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    high = low[:32] + (order - int.from_bytes(low[32:])).to_bytes(32)
    for signature in (low, high):
        assert found(text({**one, "signature": base64url(signature)}), known(key)) == [known(key)]


def test_a_card_that_the_python_library_signed_verifies() -> None:
    """Cards of a2a-sdk 1.3, which escapes what is not ASCII: both signatures, by their keys' ids."""
    kept = json.loads((Path(__file__).parent / "agent_card.json").read_text())
    keys = parse_shared_jwks(json.dumps(kept["jwks"]).encode(), owner=PLANNER).keys
    asked: list[tuple[bytes, str | None]] = []

    def keys_of(one: Signature) -> Sequence[VerificationKey]:
        asked.append((one.key_id, one.jku))
        return keys

    card = read_card(json.dumps(kept["card"]).encode())
    assert [*signers(card, keys_of, time.time())] == keys
    assert asked == [(b"key-1", kept["jku"]), (b"key-2", None)]


@pytest.mark.parametrize("change", [{"name": "Other"}, {"skills": [{"id": "pay"}]}, {"new": 1}, {"version": "1.1"}])
async def test_a_card_that_was_changed_is_signed_by_nobody(change: dict[str, Any]) -> None:
    """Any member counts, those that nobody has specified too."""
    key = SigningKey.generate()
    one = await signed(key, rfc8785.dumps(SPECIFIED))
    assert found(text(one, card={**CARD, **change}), known(key)) == []


async def test_a_key_inside_the_card_is_never_used() -> None:
    """A forger's own key, certificate or set in a header makes nothing true (A09)."""
    forger, real = SigningKey.generate(), SigningKey.generate()
    inside = {"kty": "OKP", "crv": "Ed25519", "x": base64url(known(forger).public_bytes)}
    one = await signed(forger, rfc8785.dumps(SPECIFIED), jwk=inside, x5c=["AA"])
    assert found(text({**one, "header": {"jwks": {"keys": [inside]}}}), known(real)) == []


async def test_a_signature_made_for_something_else_is_none_of_a_card() -> None:
    """What a key signed elsewhere, be it the same bytes without their header, signs no card (A11)."""
    key = SigningKey.generate()
    one = await signed(key, b"anything else")
    assert found(text(one), known(key)) == []
    bare = {**one, "signature": base64url(await key.sign(rfc8785.dumps(SPECIFIED)))}
    assert found(text(bare), known(key)) == []


async def test_a_key_counts_under_its_id_its_algorithm_and_in_its_time() -> None:
    """Another id, another algorithm's name, and a key that is over, not yet there or revoked sign nothing."""
    key = SigningKey.generate()
    data = text(await signed(key, rfc8785.dumps(SPECIFIED)))
    assert found(data, known(key, not_before=int(NOW), not_after=int(NOW) + 1)) == [
        known(key, not_before=int(NOW), not_after=int(NOW) + 1)
    ]
    for wrong in (
        known(key, b"key-2"),
        known(key, not_before=int(NOW) + 1),
        known(key, not_after=int(NOW)),
        known(key, revoked_at=int(NOW)),
    ):
        assert found(data, wrong) == []
    assert found(text(await signed(key, rfc8785.dumps(SPECIFIED), alg="ES256")), known(key)) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"alg": "none"}, "its algorithm is not one of"),
        ({"alg": "HS256"}, "its algorithm is not one of"),
        ({"alg": ["EdDSA"]}, "its algorithm is not one of"),
        ({"kid": ""}, "kid is missing"),
        ({"kid": None}, "kid is missing"),
        ({"kid": "\ud800"}, "surrogates not allowed"),
        ({"jku": 5}, "kid is missing"),
        ({"crit": ["b64"], "b64": False}, "(crit)"),
    ],
)
async def test_a_header_that_says_what_we_do_not_take_is_passed_over(change: dict[str, Any], why: str) -> None:
    """The card says why such a signature was passed over, and another one may still be good."""
    key = SigningKey.generate()
    bad, good = [await signed(key, rfc8785.dumps(SPECIFIED), **header) for header in (change, {})]
    card = read_card(text(bad, good))
    assert why in card.passed_over[0]
    assert [*signers(card, lambda _: [known(key)], NOW)] == [known(key)]


@pytest.mark.parametrize(
    "entry",
    [
        5, {}, {"protected": "e30", "signature": "AA"}, {"protected": "e30=", "signature": "AA"},
        {"protected": "é", "signature": "AA"}, {"protected": base64url(b"[]"), "signature": "AA"},
        {"protected": base64url(b'{"alg": "EdDSA", "alg": "EdDSA", "kid": "a"}'), "signature": "AA"},
        {"protected": base64url(b'{"alg": "EdDSA", "kid": "a"}'), "signature": ""},
        {"protected": base64url(b'{"alg": "EdDSA", "kid": "a"}')},
        {"protected": base64url(b'{"alg": "EdDSA", "kid": "a"}'), "signature": "AA", "header": {"kid": "b"}},
        {"protected": base64url(b'{"alg": "EdDSA", "kid": "a"}'), "signature": "AA", "header": []},
    ],
)  # fmt: skip
def test_a_broken_signature_is_passed_over(entry: Any) -> None:
    """What is no signature by the standard (RFC 7515) is refused, a header that says a thing twice included."""
    card = read_card(text(entry))
    assert (len(card.signatures), len(card.passed_over)) == (0, 1)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"<html>", "not an agent card: not JSON"),
        (b"[]", "not an agent card: not a JSON object"),
        (b'{"name": "a", "name": "b", "signatures": [{}]}', "not an agent card: "),
        (json.dumps(CARD).encode(), "the card is not signed"),
        (text(), "the card is not signed"),
        (b'{"signatures": 5}', "the card is not signed"),
        (text(*[{}] * 17), "17 signatures: at most 16"),
    ],
)
def test_what_is_no_card_is_refused(data: bytes, why: str) -> None:
    """A page, a card without a signature, and a name twice are one line (A32)."""
    with pytest.raises(ConfigurationError, match=why):
        read_card(data)


@pytest.mark.parametrize("member", ['"a": 9007199254740993', '"a": "\\ud800"', '"\\ud800": 1'])
async def test_a_card_that_can_be_read_in_two_ways_is_refused(member: str) -> None:
    """Numbers beyond a double's, and text that is no Unicode, have no canonical form (RFC 8785)."""
    one = json.dumps(await signed(SigningKey.generate(), b"x"))
    with pytest.raises(ConfigurationError, match="RFC 8785"):
        found(f'{{{member}, "signatures": [{one}]}}'.encode())


async def test_a_card_that_is_nested_too_deeply_is_told_as_such() -> None:
    """A depth that Python reads, and the canonical form does not, is no other mistake than one that it does not."""
    one = json.dumps(await signed(SigningKey.generate(), b"x"))
    for depth in (500, 200_000):
        with pytest.raises(ConfigurationError, match="not an agent card: nested too deeply"):
            found(f'{{"a": {"[" * depth}{"]" * depth}, "signatures": [{one}]}}'.encode())


async def test_what_an_extension_holds_is_left_as_it_is() -> None:
    """Its parameters are anyone's JSON, in which empty is not absent."""
    key = SigningKey.generate()
    extension = {"uri": "https://a.test", "required": False, "params": {"a": [], "b": False}}
    card = {**CARD, "capabilities": {"extensions": [extension]}, "securitySchemes": {}}
    over = {**CARD, "capabilities": {"extensions": [{"uri": "https://a.test", "params": extension["params"]}]}}
    assert found(text(await signed(key, rfc8785.dumps(over)), card=card), known(key)) == [known(key)]
