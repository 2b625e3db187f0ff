"""A queue group on NATS whose members share a replay store: each task is done once, whichever member gets a copy of it.

A copy may reach a member that has not seen the original, so the members keep used ids in one place, here a SQLite file.
Without such a store the group does not start.

    $ python examples/nats_queue_group.py nats://localhost:4222
    refused without a store: queue group workers shares the work: a replay to another member would go undetected; ...
    20 of 20 tasks done, 0 twice
    20 copies arrived, 20 were dropped as replayed
"""

import asyncio
import secrets
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nats

import watchword
from watchword import ConfigurationError
from watchword.nats import VerifiedMsg, connect

TASKS = 20
COMMAND = str(Path(sys.executable).with_name("watchword"))
STORE = """
[replay]
store = "sqlite"
path = "ids.db"
max_lag = "1m"
"""


def prepare(directory: Path, subject: str) -> None:
    """Make two agents, and a store for one of them that knows its queue group."""

    def watchword_command(*arguments: str) -> None:
        subprocess.run([COMMAND, *arguments], cwd=directory, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - ours

    for name in ("planner", "worker"):
        watchword_command("init", "--realm", "demo", "--principal", f"agent://acme/{name}")
    alone = (directory / "worker.toml").read_text()
    (directory / "group.toml").write_text(alone[: alone.index("[replay]")] + STORE)
    watchword_command("store", "init", f"queue:workers:{subject}", "--config", "group.toml")


async def main(servers: str, directory: Path, subject: str) -> None:
    """Let two workers share the tasks, and an attacker repeat each one."""
    done = list[bytes]()
    members = [watchword.load(directory / "group.toml") for _ in range(2)]

    async def work(msg: VerifiedMsg) -> None:
        done.append(msg.data)

    async with (
        await connect(servers, watchword=members[0]) as one,
        await connect(servers, watchword=members[1]) as two,
        await connect(servers, watchword=watchword.load(directory / "worker.toml")) as lonely,
        await connect(servers, watchword=watchword.load(directory / "watchword.toml")) as planner,
        await nats.connect(servers) as attacker,
    ):
        try:
            await lonely.subscribe(subject, queue="workers", cb=work)
        except ConfigurationError as error:
            print(f"refused without a store: {error}")

        captured = await attacker.subscribe(subject)
        await attacker.flush()
        for member in (one, two):
            await member.subscribe(subject, queue="workers", cb=work)
            await member.ready()
        for number in range(TASKS):
            await planner.publish(subject, b"task %d" % number)
        await planner.flush()
        for _ in range(TASKS):
            copy = await captured.next_msg(timeout=30)
            await attacker.publish(subject, copy.data, headers=copy.headers)
        async with asyncio.timeout(30):
            while len(done) + sum(member.audit.counts["replayed"] for member in members) < 2 * TASKS:  # noqa: ASYNC110 - no one is notified of drops
                await asyncio.sleep(0.01)
    print(f"{len(set(done))} of {TASKS} tasks done, {len(done) - len(set(done))} twice")
    dropped = sum(member.audit.counts["replayed"] for member in members)
    print(f"{TASKS} copies arrived, {dropped} were dropped as replayed")


if __name__ == "__main__":
    tasks = f"tasks.{secrets.token_hex(4)}"
    with TemporaryDirectory() as made:
        prepare(Path(made), tasks)
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "nats://localhost:4222", Path(made), tasks))
