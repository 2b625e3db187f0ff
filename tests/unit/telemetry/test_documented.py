"""What is written about the metrics, for readers and for Prometheus, names those that there are."""

import re
from pathlib import Path
from unittest.mock import Mock

import pytest
from opentelemetry.metrics import Meter, MeterProvider

from watchword_adapters.telemetry import Telemetry

ROOT = Path(__file__).parents[3]
SUFFIXES = {"s": "_seconds", "d": "_days"}


@pytest.fixture
def made() -> dict[str, tuple[str, str]]:
    """Return kind and unit of each metric that is made, by its name."""
    meter, provider = Mock(spec=Meter), Mock(spec=MeterProvider)
    provider.get_meter.return_value = meter
    Telemetry(provider)
    found: dict[str, tuple[str, str]] = {}
    for name, arguments, _ in meter.method_calls:
        unit = next(one for one in arguments[1:] if isinstance(one, str))
        found[arguments[0]] = name.rpartition("_")[2], unit
    return found


def test_every_metric_is_in_the_table_with_its_kind_and_unit(made: dict[str, tuple[str, str]]) -> None:
    """Promise: the table of the documentation is complete, and names nothing else."""
    text = (ROOT / "docs/telemetry.md").read_text()
    rows = re.findall(r"^\| `(watchword\.[a-z_.]+)` \| (\w+)(?:, (\w))? \|", text, re.MULTILINE)
    units = {name: (kind, unit if unit in SUFFIXES else "") for name, (kind, unit) in made.items()}
    assert {name: (kind, unit) for name, kind, unit in rows} == units


def test_alerts_are_about_metrics_that_there_are(made: dict[str, tuple[str, str]]) -> None:
    """Promise: no rule waits for a name that nobody serves."""
    served = {
        name.replace(".", "_") + SUFFIXES.get(unit, "") + ("_total" if kind == "counter" else "")
        for name, (kind, unit) in made.items()
    }
    used = set(re.findall(r"\b(watchword_\w+)(?:\{|\[| [<>u])", (ROOT / "docker/alerts.yaml").read_text()))
    assert len(used) > 4
    assert used <= served
