"""The control log as a topic on a real broker: made and checked, read from anywhere, over whatever happens to it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewPartitions, RecordsToDelete
from aiokafka.errors import InvalidReplicationFactorError, KafkaConnectionError, KafkaError, MessageSizeTooLargeError
from aiokafka.structs import TopicPartition

from tests.brokers.broker import Broker
from tests.integration.kafka.world import PLANNER, REALM, World, eventually
from tests.support.broker_tools import admin_of, alter_topic, delete_topics, settings_of
from tests.support.patience import PATIENCE
from tests.support.raw_kafka import GZIP, Batch, Raw, RawClient
from watchword import ConfigurationError, Mode, Policy, SigningError, Unavailable, VerifiedMessage, Watchword
from watchword.message import Message
from watchword.statements import MAX_BYTES
from watchword_adapters.control.log import TOGETHER
from watchword_adapters.kafka import SigningProducer, control_broker
from watchword_adapters.kafka.control_broker import ControlBroker
from watchword_adapters.kafka.control_log import KafkaControlLog
from watchword_adapters.kafka.control_topic import MADE

pytestmark = pytest.mark.needs_kafka("topic_ids")

KIND = {"content-type": "application/json"}


def log_on(world: World, topic: str, **options: Any) -> KafkaControlLog:
    """Return a log that the planner may speak on."""
    return KafkaControlLog(topic, watchword=world.speaker(), bootstrap_servers=world.bootstrap, **options)


@pytest.fixture
async def log(world: World, unique: Callable[[str], str]) -> AsyncIterator[KafkaControlLog]:
    """Give a log that was made, and is deleted after the test."""
    async with log_on(world, unique("control")) as made:
        assert await made.make()
        yield made
        async with admin_of(world.bootstrap) as admin:
            await admin.delete_topics([made.topic])


async def read(log: KafkaControlLog, position: int, upto: int) -> list[Message]:
    """Read from a position up to another one, which must be reached."""
    found: list[Message] = []
    async with asyncio.timeout(PATIENCE), aclosing(log.read(position)) as entries:
        async for some, reached in entries:
            assert len(some) <= TOGETHER
            found += some
            assert all(one.position is not None and one.position.offset < reached for one in some)
            if reached >= upto:
                return found
    raise AssertionError


def values(entries: Sequence[Message]) -> list[bytes | None]:
    """Return what the entries hold."""
    return [one.value for one in entries]


def offsets(entries: Sequence[Message]) -> list[int]:
    """Return where the entries are."""
    return [one.position.offset for one in entries if one.position is not None]


async def soon(coming: Any) -> Any:
    """Wait for what must come."""
    async with asyncio.timeout(PATIENCE):
        return await coming


# Made, and checked


async def test_it_is_made_once(world: World, log: KafkaControlLog) -> None:
    """Making it again changes nothing and says so; the broker stamps, and nothing is ever deleted."""
    before = await log.end()
    assert (before.first, before.next) == (0, 0)
    await log.check()
    async with log_on(world, log.topic) as again:
        assert not await again.make()
        assert await again.end() == before
    async with admin_of(world.bootstrap) as admin:
        found = await settings_of(admin, log.topic)
    assert {name: found[name] for name in MADE} == MADE


async def test_a_stranger_can_store_nothing_longer_than_any_statement(world: World, log: KafkaControlLog) -> None:
    """Promise (A52): the broker refuses what no statement can be; the longest that anyone would read is stored."""
    async with AIOKafkaProducer(bootstrap_servers=world.bootstrap) as stranger:
        with pytest.raises(MessageSizeTooLargeError):
            await stranger.send_and_wait(log.topic, bytes(64 * 1024))
    position = await log.publish(bytes(MAX_BYTES), KIND)
    assert (await log.end()).next == position + 1 == 1


async def test_two_who_make_it_at_once_agree(world: World, unique: Callable[[str], str]) -> None:
    """One makes it, the other finds it."""
    topic = unique("control")
    async with log_on(world, topic) as one, log_on(world, topic) as other, admin_of(world.bootstrap) as admin:
        assert sorted(await asyncio.gather(one.make(), other.make())) == [False, True]
        assert await one.end() == await other.end()
        await admin.delete_topics([topic])


async def test_a_number_of_replicas_that_cannot_be_had_is_told(world: World, unique: Callable[[str], str]) -> None:
    """What the broker refuses is its own error."""
    async with log_on(world, unique("control"), replicas=1000) as log:
        with pytest.raises(InvalidReplicationFactorError):
            await log.make()


async def test_a_log_that_is_missing_is_told_and_not_made(world: World, unique: Callable[[str], str]) -> None:
    """Each question, and each statement, is answered with what to do; a broker that makes topics makes none."""
    topic = unique("control")
    async with log_on(world, topic) as log:
        for question in (log.check(), log.end(), anext(log.read(0)), log.publish(b"1", KIND)):
            with pytest.raises(ConfigurationError, match="run watchword control init, which creates it"):
                await question
    async with admin_of(world.bootstrap) as admin:
        assert topic not in await admin.list_topics()


WRONG = [
    ({"cleanup_policy": "compact"}, "set cleanup.policy=delete"),
    ({"cleanup_policy": "compact,delete"}, "set cleanup.policy=delete"),
    ({"message_timestamp_type": "CreateTime"}, "set message.timestamp.type=LogAppendTime"),
    ({"retention_ms": "604800000"}, "set retention.ms=-1"),
    ({"retention_bytes": "1000000"}, "set retention.bytes=-1"),
    ({"unclean_leader_election_enable": "true"}, "set unclean.leader.election.enable=false"),
    ({"max_message_bytes": "20000"}, "set max.message.bytes=65536 or more"),
]


@pytest.mark.parametrize(("change", "remedy"), WRONG, ids=lambda one: next(iter(one)) if isinstance(one, dict) else "")
async def test_a_topic_that_could_lose_or_change_statements_is_refused(
    world: World, log: KafkaControlLog, change: dict[str, str], remedy: str
) -> None:
    """Promise (A52): making and checking refuse it, and say what to set; nothing of it is changed."""
    async with admin_of(world.bootstrap) as admin:
        await alter_topic(world.bootstrap, log.topic, **change)
        before = await settings_of(admin, log.topic)
        for asked in (log.make(), log.check()):
            with pytest.raises(ConfigurationError) as refusal:
                await asked
            assert remedy in str(refusal.value)
            assert str(refusal.value).count("set ") == 1
        assert await settings_of(admin, log.topic) == before


async def test_a_topic_as_brokers_make_them_is_refused(world: World) -> None:
    """Promise (A52): by default Kafka deletes after a week, and believes the publisher's clock."""
    topic = await world.make_topic(partitions=2, timestamp_type="CreateTime")
    async with log_on(world, topic) as log:
        with pytest.raises(ConfigurationError) as refusal:
            await log.check()
    for remedy in ("it has 2 partitions", "message.timestamp.type=LogAppendTime", "retention.ms=-1"):
        assert remedy in str(refusal.value)


