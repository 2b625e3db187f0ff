"""The fixtures, as a project of someone else's uses them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("children_not_traced")]

PLAIN = """
def test_without_fixtures(request):
    assert "watchword" not in str([plugin for plugin, _ in request.config.pluginmanager.list_name_plugin()])
"""

CONFTEST = """
from watchword.testing import verified_msg  # before the plug-in is named, as it may well stand there

pytest_plugins = ["watchword.testing"]
"""

PROJECT = """
from watchword.testing import Agents, Attacker, MemoryBus, contracts, verified_msg


async def test_the_fixtures(memory_bus: MemoryBus, watchword_agent: Agents, attacker: Attacker) -> None:
    planner, cloud = (watchword_agent(name) for name in ("agent://acme/planner", "agent://acme/cloud"))
    tasks = memory_bus.consumer(cloud, "tasks")
    attacker.replay(await memory_bus.producer(planner).send("tasks", b"scale up"))
    assert [record.value for record in await tasks.take()] == [b"scale up"]
    assert [str(verdict.reason) for verdict in tasks.dropped] == ["replayed"]
    memory_bus.clock.advance(3600)
    await memory_bus.producer(planner).send("tasks", b"scale down")
    assert [record.verified.principal for record in await tasks.take()] == ["agent://acme/planner"]


class Nobody:
    async def find(self, principal, key_id):
        return [principal]


class TestMine(contracts.KeySourceContract):
    async def make_source(self, keys):
        return Nobody()
"""


ROOT = Path(__file__).parents[3]


def snippets(page: str) -> list[str]:
    """Return the programs on a page that use what is for tests."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return [block for block in blocks if "watchword.testing" in block]


def run(project: Path, **files: str) -> str:
    """Run pytest in a project of these files, and return what it says."""
    for name, text in files.items():
        (project / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-rfEp", "-p", "no:cacheprovider", "-W", "error"]
    options = ["-p", "no:valkey", "-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
    done = subprocess.run([*command, *options], cwd=project, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    return done.stdout + done.stderr


def test_nothing_is_loaded_where_nobody_asks(tmp_path: Path) -> None:
    """A project that has Watchword installed and names no plug-in of ours gets none."""
    assert "1 passed" in run(tmp_path, test_plain=PLAIN)


def test_fixtures_and_contracts_work_in_another_project(tmp_path: Path) -> None:
    """With warnings as errors; and a contract that is not kept shows what was compared."""
    said = run(tmp_path, conftest=CONFTEST, test_project=PROJECT)
    assert "PASSED test_project.py::test_the_fixtures" in said, said
    assert "assert ['agent://contract/alice'] == VerificationKey(principal='agent://contract/alice'" in said, said


def test_what_the_pages_show_runs(tmp_path: Path) -> None:
    """The examples of README and of the page on tests work as they stand there, in a project of their own."""
    shown = snippets("docs/testing.md")
    (plugin,) = (text for text in shown if "pytest_plugins" in text)
    tests = [text for text in shown if text is not plugin]
    (readme,) = snippets("README.md")
    files = {f"test_{number}": text for number, text in enumerate([*tests, readme])}
    said = run(tmp_path, conftest=plugin, **files)
    assert re.search(r"^\d+ passed in", said, re.MULTILINE), said
    assert "PASSED test_0.py::test_the_planner_may_scale" in said
