"""The control log as a stream on a real server: made and checked, read from anywhere, over whatever happens to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.errors import ConnectionClosedError, Error
from nats.js.api import StreamConfig
from nats.js.errors import APIError, NotFoundError

from tests.brokers.broker import Broker
from tests.brokers.nats import wheel
from tests.brokers.plugin import MakeStream
from tests.integration.nats.world import CLOUD, PLANNER, World, raw, soon, world_on
from tests.support.patience import PATIENCE
from watchword import ConfigurationError, Mode, SigningError, Unavailable, VerifiedMessage, Watchword
from watchword.message import Message
from watchword.statements import MAX_BYTES
from watchword_adapters.nats.control_log import NatsControlLog

KIND = {"content-type": "application/json"}


def log_on(world: World, subject: str, **options: Any) -> NatsControlLog:
    """Return a log that the planner may speak on."""
    return NatsControlLog(subject, watchword=world.agent(PLANNER), servers=world.url, **options)


@pytest_asyncio.fixture
async def log(world: World, unique: Callable[[str], str]) -> AsyncIterator[NatsControlLog]:
    """Give a log that was made, and is deleted after the test."""
    subject = unique("control").replace("-", ".")
    async with log_on(world, subject) as made:
        assert await made.make()
        yield made
        admin = await world.plain()
        with suppress(NotFoundError):
            await admin.jetstream().delete_stream(subject.replace(".", "-"))


async def read(log: NatsControlLog, position: int, upto: int) -> list[Message]:
    """Read from a position up to another one, which must be reached."""
    found: list[Message] = []
    async with asyncio.timeout(PATIENCE), aclosing(log.read(position)) as entries:
        async for some, reached in entries:
            found += some
            assert [one.position.offset < reached for one in some if one.position] == [True] * len(some)
            if reached >= upto:
                return found
    raise AssertionError


def values(entries: Sequence[Message]) -> list[bytes | None]:
    """Return what the entries hold."""
    return [one.value for one in entries]


def offsets(entries: Sequence[Message]) -> list[int]:
    """Return where the entries are."""
    return [one.position.offset for one in entries if one.position is not None]


async def stream_of(world: World, log: NatsControlLog) -> tuple[Client, str]:
    """Return an administrator, and the name of the log's stream."""
    return await world.plain(), log.subject.replace(".", "-")


async def test_it_is_made_once(world: World, log: NatsControlLog) -> None:
    """Making it again changes nothing and says so; it is on disk, without limits, sealed against deletion."""
    before = await log.end()
    assert (before.first, before.next) == (1, 1)
    await log.check()
    async with log_on(world, log.subject) as again:
        assert not await again.make()
        assert await again.end() == before
    admin, name = await stream_of(world, log)
    config = (await admin.jetstream().stream_info(name)).config
    assert (config.subjects, config.storage, config.retention) == ([log.subject], "file", "limits")
    assert (config.deny_delete, config.deny_purge, config.discard) == (True, True, "new")


async def test_two_who_make_it_at_once_agree(world: World, unique: Callable[[str], str]) -> None:
    """One makes it, the other finds it."""
    subject = unique("control")
    async with log_on(world, subject) as one, log_on(world, subject) as other:
        assert sorted(await asyncio.gather(one.make(), other.make())) in ([False, True], [True, True])
        await (await world.plain()).jetstream().delete_stream(subject)


async def test_a_number_of_replicas_that_cannot_be_had_is_told(world: World, unique: Callable[[str], str]) -> None:
    """What the server refuses is its own error."""
    async with log_on(world, unique("control"), replicas=9) as log:
        with pytest.raises(APIError, match="replicas"):
            await log.make()


async def test_a_name_that_is_taken_is_told(world: World, make_stream: MakeStream) -> None:
    """A stream of that name with other subjects is not touched."""
    name = await make_stream()
    async with log_on(world, name) as log:
        with pytest.raises(ConfigurationError, match="exists with other subjects: rename or remove it"):
            await log.make()


