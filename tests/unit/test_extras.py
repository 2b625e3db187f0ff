"""What is said where an extra is missing: each hint names the one that brings all of what was asked for."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import PATIENCE
from watchword.extras import EXTRAS, told

pytestmark = pytest.mark.usefixtures("children_not_traced")

CHECKOUT = Path(__file__).parents[2]
LOAD = "import watchword; watchword.load('watchword.toml')"
DEMO = "import sys; from watchword_adapters.cli import main; sys.exit(main(['demo', '--bus', {!r}]))"
TAIL = "import sys; from watchword_adapters.cli import main; sys.exit(main(['tail', '{}://prod/a']))"
FIRST = "import sys; from watchword_adapters.cli import main; sys.exit(main(['init', '--bus', {!r}]))"
INIT = (
    "import sys; from watchword_adapters.cli import main; sys.exit(main(['store', 'init', {!r}, '--accept-backlog']))"
)
CARD = "import sys; from watchword_adapters.cli import main; sys.exit(main(['key', 'import-card', 'a', '-p', 'a']))"
SQLITE = '[replay]\nstore = "sqlite"\npath = "ids.db"\n'
SIGNER = '[signer]\nsource = "{}"\n'
PROMETHEUS = '[telemetry]\nprometheus = "127.0.0.1:0"\n'
SPIFFE = (
    '[[keys]]\nsource = "spiffe"\ntrust_domains = ["acme.example"]\n[control]\nchannel = "nats://prod/c"\n'
    'presence = "nats://prod/p"\n[[control.operators]]\nprincipal = "agent://a/o"\nmay = ["head"]\nover = ["**"]\n'
)
BROUGHT_BY = {"botocore": "boto3", "prometheus_client": "opentelemetry-exporter-prometheus", "grpc": "spiffe"}

HINTS: list[tuple[str, str, str, tuple[str, ...]]] = [
    ("import watchword.kafka", "", "kafka", ("aiokafka",)),
    ("import watchword.nats", "", "nats", ("nats",)),
    ("import watchword.faststream", "", "faststream", ("faststream", "aiokafka", "nats")),
    ("import watchword.telemetry", "", "telemetry", ("opentelemetry",)),
    ("import watchword.testing", "", "testing", ("pytest",)),
    ("from watchword.testing import verified_msg; verified_msg(subject='s', principal='p')", "", "nats", ("nats",)),
    (
        "from watchword.testing import verified_record; verified_record(b'', topic='t', principal='p')",
        "", "kafka", ("aiokafka",),
    ),
    (LOAD, SPIFFE, "spiffe", ("spiffe", "grpc")),
    (LOAD, "[telemetry]\n", "telemetry", ("opentelemetry",)),
    (
        LOAD, PROMETHEUS, "prometheus",
        ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter", "prometheus_client"),
    ),
    (LOAD, SIGNER.format("pkcs11"), "pkcs11", ("pkcs11",)),
    (LOAD, SIGNER.format("transit"), "transit", ("httpx",)),
    (LOAD, SIGNER.format("aws_kms"), "kms", ("boto3", "botocore")),
    (LOAD, '[replay]\nstore = "redis"\nurl = "redis://localhost"\n', "redis", ("redis",)),
    (LOAD, '[[keys]]\nsource = "jwks"\nurl = "https://keys.acme.example/agents.jwks"\n', "jwks", ("httpx",)),
    (LOAD, '[replay]\nstore = "nats_kv"\nurl = "nats://localhost"\n', "nats", ("nats",)),
    ("from watchword_adapters.cli import main; raise SystemExit(main([]))", "", "cli", ("typer", "rich")),
    (TAIL.format("kafka"), "", "kafka", ("aiokafka",)),
    (TAIL.format("nats"), "", "nats", ("nats",)),
    (TAIL.format("nats"), '[nats]\ncredentials = "watchword.toml"\n', "nkeys", ("nkeys",)),
    (INIT.format("kafka:g"), f"{SQLITE}[kafka]\n", "kafka", ("aiokafka",)),
    (INIT.format("js:s:d"), f"{SQLITE}[nats]\n", "nats", ("nats",)),
    (FIRST.format("nats"), "", "nats", ("nats",)),
    (FIRST.format("kafka"), "", "kafka", ("aiokafka",)),
    (CARD, "", "a2a", ("rfc8785",)),
    (DEMO.format("nats"), "", "demo", ("nats", "cbor2")),
    (DEMO.format("kafka"), "", "demo", ("aiokafka", "cbor2")),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "table", "extra", "library"),
    [(program, table, extra, library) for program, table, extra, some in HINTS for library in some],
)
def test_each_hint_is_what_to_type(tmp_path: Path, program: str, table: str, extra: str, library: str) -> None:
    """A user who lacks a library reads one line at the end, and what it says to type brings that library."""
    (tmp_path / "watchword.toml").write_text(f'realm = "prod"\n[policy]\nmode = "observe"\n{table}')
    hidden = f"import sys; sys.modules[{library!r}] = None\n{program}"
    run = subprocess.run(  # noqa: S603 - ours
        [sys.executable, "-c", hidden], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert run.returncode
    assert run.stderr.splitlines()[-1].endswith(f"pip install 'watchword[{extra}]'"), run.stderr
    assert BROUGHT_BY.get(library, library.partition(".")[0]) in brought_by(extra)


def test_every_library_that_an_extra_brings_has_its_hint() -> None:
    """A library for which the hints know an extra is hidden in a test above."""
    hidden = {library for *_, libraries in HINTS for library in libraries}
    assert hidden >= set(EXTRAS)


def test_an_error_that_no_extra_mends_stays_what_it_is() -> None:
    """An import error about another module, or about a name that a module lacks, is returned unchanged."""
    for error in (ModuleNotFoundError("No module named 'numpy'", name="numpy"), ImportError("cannot import name 'x'")):
        assert told(error, "faststream") is error


def brought_by(extra: str) -> str:
    """Return the requirements of an extra, with those of the extras of ours in it."""
    extras: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    lines = "\n".join(extras[extra])
    inner = re.search(r"watchword\[([a-z,]+)\]", lines)
    return lines + "".join(f"\n{brought_by(one)}" for one in (inner[1].split(",") if inner else ()))
