"""The plug-in of ``docs/plugins.md`` is short, is registered as the page says, and keeps the contract."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.pages import File, files_on, shown_on
from watchword import SigningKey

PROGRAM = """
import asyncio, watchword
from watchword.spi import Channel, Message

async def main():
    agent = watchword.load("watchword.toml")
    for name in ("planner", "stranger"):
        print(getattr(await agent.verifier.keys.find(f"agent://acme/{name}", b"planner-1"), "principal", None))
    print(await agent.verifier.keys.find("agent://acme/planner", b"other"))

asyncio.run(main())
"""


@pytest.fixture
def files() -> dict[str, File]:
    """Return what the page has its reader write."""
    return {file.name: file for file in files_on("plugins.md")}


def test_the_source_is_complete_in_fifteen_lines(files: dict[str, File]) -> None:
    """Promise: imports aside, a whole key source and its factory are fifteen lines."""
    lines = [
        line for node in ast.parse(files["acme_keys.py"].text).body if not isinstance(node, ast.Import | ast.ImportFrom)
        for line in ast.unparse(node).splitlines() if line.strip()
    ]  # fmt: skip
    assert len(lines) <= 15


def test_the_source_is_used_as_the_page_says(tmp_path: Path, files: dict[str, File]) -> None:
    """Promise: with the entry point and the settings that the page shows, keys are found in the inventory."""
    public = SigningKey.generate().public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for name in ("acme_keys.py", "watchword.toml"):
        files[name].write(tmp_path, {})
    (row,) = json.loads(files["agents.json"].text)
    (tmp_path / "agents.json").write_text(json.dumps([{**row, "pem": public}]))
    installed = tmp_path / "acme_keys-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-keys\nVersion: 1\n")
    points = files["pyproject.toml"].text.replace(
        '[project.entry-points."watchword.key_sources"]', "[watchword.key_sources]"
    )
    (installed / "entry_points.txt").write_text(points.replace('"', ""))
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["agent://acme/planner", "agent://acme/planner", "None"], done.stderr


@pytest.mark.slow
def test_the_source_keeps_the_contract(tmp_path: Path, files: dict[str, File]) -> None:
    """Promise: the test on the page passes, typed as it stands there."""
    for name in ("acme_keys.py", "test_acme_keys.py"):
        files[name].write(tmp_path, {})
    (command,) = shown_on("plugins.md")
    assert command.words({})[0] == "pytest"
    options = ["-p", "no:valkey", "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function"]
    done = subprocess.run(  # noqa: S603 - ours
        [sys.executable, "-m", *command.words({}), *options],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
