"""Ids in few bytes."""

import os
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.core.claims import numbered
from tests.unit.core.world import NOW, at_once
from watchword import engine
from watchword.packed import OPEN, Bucket
from watchword.spi import Admission, MemoryReplayStore


@pytest.mark.parametrize("count", [0, 1, OPEN - 1, OPEN, OPEN + 1, 20 * OPEN + 7])
def test_everything_put_is_found_as_it_was_put(count: int) -> None:
    """Promise: packing loses, invents and mixes up nothing."""
    bucket, keys = Bucket(), [int.from_bytes(os.urandom(8)) | 1 for _ in range(count)]
    for number, key in enumerate(keys):
        bucket.put(key, 2**64 - 1 - number, number)
    assert [bucket.find(key) for key in keys] == [2**64 - 1 - number for number in range(count)]
    assert sorted(bucket.owners()) == list(range(count))
    assert all(bucket.find(key ^ 1) is None for key in keys[:100])
    bucket.seal()
    bucket.seal()
    assert len(bucket._open) == 0
    assert [bucket.find(key) for key in keys[:100]] == [2**64 - 1 - number for number in range(len(keys[:100]))]


def test_there_are_few_runs_to_look_into() -> None:
    """Promise: a look-up stays cheap however full a bucket is."""
    bucket = Bucket()
    for key in range(200_000):
        bucket.put(key, key, 1)
        if key % OPEN == 0:
            bucket.seal()
    assert len(bucket._runs) <= 12
    assert max(len(run.keys) for run in bucket._runs) <= 1 << 15


@pytest.mark.slow
@pytest.mark.usefixtures("not_traced", "python_engine")
def test_an_id_takes_24_bytes() -> None:
    """Promise: 200,000 ids of 1,000 principals over 300 seconds take at most 24 bytes each, all told."""
    memory, count = MemoryReplayStore(horizon=330.0), 200_000
    claims = [numbered(n, principal=f"agent://acme/agent-{n}") for n in range(1000)]
    ours = tracemalloc.Filter(inclusive=True, filename_pattern="*/src/watchword/*")  # other threads take some, too
    tracemalloc.start()
    try:
        for number in range(count):
            at, one = NOW + 300 * number // count, claims[number % 1000]
            fields = {name: getattr(one, name) for name in ("principal", "key_id")}
            asked = numbered(number, issued_at=at, reference=at, **fields)
            assert at_once(memory.claim(asked)) is Admission.FIRST
        found = tracemalloc.take_snapshot().filter_traces([ours]).statistics("filename")
    finally:
        tracemalloc.stop()
    assert len(memory) == count
    assert 0 < sum(one.size for one in found) / count <= 24


KEYS = st.integers(0, 40).map(lambda number: number * 0x9E3779B97F4A7C15 % 2**64)
ROWS = st.lists(st.tuples(st.just(NOW), KEYS, st.integers(0, 2**64 - 1), st.none() | st.integers(0, 9)), max_size=5)
STEPS = st.lists(
    st.tuples(st.just("put"), KEYS, st.integers(0, 2**64 - 1), st.integers(0, 3))
    | st.tuples(st.just("put_all"), ROWS, st.integers(0, 3))
    | st.tuples(st.just("drop"), st.sets(st.integers(0, 3)))
    | st.tuples(st.just("seal")),
    max_size=30,
)


@pytest.mark.skipif(engine.native() is None, reason="the native engine is not here: make native")
@given(STEPS)
@settings(max_examples=300)
def test_both_engines_keep_the_same(steps: list[tuple[Any, ...]]) -> None:
    """Promise: whatever is put into a bucket, packed and dropped, the native engine's has the same."""
    native = engine.native()
    assert native is not None
    ours, theirs = Bucket(), native.Bucket()
    for name, *given_ in steps:
        if name == "put" and ours.find(given_[0]) is not None:
            continue
        if name == "put_all":
            entries = native.Entries(given_[0])
            keys = [key for _, key, _, _ in given_[0]]
            assert (entries.keys(), entries.rows(), len(entries)) == (keys, given_[0], len(keys))
            assert entries.has_twins == (len({*keys}) < len(keys))
            assert (
                theirs.holds_any(entries)
                == ours.holds_any(entries)
                == any(theirs.find(key) is not None for key in keys)
            )
            if entries.has_twins or ours.holds_any(entries):
                continue
            given_[0] = entries
        assert getattr(theirs, name)(*given_) == getattr(ours, name)(*given_)
        assert (theirs.lowest, theirs.owners()) == (ours.lowest, ours.owners())
    for number in range(41):
        key = number * 0x9E3779B97F4A7C15 % 2**64
        assert theirs.find(key) == ours.find(key)
