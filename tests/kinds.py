"""Pytest plug-in: marks each test by what it needs, so that `-m` can choose.

| mark | who bears it | set by |
|---|---|---|
| `unit` | what lies in tests/unit | this file |
| `broker` | what uses a server's fixture, and all of tests/integration, which starts servers itself | this file |
| `slow` | what takes more than two seconds of CPU | `pytest.mark.slow` on the test |
"""

from pathlib import Path
from typing import Any, Final

import pytest

SERVERS: Final = frozenset({"kafka_broker", "nats_broker", "redis_broker", "openbao", "kms"})
"""The fixtures behind which a server runs."""

_ROOT: Final = Path(__file__).parent
_MARKS: Final = {
    "unit": "one part alone, without a server (set for all of tests/unit)",
    "broker": "needs a server: Kafka, NATS, Redis, OpenBao or a KMS (set by the fixtures that the test uses)",
    "slow": "takes more than two seconds of CPU",
}


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks."""
    for name, meaning in _MARKS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what was collected, before `-m` chooses."""
    for item in items:
        if _lies_in(item, "unit"):
            item.add_marker("unit")
        if _lies_in(item, "integration") or not SERVERS.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("broker")


def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
    """Fail a test that asks for a server while it runs, and bears no mark that says so."""
    if fixturedef.argname in SERVERS and "not broker" in request.config.getoption("markexpr"):
        pytest.fail(f"this test uses {fixturedef.argname}: put @pytest.mark.broker on it", pytrace=False)


def _lies_in(item: pytest.Item, folder: str) -> bool:
    return item.path.is_relative_to(_ROOT / folder)
