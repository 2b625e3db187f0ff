"""Key sets that may be used are read, and those that must be refused are refused whole."""

import json
from typing import Any

import pytest

from tests.vectors import post_quantum
from tests.vectors.generate import KEYSETS, KEYSETS_ML_DSA, render
from tests.vectors.keysets import keysets
from watchword import ConfigurationError, MemoryKeys
from watchword.jwk import parse_jwks

FOUND = [one for path in (KEYSETS, KEYSETS_ML_DSA) for one in json.loads(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("keyset", FOUND, ids=lambda keyset: keyset["name"])
def test_a_set_is_used_or_refused_whole(keyset: dict[str, Any]) -> None:
    """Promise: what the specification says of JWK Sets."""
    if keyset["good"]:
        MemoryKeys(parse_jwks(keyset["text"].encode()))
    else:
        with pytest.raises(ConfigurationError):
            MemoryKeys(parse_jwks(keyset["text"].encode()))


def test_the_generator_writes_these_files() -> None:
    """Promise: the same bytes come out every time."""
    assert render(list(keysets())) == KEYSETS.read_text(encoding="utf-8")
    assert render(list(post_quantum.keysets())) == KEYSETS_ML_DSA.read_text(encoding="utf-8")
