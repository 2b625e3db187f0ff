"""JWK Sets that may be used, and sets that must be refused whole."""

import base64
import json
from collections.abc import Iterator
from typing import Any, Final

from tests.unit.core.world import ALICE, ALICE_EC_KEY, ALICE_KEY, BOB, public
from tests.vectors.curve import BASE, EIGHTH, NEUTRAL, P, add, encoded, scalar, times
from watchword.jwk import to_jwk

Key = dict[str, Any]

ED: Final[Key] = dict(to_jwk(public(ALICE_KEY, ALICE)))
EC: Final[Key] = dict(to_jwk(public(ALICE_EC_KEY, ALICE)))


def keysets() -> Iterator[dict[str, Any]]:
    """Yield them, each with its text."""
    for good, sets in ((True, _good()), (False, _bad())):
        for name, found in sets.items():
            text = found if isinstance(found, str) else json.dumps({"keys": found})
            yield {"name": name, "good": good, "text": text}


def _good() -> dict[str, list[Key] | str]:
    mixed = add(times(scalar(bytes([1]) * 32), BASE), EIGHTH)
    return {
        "two keys": [ED, EC],
        "no key": [],
        "a member more": [ED | {"x5t": "any"}],
        "a member of the set more": json.dumps({"keys": [ED], "any": 1}),
        "y beside an Ed25519 key": [ED | {"y": EC["y"]}],
        "alg EdDSA": [ED | {"alg": "EdDSA"}],
        "alg Ed25519": [ED | {"alg": "Ed25519"}],
        "alg ES256": [EC | {"alg": "ES256"}],
        "alg ESP256": [EC | {"alg": "ESP256"}],
        "no use": [_without(ED, "use")],
        "key_ops": [ED | {"key_ops": ["sign", "verify"]}],
        "no kid": [_without(ED, "kid")],
        "kid of 128 bytes": [ED | {"kid": "é" * 64}],
        "null members": [ED | dict.fromkeys(("alg", "kid", "nbf", "exp", "revoked"))],
        "the largest times": [ED | dict.fromkeys(("nbf", "exp", "revoked"), 2**33 - 1)],
        "an end before the beginning": [ED | {"nbf": 9, "exp": 9}],
        "one id, two principals": [ED, EC | {"kid": ED["kid"], "principal": BOB}],
        "one public key, two ids": [ED, ED | {"kid": "another"}],
        "an Ed25519 key of mixed order": [ED | {"x": _text(encoded(mixed))}],
    }


def _bad() -> dict[str, list[Key] | str]:
    sets: dict[str, list[Key] | str] = {
        "no keys": "{}",
        "not JSON": "{",
        "a name twice": '{"keys": [{"kid": "another", ' + json.dumps(ED)[1:] + "]}",
        "an RSA key beside a good one": [ED, {"kty": "RSA", "n": "AQAB", "e": "AQAB", "principal": BOB}],
        "no kty": [_without(ED, "kty")],
        "X25519": [ED | {"crv": "X25519"}],
        "P-384": [EC | {"crv": "P-384"}],
        "alg of another key": [ED | {"alg": "ES256"}],
        "alg of another key, P-256": [EC | {"alg": "EdDSA"}],
        "no principal": [_without(ED, "principal")],
        "an empty principal": [ED | {"principal": ""}],
        "use enc": [ED | {"use": "enc"}],
        "use null": [ED | {"use": None}],
        "key_ops without verify": [ED | {"key_ops": ["sign"]}],
        "key_ops empty": [ED | {"key_ops": []}],
        "key_ops null": [ED | {"key_ops": None}],
        "kid empty": [ED | {"kid": ""}],
        "kid of 129 bytes": [ED | {"kid": "é" * 64 + "x"}],
        "kid a number": [ED | {"kid": 1}],
        "one id twice": [ED, EC | {"kid": ED["kid"]}],
        "one key twice": [ED, ED],
        "one public key, two principals": [ED, ED | {"principal": BOB}],
        "x with padding": [ED | {"x": ED["x"] + "="}],
        "x with idle bits": [ED | {"x": ED["x"][:-1] + chr(ord(ED["x"][-1]) + 1)}],
        "x of 31 bytes": [ED | {"x": _text(bytes(31))}],
        "x of 33 bytes": [ED | {"x": _text(bytes(33))}],
        "no x": [_without(ED, "x")],
        "no y on P-256": [_without(EC, "y")],
        "not on P-256": [EC | {"y": EC["x"]}],
        "not on Ed25519's curve": [ED | {"x": _text((2).to_bytes(32, "little"))}],
        "y of the curve is p + 3": [ED | {"x": _text((P + 3).to_bytes(32, "little"))}],
        "y of the curve is 1, with a sign": [ED | {"x": _text(encoded(NEUTRAL)[:31] + b"\x80")}],
    }
    for number in range(8):
        sets[f"small order, {number}"] = [ED | {"x": _text(encoded(times(number, EIGHTH)))}]
    for name in ("d", "p", "q", "dp", "dq", "qi", "oth", "k"):
        sets[f"a private {name}"] = [ED, EC | {name: None if name == "oth" else "AA"}]
    for name in ("nbf", "exp", "revoked"):
        for value in (2**33, -1, 1.5, 1.0, True, "1"):
            sets[f"{name} {value!r}"] = [ED | {name: value}]
    return sets


def _without(key: Key, name: str) -> Key:
    return {member: value for member, value in key.items() if member != name}


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