async def test_a_log_that_is_missing_is_told(world: World, unique: Callable[[str], str]) -> None:
    """Each question is answered with what to do."""
    async with log_on(world, unique("control")) as log:
        for question in (log.check(), log.end(), anext(log.read(1))):
            with pytest.raises(ConfigurationError, match="run watchword control init, which creates it"):
                await question


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"subjects": ["{}", "{}.more"]}, "subjects = "),
    ({"subjects": ["{}", "{}.>"]}, "subjects = "),
    ({"retention": "workqueue"}, 'retention = "limits"'),
    ({"retention": "interest"}, 'retention = "limits"'),
    ({"storage": "memory"}, 'storage = "file"'),
    ({"discard": "old"}, 'discard = "new"'),
    ({"max_age": 3600}, "max_age = 0"),
    ({"max_msgs": 1000}, "max_msgs = -1"),
    ({"max_bytes": 1_000_000}, "max_bytes = -1"),
    ({"max_msgs_per_subject": 10}, "max_msgs_per_subject = -1"),
    ({"max_msg_size": 4096}, "max_msg_size = 65536 or more"),
    ({"max_consumers": 2}, "max_consumers = -1"),
    ({"deny_delete": False}, "deny_delete = true"),
    ({"deny_purge": False}, "deny_purge = true"),
    ({"deny_purge": False, "allow_rollup_hdrs": True}, "allow_rollup_hdrs = false"),
    ({"allow_msg_ttl": True}, "allow_msg_ttl = false"),
    (
        {"allow_msg_schedules": True, "discard": "old", "deny_purge": False, "allow_rollup_hdrs": True},
        "allow_msg_schedules = false",
    ),
    ({"no_ack": True}, "no_ack = false"),
    ({"persist_mode": "async"}, 'persist_mode = "default"'),
    ({"republish": {"src": ">", "dest": "seen.>"}}, "omit republish"),
    ({"subject_transform": {"src": ">", "dest": "moved.>"}}, "omit subject_transform"),
    ({"sources": [{"name": "origin"}]}, "omit sources"),
    ({"consumer_limits": {"inactive_threshold": 1.0}}, "omit consumer_limits"),
]


@pytest.mark.parametrize(("change", "remedy"), WRONG, ids=lambda one: next(iter(one)) if isinstance(one, dict) else "")
async def test_a_stream_that_could_lose_or_change_statements_is_refused(
    world: World, unique: Callable[[str], str], change: dict[str, Any], remedy: str
) -> None:
    """Promise (A52): making and checking refuse it, and say what to write; nothing of it is changed."""
    subject = unique("control")
    settings: dict[str, Any] = {"subjects": [subject], "discard": "new", "deny_delete": True, "deny_purge": True}
    settings |= change | {"subjects": [one.format(subject) for one in change.get("subjects", ["{}"])]}
    admin = (await world.plain()).jetstream()
    answer = await admin._nc.request(
        f"$JS.API.STREAM.CREATE.{subject}", _as_server_takes(subject, settings), timeout=PATIENCE
    )
    assert b'"error"' not in answer.data, answer.data
    try:
        async with log_on(world, subject) as log:
            for asked in (log.make(), log.check()):
                with pytest.raises(ConfigurationError) as refusal:
                    await asked
                assert remedy in str(refusal.value)
    finally:
        await admin.delete_stream(subject)


def _as_server_takes(name: str, settings: dict[str, Any]) -> bytes:
    seconds = {"max_age", "inactive_threshold"}

    def told(one: Any) -> Any:
        if isinstance(one, dict):
            return {key: int(value * 1e9) if key in seconds else told(value) for key, value in one.items()}
        return [told(part) for part in one] if isinstance(one, list) else one

    return json.dumps({"name": name, "storage": "file"} | told(settings)).encode()


async def test_a_statement_is_signed_and_comes_as_it_was_published(world: World, log: NatsControlLog) -> None:
    """It verifies under its operator's key, and bears the server's time; its position is what publishing returned."""
    position = await log.publish(b'{"s":1}', KIND)
    (entry,) = await read(log, 1, position + 1)
    assert entry.value == b'{"s":1}'
    assert entry.position is not None
    assert (entry.position.offset, entry.position.log) == (position, log.subject.replace(".", "-"))
    assert entry.appended_at is not None
    assert (entry.channel.uri, entry.partition, entry.key) == (f"nats://prod/{log.subject}", None, None)
    verified = await world.agent(CLOUD, shared=False).admit(entry)
    assert isinstance(verified, VerifiedMessage)
    assert (verified.principal, dict(verified.headers)) == (PLANNER, {"content-type": b"application/json"})


