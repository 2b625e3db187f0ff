"""Both engines give the same: a thousand inputs of the fuzzer, which plays many more (tests/fuzz).

Where the native engine is not installed, its stand-in takes its place; where it is, both are played at once, and must
say the same of each run as well.
"""

import pytest

from tests.fuzz import inputs
from tests.fuzz.engines import differ, kept
from tests.support.beside import native_or_stand_in
from tests.unit.core import world
from tests.vectors.post_quantum import KEYS
from watchword import SigningKey

PARTS = 8
EACH = 130


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_both_engines_show_the_same(part: int) -> None:
    """Promise: verdicts, words, notes, claims and floors are the same; no signature is checked more often."""
    for seed in range(part * EACH, (part + 1) * EACH):
        different = differ(seed, native_or_stand_in())
        assert different is None, (seed, different)


@pytest.mark.parametrize("name", KEYS)
def test_both_engines_show_the_same_of_ml_dsa(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: so do they where the fuzzer's P-256 key is one of ML-DSA, whose signatures fill envelopes."""
    key = SigningKey.from_pem(KEYS[name].to_pem(), key_id=world.ALICE_EC_KEY.key_id)
    others = [(key if one is world.ALICE_EC_KEY else one, owner) for one, owner in inputs.SIGNERS]
    monkeypatch.setattr(inputs, "SIGNERS", tuple(others))
    monkeypatch.setattr(inputs, "KEYS", tuple(dict.fromkeys(one for one, _ in others)))
    monkeypatch.setattr(world, "ALICE_EC_KEY", key)
    for seed in range(10**6, 10**6 + EACH // 2):
        different = differ(seed, native_or_stand_in())
        assert different is None, (seed, different)


def test_what_once_differed_does_so_no_more() -> None:
    """Promise: what fuzzing has found stays mended."""
    seeds = kept()
    assert seeds
    for seed in seeds:
        different = differ(seed, native_or_stand_in())
        assert different is None, (seed, different)
