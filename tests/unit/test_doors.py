"""The front doors: what users import, in one step and by short names."""

import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

import watchword
from watchword_adapters.config import load

LIBRARIES = {"kafka": "aiokafka", "nats": "nats"}


def test_few_names_are_public() -> None:
    """A newcomer can read them all: at most twenty, each of which is there."""
    assert len(watchword.__all__) <= 20
    assert all(hasattr(watchword, name) for name in watchword.__all__)


def test_load_and_version_are_given_where_somebody_asks() -> None:
    """They read files, which the core does not; other names are unknown as in any module."""
    assert watchword.load is load
    assert watchword.__version__ == metadata.version("watchword")
    with pytest.raises(AttributeError, match="module 'watchword' has no attribute 'laod'"):
        _ = watchword.laod  # type: ignore[attr-defined] # that is the test


@pytest.mark.parametrize("door", ["brokers", "faststream", "kafka", "nats", "spi", "telemetry", "testing"])
def test_a_door_gives_what_it_names(door: str) -> None:
    """Every listed name is there, and the adapters' own."""
    module = import_module(f"watchword.{door}")
    assert all(hasattr(module, name) for name in module.__all__)
    if door in {*LIBRARIES, "testing"}:
        assert set(module.__all__) - {"contracts", "copies", "redrive"} == set(
            import_module(f"watchword_adapters.{door}").__all__
        )


def _without(library: str, program: str) -> str:
    """Run a program where a library is missing; return the last line of what it says."""
    hidden = f"import sys; sys.modules[{library!r}] = None\n{program}"
    run = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    return run.stderr.strip().splitlines()[-1] if run.stderr else ""


@pytest.mark.parametrize(("door", "library"), LIBRARIES.items())
def test_a_missing_extra_is_one_line_that_says_what_to_type(door: str, library: str) -> None:
    """The last line of the error has the command, and the door of the other bus opens."""
    said = _without(library, f"import watchword.{door}")
    assert said == f"ModuleNotFoundError: {library} is not installed: pip install 'watchword[{door}]'"
    (other,) = LIBRARIES.keys() - {door}
    assert not _without(library, f"import watchword.{other}")


@pytest.mark.slow
def test_testing_needs_only_the_client_that_is_tested() -> None:
    """Where the other client is missing, what needs it says what to type, and the rest works."""
    begin = "from watchword.testing import Agents, MemoryBus, verified_msg, verified_record\n"
    end = "\nprint(MemoryBus())"
    agent = "Agents()('agent://acme/planner')"
    for library, works, fails in (
        (
            "aiokafka",
            [f"MemoryBus().subscribe({agent}, 's')", "verified_msg(subject='s', principal='p')"],
            [f"MemoryBus().consumer({agent}, 't')", "verified_record(b'', topic='t', principal='p')"],
        ),
        (
            "nats",
            [f"MemoryBus().consumer({agent}, 't')", "verified_record(b'', topic='t', principal='p')"],
            [f"MemoryBus().subscribe({agent}, 's')", "verified_msg(subject='s', principal='p')"],
        ),
    ):
        assert not _without(library, begin + "\n".join(works) + end)
        for line in fails:
            assert _without(library, begin + line).endswith(f"pip install 'watchword[{library.removeprefix('aio')}]'")
    assert _without("pytest", begin).endswith("pytest is not installed: pip install 'watchword[testing]'")


def test_telemetry_needs_an_extra_too() -> None:
    """The door to OpenTelemetry says what to type, and no other door needs it."""
    said = _without("opentelemetry", "import watchword.telemetry")
    assert said == "ModuleNotFoundError: opentelemetry is not installed: pip install 'watchword[telemetry]'"
    assert not _without("opentelemetry", "import watchword.kafka, watchword.nats")


def test_faststream_has_an_extra_of_its_own() -> None:
    """It brings both clients; the clients' own doors open without it."""
    said = _without("faststream", "import watchword.faststream")
    assert said == "ModuleNotFoundError: faststream is not installed: pip install 'watchword[faststream]'"
    assert not _without("faststream", "import watchword.kafka, watchword.nats")


def test_what_no_extra_brings_is_told_as_it_is() -> None:
    """Any other module that is missing is not taken for the client."""
    assert "aiokafka" not in _without("watchword.quarantine_copy", "import watchword.kafka")


def test_a_missing_store_is_told_by_what_to_type(tmp_path: Path) -> None:
    """Settings that name Redis where its extra is not installed are one line, too."""
    (tmp_path / "watchword.toml").write_text('realm = "prod"\n[policy]\nmode = "observe"\n[replay]\nstore = "redis"\n')
    said = _without("redis", f"import watchword; watchword.load({str(tmp_path / 'watchword.toml')!r})")
    assert said.endswith("replay.store = \"redis\": redis is not installed: pip install 'watchword[redis]'")


@pytest.mark.slow
def test_the_core_needs_no_client() -> None:
    """Without any client, and without what the command line needs, the core is imported and load works."""
    for library in ("aiokafka", "nats", "redis", "rich", "typer", "cbor2", "httpx", "rfc8785"):
        assert not _without(library, "import watchword; watchword.load, watchword.Watchword(realm='prod')")
