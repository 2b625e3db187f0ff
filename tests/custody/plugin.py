"""Pytest plug-in: holders of keys as fixtures. Tests of one that is not here are skipped; the last lines name them.

`WATCHWORD_TEST_BROKERS=required` lets no test be skipped for that either.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import pytest

from tests.brokers.broker import NotHereError
from tests.brokers.plugin import required
from tests.custody.kms import ACCESS, Kms
from tests.custody.meddler import Meddler
from tests.custody.openbao import OpenBao
from tests.custody.softhsm import SoftHsm

T = TypeVar("T")

_MISSING: Final = "keys: "
"""Begins the reason for which a test is skipped."""


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not tested, and for want of what."""
    skipped: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else "").removeprefix("Skipped: ")
        if reason.startswith(_MISSING):
            skipped.setdefault(reason, []).append(report.nodeid)
    for reason, tests in skipped.items():
        terminalreporter.write_line(f"{reason}; skipped for it: {', '.join(tests)}")


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
        if required():
            pytest.fail(str(error), pytrace=False)
        pytest.skip(f"{_MISSING}{error}")
