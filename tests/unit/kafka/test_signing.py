"""Signing in the client's own batches: when it is done, in which trees, and what can never leave unsigned."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import IllegalOperation
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.structs import TopicPartition

from tests.unit.kafka.fakes import KEY, P0, P1, SENDER, Keys, watchword
from watchword import SigningError, SigningKey, Unavailable, VerifiedMessage, Watchword
from watchword.envelope import parse
from watchword.spi import Channel, Message
from watchword_adapters import config
from watchword_adapters.config import load
from watchword_adapters.kafka import SendTypeError, SigningProducer, TooLargeError, wrap
from watchword_adapters.kafka.entries import Entries, Entry, as_bytes
from watchword_adapters.settings_watch import CHECK_EVERY, SettingsWatch
from watchword_adapters.testing import Clock


class Kms:
    """A key that is held elsewhere: fails, hangs or signs."""

    def __init__(self, key: SigningKey) -> None:
        self.key = key
        self.key_id, self.algorithm = key.key_id, key.algorithm
        self.trees = 0
        self.failing = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def sign(self, data: bytes) -> bytes:
        """Sign, when let."""
        self.trees += 1
        await self.gate.wait()
        if self.failing:
            raise OSError
        return await self.key.sign(data)


@pytest.fixture
async def agent() -> Watchword:
    """Return an agent that signs and verifies."""
    return watchword(Keys(), shared=False)


@pytest.fixture
async def producer(agent: Watchword) -> AsyncIterator[SigningProducer]:
    """Give a producer that never connects: what it would send stays in its accumulator."""
    made = SigningProducer(watchword=agent, max_batch_size=20_000)
    async with offline(made):
        yield made


class offline:  # noqa: N801 - used as a function
    """Let a producer believe that it was started, and knows two partitions."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer

    async def __aenter__(self) -> Any:
        metadata = SimpleNamespace(leader=0)
        self._producer._metadata._partitions = {"topic": {0: metadata, 1: metadata}}
        self._producer._sender._sender_task = object()
        return self._producer

    async def __aexit__(self, *_: object) -> None:
        self._producer._sender._sender_task = None
        await self._producer.stop()


def slow(agent: Watchword) -> Kms:
    """Let the agent's key be held elsewhere."""
    kms = Kms(KEY)
    agent.signer.switch(kms)
    return kms


async def in_transaction(producer: Any) -> None:
    """Let the producer believe that the broker gave it a number, and begin a transaction."""
    producer._txn_manager.set_pid_and_epoch(7, 0)
    await producer.begin_transaction()


def drained(producer: SigningProducer, tp: TopicPartition = P0) -> list[list[Any]]:
    """Return the records of each batch that waits for a partition, as the sender would write them."""
    batches = producer._message_accumulator._batches[tp]
    return [list(DefaultRecordBatch(bytes(batch.get_data_buffer()))) for batch in batches]


def tree_sizes(records: list[Any]) -> list[int]:
    """Return how many messages share the signature of each record; 0 for a direct one."""
    return [parse(dict(record.headers)["watchword"]).size for record in records]


async def judged(agent: Watchword, records: list[Any], tp: TopicPartition = P0) -> list[Any]:
    """Judge each record alone, as a reader would that sees no other."""
    found: list[Any] = []
    for record in records:
        message = Message(
            channel=Channel("kafka", agent.realm, tp.topic), value=record.value, key=record.key,
            headers=tuple(record.headers), partition=tp.partition, created_at=record.timestamp / 1000,
        )  # fmt: skip
        found += await agent.verifier.verify_many([message])
    return found


async def test_what_gathers_is_signed_as_one_tree(agent: Watchword, producer: SigningProducer) -> None:
    """Sends of one loop iteration share a signature a partition, keep their order, and each verifies alone."""
    await asyncio.gather(*(producer.send("topic", b"%d" % n, b"k", 0, headers=[("h", b"v")]) for n in range(10)))
    await producer.send("topic", b"alone", partition=1)
    (records,), (lone,) = drained(producer), drained(producer, P1)
    assert tree_sizes(records) == [10] * 10
    assert tree_sizes(lone) == [0]
    assert [r.value for r in records] == [b"%d" % n for n in range(10)]
    verdicts = await judged(agent, records[::-1]) + await judged(agent, lone, P1)
    assert all(isinstance(verdict, VerifiedMessage) and verdict.principal == SENDER for verdict in verdicts)