async def test_a_partition_that_is_added_is_told(world: World, log: KafkaControlLog) -> None:
    """Promise (A52): what was said continues to be read, and the next start is refused."""
    await log.publish(b"1", KIND)
    async with admin_of(world.bootstrap) as admin:
        await admin.create_partitions({log.topic: NewPartitions(2)})

    async def refused() -> bool:
        try:
            await log.check()
        except ConfigurationError as refusal:
            return "it has 2 partitions" in str(refusal)
        return False

    await eventually(refused)
    assert offsets(await read(log, 0, 1)) == [0]


# Read, and spoken on


async def test_a_statement_is_signed_and_comes_as_it_was_published(world: World, log: KafkaControlLog) -> None:
    """It verifies under its operator's key, and bears the broker's time; its position is what publishing returned."""
    position = await log.publish(b'{"s":1}', KIND)
    (entry,) = await read(log, 0, position + 1)
    assert entry.value == b'{"s":1}'
    assert entry.position is not None
    assert (entry.position.offset, entry.position.log) == (position, f"{log.topic}/0")
    assert entry.appended_at is not None
    assert (entry.channel.uri, entry.partition, entry.key) == (f"kafka://test/{log.topic}", 0, None)
    verified = await world.reader().admit(entry)
    assert isinstance(verified, VerifiedMessage)
    assert (verified.principal, dict(verified.headers)) == (PLANNER, {"content-type": b"application/json"})


