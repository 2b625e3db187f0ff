"""A consumer group on Kafka: two workers share a topic, and one of them stops.

Each task is handled once, whichever worker handles it. The copies that an attacker appends are handled by nobody,
neither before nor after the partitions have moved. Keys are made here; a process of your own has ``watchword.load()``.

    $ python examples/kafka_group.py localhost:9092
    40 of 40 tasks handled, 0 twice; copies were dropped: True
"""

import asyncio
import secrets
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from watchword import SigningKey, Watchword
from watchword.kafka import SigningProducer, VerifyingConsumer

PLANNER, WORKER = "agent://acme/planner", "agent://acme/worker"
KEY = SigningKey.generate()
TASKS = 20


async def make_topic(brokers: str) -> str:
    """Make a topic of two partitions."""
    topic = f"tasks-{secrets.token_hex(4)}"
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)])
    finally:
        await admin.close()
    return topic


async def send_again(brokers: str, topic: str, count: int) -> None:
    """Append a copy of each record that stands there, to the same partition."""
    async with (
        AIOKafkaConsumer(topic, bootstrap_servers=brokers, auto_offset_reset="earliest") as reader,
        AIOKafkaProducer(bootstrap_servers=brokers) as attacker,
    ):
        for _ in range(count):
            record = await reader.getone()
            await attacker.send_and_wait(topic, record.value, partition=record.partition, headers=list(record.headers))


class Worker:
    """One member of the group, which notes what it was given."""

    def __init__(self, brokers: str, topic: str, done: list[str]) -> None:
        self.agent = Watchword(realm="demo", principal=WORKER, keys=[KEY.verification_key(PLANNER)])
        self._consumer = VerifyingConsumer(
            topic, bootstrap_servers=brokers, group_id=topic, auto_offset_reset="earliest", watchword=self.agent
        )
        self._done = done
        self.is_leaving = False

    async def work(self) -> None:
        """Handle tasks until told to leave; leaving without an error says that all is handled, and commits it."""
        async with self._consumer:
            while not self.is_leaving:
                for records in (await self._consumer.getmany(timeout_ms=200)).values():
                    self._done += [(record.value or b"").decode() for record in records]


async def main(brokers: str) -> None:
    """Let the group work, lose a member, and go on."""
    topic, done = await make_topic(brokers), list[str]()
    workers = [Worker(brokers, topic, done), Worker(brokers, topic, done)]
    tasks = [asyncio.create_task(worker.work()) for worker in workers]
    planner = Watchword(realm="demo", principal=PLANNER, key=KEY)
    async with SigningProducer(bootstrap_servers=brokers, watchword=planner) as producer:
        for number in range(TASKS):
            await producer.send_and_wait(topic, b"task %d" % number, partition=number % 2)
        await send_again(brokers, topic, TASKS)
        workers[0].is_leaving = True  # its partition goes to the other one
        await tasks[0]
        await send_again(brokers, topic, TASKS)
        for number in range(TASKS, 2 * TASKS):
            await producer.send_and_wait(topic, b"task %d" % number, partition=number % 2)
        async with asyncio.timeout(60):
            while len(set(done)) < 2 * TASKS:  # noqa: ASYNC110 - the workers are busy
                await asyncio.sleep(0.05)
    workers[1].is_leaving = True
    await tasks[1]
    dropped = sum(worker.agent.audit.counts["replayed"] for worker in workers)
    twice = len(done) - len(set(done))
    print(f"{len(set(done))} of {2 * TASKS} tasks handled, {twice} twice; copies were dropped: {dropped > 0}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "localhost:9092"))
