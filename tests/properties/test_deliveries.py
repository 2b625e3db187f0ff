"""Both engines give the same of NATS messages: some inputs of the fuzzer, which plays many more (tests/fuzz)."""

import pytest

from tests.fuzz.deliveries import differ
from tests.support.beside import native_or_stand_in

PARTS = 4
EACH = 100


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_both_engines_show_the_same_of_deliveries(part: int) -> None:
    """Promise: whatever stands in a header block, verdicts, words, memory and counts are the same with either."""
    for seed in range(part * EACH, (part + 1) * EACH):
        different = differ(seed, native_or_stand_in())
        assert different is None, (seed, different)
