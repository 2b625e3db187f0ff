"""Pytest plug-in: holders of keys as fixtures. Where one is not installed its tests fail, and say what to install."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.brokers.broker import NotHereError
from tests.custody.kms import ACCESS, Kms
from tests.custody.meddler import Meddler
from tests.custody.openbao import OpenBao
from tests.custody.softhsm import SoftHsm

T = TypeVar("T")


@pytest.fixture(scope="session")
def openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """Give the OpenBao of this run."""
    server = _made(OpenBao, tmp_path_factory.mktemp("openbao"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def kms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kms]:
    """Give the KMS of this run, and let the SDK find a login."""
    server = _made(Kms, tmp_path_factory.mktemp("kms"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ACCESS.items():
            patch.setenv(name, value)
        yield server
    server.stop()


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    """Give the tokens of this process, one of them labelled ``agents``."""
    made = _made(SoftHsm, tmp_path_factory.mktemp("softhsm"))
    made.make_token("agents")
    return made


@pytest.fixture
def before_openbao(openbao: OpenBao) -> Iterator[Meddler]:
    """Give a proxy before OpenBao."""
    meddler = Meddler(openbao.upstream)
    yield meddler
    meddler.stop()


@pytest.fixture
def before_kms(kms: Kms) -> Iterator[Meddler]:
    """Give a proxy before the KMS."""
    meddler = Meddler(kms.upstream)
    yield meddler
    meddler.stop()


def _made(make: Callable[[Path], T], directory: Path) -> T:
    try:
        return make(directory)
    except NotHereError as error:
        pytest.fail(str(error), pytrace=False)
