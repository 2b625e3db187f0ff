"""A first signed message on Kafka: one agent signs, another verifies, and an unsigned message is dropped."""

import asyncio
import sys

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

import watchword
from watchword.brokers import kafka_broker
from watchword.kafka import SigningProducer, VerifyingConsumer

TOPIC = "first.tasks"


async def main(servers: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, num_partitions=1, replication_factor=1)])
    await admin.close()

    # Anyone with write access, using any Kafka client. Its message never reaches the loop below.
    async with AIOKafkaProducer(bootstrap_servers=servers) as stranger:
        await stranger.send_and_wait(TOPIC, b"start 1000 instances")

    # The agent of watchword.toml, with its private key.
    agent = watchword.load("watchword.toml")
    async with SigningProducer(bootstrap_servers=servers, watchword=agent) as producer:
        await producer.send_and_wait(TOPIC, b"start 1 instance")

    # Usually another process, on another machine. It has public keys only.
    reader = watchword.load("reader.toml")
    async with VerifyingConsumer(
        TOPIC, bootstrap_servers=servers, auto_offset_reset="earliest", watchword=reader
    ) as consumer:
        async for record in consumer:  # verified messages only
            if record.verified:
                print(f"verified: {record.verified.principal} wrote {record.value.decode()!r} on {record.topic}")
            break


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit("this program takes no arguments: for your own broker, watchword init --bus kafka --servers ADDRESS")
    with kafka_broker() as servers:  # a broker for this run only
        asyncio.run(main(servers))
