"""The example program: what its text promises is what it prints."""

import asyncio
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "faststream_service.py"


@pytest.mark.parametrize("own", [True, False])
async def test_the_example_does_what_it_says(nats_url: str, *, own: bool) -> None:
    """The planner is answered, the intern is not, and what the attacker sends reaches no handler; on any server."""
    given = [] if own else [nats_url]
    program = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLE), *given, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(program.communicate(), 60)
    text = output.decode()
    assert program.returncode == 0, text
    said = [line for line in text.splitlines() if line.startswith(("handler:", "planner:", "intern:", "controller:"))]
    assert said == [
        "handler: agent://acme/planner wants 3 of web",
        "planner: agent://acme/controller answered 'done'",
        "intern: nobody answered",
        "controller: delivered 1, dropped {'not_permitted': 1, 'unsigned': 1}",
    ]


async def test_without_a_server_it_ends() -> None:
    """An address where nobody answers is an error, and no wait without a word."""
    program = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLE), "nats://127.0.0.1:9", stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(program.communicate(), 60)
    assert program.returncode
    assert b"no servers available" in errors or b"Connect call failed" in errors
