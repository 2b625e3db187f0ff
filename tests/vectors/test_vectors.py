"""The test vectors, as the verifier judges them; and that they are what the generator writes."""

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.core.world import at_once
from tests.vectors import generate, second
from watchword import Allow, MemoryKeys, Policy, Rate, Reason, Rejected, VerifiedMessage
from watchword.algorithms import Algorithm
from watchword.encoding import Layout, encode_direct, encode_protected
from watchword.envelope import parse
from watchword.guard import DEFAULT_BOUNDS
from watchword.jwk import parse_jwks
from watchword.message import Expected
from watchword.spi import Channel, MemoryReplayStore, Message, Request, Verifier
from watchword.testing import Clock, SharedMemoryStore
from watchword.wire_json import message_from_members, verdict_to_json

FILES = sorted((Path(__file__).parent / "v1").glob("*.json"))
VECTORS = [
    pytest.param(vector, id=f"{path.stem}-{vector['name']}")
    for path in FILES
    for vector in json.loads(path.read_text(encoding="utf-8"))
]


def _policy(given: dict[str, Any]) -> Policy:
    rules = tuple(
        Allow(
            rule["principal"],
            tuple(rule["channels"]),
            Rate.parse(rule["rate"]) if "rate" in rule else None,
        )
        for rule in given.get("allow", ())
    )
    limits = {name: float(given[name]) for name in ("max_age", "max_skew") if name in given}
    return Policy(**limits, contained=frozenset(given.get("contained", ())), allow=rules)  # type: ignore[arg-type] # one table


def _verifier(vector: dict[str, Any]) -> Verifier:
    policy, room = _policy(vector.get("policy", {})), vector.get("ids_per_principal", 1000)
    clock = Clock(vector["now"])
    own = MemoryReplayStore(horizon=policy.horizon, bounds=replace(DEFAULT_BOUNDS, per_principal=room))
    shared = SharedMemoryStore(policy=policy, clock=clock, open_to_all=True, per_principal=room)
    return Verifier(
        realm=vector["realm"],
        keys=MemoryKeys(parse_jwks(json.dumps(vector["keys"]).encode())),
        replay=shared if vector.get("shared_replay") else own,
        policy=policy,
        clock=clock,
        principal=vector["principal"],
    )


def _expected(given: dict[str, Any]) -> Expected:
    requests = [
        Request(
            id=bytes.fromhex(request["id"]), channel=Channel.parse(request["channel"]), recipient=request["recipient"]
        )
        for request in given.get("requests", ())
    ]
    return Expected(
        requests={request.id: request for request in requests},
        only_replies=given.get("only_replies", False),
        consumer=(given["consumer"][0], given["consumer"][1]) if "consumer" in given else None,
    )


@pytest.mark.parametrize("vector", VECTORS)
def test_vector(vector: dict[str, Any]) -> None:
    """Promise: every message of every vector gets the verdict that the vector names."""
    verifier, expected = _verifier(vector), _expected(vector.get("expected_context", {}))
    found: list[object] = []
    for message in _messages(vector):
        try:
            found.append(at_once(verifier.verify(message, expected)))
        except Rejected as refused:
            found.append(refused)
    _hold(vector, found)


@pytest.mark.parametrize("vector", [one for one in VECTORS if len(one.values[0]["messages"]) > 1])  # type: ignore[index] # a vector
def test_vector_at_once(vector: dict[str, Any]) -> None:
    """Promise: so do all of its messages where they are judged together."""
    verifier, expected = _verifier(vector), _expected(vector.get("expected_context", {}))
    _hold(vector, at_once(verifier.verify_many(_messages(vector), expected)))


def _messages(vector: dict[str, Any]) -> list[Message]:
    crowd = [["", ""]] * vector.get("empty_headers", 0)
    return [message_from_members(members | {"headers": crowd + members["headers"]}) for members in vector["messages"]]


def _hold(vector: dict[str, Any], found: Sequence[Any]) -> None:
    assert [verdict_to_json(verdict) for verdict in found] == vector["verdicts"]
    visible = [_headers(verdict) for verdict in found if isinstance(verdict, VerifiedMessage)]
    assert visible == vector.get("visible", visible)


def _headers(verified: VerifiedMessage) -> list[list[str | None]]:
    return [[name, None if value is None else base64.b64encode(value).decode()] for name, value in verified.headers]


def test_every_reason_and_shape_has_its_vector() -> None:
    """Promise: each reason that the wire decides has a vector at least, and names are unique in their file."""
    found = [verdict for param in VECTORS for verdict in param.values[0]["verdicts"]]  # type: ignore[index] # a vector
    assert {verdict["reason"] for verdict in found if verdict["verdict"] == "rejected"} == set(Reason) - {
        Reason.NOT_TRUSTED  # how a score comes about is each verifier's own business
    }
    assert len({param.id for param in VECTORS}) == len(VECTORS)
    assert len(FILES) == 12


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_generator_writes_these_files(path: Path) -> None:
    """Promise: the vectors are what the script beside them writes, byte for byte."""
    assert generate.render(generate.files()[path.stem]) == path.read_text(encoding="utf-8")


def test_we_write_what_we_read() -> None:
    """Promise: for every accepted direct envelope our encoder gives exactly the bytes of the vector."""
    count = 0
    for param in VECTORS:
        vector: dict[str, Any] = param.values[0]  # type: ignore[assignment] # a vector
        for members, verdict in zip(vector["messages"], vector["verdicts"], strict=True):
            if verdict["verdict"] != "verified":
                continue
            header = next(base64.b64decode(value) for name, value in members["headers"] if name.lower() == "watchword")
            envelope = parse(header)
            common = envelope.common
            layout = Layout(
                issuer=common.issuer, channel=common.channel, recipient=common.recipient, covered=common.covered,
                partition=common.partition,
            )  # fmt: skip
            claims = layout.claims(
                envelope.id, envelope.issued_at, envelope.metadata_digest, envelope.value_digest,
                common.expires_at, common.request_id, common.reply_to,
            )  # fmt: skip
            assert claims == envelope.claims_bytes
            if not envelope.size:
                protected = encode_protected(Algorithm(envelope.common.algorithm), envelope.common.key_id)
                assert encode_direct(envelope.claims_bytes, protected, envelope.signature) == header
                count += 1
    assert count > 30


@pytest.mark.parametrize("vector", VECTORS)
def test_a_second_implementation_agrees(vector: dict[str, Any]) -> None:
    """Promise: a verifier written from the specification alone gives every vector's verdicts."""
    assert second.judge(vector) == vector["verdicts"]
