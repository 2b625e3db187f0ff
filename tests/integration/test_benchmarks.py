"""The benchmarks' own run in small, on this run's brokers: every part works, and reports what it should; no timing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.broker import Broker

PARTS = ("core", "peers", "buses", "memory", "stores", "scaling", "ready", "starts")
RATIOS = {
    "verify_batch64_over_ed25519",
    "sign_batch64_over_ed25519",
    "verify_batch64_over_hmac_peer",
    "kafka_produce_signed_over_plain",
    "kafka_consume_verified_over_plain",
    "kafka_iterate_verified_over_plain",
    "nats_core_signed_over_plain",
    "jetstream_publish_signed_over_plain",
    "jetstream_pull_verified_over_plain",
}


@pytest.fixture(scope="module")
def ran(
    kafka_broker: Broker, nats_broker: Broker, redis_broker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """Run every part in small; give the reports' directory and what was printed."""
    reports = tmp_path_factory.mktemp("bench")
    brokers = ["--kafka", kafka_broker.address, "--nats", nats_broker.address, "--redis", redis_broker.address]
    parts = [argument for part in PARTS for argument in ("--part", part)]
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "watchword_adapters.cli", "bench", *parts, "--small", "-o", str(reports), *brokers],
        capture_output=True,
        timeout=600,
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},  # see not_traced
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return reports, done.stdout


@pytest.fixture(scope="module")
def report(ran: tuple[Path, str]) -> Any:
    """Give what ``bench.json`` holds."""
    return json.loads((ran[0] / "bench.json").read_text())


def test_the_report_names_every_figure(report: Any) -> None:
    """Whoever reads ``bench.json`` by name finds all figures, and they are positive numbers."""
    assert report["ratios"].keys() >= RATIOS
    named = [
        *report["ratios"].values(),
        *(report["core"][f"{side}_batch64_per_s"] for side in ("sign", "verify")),
        *(report["core"]["added_over_sha256"][side]["64"] for side in ("sign", "verify")),
        *(report["envelope_characters"][form] for form in ("direct", "batch64")),
    ]
    assert all(isinstance(figure, float | int) and figure > 0 for figure in named)
    assert all(isinstance(report["latency_us"][f"added_{name}"], float) for name in ("p50", "p99"))


def test_the_report_tells_what_was_measured_on(report: Any, kafka_broker: Broker) -> None:
    """A figure without its machine and versions is worth nothing."""
    assert report["parts"].keys() == set(PARTS)
    assert all(part["small"] and part["when"].endswith("UTC") for part in report["parts"].values())
    assert report["machine"].keys() >= {"cpu", "cores", "python"}
    assert report["versions"].keys() >= {"watchword", "cryptography", "aiokafka", "nats-py", "joserfc", "PyNaCl"}
    assert kafka_broker.address in report["brokers"]["kafka"]
    assert report["method"]["repetitions"].startswith("interleaved")


def test_the_envelope_is_as_small_as_the_specification_says(report: Any) -> None:
    """For names of 25 characters, a key, a header and a partition it takes 380 characters, in a batch of 64 680."""
    assert report["envelope_characters"]["direct"] <= 380
    assert report["envelope_characters"]["batch64"] <= 680


def test_both_kinds_were_measured_on_every_bus(report: Any) -> None:
    """A plain client stands beside Watchword for every figure and every pace."""
    for bus in ("kafka", "nats", "jetstream"):
        kinds = {row["kind"]: row["what"] for row in report[bus]["figures"]}
        assert kinds.keys() == {"plain", "watchword"}
    for bus in ("kafka", "nats"):
        for found in report["latency_us"][bus].values():
            assert found["plain"].keys() == found["watchword"].keys() == {"p50", "p99", "p99_9"}
            assert found["ed25519_p50"] > 0


def test_tables_and_plots_are_made(ran: tuple[Path, str]) -> None:
    """A person sees tables, and finds every plot as SVG and PNG."""
    reports, told = ran
    assert "verify_batch64_over_ed25519" in told
    assert f"written to {reports / 'bench.json'}" in " ".join(told.replace("\n", "").split())
    plots = {path.name for path in (reports / "plots").iterdir()}
    assert plots == {
        f"{name}.{kind}" for name in ("peers", "batch", "size", "buses", "latency") for kind in ("svg", "png")
    }


def test_a_reader_loses_nothing_or_has_said_until_when(report: Any) -> None:
    """Every kind of reader of NATS, started in every way, keeps its promise."""
    assert [row for row in report["starts"]["starts"] if not row["holds"]] == []


def test_who_has_a_memory_loses_nothing(report: Any) -> None:
    """A stream, or a journal that is there, is enough for a first start, a restart and another subscription."""
    durables = ["durable pull, `sole_reader`", "durable push, `sole_reader`"]
    kinds = ["core, `state`, `watchword init`", *durables, "ephemeral pull", "ephemeral push", "ordered"]
    rows = [row for row in report["starts"]["starts"] if row["reader"] in kinds]
    assert len(rows) == 3 * len(kinds)
    assert {(row["lost"], row["announced"], row["holds"]) for row in rows} == {(0, None, True)}
    assert all(row["owed"] > 0 for row in rows)
