"""Request and reply on NATS, between agents who know each other; an attacker answers first, and asks again.

The request is addressed to one agent, and only that agent's answer is taken. What the attacker invents, or copies word
for word with its signature, reaches nobody. Keys are made here; a process of your own has ``watchword.load()``.

    $ python examples/nats_request_reply.py nats://localhost:4222
    controller: agent://acme/planner wants 3 of web
    planner: agent://acme/controller answered 'done'
    planner: dropped 1 unsigned answer
    controller: delivered 1, unsigned 1, replayed 1
"""

import asyncio
import sys

import nats
from nats.aio.msg import Msg

from watchword import Allow, Policy, SigningKey, Watchword
from watchword.nats import VerifiedMsg, connect

PLANNER, CONTROLLER = "agent://acme/planner", "agent://acme/controller"
KEYS = {name: SigningKey.generate() for name in (PLANNER, CONTROLLER)}
PUBLIC = [key.verification_key(name) for name, key in KEYS.items()]


def agent(principal: str, *allow: Allow) -> Watchword:
    """Return what an agent plugs into its client; ``allow`` says whom it lets speak where."""
    return Watchword(realm="demo", principal=principal, key=KEYS[principal], keys=PUBLIC, policy=Policy(allow=allow))


async def main(servers: str) -> None:
    """Let both agents and the attacker talk."""
    asking, answering = agent(PLANNER), agent(CONTROLLER, Allow(PLANNER, ("nats://demo/cloud.>",)))
    captured = asyncio.Queue[Msg]()
    lied = asyncio.Event()

    async def scale(msg: VerifiedMsg) -> None:
        print(f"controller: {msg.verified.principal} wants {msg.data.decode()}")
        await lied.wait()
        await msg.respond(b"done")

    async with (
        await connect(servers, watchword=answering) as controller,
        await connect(servers, watchword=asking) as planner,
        await nats.connect(servers) as attacker,
    ):
        await attacker.subscribe("cloud.>", cb=captured.put)
        await attacker.flush()
        await controller.subscribe("cloud.scale", cb=scale)
        await controller.ready()  # until then what comes might be a copy of what an earlier run was given

        asked = asyncio.create_task(planner.request("cloud.scale", b"3 of web", timeout=30, recipient=CONTROLLER))
        copy = await captured.get()
        await attacker.publish(copy.reply, b"refused")
        async with asyncio.timeout(30):
            while not asking.audit.counts["unsigned"]:  # noqa: ASYNC110 - no one is notified of drops
                await asyncio.sleep(0.01)
        lied.set()
        answer = await asked
        print(f"planner: {answer.verified.principal} answered {answer.data.decode()!r}")
        print(f"planner: dropped {asking.audit.counts['unsigned']} unsigned answer")

        await attacker.publish("cloud.scale", b"1000 of web")
        await attacker.publish("cloud.scale", copy.data, reply=copy.reply, headers=copy.headers)
        await attacker.flush()
        counts = answering.audit.counts
        async with asyncio.timeout(30):
            while not (counts["replayed"] and counts["unsigned"]):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
        told = ", ".join(f"{reason} {counts[reason]}" for reason in ("delivered", "unsigned", "replayed"))
        print(f"controller: {told}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "nats://localhost:4222"))
