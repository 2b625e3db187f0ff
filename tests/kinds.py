"""Pytest plug-in: marks each test by what it needs, so that `-m` can choose.

| mark | tests | set by |
|---|---|---|
| `broker` | those that use a server's fixture, and all of tests/integration, which starts servers itself | this file |
| `unit` | all others in tests/unit | this file |
| `slow` | those that take more than two seconds of CPU, or start many processes | `pytest.mark.slow` |

A test that asks for a server only while it runs (`request.getfixturevalue`) bears `pytest.mark.broker`.
"""

from pathlib import Path
from typing import Any, Final

import pytest

SERVERS: Final = frozenset({"kafka_broker", "shared_kafka", "nats_broker", "redis_broker", "openbao", "kms"})
"""The fixtures behind which a server runs."""

_ROOT: Final = Path(__file__).parent
_MARKS: Final = {
    "unit": "a test of one part, without a server; set by tests/kinds.py",
    "broker": "needs Kafka, NATS, Redis, OpenBao or a KMS; set by tests/kinds.py from the fixtures that the test uses",
    "slow": "takes more than two seconds of CPU, or starts many processes; set by hand",
}


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks."""
    for name, meaning in _MARKS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what was collected, before `-m` chooses."""
    for item in items:
        if _lies_in(item, "integration") or not SERVERS.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("broker")
        if _lies_in(item, "unit") and item.get_closest_marker("broker") is None:
            item.add_marker("unit")


def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
    """Fail a test that asks for a server although no mark says that it needs one."""
    if fixturedef.argname in SERVERS and "not broker" in request.config.getoption("markexpr"):
        pytest.fail(f"this test uses {fixturedef.argname}: mark it with pytest.mark.broker", pytrace=False)


def _lies_in(item: pytest.Item, folder: str) -> bool:
    return item.path.is_relative_to(_ROOT / folder)
