"""Both engines give the same: a few hundred inputs of the fuzzer, which plays many more (tests/fuzz)."""

import pytest

from tests.fuzz.engines import differ
from watchword import engine

PARTS = 8
EACH = 60


@pytest.mark.skipif(engine.native() is None, reason="the native engine is not here: make native")
@pytest.mark.parametrize("part", range(PARTS))
def test_both_engines_show_the_same(part: int) -> None:
    """Promise: verdicts, words, notes, claims and floors are the same; no signature is checked more often."""
    for seed in range(part * EACH, (part + 1) * EACH):
        different = differ(seed)
        assert different is None, (seed, different)