async def test_trees_are_no_larger_than_the_signers(agent: Watchword, producer: SigningProducer) -> None:
    """A batch of more messages than share a signature has several trees, of even sizes."""
    agent.signer.batch = 4  # type: ignore[misc]
    for n in range(9):
        await producer.send("topic", b"%d" % n, partition=0)
    (records,) = drained(producer)
    assert tree_sizes(records) == [3] * 9


async def test_a_batch_is_never_larger_than_it_was_counted(producer: SigningProducer) -> None:
    """What was accepted for a batch fits into it signed; what does not fit waits for the next one."""
    sent = 0
    while len(producer._message_accumulator._batches[P0]) < 2:
        try:
            async with asyncio.timeout(0.01):
                await producer.send("topic", b"v" * 100, partition=0, headers=[("n", b"v")] * (sent % 70))
        except TimeoutError:
            break
        sent += 1
    (batch,) = producer._message_accumulator._batches[P0]
    counted = batch._builder.size()
    assert counted <= 20_000
    assert len(batch.get_data_buffer()) == batch._builder.size() <= counted
    assert batch.record_count == sent > 5


async def test_a_full_batch_is_signed_while_it_waits(producer: SigningProducer) -> None:
    """A batch that takes no more is signed at once: the broker may be busy with the one before it."""
    send = None
    while send is None or send.done():
        send = asyncio.create_task(producer.send("topic", b"v" * 9_000, partition=0))
        await asyncio.wait((send,), timeout=0.01)
    (batch,) = producer._message_accumulator._batches[P0]
    assert batch._builder._entries == []
    size = batch._builder.size()
    producer._message_accumulator._pop_batch(P0)
    await send
    assert len(batch.get_data_buffer()) == batch._builder.size() == size
    written = list(DefaultRecordBatch(bytes(batch.get_data_buffer())))
    assert tree_sizes(written) == [2, 2]


async def test_a_batch_that_is_sent_again_keeps_its_bytes(producer: SigningProducer) -> None:
    """A retry sends what was sent before: another signature would make another message of it."""
    await producer.send("topic", b"v", partition=0)
    (batch,) = producer._message_accumulator._batches[P0]
    batch.set_producer_state(7, 1, 0)
    first = bytes(batch.get_data_buffer())
    assert bytes(batch.get_data_buffer()) == first
    assert DefaultRecordBatch(first).producer_id == 7


async def test_who_gives_up_takes_no_other_along(agent: Watchword, producer: SigningProducer) -> None:
    """A send that is cancelled while it waits for room is not sent; the others are, in their order."""
    while True:
        send = asyncio.create_task(producer.send("topic", b"v" * 9_000, partition=0))
        await asyncio.wait((send,), timeout=0.01)
        if not send.done():
            break
    behind = asyncio.create_task(producer.send("topic", b"behind", partition=0))
    await asyncio.sleep(0)
    send.cancel()
    await asyncio.wait((send,))
    drained(producer)
    producer._message_accumulator._pop_batch(P0)
    await behind
    assert [[r.value for r in records] for records in drained(producer)] == [[b"behind"]]
    assert send.cancelled()
    assert len(await judged(agent, drained(producer)[0])) == 1


async def test_nothing_goes_out_unsigned(agent: Watchword, producer: SigningProducer) -> None:
    """A batch takes nothing but what is to be signed, and refuses to be written where the signer gave no envelope."""
    builder = producer._outgoing.create_builder()
    for headers in (None, [], [("watchword", b"x")]):
        with pytest.raises(SigningError, match="unsigned"):
            builder.append(timestamp=None, key=None, value=b"v", headers=headers)
    builder.append(timestamp=None, key=None, value=None, headers=Entry(1, None, b"v", [], 900, None))
    with pytest.raises(SigningError, match="not signed"):
        builder._build()
    entry = Entries(agent, None).entry("topic", 0, None, None, b"v" * 12_000, ())
    assert entry.unsigned is not None
    entry.seal((await agent.signer.sign_prepared([entry.unsigned]))[0])
    entry.size = 0  # as if it were less than it is
    full = producer._outgoing.create_builder()
    for _ in range(2):
        full.append(timestamp=None, key=None, value=None, headers=entry)
    with pytest.raises(SigningError, match="larger"):
        full._build()
    closed = producer._outgoing.create_builder()
    closed.close()
    assert closed.append(timestamp=None, key=None, value=None, headers=entry) is None


async def test_no_other_batch_can_take_what_is_to_be_signed(agent: Watchword) -> None:
    """Handed to a batch of aiokafka's own, a message that is not signed is an error, and no record."""
    entry = Entries(agent, None).entry("topic", 0, None, None, b"v", ())
    with pytest.raises(TypeError):
        BatchBuilder(10_000, 0).append(timestamp=1, key=None, value=b"v", headers=entry)  # type: ignore[arg-type]


