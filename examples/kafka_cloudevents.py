"""CloudEvents on Kafka, in binary mode: the attributes are headers, and all of them are signed with the data.

In binary mode what an event *is* stands in headers such as ``ce_type``, so a signature over the value alone would let
anyone turn one event into another. Keys are made here; a process of your own has ``watchword.load()``.

    $ python examples/kafka_cloudevents.py localhost:9092
    com.acme.instance.planned 1 from agent://acme/planner: {'instances': 3}
    com.acme.instance.planned 2 from agent://acme/planner: {'instances': 4}
    delivered 2, dropped 1 altered
"""

import asyncio
import secrets
import sys
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, to_binary_event
from cloudevents.core.v1.event import CloudEvent

from watchword import SigningKey, Watchword
from watchword.kafka import SigningProducer, VerifyingConsumer

PLANNER, CLOUD = "agent://acme/planner", "agent://acme/cloud"
KEY = SigningKey.generate()


def planned(number: int, instances: int) -> KafkaMessage:
    """Return the event that so many instances are planned, for Kafka."""
    attributes = {"id": str(number), "source": PLANNER, "type": "com.acme.instance.planned"}
    attributes["datacontenttype"] = "application/json"
    return to_binary_event(CloudEvent(attributes, {"instances": instances}))


def event_of(value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> BaseCloudEvent:
    """Return the event that a verified record is; only signed headers are among its headers."""
    return from_binary_event(KafkaMessage(headers=dict(headers), key=None, value=value or b""))


async def main(brokers: str) -> None:
    """Send two events, and between them the first one again as an event of another type."""
    topic = f"events-{secrets.token_hex(4)}"
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    await admin.close()
    reading = Watchword(realm="demo", principal=CLOUD, keys=[KEY.verification_key(PLANNER)])
    writing = Watchword(realm="demo", principal=PLANNER, key=KEY)
    async with (
        SigningProducer(bootstrap_servers=brokers, watchword=writing) as planner,
        AIOKafkaConsumer(topic, bootstrap_servers=brokers, auto_offset_reset="earliest") as spy,
        AIOKafkaProducer(bootstrap_servers=brokers) as attacker,
        VerifyingConsumer(topic, bootstrap_servers=brokers, auto_offset_reset="earliest", watchword=reading) as cloud,
    ):

        async def send(event: KafkaMessage) -> None:
            await planner.send_and_wait(topic, event.value, headers=list(event.headers.items()))

        await send(planned(1, 3))
        copy = await spy.getone()
        swapped = [(name, value.replace(b"planned", b"deleted")) for name, value in copy.headers]
        await attacker.send_and_wait(topic, copy.value, headers=swapped)
        await send(planned(2, 4))
        for _ in range(2):
            record = await cloud.getone()
            event = event_of(record.value, record.headers)
            print(f"{event.get_type()} {event.get_id()} from {record.verified.principal}: {event.get_data()!r}")
    print(f"delivered {reading.audit.counts['delivered']}, dropped {reading.audit.counts['altered']} altered")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "localhost:9092"))