@pytest.mark.needs_kafka("raw_batches")
async def test_what_strangers_write_comes_as_it_came(world: World, log: KafkaControlLog) -> None:
    """Promise (A52): it is handed over unjudged, duplicates of headers too; what nobody can decode is malformed."""
    odd = Raw(value=None, key=b"k", headers=[(b"a", b"1"), (b"a", None), (b"A", b"")])
    async with RawClient(world.bootstrap) as stranger:
        await stranger.send(log.topic, Batch(records=[odd, Raw(headers=[(b"\xff", b"")]), Raw(value=b"")]))
        await stranger.send(log.topic, Batch(records=[Raw(value=b"packed")], codec=GZIP, first_timestamp=1))
    first, broken, bare, packed = await read(log, 0, 4)
    assert (first.value, first.key, first.headers) == (None, b"k", (("a", b"1"), ("a", None), ("A", b"")))
    assert (broken.value, broken.headers) == (None, (("watchword", None),))
    assert (bare.value, bare.headers) == (b"", ())
    assert packed.value == b"packed"
    assert (packed.appended_at or 0) > 1_000_000_000


async def test_it_is_read_from_any_position(log: KafkaControlLog) -> None:
    """From a position on, exactly what is there and behind; at the end, what comes then."""
    for number in range(5):
        assert await log.publish(b"%d" % number, KIND) == number
    assert (await log.end())[1:] == (0, 5)
    for position in range(5):
        assert offsets(await read(log, position, 5)) == list(range(position, 5))
    async with aclosing(log.read(5)) as entries:
        coming = asyncio.ensure_future(anext(entries))
        await asyncio.sleep(0.1)
        await log.publish(b"5", KIND)
        some, reached = await soon(coming)
        assert (values(some), reached) == ([b"5"], 6)


async def test_a_position_beyond_the_end_is_told(log: KafkaControlLog) -> None:
    """Promise (A52): a log that is shorter than what is known is not waited at."""
    await log.publish(b"1", KIND)
    with pytest.raises(Unavailable, match="ends before position 3, at 1"):
        await soon(anext(log.read(3)))


async def test_what_is_said_while_connected_comes_live(log: KafkaControlLog) -> None:
    """Every entry arrives without another one behind it, and the fetch that waits holds up no question."""
    async with aclosing(log.read(0)) as entries:
        for number in range(20):
            coming = asyncio.ensure_future(anext(entries))
            await log.publish(b"%d" % number, KIND)
            some, reached = await soon(coming)
            assert (values(some), reached) == ([b"%d" % number], number + 1)


@pytest.mark.needs_kafka("raw_batches")
async def test_a_flood_of_strangers_is_read_in_bounds(world: World, log: KafkaControlLog) -> None:
    """Promise (A52): in order, each once, so many at a time as the port says, whatever a batch holds; and then us.

    The topic takes batches as large as brokers let topics do by default, as logs that operators made may.
    """
    await alter_topic(world.bootstrap, log.topic, max_message_bytes="1048588")
    await log.check()
    many = Batch(records=[Raw(value=b"") for _ in range(30_000)], codec=GZIP)
    async with RawClient(world.bootstrap) as stranger:
        await stranger.send(log.topic, many)
        await stranger.send(log.topic, Batch(records=[Raw(value=bytes(1_000_000))]))
        await stranger.send(log.topic, Batch(records=[Raw(value=bytes(80_000_000))], codec=GZIP))
        for _ in range(20):
            await stranger.send(log.topic, Batch(records=[Raw(value=bytes(900_000))]))
    position = await log.publish(b"ours", KIND)
    found = await read(log, 0, position + 1)
    assert offsets(found) == list(range(30_023))
    assert found[-1].value == b"ours"
    bomb = found[30_001]
    assert (bomb.value, bomb.headers) == (None, (("watchword", None),))


