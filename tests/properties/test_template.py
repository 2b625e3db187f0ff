"""The fast reader against the strict one: what it reads at all, it reads alike."""

from dataclasses import fields
from itertools import product
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.properties.test_envelope_oracle import (
    HASHES,
    IDS,
    KEY_IDS,
    NAME_SETS,
    PRINCIPALS,
    SOME_TEXT,
    deterministic,
    whole,
)
from tests.support.beside import native_or_stand_in
from tests.unit.core.world import NOW, World, endings, kafka, nats, press_many, raw_of, text
from watchword import Rejected
from watchword.envelope import Envelope, parse
from watchword.reader import LearningReader, NativeReader, Template
from watchword.verification import Verification

FIXED = st.fixed_dictionaries(
    {1: PRINCIPALS, "c": SOME_TEXT, "v": HASHES},
    optional={3: PRINCIPALS, "h": NAME_SETS, "m": HASHES, "p": st.sampled_from([0, 23, 24, 255, 256, 65536])},
).filter(lambda claims: "m" in claims or "h" not in claims)
TIMES = st.sampled_from([0, 23, 24, 255, 256, 65535, 65536, NOW, (1 << 32) - 1, 1 << 32, (1 << 33) - 1])
SIZES = st.sampled_from([2, 23, 24, 25, 64, 255, 256, 257, 4096]) | st.integers(2, 4096)


@st.composite
def envelopes(draw: st.DrawFn) -> bytes:
    """Draw an envelope that may become a template: with a value, and a whole signature."""
    claims = draw(FIXED) | {6: draw(TIMES), 7: draw(IDS)}
    signature = draw(st.binary(min_size=64, max_size=64))
    if draw(st.integers(0, 3)) == 0:
        return whole(1, claims, {1: -19, 4: draw(KEY_IDS)}, {}, signature)
    size = draw(SIZES)
    index = draw(st.sampled_from([at for at in (0, 1, 23, 24, 255, 256, size - 1) if at < size]))
    path = draw(st.lists(HASHES, min_size=1, max_size=12))
    return written(claims, {1: -19, 4: draw(KEY_IDS), 395: 1}, [size, index, path], signature)


def written(claims: dict[Any, Any], protected: dict[int, Any], proof: list[Any], signature: bytes) -> bytes:
    """Return a batched envelope."""
    return whole(1, claims, protected, {396: {-1: [deterministic(proof)]}}, signature)


def width(number: int) -> int:
    """Return how many bytes a number takes."""
    return len(cbor2.dumps(number))


def strictly(raw: bytes) -> Envelope | None:
    """Read with a strict reader that has read nothing before."""
    try:
        return parse(text(raw))
    except Rejected:
        return None


def same(found: Envelope, wanted: Envelope | None) -> None:
    """Assert that two envelopes say the same, in each of their fields and with the same types."""
    assert wanted is not None
    for field in fields(Envelope):
        one, other = getattr(found, field.name), getattr(wanted, field.name)
        assert (type(one), one) == (type(other), other), field.name
    assert found.root() == wanted.root()


def agree(template: Template, raw: bytes) -> bool:
    """Assert that the template reads nothing, or what the strict reader does; tell which."""
    found = Envelope()
    if not template.read(raw, found):
        return False
    same(found, strictly(raw))
    return True


@given(envelopes(), st.data())
@settings(max_examples=200)
def test_a_template_reads_its_own_kind_and_nothing_otherwise(raw: bytes, data: st.DataObject) -> None:
    """Promise (A07): what is like the envelope learned is read as the strict reader reads it; what is not, is left."""
    like = strictly(raw)
    if like is None:
        assert len(raw) > 4096
        return
    template = Template.of(like)
    assert (template is not None) == (1 << 16 <= like.issued_at < 1 << 32)
    if template is None:
        return
    assert agree(template, raw)
    claims, (protected, unprotected, _, _) = cbor2.loads(like.claims_bytes), cbor2.loads(raw)[2]
    claims |= {6: data.draw(TIMES), 7: data.draw(IDS), "v": data.draw(HASHES)}
    if "m" in claims:
        claims["m"] = data.draw(HASHES)
    in_time = 1 << 16 <= claims[6] < 1 << 32
    if not unprotected:
        other = whole(1, claims, cbor2.loads(protected), {}, bytes(64))
        assert len(other) != len(raw) or agree(template, other) is in_time
        return
    size, index, path = cbor2.loads(unprotected[396][-1][0])
    other_size = data.draw(st.sampled_from([size]) | st.sampled_from([0, 1, 4097]) | SIZES)
    near = [0, 1, 22, 23, 24, 25, 254, 255, 256, 257, other_size - 1, other_size, 4095]
    other_index = data.draw(st.sampled_from([at for at in near if at >= 0]))
    other_path = [data.draw(HASHES) for _ in path]
    other = written(claims, cbor2.loads(protected), [other_size, other_index, other_path], bytes(64))
    if len(other) == len(raw):
        alike = (width(size), width(index)) == (width(other_size), width(other_index))  # else only the sum is alike
        is_tree = 2 <= other_size <= 4096 and other_index < other_size
        assert agree(template, other) is (alike and is_tree and in_time)