async def test_what_strangers_write_comes_as_it_came(world: World, log: NatsControlLog) -> None:
    """Promise (A52): it is handed over unjudged, duplicates of headers too; of a broken header block nothing is."""
    stranger = await world.plain()
    await raw(stranger, log.subject, b"NATS/1.0\r\na: 1\r\nA: 2\r\na: 3\r\n\r\n", b"odd")
    await raw(stranger, log.subject, b"NATS/1.0\r\nwatchword: x\r\nbroken\r\n\r\n", b"broken")
    await stranger.publish(log.subject, b"bare")
    await stranger.flush()
    odd, broken, bare = await read(log, 1, 4)
    assert (odd.value, odd.headers) == (b"odd", (("a", b"1"), ("A", b"2"), ("a", b"3")))
    assert (broken.value, broken.headers, bare.value, bare.headers) == (b"broken", (), b"bare", ())


async def test_a_stranger_can_store_nothing_longer_than_any_statement(world: World, log: NatsControlLog) -> None:
    """Promise (A52): the server refuses what no statement can be; the longest that anyone would read is stored."""
    stranger = (await world.plain()).jetstream()
    with pytest.raises(APIError, match="message size exceeds maximum allowed"):
        await stranger.publish(log.subject, bytes(64 * 1024 + 1))
    position = await log.publish(bytes(MAX_BYTES), KIND)
    assert (await log.end()).next == position + 1 == 2


async def test_it_is_read_from_any_position(log: NatsControlLog) -> None:
    """From a position on, exactly what is there and behind; at the end, what comes then."""
    for number in range(1, 6):
        assert await log.publish(b"%d" % number, KIND) == number
    assert await log.end() == (log_end := await log.end())
    assert log_end.next == 6
    for position in range(6):
        expected = list(range(max(position, 1), 6))
        assert offsets(await read(log, position, 6)) == expected
    async with aclosing(log.read(6)) as entries:
        coming = asyncio.ensure_future(anext(entries))
        await asyncio.sleep(0.1)
        await log.publish(b"6", KIND)
        some, reached = await soon(coming)
        assert (values(some), reached) == ([b"6"], 7)


async def test_a_position_beyond_the_end_is_told(log: NatsControlLog) -> None:
    """Promise (A52): a log that is shorter than what is known is not waited at."""
    await log.publish(b"1", KIND)
    with pytest.raises(Unavailable, match="ends before position 3, at 2"):
        await anext(log.read(3))


async def test_what_is_said_while_connected_comes_live(log: NatsControlLog) -> None:
    """Every entry arrives without another one behind it."""
    async with aclosing(log.read(1)) as entries:
        for number in range(20):
            await log.publish(b"%d" % number, KIND)
            some, reached = await soon(anext(entries))
            assert (values(some), reached) == ([b"%d" % number], number + 2)


async def test_ten_thousand_entries_are_read(world: World, log: NatsControlLog) -> None:
    """In order, each once, at most so many at a time as the port says."""
    stranger = (await world.plain()).jetstream()
    for start in range(0, 10_000, 500):
        await asyncio.gather(*(stranger.publish(log.subject, b"%d" % n) for n in range(start, start + 500)))
    found = await read(log, 1, 10_001)
    assert offsets(found) == list(range(1, 10_001))


async def test_gaps_are_passed_over(world: World, log: NatsControlLog) -> None:
    """Where deleting was allowed before, what is gone holds nobody up: at the start, in the middle and at the end."""
    admin, name = await stream_of(world, log)
    await admin.jetstream().delete_stream(name)
    await admin.jetstream().add_stream(name=name, subjects=[log.subject])
    for number in range(1, 11):
        await log.publish(b"%d" % number, KIND)
    for gone in (1, 2, 5, 9, 10):
        await admin.jetstream().delete_msg(name, gone)
    assert (await log.end())[1:] == (3, 11)
    assert offsets(await read(log, 1, 11)) == [3, 4, 6, 7, 8]
    assert offsets(await read(log, 9, 11)) == []
    await admin.jetstream().purge_stream(name)
    assert (await log.end())[1:] == (11, 11)
    assert offsets(await read(log, 2, 11)) == []
    await log.publish(b"11", KIND)
    assert offsets(await read(log, 11, 12)) == [11]


async def test_nothing_can_be_deleted_from_what_is_made(world: World, log: NatsControlLog) -> None:
    """Promise (A52): the server refuses to delete and to purge, and to drop these refusals."""
    await log.publish(b"1", KIND)
    admin, name = await stream_of(world, log)
    js = admin.jetstream()
    for attack in (
        lambda: js.delete_msg(name, 1),
        lambda: js.purge_stream(name),
        lambda: js.update_stream(StreamConfig(name=name, subjects=[log.subject])),
        lambda: js.publish(log.subject, b"", headers={"Nats-Rollup": "all"}),
    ):
        with pytest.raises(APIError):
            await attack()
    assert offsets(await read(log, 1, 2)) == [1]


