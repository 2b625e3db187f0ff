"""An incident on NATS, played through: an agent is compromised, an operator contains it, and releases it again.

The operator's words are signed messages on a control log, which every process follows. The compromised agent's key
stays valid throughout, so only containment stops it. ``docs/incident.md`` covers the rest, stolen keys included.

    $ python examples/nats_incident.py nats://localhost:4222
    controller: agent://acme/planner wants 'scale to 3'
    $ watchword contain agent://acme/planner --why INC-4711
    agent://acme/planner is contained for good
    controller: dropped 'scale to 1000' as contained
    $ watchword release agent://acme/planner
    agent://acme/planner is released
    controller: agent://acme/planner wants 'scale to 4'
"""

import asyncio
import secrets
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nats

import watchword
from watchword.nats import VerifiedMsg, connect

COMMAND = str(Path(sys.executable).with_name("watchword"))
CONTROL = """
[nats]
servers = ["{servers}"]
[control]
channel = "nats://demo/{name}.control"
[[control.operators]]
principal = "agent://acme/oncall"
may = ["contain", "release"]
over = ["agent://acme/**"]
"""


async def types(directory: Path, command: str) -> str:
    """Return what a command prints that the operator types."""
    words = shlex.split(command)[1:]
    typed = await asyncio.create_subprocess_exec(COMMAND, *words, cwd=directory, stdout=subprocess.PIPE)
    printed, _ = await typed.communicate()
    if typed.returncode:
        sys.exit(f"{command} ended with code {typed.returncode}")
    return printed.decode().rstrip()


async def prepare(directory: Path, servers: str, name: str) -> None:
    """Make the operator, whose settings are ``watchword.toml``, and two agents, of which one obeys it."""
    for agent in ("oncall", "planner", "controller"):
        await types(directory, f"watchword init --realm demo --principal agent://acme/{agent}")
    for obeys in ("watchword.toml", "controller.toml"):
        with (directory / obeys).open("a") as settings:
            settings.write(CONTROL.format(servers=servers, name=name))
    await types(directory, "watchword control init")


async def main(servers: str, directory: Path) -> None:
    """Let the planner go bad, and the operator act."""
    name, handled = f"demo-{secrets.token_hex(4)}", asyncio.Queue[VerifiedMsg]()
    await prepare(directory, servers, name)
    controlled = watchword.load(directory / "controller.toml")
    async with (
        await connect(servers, watchword=controlled) as controller,
        await connect(servers, watchword=watchword.load(directory / "planner.toml")) as planner,
        await nats.connect(servers) as server,
    ):
        await controller.subscribe(name, cb=handled.put)
        await controller.ready()
        await planner.publish(name, b"scale to 3")
        async with asyncio.timeout(30):
            task = await handled.get()
        print(f"controller: {task.verified.principal} wants {task.data.decode()!r}")

        print("$ watchword contain agent://acme/planner --why INC-4711")
        print(await types(directory, "watchword contain agent://acme/planner --why INC-4711"))
        async with asyncio.timeout(30):
            while not controlled.audit.counts["contained"]:
                await planner.publish(name, b"scale to 1000")
                await asyncio.sleep(0.05)
        print("controller: dropped 'scale to 1000' as contained")
        while not handled.empty():  # what came before the operator's word did
            handled.get_nowait()

        print("$ watchword release agent://acme/planner")
        print(await types(directory, "watchword release agent://acme/planner"))
        async with asyncio.timeout(30):
            while not handled.qsize():
                await planner.publish(name, b"scale to 4")
                await asyncio.sleep(0.05)
        task = await handled.get()
        print(f"controller: {task.verified.principal} wants {task.data.decode()!r}")
        log = await server.jetstream().find_stream_name_by_subject(f"{name}.control")
        await server.jetstream().delete_stream(log)  # of this run only; the controller says that it is gone


if __name__ == "__main__":
    with TemporaryDirectory() as made:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "nats://localhost:4222", Path(made)))
