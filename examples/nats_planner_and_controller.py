"""A planner asks, a controller answers: ``python examples/nats_planner_and_controller.py [nats://localhost:4222]``.

Request and reply, a task that is addressed to one agent, and an attacker who reads along and sends again what it has
read. Keys are made here; a process of your own has ``watchword.load()``.
"""

import asyncio
import sys

import nats
from nats.aio.msg import Msg

from watchword import Allow, Policy, SigningKey, Watchword
from watchword.brokers import nats_server
from watchword.nats import VerifiedMsg, connect

PLANNER, CONTROLLER = "agent://acme/planner", "agent://acme/controller"
KEYS = {name: SigningKey.generate() for name in (PLANNER, CONTROLLER)}
PUBLIC = [key.verification_key(name) for name, key in KEYS.items()]


def agent(principal: str, *allow: Allow) -> Watchword:
    """Return what an agent plugs into its client; ``allow`` says whom it lets speak where."""
    policy = Policy(allow=allow, max_skew=1.0)  # one machine, one clock
    return Watchword(realm="demo", principal=principal, key=KEYS[principal], keys=PUBLIC, policy=policy)


async def main(url: str) -> None:
    """Let both agents and the attacker talk."""
    controller = agent(CONTROLLER, Allow(PLANNER, ("nats://demo/cloud.>",)))
    captured: list[Msg] = []

    async def scale(msg: VerifiedMsg) -> None:
        print(f"controller: {msg.verified.principal} wants {msg.data.decode()}")
        await msg.respond(b"done")

    async def capture(msg: Msg) -> None:
        captured.append(msg)

    async with (
        await connect(url, watchword=controller) as cloud,
        await connect(url, watchword=agent(PLANNER)) as planner,
        await nats.connect(url) as attacker,
    ):
        await attacker.subscribe("cloud.>", cb=capture)
        await attacker.flush()
        await cloud.subscribe("cloud.scale", cb=scale)
        await cloud.ready()  # until then what comes might be a copy of what an earlier run was given

        answer = await planner.request("cloud.scale", b"3 of web", timeout=5, recipient=CONTROLLER)
        print(f"planner: {answer.verified.principal} answered {answer.data.decode()!r}")

        await attacker.publish("cloud.scale", b"1000 of web")
        for msg in captured:  # word for word, signature and all
            await attacker.publish("cloud.scale", msg.data, reply=msg.reply, headers=msg.headers)
        await attacker.flush()
        counts = controller.audit.counts
        async with asyncio.timeout(5):
            while not (counts["replayed"] and counts["unsigned"]):  # noqa: ASYNC110 - nobody is told of what is dropped
                await asyncio.sleep(0.01)
        told = ", ".join(f"{reason} {counts[reason]}" for reason in ("delivered", "unsigned", "replayed"))
        print(f"controller: {told}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(sys.argv[1]))
    else:
        with nats_server() as servers:  # a server for this run only
            asyncio.run(main(servers))
