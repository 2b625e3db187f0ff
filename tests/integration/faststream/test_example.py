"""The example program: what its text promises is what it prints."""

import asyncio
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[3] / "examples" / "faststream_service.py"


async def test_the_example_does_what_it_says(nats_url: str) -> None:
    """The planner is answered, the intern is not, and what the attacker sends reaches no handler."""
    program = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLE), nats_url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
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