async def test_what_waited_before_wrap_takes_no_signed_message(agent: Watchword) -> None:
    """A message sent before wrap() goes out as it was; the batch that it waits in takes none that is to be signed."""
    async with offline(AIOKafkaProducer()) as plain:
        await plain.send("topic", b"plain", partition=0)
        wrapped = wrap(plain, watchword=agent)
        waiting = asyncio.create_task(wrapped.send("topic", b"signed", partition=0))
        await asyncio.wait((waiting,), timeout=0.01)
        assert not waiting.done()
        wrapped._message_accumulator._pop_batch(P0)
        await waiting
        ((record,),) = drained(wrapped)
        assert isinstance((await judged(agent, [record]))[0], VerifiedMessage)


async def test_a_key_held_elsewhere_signs_before_anything_waits(agent: Watchword) -> None:
    """With a slow back-end one tree is signed while the next gathers; what fails was not sent, nor what gave up."""
    kms = slow(agent)
    async with offline(SigningProducer(watchword=agent)) as producer:
        kms.gate.clear()
        sends = [asyncio.create_task(producer.send("topic", b"%d" % n, partition=0)) for n in range(6)]
        await asyncio.sleep(0)
        sends[2].cancel()
        await asyncio.wait((sends[2],))
        assert not producer._message_accumulator._batches
        kms.gate.set()
        await asyncio.wait(sends)
        kms.failing = True
        with pytest.raises(Unavailable, match="signing"):
            await producer.send("topic", b"failed", partition=0)
        (records,) = drained(producer)
        assert [r.value for r in records] == [b"0", b"1", b"3", b"4", b"5"]
        assert kms.trees <= 3
        assert all(isinstance(verdict, VerifiedMessage) for verdict in await judged(agent, records))


async def test_a_batch_of_the_callers_is_signed_as_a_tree(agent: Watchword) -> None:
    """What create_batch() gathers shares a signature, wherever the key is held."""
    for elsewhere in (False, True):
        if elsewhere:
            slow(agent)
        async with offline(SigningProducer(watchword=agent)) as producer:
            batch = producer.create_batch()
            for n in range(3):
                assert batch.append(timestamp=None, key=None, value=b"%d" % n).offset == n
            batch.close()
            await producer.send_batch(batch, "topic", partition=0)
            (records,) = drained(producer)
            assert tree_sizes(records) == [3] * 3
            assert all(isinstance(verdict, VerifiedMessage) for verdict in await judged(agent, records))


async def test_a_timestamp_is_milliseconds_of_now(producer: SigningProducer) -> None:
    """A timestamp that no reader would take, or no record holds, is refused when it is sent and not on its way."""
    stamp: Any
    for stamp, error in (("1", TypeError), (1, ValueError), (-1, ValueError), (math.nan, ValueError)):
        with pytest.raises(SigningError) as raised:
            await producer.send("topic", b"v", partition=0, timestamp_ms=stamp)
        assert isinstance(raised.value, error)
    now = int(time.time() * 1000) + 3
    await producer.send("topic", b"v", partition=0, timestamp_ms=now)
    await producer.send("topic", b"v", partition=0, timestamp_ms=now + 0.5)  # type: ignore[arg-type]  # as with aiokafka
    (records,) = drained(producer)
    assert [record.timestamp for record in records] == [now, now]


async def test_the_timestamp_is_never_further_from_the_time_signed_than_readers_allow() -> None:
    """Whole seconds are signed: where clocks may differ by less than one, the record's timestamp keeps to that."""
    for max_skew, stamp in ((5.0, 1_700_000_000_750), (0.5, 1_700_000_000_500), (0.0, 1_700_000_000_000)):
        agent = watchword(Keys(), clock=lambda: 1_700_000_000.75, max_skew=max_skew)
        async with offline(SigningProducer(watchword=agent)) as producer:
            await producer.send("topic", b"v", partition=0)
            ((record,),) = drained(producer)
            assert record.timestamp == stamp
            assert all(isinstance(verdict, VerifiedMessage) for verdict in await judged(agent, [record]))


async def test_a_message_is_counted_with_the_largest_envelope(agent: Watchword) -> None:
    """max_request_size holds for the message as it may be sent in a tree; so it does for copies in quarantine."""
    async with offline(SigningProducer(watchword=agent, max_request_size=1_000)) as producer:
        with pytest.raises(TooLargeError, match="max_request_size is 1000"):
            await producer.send("topic", bytes(600), partition=0)
        with pytest.raises(TooLargeError):
            await producer._send_copy("topic", bytes(1_000), None, ())
        assert not producer._message_accumulator._batches


