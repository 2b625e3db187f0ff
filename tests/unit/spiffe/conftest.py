"""A trust domain, a board, and sources and signers that end with the test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.workload_api import Authority, Svid, WorkloadApi

ROOT = Authority()


@pytest.fixture
def root() -> Authority:
    """Return the authority of acme.example."""
    return ROOT


@pytest.fixture
def serve() -> Iterator[Callable[..., WorkloadApi]]:
    """Give what starts a Workload API; a unix socket's path must be short."""
    with TemporaryDirectory(prefix="ww-") as directory:
        made: list[WorkloadApi] = []

        def start(*svids: Svid) -> WorkloadApi:
            made.append(WorkloadApi(Path(directory), list(svids), [ROOT]))
            return made[-1]

        yield start
        for api in made:
            api.stop()