@pytest.mark.needs_kafka("raw_batches")
@pytest.mark.parametrize("ends", ["never", "commit", "abort"])
async def test_a_strangers_transaction_holds_up_nothing(world: World, log: KafkaControlLog, ends: str) -> None:
    """Promise (A52): what is behind an open transaction is read, what was in it as well; its marker is passed over."""
    async with RawClient(world.bootstrap) as raw, raw.transaction(world.unique("stranger"), log.topic) as held:
        assert await held.send(log.topic, Batch(records=[Raw(value=b"inside")])) == 0
        assert await log.publish(b"behind", KIND) == 1
        assert values(await read(log, 0, 2)) == [b"inside", b"behind"]
        assert (await log.end()).next == 2
        if ends == "never":
            return
        async with aclosing(log.read(2)) as entries:
            coming = asyncio.ensure_future(anext(entries))
            await (held.commit() if ends == "commit" else held.abort())
            assert await soon(coming) == ((), 3) or coming.result() == ([], 3)
        assert values(await read(log, 0, 3)) == [b"inside", b"behind"]
        assert await log.publish(b"last", KIND) == 3
        assert offsets(await read(log, 1, 4)) == [1, 3]


async def test_what_was_deleted_before_is_passed_over(world: World, log: KafkaControlLog) -> None:
    """What is gone holds nobody up; who may delete records takes statements away, which their chains tell."""
    for number in range(5):
        await log.publish(b"%d" % number, KIND)
    async with aclosing(log.read(0)) as entries, admin_of(world.bootstrap) as admin:
        await soon(anext(entries))
        await admin.delete_records({TopicPartition(log.topic, 0): RecordsToDelete(before_offset=3)})

        async def gone() -> bool:
            return (await log.end()).first == 3

        await eventually(gone)
        assert (await log.end())[1:] == (3, 5)
        assert offsets(await read(log, 0, 5)) == [3, 4]
        await admin.delete_records({TopicPartition(log.topic, 0): RecordsToDelete(before_offset=5)})

        async def empty() -> bool:
            return (await log.end()).first == 5

        await eventually(empty)
        assert offsets(await read(log, 1, 5)) == []
        await log.publish(b"5", KIND)
        assert offsets(await read(log, 5, 6)) == [5]


@pytest.mark.parametrize("more", [1, 3], ids=["shorter", "longer"])
async def test_a_log_that_is_made_again_has_another_identity(world: World, log: KafkaControlLog, more: int) -> None:
    """Promise (A52): a reader gets an error, and does not continue in the recreated log at the old position."""
    await log.publish(b"1", KIND)
    await log.publish(b"2", KIND)
    before = await log.end()
    async with aclosing(log.read(0)) as entries, admin_of(world.bootstrap) as admin:
        await soon(anext(entries))
        coming = asyncio.ensure_future(anext(entries))
        await asyncio.sleep(0.05)
        await delete_topics(admin, log.topic)
        assert await log.make()
        for number in range(more):
            await log.publish(b"other %d" % number, KIND)
        with pytest.raises((Unavailable, ConfigurationError), match=r"recreated|does not exist"):
            await soon(coming)
    with pytest.raises(Unavailable, match="recreated"):
        await soon(anext(log.read(1)))  # as a reader that asked for the end before
    assert (await log.end()).identity != before.identity
    assert offsets(await read(log, 0, more)) == list(range(more))


async def test_who_has_not_asked_before_reads_what_is_there(world: World, log: KafkaControlLog) -> None:
    """A reader that knows no identity takes the one that it finds first."""
    await log.publish(b"1", KIND)
    async with log_on(world, log.topic) as other:
        assert offsets(await read(other, 0, 1)) == [0]


# When it is cut off


async def test_it_must_be_entered_first(world: World) -> None:
    """Without a connection the error says how to get one."""
    log = log_on(world, "control")
    for question in (log.make(), log.check(), log.end(), anext(log.read(0)), log.publish(b"1", KIND)):
        with pytest.raises(ConfigurationError, match="async with KafkaControlLog"):
            await question


