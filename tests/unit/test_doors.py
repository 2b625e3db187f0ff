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


@pytest.mark.parametrize("door", ["faststream", "kafka", "nats", "spi"])
def test_a_door_gives_what_it_names(door: str) -> None:
    """Every listed name is there, and the adapters' own."""
    module = import_module(f"watchword.{door}")
    assert all(hasattr(module, name) for name in module.__all__)
    if door != "spi":
        assert set(module.__all__) - {"copies", "redrive"} == set(import_module(f"watchword_adapters.{door}").__all__)


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


def test_the_core_needs_no_client() -> None:
    """Without any client, and without what the command line needs, the core is imported and load works."""
    for library in ("aiokafka", "nats", "redis", "rich", "typer", "cbor2"):
        assert not _without(library, "import watchword; watchword.load, watchword.Watchword(realm='prod')")
