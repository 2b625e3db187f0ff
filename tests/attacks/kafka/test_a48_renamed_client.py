"""A48: an aiokafka whose inner names have changed stops the start, or changes nothing; it never opens a door.

Each run gets a copy of the installed client in which one private name is another one everywhere: it works as before.
"""

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import aiokafka
import pytest

from tests.integration.kafka.world import PLANNER, Captured, World
from tests.support.patience import PATIENCE
from watchword.jwk import to_jwk

ROOT = Path(__file__).parents[3]
READER = Path(__file__).with_name("renamed_reader.py")

# What a wrapper of this client may set, call or read, and what goes wrong if it does so by a name that is gone.
NAMES = {
    "_enable_auto_commit": "the client commits by itself, ahead of what was judged",
    "_last_fetch_ended": "a member that reads steadily is taken for silent and thrown out",
    "_fetch_count": "as above",
    "_value_deserializer": "a deserializer sees what nobody has verified",
    "_listener": "nothing is committed at a revocation",
    "_subscription": "assignments go unnoticed",
    "_fetcher": "what is fetched is handed out below",
    "fetched_records": "as above",
    "_client": "what is fetched is not looked at",
    "_closed": "callers of a stopped consumer get no error",
}
HONEST = [f"{number}" for number in range(36)]


def renamed(directory: Path, name: str) -> Path:
    """Copy the installed aiokafka with one name changed wherever it stands; return the folder to import it from."""
    installed = Path(aiokafka.__file__).parent
    copy = directory / "aiokafka"
    shutil.copytree(installed, copy, ignore=shutil.ignore_patterns("__pycache__", "*.pyx", "*.c"))
    word = re.compile(rf"\b{name}\b")
    for module in copy.rglob("*.py"):
        text = module.read_text()
        if word.search(text):
            module.write_text(word.sub(f"{name}_since_renamed", text))
    return directory


async def outcome(world: World, folder: Path | None) -> dict[str, Any]:
    """Let a reader of that client loose on a log with a forged message in it; return what it says of itself."""
    topic, group = await world.make_topic(), world.unique("group")
    async with world.producer() as producer:
        await producer.send_and_wait(topic, HONEST[0].encode(), partition=0)
        await world.inject(topic, [Captured(value=b"forged")])
        for value in [*HONEST[1:], "end"]:
            await producer.send(topic, value.encode(), partition=0)
    jwks = json.dumps({"keys": [to_jwk(world.signing[PLANNER].verification_key(PLANNER))]})
    path = [str(folder)] if folder else []
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*path, str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(READER), world.bootstrap, topic, group, jwks,
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    last = (out.decode().strip().splitlines() or [""])[-1]
    assert last.startswith("{"), err.decode()[-1_500:]
    told: dict[str, Any] = json.loads(last)
    return told


def is_well(told: dict[str, Any]) -> bool:
    """Look at all that a reader says of itself."""
    return told == {
        "version": aiokafka.__version__,
        "committed_while_handling": 0,
        "values": [*HONEST, "end"],
        "unverified": 0,
        "deserialized_forged": False,
        "revoked": 0,
    }


async def test_a48_the_client_as_it_is(world: World) -> None:
    """The measure: on the installed client the reader starts, and all is well."""
    told = await outcome(world, None)
    assert is_well(told), told


@pytest.mark.parametrize("name", NAMES)
async def test_a48_a_name_that_is_gone(world: World, tmp_path: Path, name: str) -> None:
    """The start is refused with the client, its version and the name, or the name was not needed and all is well."""
    told = await outcome(world, renamed(tmp_path, name))
    if "refused" in told:
        assert all(word in told["refused"] for word in ("aiokafka", aiokafka.__version__, name)), told["refused"]
    else:
        assert is_well(told), f"{NAMES[name]}: {told}"
