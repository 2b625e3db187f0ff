"""A37: a signer that forks, is cloned, or signs from many threads at once."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.unit.core.world import at_once, nats, signer
from watchword.spi import Signer


def _ids(count: int) -> list[bytes]:
    by = signer()
    return [at_once(by.sign(nats())).id for _ in range(count)]


def _many(by: Signer) -> list[bytes]:
    """Return the ids of messages that are signed one by one, and of others that are signed in trees."""
    return [at_once(by.sign(nats())).id for _ in range(20)] + [
        made.id for made in at_once(by.sign_many(nats() for _ in range(80)))
    ]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # forking is what the attack is about
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a37_forked_signers() -> None:
    """Promise: children forked from one signer, and their parent, never draw the same id."""
    by = signer()
    seen = _many(by)
    pipes = []
    for _ in range(4):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            with os.fdopen(write, "wb") as out:
                out.write(b"".join(_many(by)))
            os._exit(0)
        os.close(write)
        pipes.append((child, read))
    for child, read in pipes:
        with os.fdopen(read, "rb") as ids:
            drawn = ids.read()
        assert os.waitpid(child, 0)[1] == 0
        seen += [drawn[at : at + 16] for at in range(0, len(drawn), 16)]
    seen += _many(by)
    assert len(seen) == 600
    assert len(set(seen)) == 600


def test_a37_threads() -> None:
    """Promise: threads that share one signer never draw the same id."""
    by = signer()
    with ThreadPoolExecutor(8) as pool:
        ids = [drawn for many in pool.map(lambda _: _many(by), range(16)) for drawn in many]
    assert len(set(ids)) == len(ids) == 1600


def test_a37_equal_signers() -> None:
    """Promise: two processes with the same key and clock draw different ids."""
    assert not set(_ids(50)) & set(_ids(50))
