"""Both engines make the same of Kafka's record batches, however odd these are: one leaves what the other leaves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from watchword import engine
from watchword_adapters.kafka import poison
from watchword_adapters.kafka.poison import without_poison

pytestmark = pytest.mark.usefixtures("not_traced")

FAR: Final = 1 << 40


def varint(number: int, more: int = 0) -> bytes:
    """Return a signed number as records have it, written in ``more`` bytes than need be."""
    zigzag, out = (number << 1) ^ (number >> 63), bytearray()
    while zigzag > 0x7F or more > 0:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
        more -= 1
    return bytes([*out, zigzag])


@dataclass(frozen=True)
class Record:
    """One record: what it says of itself, and the bytes that stand in it behind all that."""

    delta: int = 0
    value: bytes | None = b"value"
    name: bytes = b"name"
    headers: int = 1
    attributes: int = 0
    behind: bytes = b""
    longer: int = 0
    size: int | None = None
    key: int = -1

    def write(self) -> bytes:
        """Return its bytes."""
        value = varint(-1) if self.value is None else varint(len(self.value) if self.size is None else self.size)
        header = varint(len(self.name)) + self.name + varint(-1)
        body = b"".join(
            [
                bytes([self.attributes]),
                varint(0),
                varint(self.delta, self.longer),
                varint(self.key),
                value + (self.value or b""),
                varint(self.headers),
                header * min(max(self.headers, 0), 1100),
                self.behind,
            ]
        )
        return varint(len(body)) + body


@dataclass(frozen=True)
class Batch:
    """A batch of records, which says that it has ``more`` of them than it has."""

    records: tuple[Record, ...]
    more: int = 0
    last: int = 0
    behind: bytes = b""
    attributes: int = 0
    magic: int = 2

    def write(self, base: int) -> bytes:
        """Return its bytes at a base offset, under a checksum that fits."""
        body = b"".join(record.write() for record in self.records) + self.behind
        count = len(self.records) + self.more
        fields = [base, 49 + len(body), 0, self.magic, 0, self.attributes, count - 1 + self.last, *([0] * 5), count]
        raw = bytearray(poison.HEADER.pack(*fields) + body)
        raw[17:21] = poison.calc_crc32c(raw[21:]).to_bytes(4)
        return bytes(raw)


def cleaned(raw: bytes, log_end: int) -> Any:
    """Return what is made of a record set, or what is raised."""
    steps = without_poison(raw, log_end)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def mostly(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for what is usual, or seldom one of the others."""
    return st.sampled_from([usual] * (6 * len(others)) + [*others])


RECORDS = st.builds(
    Record,
    value=mostly(b"value", None, b"", b"x" * 200),
    name=mostly(b"name", b"", b"\xff", "ä".encode(), b"watchword"),
    headers=mostly(1, 0, -1, 2, 1024, 1025),
    attributes=mostly(0, 1, 0x7F, 0x80, 0xFF),
    behind=mostly(b"", b"\x00", b"\x00\x00"),
    longer=mostly(0, 1, 7, 8, 9, 10),
    key=mostly(-1, 0, 1, -2, 1 << 20, (1 << 63) - 41),
    size=mostly(None, -1, -2, 0, 4, 6, 1 << 20, 1 << 46, (1 << 63) - 41),
)
BATCHES = st.builds(
    Batch,
    st.lists(RECORDS, min_size=1, max_size=4).flatmap(
        lambda records: st.permutations(range(len(records))).flatmap(
            lambda order: mostly([*range(len(records))], [*order], [0] * len(records)).map(
                lambda deltas: tuple(
                    Record(**vars(record) | {"delta": delta}) for record, delta in zip(records, deltas, strict=True)
                )
            )
        )
    ),
    more=mostly(0, 1, -1, -9),
    last=mostly(0, 1, -1, 5),
    behind=mostly(b"", b"\x00", Record().write()),
    attributes=mostly(0, 1, 3, 5, 8, 16, 0x7F00),
    magic=mostly(2, 0, 1, 3),
)
ODD = [
    Batch((Record(behind=b"\x00"),)),
    Batch((Record(),), behind=Record(1).write()),
    Batch((Record(1), Record(0))),
    Batch((Record(0), Record(2))),
    Batch((Record(headers=1025),)),
    Batch((Record(name=b"\xff"),)),
    Batch((Record(attributes=0x80),)),
    Batch((Record(),), attributes=1),
    Batch((Record(),), attributes=3),
    Batch((Record(),), more=-2),
    Batch((Record(size=-2),)),
    Batch((Record(longer=9),)),
    Batch((Record(key=1 << 20),)),
    Batch((Record(key=(1 << 63) - 41),)),
]


@pytest.mark.skipif(engine.native() is None, reason="the native engine is not here: make native")
@pytest.mark.parametrize("odd", ODD)
def test_what_is_odd_is_not_sound(odd: Batch) -> None:
    """Promise (A53): the native engine calls no batch sound that a client would read otherwise, or not at all."""
    native = engine.native()
    assert native is not None
    raw, honest = odd.write(0), Batch((Record(), Record(1))).write(0)
    assert native.sound_until(honest + raw, 0, 1 << 20, FAR) == len(honest)
    assert native.sound_until(honest, 0, 1 << 20, 1) == 0, "it reaches beyond the log's end"


@pytest.mark.slow
@pytest.mark.skipif(engine.native() is None, reason="the native engine is not here: make native")
@given(st.lists(BATCHES, max_size=3), mostly(FAR, 0, 1, 3))
@example([ODD[0]], FAR)
@settings(max_examples=400)
def test_both_engines_make_the_same_of_a_batch(batches: Sequence[Batch], log_end: int) -> None:
    """Promise (A53): what the native engine calls sound is what the Python engine leaves as it is, and readable."""
    raw, base = b"", 0
    for one in batches:
        raw += one.write(base)
        base += len(one.records)
    found = cleaned(raw, log_end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "native", lambda: None)
        assert cleaned(raw, log_end) == found
    native = engine.native()
    assert native is not None
    end = native.sound_until(raw, 0, 1, log_end)
    if end:
        assert len([*DefaultRecordBatch(raw[:end])]) == len(batches[0].records) + batches[0].more
