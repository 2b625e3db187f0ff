"""Rolling out on NATS: observe first, see who does not sign yet, then enforce by an edit of the settings.

While a reader observes, everything is delivered and judged, and the counts name what enforcing would drop. The settings
file is followed, so the reader that enforces is the same one, with the same handler and subscription.

    $ python examples/nats_observe_to_enforce.py nats://localhost:4222
    observe: 'scale web' from agent://acme/planner
    observe: 'scale db' from someone who does not sign
    observe: delivered 1, enforcing would have dropped 1 unsigned
    enforce: 'scale cache' from agent://acme/planner
    enforce: delivered 2, dropped 1 unsigned
"""

import asyncio
import secrets
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nats

import watchword
from watchword.nats import DeliveredMsg, connect

COMMAND = str(Path(sys.executable).with_name("watchword"))
OBSERVE = """
[policy]
mode = "observe"
"""


def prepare(directory: Path) -> None:
    """Make two agents, one of which observes."""
    for name in ("planner", "controller"):
        init = [COMMAND, "init", "--realm", "demo", "--principal", f"agent://acme/{name}"]
        subprocess.run(init, cwd=directory, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - ours
    with (directory / "controller.toml").open("a") as settings:
        settings.write(OBSERVE)


async def main(servers: str, directory: Path) -> None:
    """Let an agent that signs and one that does not yet speak to a reader in both modes."""
    subject, handled = f"tasks.{secrets.token_hex(4)}", asyncio.Queue[DeliveredMsg]()
    settings = directory / "controller.toml"
    agent = watchword.load(settings)
    counts = agent.audit.counts
    async with (
        await connect(servers, watchword=agent) as reader,
        await connect(servers, watchword=watchword.load(directory / "watchword.toml")) as planner,
        await nats.connect(servers) as legacy,
    ):

        async def next_one(mode: str) -> None:
            async with asyncio.timeout(30):
                msg = await handled.get()
            author = msg.verified.principal if msg.verified else "someone who does not sign"
            print(f"{mode}: {msg.data.decode()!r} from {author}")

        await reader.subscribe(subject, cb=handled.put)
        await reader.ready()
        await planner.publish(subject, b"scale web")
        await next_one("observe")
        await legacy.publish(subject, b"scale db")
        await next_one("observe")
        print(f"observe: delivered {counts['delivered']}, enforcing would have dropped {counts['unsigned']} unsigned")

        settings.write_text(settings.read_text().replace("observe", "enforce"))
        agent.reload()  # or wait five seconds
        before = counts["unsigned"]
        await legacy.publish(subject, b"scale to 1000")
        async with asyncio.timeout(30):
            while counts["unsigned"] == before:  # noqa: ASYNC110 - no one is notified of drops
                await asyncio.sleep(0.01)
        await planner.publish(subject, b"scale cache")
        await next_one("enforce")
        print(f"enforce: delivered {counts['delivered']}, dropped {counts['unsigned'] - before} unsigned")


if __name__ == "__main__":
    with TemporaryDirectory() as made:
        prepare(Path(made))
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "nats://localhost:4222", Path(made)))
