"""EggAI agents on Kafka, on signed messages.

EggAI's Kafka transport takes a FastStream broker, so ours takes its place and nothing else changes. A planner orders,
an attacker who can write to the topic orders as well, and the agent that ships meets the planner's order alone.

    $ python examples/eggai/agents.py localhost:9092
    shipper: agent://acme/planner wants tea for alice
    shipper: delivered 1, dropped {'unsigned': 1}
"""

import asyncio
import secrets
import sys

from aiokafka import AIOKafkaProducer
from eggai import Agent, Channel, KafkaTransport

from watchword import SigningKey, Watchword
from watchword.faststream import KafkaBroker, verified_of

PLANNER, SHIPPER = "agent://acme/planner", "agent://acme/shipper"
KEYS = {name: SigningKey.generate() for name in (PLANNER, SHIPPER)}
PUBLIC = [key.verification_key(name) for name, key in KEYS.items()]


def transport(bootstrap: str, principal: str) -> KafkaTransport:
    """Return EggAI's transport for one agent, over a broker that signs and verifies as this agent."""
    agent = Watchword(realm="demo", principal=principal, key=KEYS[principal], keys=PUBLIC)
    return KafkaTransport(broker=KafkaBroker(bootstrap, watchword=agent, logger=None), bootstrap_servers=bootstrap)


async def main(bootstrap: str) -> None:
    """Run the agent that ships, a planner, and an attacker."""
    shipping, planning = transport(bootstrap, SHIPPER), transport(bootstrap, PLANNER)
    name = f"orders-{secrets.token_hex(4)}"
    shipper, orders = Agent("shipper", transport=shipping), Channel(name, transport=planning)
    shipped = asyncio.Queue[str]()

    @shipper.subscribe(Channel(name, transport=shipping), auto_offset_reset="earliest")
    async def ship(order: dict[str, str]) -> None:
        verified = verified_of(shipping.broker.context.get_local("message"))
        print(f"shipper: {verified and verified.principal} wants {order['what']} for {order['whom']}")
        await shipped.put(order["what"])

    await orders.ensure_exists()
    await shipper.start()
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as attacker:
        await attacker.send_and_wait(orders.get_name(), b'{"what": "gold", "whom": "mallory"}', partition=0)
    await orders.publish({"what": "tea", "whom": "alice"})
    async with asyncio.timeout(30):
        await shipped.get()
    counts = shipping.broker.watchword.audit.counts
    async with asyncio.timeout(30):
        while not counts["unsigned"]:  # noqa: ASYNC110 - no one is notified of drops
            await asyncio.sleep(0.01)
    print(f"shipper: delivered {counts['delivered']}, dropped {{'unsigned': {counts['unsigned']}}}")
    await orders.stop()
    await shipper.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "localhost:9092"))
