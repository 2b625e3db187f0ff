"""Both engines give the same of NATS messages: some inputs of the fuzzer, which plays many more (tests/fuzz)."""

import pytest

from tests.fuzz.deliveries import differ
from watchword import engine

PARTS = 4
EACH = 100


@pytest.mark.skipif(engine.native() is None, reason="the native engine is not here: make native")
@pytest.mark.parametrize("part", range(PARTS))
def test_both_engines_show_the_same_of_deliveries(part: int) -> None:
    """Promise: whatever stands in a header block, verdicts, words, memory and counts are the same with either."""
    for seed in range(part * EACH, (part + 1) * EACH):
        different = differ(seed)
        assert different is None, (seed, different)