async def test_a_broker_that_is_not_there_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting fails with the client's error, and leaves nothing open."""
    closed = []
    close = ControlBroker.close

    async def told(broker: ControlBroker) -> None:
        closed.append(broker)
        await close(broker)

    monkeypatch.setattr(ControlBroker, "close", told)
    log = KafkaControlLog("control", watchword=world.speaker(), bootstrap_servers="127.0.0.1:1")
    with pytest.raises(KafkaConnectionError):
        await log.__aenter__()
    assert len(closed) == 1


async def test_nothing_goes_out_unsigned(world: World, log: KafkaControlLog) -> None:
    """Promise: in observe mode too, what cannot be signed is refused; so is an agent without a key."""
    observer = Watchword(
        realm=REALM, principal=PLANNER, key=world.signing[PLANNER], keys=world.keys, policy=Policy(mode=Mode.OBSERVE)
    )
    async with KafkaControlLog(log.topic, watchword=observer, bootstrap_servers=world.bootstrap) as other:
        with pytest.raises(SigningError):
            await other.publish(b"1", {"content-type": "x" * 70_000})
    async with KafkaControlLog(log.topic, watchword=world.reader(), bootstrap_servers=world.bootstrap) as mute:
        with pytest.raises(ConfigurationError, match="only verifies"):
            await mute.publish(b"1", KIND)
    assert (await log.end()).next == 0


@pytest.mark.needs_kafka("restart")
async def test_reading_goes_on_over_a_restart(log: KafkaControlLog, kafka_broker: Broker) -> None:
    """Promise: nothing is missed, nothing comes twice, and a later publisher is heard."""
    before = await log.end()
    await log.publish(b"1", KIND)
    found, position = await read(log, 0, 1), 1
    restarting = asyncio.create_task(_restarted(kafka_broker, log))
    async with asyncio.timeout(2 * PATIENCE):
        while position < 2:
            try:
                async with aclosing(log.read(position)) as entries:
                    some, position = await anext(entries)
                    found += some
            except KafkaError:  # a broker that takes its time; a follower asks again, too
                await asyncio.sleep(0.1)
        await restarting
    assert (values(found), position) == ([b"1", b"2"], 2)
    assert (await log.end())[:2] == before[:2]


async def _restarted(broker: Broker, log: KafkaControlLog) -> None:
    await asyncio.to_thread(broker.restart)
    while True:
        try:
            await log.publish(b"2", KIND)
        except KafkaError:
            await asyncio.sleep(0.1)
        else:
            return


async def test_a_speaker_that_cannot_connect_leaves_nothing_open(
    world: World, log: KafkaControlLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the client cannot connect, its own error is raised, and the next statement tries again."""
    with monkeypatch.context() as patch:
        patch.setattr(SigningProducer, "start", _refuse)
        with pytest.raises(KafkaConnectionError):
            await log.publish(b"1", KIND)
    assert await log.publish(b"1", KIND) == 0
    unused = log_on(world, log.topic)
    await unused.__aexit__(None, None, None)


async def _refuse(_: SigningProducer) -> None:
    raise KafkaConnectionError


@pytest.mark.needs_kafka("pause")
async def test_a_broker_that_says_nothing_is_not_waited_for_for_ever(
    world: World, log: KafkaControlLog, kafka_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: whatever is asked then ends with an error of the client's."""
    monkeypatch.setattr(control_broker, "PATIENCE", 0.1)
    async with log_on(world, log.topic, request_timeout_ms=500) as other:
        await other.publish(b"1", KIND)
        with kafka_broker.paused():
            for question in (other.end(), other.check(), other.publish(b"2", KIND), anext(other.read(1))):
                with pytest.raises(KafkaError):
                    await soon(question)


async def test_a_reader_ends_with_its_connection(log: KafkaControlLog) -> None:
    """Promise: nobody waits at a log that was closed."""
    coming = asyncio.ensure_future(anext(log.read(0)))
    await asyncio.sleep(0.1)
    await log.__aexit__(None, None, None)
    try:
        with pytest.raises(Unavailable, match="the connection to the log was closed"):
            await soon(coming)
    finally:
        await log.__aenter__()
