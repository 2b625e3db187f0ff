"""A first signed message on NATS: one agent signs, another verifies, and an unsigned message is dropped."""

import asyncio
import sys

import nats

import watchword
from watchword.brokers import nats_server
from watchword.nats import VerifiedMsg, connect


async def main(servers: str) -> None:
    arrived = asyncio.Event()

    async def handle(msg: VerifiedMsg) -> None:  # receives verified messages only
        print(f"verified: {msg.verified.principal} wrote {msg.data.decode()!r} on {msg.subject}")
        arrived.set()

    # Usually another process, on another machine. It has public keys only.
    reader = await connect(servers, watchword=watchword.load("reader.toml"))
    await reader.subscribe("first.tasks", cb=handle)
    await reader.flush()

    # Anyone with publish rights, using any NATS client. Its message never reaches handle().
    stranger = await nats.connect(servers)
    await stranger.publish("first.tasks", b"start 1000 instances")
    await stranger.close()

    # The agent of watchword.toml, with its private key.
    agent = await connect(servers, watchword=watchword.load("watchword.toml"))
    await agent.publish("first.tasks", b"start 1 instance")
    await agent.flush()

    async with asyncio.timeout(10):
        await arrived.wait()
    await agent.close()
    await reader.close()


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit("this program takes no arguments: for your own server, watchword init --bus nats --servers ADDRESS")
    with nats_server() as servers:  # a server for this run only
        asyncio.run(main(servers))