async def test_a_log_that_is_made_again_has_another_identity(world: World, log: NatsControlLog) -> None:
    """Promise (A52): a reader gets an error, and does not continue in the recreated log at the old position."""
    await log.publish(b"1", KIND)
    before = await log.end()
    admin, name = await stream_of(world, log)
    async with aclosing(log.read(1)) as entries:
        await soon(anext(entries))
        coming = asyncio.ensure_future(anext(entries))
        await asyncio.sleep(0.05)
        await admin.jetstream().delete_stream(name)
        assert await log.make()
        await log.publish(b"1", KIND)
        await log.publish(b"2", KIND)
        with pytest.raises((Unavailable, ConfigurationError), match=r"recreated|no stream has the control subject"):
            await soon(coming)
    assert (await log.end()).identity != before.identity


async def test_a_lost_consumer_is_replaced(world: World, log: NatsControlLog) -> None:
    """Nothing is missed or comes twice where the server forgets what we read through."""
    admin, name = await stream_of(world, log)
    js = admin.jetstream()
    async with aclosing(log.read(1)) as entries:
        for number in range(1, 4):
            await log.publish(b"%d" % number, KIND)
            some, _ = await soon(anext(entries))
            assert offsets(some) == [number]
            for consumer in await js.consumers_info(name):
                await js.delete_consumer(name, consumer.name)
    assert [one.name for one in await js.consumers_info(name)] == []


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Broker]:
    """Give a server that may be restarted."""
    broker = wheel(tmp_path)
    yield broker
    broker.stop()


async def test_reading_goes_on_over_a_restart(own_server: Broker) -> None:
    """Promise: nothing is missed, nothing comes twice, and a later publisher is heard."""
    async with (
        world_on(own_server.address) as world,
        log_on(world, "control", reconnect_time_wait=0.1, max_reconnect_attempts=-1) as log,
    ):
        assert await log.make()
        before = await log.end()
        await log.publish(b"1", KIND)
        async with aclosing(log.read(1)) as entries:
            assert offsets((await soon(anext(entries)))[0]) == [1]
            coming = asyncio.ensure_future(anext(entries))
            await asyncio.to_thread(own_server.restart)
            await said(log, b"2")
            some, reached = await soon(coming)
            assert (values(some), reached) == ([b"2"], 3)
        assert (await log.end())[:2] == before[:2]


async def said(log: NatsControlLog, value: bytes) -> None:
    """Publish as soon as the server takes it, once."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await log.publish(value, KIND)
            except (Error, APIError):  # it starts
                await asyncio.sleep(0.1)
            else:
                return


@pytest.mark.parametrize("begun", [0.1, 0.0], ids=["while it waits", "while it begins"])
async def test_a_connection_that_is_lost_for_good_is_told(tmp_path: Path, begun: float) -> None:
    """Promise: a reader does not wait at a client that has given up."""
    server = wheel(tmp_path)
    try:
        async with world_on(server.address) as world, log_on(world, "control", allow_reconnect=False) as log:
            await log.make()
            coming = asyncio.ensure_future(anext(log.read(1)))
            await asyncio.sleep(begun)
            server.stop()
            with pytest.raises(ConnectionClosedError):
                await soon(coming)
    finally:
        server.stop()


async def test_it_must_be_entered_first(world: World) -> None:
    """Without a connection the error says how to get one."""
    log = log_on(world, "control")
    for question in (log.check(), log.end(), anext(log.read(1))):
        with pytest.raises(ConfigurationError, match="async with NatsControlLog"):
            await question


async def test_nothing_goes_out_unsigned(world: World, log: NatsControlLog) -> None:
    """Promise: in observe mode too, what cannot be signed is refused; so is an agent without a key."""
    observer = world.agent(PLANNER, mode=Mode.OBSERVE)
    async with NatsControlLog(log.subject, watchword=observer, servers=world.url) as other:
        with pytest.raises(SigningError):
            await other.publish(b"1", {"content-type": "a\nb"})
    silent: Watchword = world.agent(CLOUD, speaks=False)
    async with NatsControlLog(log.subject, watchword=silent, servers=world.url) as mute:
        with pytest.raises(ConfigurationError, match="only verifies"):
            await mute.publish(b"1", KIND)
        assert (await mute.end()).next == 1