@given(envelopes(), st.data())
@settings(max_examples=200)
def test_any_bytes_of_the_templates_size(raw: bytes, data: st.DataObject) -> None:
    """Promise (A07): whatever bytes are changed, the template reads nothing or what the strict reader reads."""
    like = strictly(raw)
    template = None if like is None else Template.of(like)
    if template is None:
        return
    changed = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    agree(template, bytes(changed))


SHAPES: dict[str, tuple[dict[Any, Any], int, int, int]] = {
    "bare": ({}, 2, 1, 1),
    "whole": ({3: "bob", "h": ["a", "é"], "m": bytes(32), "p": 300}, 64, 23, 6),
    "index of two bytes": ({"m": bytes(32)}, 256, 24, 8),
    "index of three bytes": ({"p": 0}, 4096, 256, 12),
    "last": ({}, 257, 256, 1),
}


BYTES = sorted({*range(32), 255, 254, *(1 << bit for bit in range(8)), *range(0x18, 0x100, 0x20), *range(0x58, 0x5C)})


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_each_byte_with_many_values(shape: str) -> None:
    """Promise (A07): each byte of an envelope, set to what matters, is read alike, or not by the template."""
    more, size, index, depth = SHAPES[shape]
    claims = {1: "agent://a", 6: NOW, 7: bytes(16), "c": "nats://prod/a", "v": bytes(32)} | more
    raw = written(claims, {1: -19, 4: b"k", 395: 1}, [size, index, [bytes(32)] * depth], bytes(64))
    like = strictly(raw)
    assert like is not None
    template = Template.of(like)
    assert template is not None
    read = 0
    for at in range(len(raw)):
        for byte in BYTES:
            read += agree(template, raw[:at] + bytes([byte]) + raw[at + 1 :])
    assert read > len(BYTES) * (16 + 32 + 64)


@pytest.mark.parametrize("time", [0, 1, 23, 24, 255, 256, 65535, 65536, NOW, (1 << 32) - 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_time_in_a_longer_form_than_it_needs(shape: str, time: int) -> None:
    """Promise (A07): four bytes in which a small time stands are malformed to the template as well."""
    more, size, index, depth = SHAPES[shape]
    claims = {1: "agent://a", 6: NOW, 7: bytes(16), "c": "nats://prod/a", "v": bytes(32)} | more
    raw = written(claims, {1: -19, 4: b"k", 395: 1}, [size, index, [bytes(32)] * depth], bytes(64))
    like = strictly(raw)
    assert like is not None
    template = Template.of(like)
    assert template is not None
    changed = raw.replace(b"\x06\x1a" + NOW.to_bytes(4), b"\x06\x1a" + time.to_bytes(4))
    assert agree(template, changed) is (time >= 1 << 16)


@pytest.mark.parametrize("size", [0, 1])
def test_a_size_that_no_tree_has(size: int) -> None:
    """Promise (A25): a number that fits the gap and is no tree's size is malformed to the template as well."""
    claims = {1: "agent://a", 6: NOW, 7: bytes(16), "c": "nats://prod/a", "v": bytes(32)}
    raw, other = (written(claims, {1: -19, 4: b"k", 395: 1}, [one, 0, [bytes(32)]], bytes(64)) for one in (2, size))
    like = strictly(raw)
    assert like is not None
    template = Template.of(like)
    assert template is not None
    assert agree(template, raw)
    assert not agree(template, other)


VERIFIED = [
    *press_many([kafka(value=b"%d" % at) for at in range(5)]),
    *press_many([nats(value=b"%d" % at, headers=()) for at in range(30)]),
]
RAWS = [raw_of(message) for message in VERIFIED]


@given(st.lists(st.tuples(st.integers(0, len(RAWS) - 1), st.integers(0, 600), st.integers(0, 255)), max_size=20))
@settings(max_examples=100)
@example([(at, 0, 0x83) for at in range(len(RAWS))])
def test_a_reader_that_has_learned_reads_as_one_that_has_not(changes: list[tuple[int, int, int]]) -> None:
    """Promise: after any verified messages, any envelope means what it means to a strict reader."""
    world, native = World(), World()
    world.verifier._envelopes, native.verifier._envelopes = LearningReader(), NativeReader(native_or_stand_in())
    readers = [one.verifier._envelopes for one in (world, native)]
    for one in (world, native):
        assert set(endings(one, VERIFIED)) == {"first"}
    for (number, at, byte), reader in product(changes, readers):
        raw = bytearray(RAWS[number])
        raw[at % len(raw)] = byte
        for message in (kafka(), nats()):
            try:
                reader.open(case := Verification(message), text(bytes(raw)))
            except Rejected:
                assert strictly(bytes(raw)) is None
            else:
                same(case, strictly(bytes(raw)))
