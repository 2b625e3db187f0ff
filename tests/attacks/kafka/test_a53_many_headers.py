"""A53: many small things in few bytes. A batch of a kilobyte unpacks to hundreds of thousands of empty headers."""

import gc
import time
from asyncio.events import Handle
from collections import Counter

import pytest

from tests.integration.kafka.world import World
from tests.support.raw_kafka import GZIP, ZSTD, Batch, Raw, RawClient, RawHeader
from tests.support.readers import END, judged, raw_of, until
from watchword import Rejected, Unavailable
from watchword.spi import Message

pytestmark = pytest.mark.needs_kafka("raw_batches")

MOST = 1_024
"""Headers of a message, at most."""

BOMB = 340_000
EMPTY: RawHeader = (b"", b"")


class Seen:
    """A quarantine that counts the headers of what it gets."""

    def __init__(self) -> None:
        self.headers: list[int] = []

    async def put(self, message: Message, verdict: Rejected | Unavailable) -> bool:
        """See ``Quarantine.put``."""
        assert isinstance(verdict, Rejected)
        self.headers.append(len(message.headers))
        return True


async def bomb_of(world: World, topic: str, *, signed: bool) -> Batch:
    """Return a message, captured or unsigned, among empty headers."""
    original = raw_of((await world.capture(topic))[0]) if signed else Raw()
    half = [EMPTY] * (BOMB // 2)
    return Batch(records=[Raw(value=original.value, headers=[*half, *original.headers, *half])], codec=GZIP)


@pytest.mark.parametrize("signed", [True, False], ids=["captured envelope", "unsigned"])
async def test_a53_bombs_are_malformed(world: World, *, signed: bool) -> None:
    """Each is refused by count before its headers are made once more; honest messages between them come."""
    topic = await world.make_topic()
    await world.say(topic, b"0")
    bomb = await bomb_of(world, topic, signed=signed)
    async with RawClient(world.bootstrap) as raw:
        for number in range(1, 6):
            await raw.send(topic, bomb)
            await world.say(topic, b"%d" % number)
    await world.say(topic, END)
    reader, seen = world.reader(), Seen()
    async with world.consumer(reader, topic, quarantine=seen) as consumer:
        assert await until(consumer) == [b"0", b"1", b"2", b"3", b"4", b"5", END]
    assert judged(reader) == Counter(delivered=7, malformed=5)
    assert seen.headers == [1] * 5


async def test_a53_in_a_rebuild(world: World) -> None:
    """Bombs before the position are passed over, and what stands between them is remembered."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"0")
    bomb = await bomb_of(world, topic, signed=True)
    async with RawClient(world.bootstrap) as raw:
        for _ in range(5):
            await raw.send(topic, bomb)
    await world.say(topic, b"1")
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert await until(consumer, b"1") == [b"0", b"1"]
    await world.say(topic, END)
    reader = world.reader()
    async with world.consumer(reader, topic, group_id=group) as consumer:
        assert await until(consumer) == [END]
    assert judged(reader) == Counter(delivered=1)


async def test_a53_the_bound_itself(world: World) -> None:
    """A message with as many headers as are allowed, an honest sender's most among them, is delivered; one more not."""
    topic = await world.make_topic()
    reader = world.reader()
    sent: list[tuple[str, bytes | None]] = [("h", b"%d" % number) for number in range(1000)]
    async with world.producer() as producer:
        await producer.send_and_wait(topic, b"most", partition=0, headers=sent)
    (full,) = await world.capture(topic)
    await world.inject(topic, [full])
    room = MOST - len(full.headers)
    for extra in (room, room + 1):
        other = await world.sign(topic, b"more")
        padded = [*raw_of(other).headers, *[EMPTY] * (MOST - 1 - room), *[EMPTY] * extra]
        async with RawClient(world.bootstrap) as raw:
            await raw.send(topic, Batch(records=[Raw(value=b"more", headers=padded)]))
    await world.say(topic, END)
    async with world.consumer(reader, topic) as consumer:
        assert await until(consumer) == [b"most", b"more", END]
    assert judged(reader) == Counter(delivered=3, replayed=1, malformed=1)


MANY = [Raw(value=None, headers=[(b"a", b"")] * 1000)] * 1500
SHARE = 0.25
"""Of the work that one batch causes, the most that one turn of the event loop may do: a bound on any machine."""


@pytest.mark.parametrize(
    "bomb",
    [
        Batch(records=MANY, codec=ZSTD),
        Batch(records=MANY, codec=GZIP),
        Batch(records=[Raw(value=b"")] * 30_000, codec=ZSTD),
    ],
    ids=["headers in zstd", "headers in gzip", "tiny records"],
)
async def test_a53_no_turn_of_the_loop_is_long(world: World, bomb: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a batch of some kilobytes unpacks to is judged in many turns, though all of it is asked for at once."""
    topic = await world.make_topic()
    await world.say(topic, b"0")
    async with RawClient(world.bootstrap) as raw:
        await raw.send(topic, bomb)
    await world.say(topic, END)
    spent: list[float] = []
    run = Handle._run

    def timed(handle: Handle) -> None:
        begun = time.thread_time()
        run(handle)
        spent.append(time.thread_time() - begun)

    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        monkeypatch.setattr(Handle, "_run", timed)
        gc.disable()  # a collection takes as long as other tests have left objects behind
        try:
            assert await until(consumer, way="getmany") == [b"0", END]
        finally:
            gc.enable()
            monkeypatch.undo()
    assert judged(reader) == Counter(delivered=2, unsigned=len(bomb.records))
    assert max(spent) < SHARE * sum(spent)


@pytest.mark.parametrize("codec", [GZIP, ZSTD])
async def test_a53_a_batch_that_unpacks_to_too_much(world: World, codec: int) -> None:
    """A batch of some kilobytes that unpacks to more than 64 MiB is one record, and what is around it comes."""
    topic = await world.make_topic()
    await world.say(topic, b"0")
    async with RawClient(world.bootstrap) as raw:
        await raw.send(topic, Batch(records=[Raw(value=bytes(1 << 26))], codec=codec))
    await world.say(topic, END)
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        assert await until(consumer) == [b"0", END]
    assert judged(reader) == Counter(delivered=2, malformed=1)
