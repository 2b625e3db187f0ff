"""The specification's worked example and its list of reasons."""

import re
from pathlib import Path

from tests.unit.core.world import (
    ALICE_KEY,
    NOW,
    World,
    bear,
    cbor,
    claims_of,
    direct,
    kafka,
    protected_of,
    signature_of,
    structure,
    text,
)
from watchword import Reason

SPEC = Path(__file__).parents[2] / "docs" / "spec.md"


def steps() -> dict[str, str]:
    """Return the example's values by name, computed from scratch."""
    claims, protected = cbor(claims_of(kafka())), protected_of(ALICE_KEY)
    to_be_signed = structure(protected, 0, claims)
    envelope = direct(claims)
    return {
        "public key": ALICE_KEY.public.public_bytes_raw().hex(),  # type: ignore[union-attr] # an Ed25519 key
        "claims": claims.hex(),
        "protected": protected.hex(),
        "Sig_structure": to_be_signed.hex(),
        "signature": signature_of(ALICE_KEY, to_be_signed).hex(),
        "envelope": envelope.hex(),
        "header": text(envelope).decode(),
    }


def test_the_example_is_true() -> None:
    """Promise: the bytes that the specification shows are those that signer and verifier use."""
    example = SPEC.read_text(encoding="utf-8").partition("## 13 ")[2]
    found = dict(re.findall(r"^\*\*([^*]+)\*\*[^`]*```\n([^`]+)```", example, re.MULTILINE))
    assert {name: "".join(shown.split()) for name, shown in found.items()} == steps()
    world = World()
    world.now = NOW + 1.0
    assert world.verify(bear(kafka(), direct(cbor(claims_of(kafka()))))).value == kafka().value


def test_the_reasons_are_listed() -> None:
    """Promise: the specification names all reasons, in the order of the checks."""
    section = SPEC.read_text(encoding="utf-8").partition("The reasons, all of them")[2].partition("## 13")[0]
    assert re.findall(r"`(\w+)`", section) == list(Reason)
