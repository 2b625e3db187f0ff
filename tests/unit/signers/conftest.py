import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.custody.meddler import Meddler
from watchword import Policy
from watchword.spi import Context


@pytest.fixture
def warned() -> list[str]:
    """Give the events that were warned of."""
    return []


@pytest.fixture
def context(tmp_path: Path, warned: list[str]) -> Context:
    """Give what a plug-in is given."""

    def warn(event: str, **_: object) -> None:
        warned.append(event)

    return Context(realm="prod", directory=tmp_path, clock=time.time, policy=Policy(), warn=warn)


@pytest.fixture
def server() -> Iterator[Meddler]:
    """Give a server of HTTP that a test lets answer."""
    meddler = Meddler("127.0.0.1:9")
    yield meddler
    meddler.stop()