@pytest.mark.parametrize("in_batches", [False, True])
async def test_who_only_sends_follows_the_settings_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, in_batches: bool
) -> None:
    """A key that was replaced, and what else was edited, hold from the first message on that a look was due for."""

    def write(key: SigningKey, settings: str = "") -> None:
        private = tmp_path / "planner.pem"
        private.touch(mode=0o600)
        private.write_bytes(key.to_pem())
        text = f'realm = "test"\nprincipal = "{SENDER}"\n[signer]\nkey = "planner.pem"\n[replay]\nstate = ""\n'
        (tmp_path / "watchword.toml").write_text(text + settings)

    async def send(producer: SigningProducer, tp: TopicPartition) -> bytes:
        """Send a message; return the id of the key that it was signed by."""
        if in_batches:
            batch = producer.create_batch()
            batch.append(key=None, value=b"x", timestamp=None)
            await producer.send_batch(batch, tp.topic, partition=tp.partition)
        else:
            await producer.send(tp.topic, b"x", partition=tp.partition)
        ((record,),) = drained(producer, tp)
        return parse(dict(record.headers)["watchword"]).common.key_id

    first, second = SigningKey.generate(), SigningKey.generate()
    write(first)
    clock = Clock(0.0)
    monkeypatch.setattr(config, "SettingsWatch", partial(SettingsWatch, clock=clock))
    agent = load(tmp_path / "watchword.toml")
    async with offline(SigningProducer(watchword=agent)) as producer:
        write(second, '[policy]\nmode = "observe"\n')
        assert await send(producer, P0) == first.key_id
        assert not agent.observing
        clock.advance(CHECK_EVERY)
        assert await send(producer, P1) == second.key_id
        assert agent.observing


@pytest.mark.parametrize("in_batches", [False, True])
async def test_a_look_at_the_settings_outlasts_no_transaction(agent: Watchword, *, in_batches: bool) -> None:
    """What waited for it while the transaction ended is refused, as aiokafka would refuse it."""
    async with offline(SigningProducer(watchword=agent, transactional_id="tx")) as producer:

        class Ending:
            def is_due(self) -> bool:
                return True

            async def look(self) -> None:
                producer._txn_manager.committing_transaction()

            def reload(self) -> None:
                raise NotImplementedError

        await in_transaction(producer)
        agent.follow(Ending())
        batch = producer.create_batch()
        batch.append(timestamp=None, key=None, value=b"v")
        sends: tuple[Coroutine[Any, Any, Any], ...] = (
            producer.send("topic", b"v", partition=0), producer.send_batch(batch, "topic", partition=0)
        )  # fmt: skip
        sends[not in_batches].close()
        with pytest.raises(IllegalOperation):
            await sends[in_batches]
        assert not producer._message_accumulator._batches


async def test_a_transaction_is_checked_when_the_message_is_signed(agent: Watchword) -> None:
    """Outside a transaction nothing is sent; one that ended while a slow key signed is outside too."""
    kms = slow(agent)
    async with offline(SigningProducer(watchword=agent, transactional_id="tx")) as producer:
        with pytest.raises(IllegalOperation):
            await producer.send("topic", b"v", partition=0)
        signed = kms.trees
        assert not signed
        await in_transaction(producer)
        kms.gate.clear()
        send = asyncio.create_task(producer.send("topic", b"v", partition=0))
        batch = producer.create_batch()
        batch.append(timestamp=None, key=None, value=b"v")
        others = asyncio.create_task(producer.send_batch(batch, "topic", partition=0))
        await asyncio.wait((send, others), timeout=0.01)
        producer._txn_manager.committing_transaction()
        kms.gate.set()
        for late in (send, others):
            with pytest.raises(IllegalOperation):
                await late
        signed = kms.trees
        assert signed == 2
        assert not producer._message_accumulator._batches


async def test_bytes_of_a_subclass_are_plain_ones_on_the_wire(agent: Watchword, producer: SigningProducer) -> None:
    """What is bytes to Python is sent as the bytes that were signed."""

    class Own(bytes):
        __slots__ = ()

    await producer.send("topic", Own(b"v"), Own(b"k"), 0)
    await producer.send("topic", bytearray(b"v"), memoryview(b"k"), 0)
    (records,) = drained(producer)
    assert [(record.key, record.value) for record in records] == [(b"k", b"v")] * 2
    assert all(isinstance(verdict, VerifiedMessage) for verdict in await judged(agent, records))
    with pytest.raises(SendTypeError, match="set value_serializer"):
        as_bytes("value", "text")
