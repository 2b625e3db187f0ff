"""calfkit agents on Kafka, on signed messages.

calfkit makes its FastStream broker itself, so a class of both kinds takes that one's place. A caller asks an agent,
whose model is a function here; an attacker sends a copy of the call with other words, which reaches no agent.

    $ python examples/calfkit/agents.py localhost:9092
    caller: 'about tea: no'
    host: its agent was asked about ['tea'], dropped {'altered': 1}
"""

import asyncio
import sys
from typing import Any

import calfkit.client.caller as making
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from calfkit import Agent, Client, ProvisioningConfig, Worker
from calfkit._vendor.pydantic_ai.messages import ModelResponse, TextPart
from calfkit._vendor.pydantic_ai.models.function import FunctionModel

from watchword import SigningKey, Watchword
from watchword.faststream import KafkaBroker

CALLER, HOST = "agent://acme/caller", "agent://acme/host"
KEYS = {name: SigningKey.generate() for name in (CALLER, HOST)}
PUBLIC = [key.verification_key(name) for name, key in KEYS.items()]


class Broker(KafkaBroker, making._PreStartHookBroker):  # noqa: SLF001 - see below
    """calfkit's own broker over ours: it signs and verifies, and does what calfkit needs before it starts."""


making._PreStartHookBroker = Broker  # noqa: SLF001 - calfkit 0.13 has no other way to name a broker


def connect(bootstrap: str, principal: str, inbox: str | None = None) -> Client:
    """Return calfkit's client for one agent; what is not calfkit's goes to the broker."""
    agent = Watchword(realm="demo", principal=principal, key=KEYS[principal], keys=PUBLIC)
    topics = ProvisioningConfig(enabled=True)
    return Client.connect(bootstrap, watchword=agent, provisioning=topics, inbox_topic=inbox, logger=None)


async def main(bootstrap: str) -> None:
    """Host an agent, call it, and attack it."""
    asked: list[str] = []

    def think(messages: list[Any], _: Any) -> ModelResponse:
        asked.append(str(messages[-1].parts[-1].content))
        return ModelResponse(parts=[TextPart(f"about {asked[-1]}: no")])

    host, caller = connect(bootstrap, HOST), connect(bootstrap, CALLER)
    adviser = Agent("adviser", model_client=FunctionModel(think))
    topic = f"agent.{adviser.name}.private.input"
    async with Worker(host, nodes=[adviser]), AIOKafkaConsumer(topic, bootstrap_servers=bootstrap) as spy:
        await spy.seek_to_end()
        result = await caller.agent(adviser.name).execute("tea", timeout=30)
        print(f"caller: {result.output!r}")
        async with asyncio.timeout(30):
            call = await spy.getone()
        async with AIOKafkaProducer(bootstrap_servers=bootstrap) as attacker:
            forged = call.value.replace(b"tea", b"gin")
            await attacker.send_and_wait(topic, forged, call.key, call.partition, headers=list(call.headers))
        counts = host.broker.watchword.audit.counts
        async with asyncio.timeout(30):
            while not counts["altered"]:  # noqa: ASYNC110 - no one is notified of drops
                await asyncio.sleep(0.01)
        print(f"host: its agent was asked about {asked}, dropped {{'altered': {counts['altered']}}}")
    await caller.aclose()
    await host.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "localhost:9092"))
