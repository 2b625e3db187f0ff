"""What back-ends cost is measured for real, on what there is here."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("children_not_traced")

ROOT = Path(__file__).parents[3]


def test_each_back_end_is_measured(kafka_bootstrap: str, nats_url: str) -> None:
    """None is missing where the tests can run, and each has its three figures; which is larger, benchmarks say."""
    found = _measured(kafka_bootstrap, nats_url)
    assert set(found["backends"]) == {
        "file", "file_encrypted", "svid", "pkcs11_softhsm", "transit_openbao", "aws_kms_moto", "slow_20_ms",
    }  # fmt: skip
    for name, figures in found["backends"].items():
        assert figures["sign_ms"] > 0, name
        assert figures["messages_per_s_alone"] > 0, name
        assert figures["messages_per_s_in_groups"] > 0, name
    slow = found["backends"]["slow_20_ms"]
    assert slow["messages_per_s_alone"] < slow["messages_per_s_in_groups"]  # by some fifty times
    for bus in ("nats", "kafka"):
        for batch in ("batch_64", "batch_256"):
            figures = found["on_buses"][bus][batch]
            assert figures["alone"] > 0, (bus, batch)
            assert figures["in_groups"] > 0, (bus, batch)


def _measured(kafka: str, nats: str) -> dict[str, Any]:
    """Measure in a separate process, as SoftHSM's library reads only once per process where its tokens are."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.sources.backends", "--small"],
        cwd=ROOT, env=os.environ | {"WATCHWORD_BENCH_KAFKA": kafka, "WATCHWORD_BENCH_NATS": nats}, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found
