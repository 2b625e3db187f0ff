"""A FastStream service on NATS that knows who asks it.

A planner asks, an intern who has a key but no right asks, and an attacker who has neither sends what it likes. The
handler meets the planner's task alone. Keys are made here; a process of your own has ``watchword.load()``.

    $ python examples/faststream_service.py nats://localhost:4222
    handler: agent://acme/planner wants 3 of web
    planner: agent://acme/controller answered 'done'
    intern: nobody answered
    controller: delivered 1, dropped {'not_permitted': 1, 'unsigned': 1}
"""

import asyncio
import sys

import nats
from nats.errors import TimeoutError as NoAnswer
from pydantic import BaseModel

from watchword import Allow, Policy, SigningKey, Watchword
from watchword.faststream import NatsBroker, Principal, verified_of

CONTROLLER, PLANNER, INTERN = "agent://acme/controller", "agent://acme/planner", "agent://acme/intern"
KEYS = {name: SigningKey.generate() for name in (CONTROLLER, PLANNER, INTERN)}
PUBLIC = [key.verification_key(name) for name, key in KEYS.items()]


class Task(BaseModel):
    """What to do."""

    service: str
    replicas: int


def broker(url: str, principal: str, *allow: Allow) -> NatsBroker:
    """Return a broker for one agent: FastStream's, and who it is."""
    agent = Watchword(realm="demo", principal=principal, key=KEYS[principal], keys=PUBLIC, policy=Policy(allow=allow))
    # Without a server this program is to end; a service of your own would rather wait for one.
    return NatsBroker(url, watchword=agent, logger=None, max_reconnect_attempts=1)


async def main(url: str) -> None:
    """Run the service, and its clients."""
    controller = broker(url, CONTROLLER, Allow(PLANNER, ("nats://demo/scale",)))
    planner, intern = broker(url, PLANNER), broker(url, INTERN)

    @controller.subscriber("scale")
    async def scale(task: Task, who: Principal) -> str:
        print(f"handler: {who} wants {task.replicas} of {task.service}")
        return "done"

    async with controller, planner, intern:
        await controller.start()
        await controller.ready()  # until then what comes might be a copy of what an earlier run was given
        answer = await planner.request(Task(service="web", replicas=3), "scale", timeout=30)
        answered = verified_of(answer)
        print(f"planner: {answered and answered.principal} answered {await answer.decode()!r}")
        try:
            await intern.request(Task(service="web", replicas=300), "scale", timeout=0.5)
        except NoAnswer:
            print("intern: nobody answered")
        async with await nats.connect(url) as attacker:
            await attacker.publish("scale", Task(service="web", replicas=0).model_dump_json().encode())
            await attacker.flush()
        counts = controller.watchword.audit.counts
        async with asyncio.timeout(30):
            while not counts["unsigned"]:  # noqa: ASYNC110 - no one is notified of drops
                await asyncio.sleep(0.01)
        dropped = {reason: counts[reason] for reason in ("not_permitted", "unsigned")}
        print(f"controller: delivered {counts['delivered']}, dropped {dropped}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "nats://localhost:4222"))
