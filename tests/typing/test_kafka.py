"""What type checkers say to those who use Kafka's clients: options and handlers that fit pass, others do not."""

from tests.typing.programs import Programs

HEAD = """
from typing import assert_type
from watchword import VerifiedMessage, Watchword
from watchword.kafka import DeliveredRecord, SigningProducer, TopicPartition, VerifiedRecord, VerifyingConsumer

async def told(record: VerifiedRecord) -> None:
    print(record.verified.principal, record.offset)

async def either(record: DeliveredRecord) -> None:
    if record.verified is not None:
        print(record.verified.principal)
"""

RIGHT = {
    "a consumer and its handlers": """
async def use(agent: Watchword) -> None:
    async with VerifyingConsumer(
        "tasks", bootstrap_servers="localhost:9092", group_id="cloud", auto_offset_reset="earliest", watchword=agent
    ) as consumer:
        record = await consumer.getone()
        assert_type(record, VerifiedRecord)
        assert_type(record.verified, VerifiedMessage)
        await told(record)
        for tp, records in (await consumer.getmany(timeout_ms=500, max_records=10)).items():
            print(tp.topic)
            for each in records:
                await either(each)
        async for each in consumer:
            await told(each)
        consumer.pause(TopicPartition("tasks", 0))
        await consumer.commit()
""",
    "a producer": """
async def use(agent: Watchword) -> None:
    producer = SigningProducer(bootstrap_servers=["localhost:9092"], acks="all", linger_ms=5, watchword=agent)
    await producer.start()
    await producer.send_and_wait("tasks", b"x", key=b"k", headers=[("kind", b"order")])
    await (await producer.send("tasks", b"x"))
    async with producer.transaction():
        await producer.flush()
    await producer.stop()
""",
}

WRONG = {
    "an option that is misspelt": (
        """
def use(agent: Watchword) -> None:
    VerifyingConsumer("tasks", watchword=agent, groupid="cloud")
""",
        'Unexpected keyword argument "groupid" for "VerifyingConsumer"',
    ),
    "an option of another type": (
        """
def use(agent: Watchword) -> None:
    SigningProducer(watchword=agent, linger_ms="5")
""",
        'Argument "linger_ms" to "SigningProducer" has incompatible type "str"; expected "int"',
    ),
    "whatever was delivered is not verified": (
        """
def who(record: DeliveredRecord) -> str:
    return record.verified.principal
""",
        'Item "None" of "VerifiedMessage | None" has no attribute "principal"',
    ),
    "a client without an agent": (
        """
SigningProducer(bootstrap_servers="localhost:9092")
""",
        'Missing named argument "watchword" for "SigningProducer"',
    ),
}


class TestKafka(Programs):
    """Options are aiokafka's, and handlers of VerifiedRecord or DeliveredRecord fit every way in."""

    head, right, wrong = HEAD, RIGHT, WRONG
