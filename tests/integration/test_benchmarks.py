"""The benchmarks' own run in small, on this run's brokers: every part works, and reports what it should; no timing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stages import engines, kinds
from tests.brokers.broker import Broker
from watchword import engine

PARTS = ("core", "algorithms", "peers", "buses", "memory", "stores", "scaling", "ready", "starts")
ON_A_BUS = (
    "kafka_produce_signed_over_plain",
    "kafka_consume_verified_over_plain",
    "kafka_iterate_verified_over_plain",
    "nats_core_signed_over_plain",
    "jetstream_publish_signed_over_plain",
    "jetstream_pull_verified_over_plain",
)
RATES = (
    "verify_batch64_over_ed25519",
    "sign_batch64_over_ed25519",
    "verify_one_over_ed25519",
    "verify_batch64_over_hmac_peer",
    "verify_batch64_over_hmac_peer_without_json",
    "verify_one_over_pynacl",
    "sign_one_over_pynacl",
    "rebuild_records_per_s",
    "kafka_rebuild_records_per_s",
    *ON_A_BUS,
    *(f"{name}_with_equal_header" for name in ON_A_BUS),
)
ADDED = [f"{bus}_added_p50_over_ed25519_at_{pace}" for bus in ("nats", "kafka") for pace in (50, 1000)]
ENGINES = ("", "_python")
"""Suffixes: the engine in use has none."""

BEFORE = {f"python_over_before_{row}" for row in ("verify_batch64", "sign_batch64")}


@pytest.fixture(scope="module")
def ran(
    shared_kafka: Broker, nats_broker: Broker, redis_broker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """Run every part in small; give the reports' directory and what was printed."""
    reports = tmp_path_factory.mktemp("bench")
    brokers = ["--kafka", shared_kafka.address, "--nats", nats_broker.address, "--redis", redis_broker.address]
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
    """A script that reads ``bench.json`` by name finds all figures, and they are positive numbers."""
    ratios = report["ratios"]
    assert ratios.keys() >= {f"{name}{suffix}" for name in (*RATES, *ADDED) for suffix in ENGINES}
    assert all(isinstance(ratios[f"{name}{suffix}"], float) for name in ADDED for suffix in ENGINES)
    named = [
        *(ratio for name, ratio in ratios.items() if "_added_" not in name),
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
    assert {part["engine"] for part in report["parts"].values()} == {report["engine"]} == {engine.name()}
    assert report["versions"].keys() >= {"watchword", "cryptography", "aiokafka", "nats-py", "joserfc", "PyNaCl"}
    assert kafka_broker.address in report["brokers"]["kafka"]
    assert report["method"]["repetitions"].startswith("interleaved")


def test_the_envelope_is_as_small_as_the_specification_says(report: Any) -> None:
    """For names of 25 characters, a key, a header and a partition it takes 380 characters, in a batch of 64 680."""
    assert report["envelope_characters"]["direct"] <= 380
    assert report["envelope_characters"]["batch64"] <= 680


def test_every_kind_was_measured_on_every_bus(report: Any) -> None:
    """Plain clients, with and without a header as long as an envelope, stand beside both engines everywhere."""
    for bus in ("kafka", "nats", "jetstream"):
        rows = [(row["what"], row.get("options"), row["kind"]) for row in report[bus]["figures"]]
        assert sorted(rows) == sorted(
            (what, options, kind) for what, options in {row[:2] for row in rows} for kind in kinds()
        )
    for bus in ("kafka", "nats"):
        for found in report["latency_us"][bus].values():
            assert all(found[kind].keys() == {"p50", "p99", "p99_9"} for kind in kinds())
            assert found["ed25519_p50"] > 0


def test_both_engines_have_every_row(report: Any) -> None:
    """The engine in use and the Python engine stand side by side, and the peers and rebuilds beside both."""
    assert report["engines"]["in_use"] == engine.name()
    rows = {"sign_batch64", "verify_batch64", "sign_one", "verify_one", "verify_lone", "rebuild"}
    assert all(report["engines"][name].keys() == rows for name in engines())
    assert len(report["core"]["figures_python"]) == len([row for row in report["core"]["figures"] if _is_ours(row)])
    for part in ("peers", "ready"):
        measured = {row.get("engine", "") for row in report[part]["figures" if part == "peers" else part]}
        assert measured - {""} == set(engines())


def _is_ours(row: Any) -> bool:
    return row["what"] not in {"sha256", "ed25519 sign", "ed25519 verify"}


def test_the_tree_before_is_there_or_the_report_says_why_not(report: Any) -> None:
    """The Python engine stands beside the tree before the engines; without git or that revision nothing is made up."""
    there = BEFORE & report["ratios"].keys()
    assert there == (set() if report["core"].get("before_left_out") else BEFORE)
    assert ("before" in report["engines"]) == bool(there)


def test_tables_and_plots_are_made(ran: tuple[Path, str]) -> None:
    """A person sees tables, with the engine that is in use, and finds every plot as SVG and PNG."""
    reports, told = ran
    assert f"engine in use: {engine.name()}" in told
    assert "verify_batch64_over_ed25519" in told
    assert f"written to {reports / 'bench.json'}" in " ".join(told.replace("\n", "").split())
    plots = {path.name for path in (reports / "plots").iterdir()}
    assert plots == {
        f"{name}.{kind}"
        for name in ("peers", "engines", "batch", "size", "buses", "latency")
        for kind in ("svg", "png")
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
