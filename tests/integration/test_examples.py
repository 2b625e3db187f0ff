"""The programs under ``examples`` print what their first docstring says, each in a process of its own."""

import ast
import re
import shlex
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from shutil import copy
from typing import NamedTuple, Self

import pytest

pytestmark = pytest.mark.usefixtures("children_not_traced")

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PROGRAMS = sorted(EXAMPLES.rglob("*.py"))
ELSEWHERE = [path for path in PROGRAMS if path.with_name("requirements.txt").exists()]
"""Those that need other packages than ours."""

HERE = [path for path in PROGRAMS if path not in ELSEWHERE]
BROKERS = {"nats://localhost:4222": "nats_url", "localhost:9092": "kafka_bootstrap"}


def _name(program: Path) -> str:
    return program.relative_to(EXAMPLES).as_posix()


class Shown(NamedTuple):
    """What a program's docstring shows: the command, and what it prints; three dots stand for anything."""

    command: list[str]
    printed: str

    @classmethod
    def by(cls, program: Path) -> Self:
        """Read it."""
        text = ast.get_docstring(ast.parse(program.read_text()), clean=False) or ""
        _, found, block = text.partition("\n    $ ")
        assert found, f"{program} shows no command"
        command, *printed = block.splitlines()
        lines = [f"{line[4:]}\n" for line in takewhile(lambda line: line.startswith("    "), printed)]
        return cls(shlex.split(command), "".join(lines))

    @property
    def brokers(self) -> list[str]:
        """Return the addresses that it names."""
        return [word for word in self.command if word in BROKERS]

    def holds(self, request: pytest.FixtureRequest, *interpreter: str) -> None:
        """Type the command, with this run's brokers in place of those it names, and see that it prints just that."""
        python, *words = [request.getfixturevalue(BROKERS[word]) if word in BROKERS else word for word in self.command]
        assert (python, self.printed > "") == ("python", True)
        command = [*interpreter, *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)  # noqa: S603 - our own
        assert done.returncode == 0, done.stdout + done.stderr
        pattern = re.escape(self.printed).replace(re.escape("..."), ".*")
        assert re.fullmatch(pattern, done.stdout, re.DOTALL), f"{done.stdout}\nand not:\n{self.printed}"


@pytest.mark.parametrize("program", HERE, ids=_name)
def test_an_example_prints_what_it_says(program: Path, request: pytest.FixtureRequest) -> None:
    """What a newcomer reads at the top is what comes out, the attacks that are dropped included."""
    Shown.by(program).holds(request, sys.executable, "-W", "error")


@pytest.mark.needs_index
@pytest.mark.parametrize("program", ELSEWHERE, ids=_name)
def test_an_example_with_packages_of_its_own(program: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """So it is in an environment that has what the folder's requirements name, and this checkout."""
    uv, environment, wanted = str(Path(sys.executable).with_name("uv")), str(tmp_path / "venv"), tmp_path / "wanted.txt"
    python = str(tmp_path / "venv" / "bin" / "python")
    requirements = program.with_name("requirements.txt").read_text()
    wanted.write_text(requirements.replace("watchword[faststream]", f"watchword[faststream] @ {ROOT.as_uri()}"))
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, environment],
        [uv, "pip", "install", "--quiet", "--python", python, "-r", str(wanted)],
    ):
        subprocess.run(command, check=True, timeout=600)  # noqa: S603 - our own
    Shown.by(program).holds(request, python)


@pytest.mark.parametrize("program", PROGRAMS, ids=_name)
def test_an_example_is_told_as_it_is(program: Path) -> None:
    """The command is its own, the broker that it names is the default, and the page lists it."""
    shown, name = Shown.by(program), _name(program)
    assert f"examples/{name}" in shown.command
    assert shown.brokers == [address for address in BROKERS if f'else "{address}"' in program.read_text()]
    assert f"| [`{name}`](../examples/{name}) |" in (ROOT / "docs" / "examples.md").read_text()


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_a_handler_without_a_broker(tmp_path: Path, mode: str) -> None:
    """What the page on tests shows passes as it stands, whatever pytest's settings say of coroutines."""
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nasyncio_mode = {mode}\n")
    copied = copy(EXAMPLES / "test_a_handler.py", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(copied)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603 - our own
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_there_are_examples() -> None:
    """A pattern that finds none would let all of them be wrong."""
    assert len(HERE) >= 10
    assert len(ELSEWHERE) >= 1


def test_a_service_without_a_server_ends() -> None:
    """An address where nobody answers is an error, and no wait without a word."""
    command = [sys.executable, str(EXAMPLES / "faststream_service.py"), "nats://127.0.0.1:9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603 - our own
    assert done.returncode
    assert "no servers available" in done.stderr or "Connect call failed" in done.stderr
