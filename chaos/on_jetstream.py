"""JetStream: one stream of limits retention, maybe with an alias's subject. Workers read it in one of several ways.

They share a durable, and have their ids in a store; one worker alone reads a durable, by two pull subscriptions or by
push; or each worker has consumers of its own, ephemeral or ordered. Without a store the stream is the memory.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

from nats.aio.client import Client
from nats.errors import Error
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig
from nats.js.errors import NotFoundError

from chaos.bus import Handed
from chaos.cast import HAND
from chaos.evidence import HERE, PRESENT, RETAINED, Writer, place
from chaos.nats_attack import eavesdropping
from chaos.nats_clients import connected, quarantine, speakers
from chaos.stores import initialise
from watchword import SigningError, Unavailable
from watchword.lives import stream_reader
from watchword.message import NATS_ID_HEADER
from watchword.spi import Position
from watchword_adapters.nats import VerifiedMsg, WatchwordClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

    from chaos.bus import Captured, Handler
    from chaos.cast import Worker
    from chaos.nats_attack import Eavesdropper
    from chaos.plan import Plan
    from watchword_adapters.nats import VerifyingJetStream

_DURABLE: Final = "workers"
_ACK_WAIT: Final = 4.0
_FOLLOWER: Final = "chaos-follower"
"""The consumer by which the log is read."""

_FOLLOWED: Final = 1000
_ELECTION_SECONDS: Final = 60.0
_LANES: Final = {"durable": 16, "sole": 2}
"""Fetches that a worker has under way at a time; else one."""

_MOST_UNACKED: Final = 200
"""Messages that wait for a reader of its own: no more than it handles within _ACK_WAIT, or each would come twice."""

_BATCH: Final = 20
_PATIENCE: Final = 5.0
"""Seconds after which no answer of the server's is waited for."""

_NAMED: Final = 0.1
"""Share of the copies that keep the id by which the stream itself drops repeats."""


class OneStream:
    """See ``Bus``."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._stream = plan.channel
        self._followed = 0

    async def prepare(self) -> None:
        """See ``Bus``."""
        plan = self._plan
        config = StreamConfig(
            name=self._stream,
            subjects=plan.subjects,
            duplicate_window=plan.policy.window,
            num_replicas=plan.servers,
            max_msgs=plan.limit or -1,
        )
        async with self._plain() as js:
            async with asyncio.timeout(_ELECTION_SECONDS):
                while True:
                    try:
                        await js.add_stream(config)
                        break
                    except (Error, TimeoutError):  # the servers have no leader yet
                        if plan.servers == 1:
                            raise
                        await asyncio.sleep(0.5)
            if plan.scene.shape in {"durable", "sole"}:
                await js.add_consumer(self._stream, self._durable())
        await initialise(plan, stream_reader(self._stream, _DURABLE))

    @asynccontextmanager
    async def speaking(self) -> AsyncIterator[_Speaking]:
        """See ``Bus``."""
        async with speakers(self._plan) as clients:
            yield _Speaking(self._stream, self._plan.subjects[0], [client.jetstream() for client in clients])

    @asynccontextmanager
    async def attacking(self) -> AsyncIterator[_Attacking]:
        """See ``Bus``."""
        async with eavesdropping(self._plan) as ears:
            yield _Attacking(ears, self._plan)

    async def work(self, worker: Worker, handle: Handler, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """See ``Bus``; a wish to subscribe again is for one of the lanes, whichever sees it first."""
        scene, watchword = self._plan.scene, await worker.watchword()
        presence = Writer(self._plan.directory, f"{PRESENT}{worker.name}")
        count, begun = _LANES.get(scene.shape, 1), set[int]()

        async def hands_over(number: int, found: Sequence[Msg]) -> None:
            HAND.set(f"{worker.name}/{number}")
            await handle(
                [
                    Handed(one.verified, one.metadata.timestamp.timestamp())
                    for one in found
                    if isinstance(one, VerifiedMsg)
                ]
            )
            if scene.shape != "ordered":
                for msg in found:
                    await msg.ack()

        async def lane(number: int) -> None:
            HAND.set(f"{worker.name}/{number}")
            reading = Reading(js, self._plan, self._durable())
            while not stop.is_set():
                try:
                    if await reading.begin():
                        presence.tell((HERE,))
                        waited_for = count - len(begun)
                        begun.add(number)
                        if waited_for and len(begun) == count:
                            ready()
                    if worker.wishes:
                        worker.wishes.popleft()
                        await reading.end()
                        continue
                    await hands_over(number, await reading.read())
                except (Error, Unavailable):  # the server is away, or what a memory would be built from
                    await asyncio.sleep(0.1)
                    await reading.check()
            await reading.end()

        async with (
            quarantine(self._plan, watchword) as kept,
            connected(WatchwordClient(watchword=watchword, quarantine=kept), self._plan.address) as client,
        ):
            js = client.jetstream(sole_reader=scene.store == "memory")
            await asyncio.gather(*map(lane, range(count)))

    async def lag(self) -> int:
        """See ``Bus``."""
        async with self._plain() as js:
            found = [one for one in await js.consumers_info(self._stream) if one.name != _FOLLOWER]
        missing = self._plan.workers - len(found) if self._plan.scene.is_apart else 1 - len(found)
        return sum((one.num_pending or 0) + (one.num_ack_pending or 0) for one in found) + max(0, missing)

    async def log(self, end: asyncio.Event) -> AsyncIterator[tuple[str, str]]:
        """See ``Bus``; read while it grows, for a purge may take what was there. What it loses is written down."""
        retained, first = Writer(self._plan.directory, RETAINED), 1
        async with self._plain() as js:
            config = ConsumerConfig(
                durable_name=_FOLLOWER, ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL, num_replicas=1
            )
            reading: Any = None
            looked, ending = time.time(), False
            while True:
                try:
                    reading = reading or await js.pull_subscribe(
                        ">", durable=_FOLLOWER, stream=self._stream, config=config
                    )
                    now = time.time()
                    state = (await js.stream_info(self._stream)).state
                    if state.first_seq > first:
                        first = state.first_seq
                        retained.tell((str(first), f"{looked:.3f}"))
                    looked = now
                    found = await reading.fetch(_FOLLOWED, timeout=0.5)
                except TimeoutError:
                    if ending:
                        return
                    ending = end.is_set()
                    continue
                except Error:  # the server is away
                    await asyncio.sleep(0.2)
                    continue
                for msg in found:
                    sequence = msg.metadata.sequence.stream
                    # What was on its way when a server went is not offered again: it is asked for by its place.
                    for missing in range(max(self._followed + 1, first), sequence):
                        with suppress(Error, TimeoutError):
                            lost = await js.get_msg(self._stream, missing)
                            yield (lost.data or b"").decode(errors="replace"), self._place(missing)
                    if sequence > self._followed:  # after an error it may come again
                        yield msg.data.decode(errors="replace"), self._place(sequence)
                        self._followed = sequence

    def _place(self, sequence: int) -> str:
        return place(Position(self._stream, sequence), None)

    async def cut(self, *, everything: bool) -> int:
        """See ``Retaining``; but only what the log was read of, and of that what all consumers are done with."""
        async with self._plain() as js:
            before = (await js.stream_info(self._stream)).state.messages
            found = [one for one in await js.consumers_info(self._stream) if one.name != _FOLLOWER]
            done = min((one.ack_floor.stream_seq for one in found if one.ack_floor is not None), default=0)
            done = self._followed if everything else min(done, self._followed)
            if done:
                await js.purge_stream(self._stream, seq=done + 1)
            return before - (await js.stream_info(self._stream)).state.messages

    async def recreate(self) -> None:
        """See ``Leading``; a push consumer's next life would need the deliver subject, so readers recreate theirs."""
        async with self._plain() as js:
            await js.delete_consumer(self._stream, _DURABLE)
            if self._plan.scene.shape != "push":
                await js.add_consumer(self._stream, self._durable())

    async def step_down(self) -> None:
        """See ``Leading``."""
        async with connected(Client(), self._plan.address) as client:
            asked = [f"$JS.API.STREAM.LEADER.STEPDOWN.{self._stream}"]
            with suppress(Error, TimeoutError):  # the leader may be away just now
                found = await client.jetstream().consumers_info(self._stream)
                asked += [f"$JS.API.CONSUMER.LEADER.STEPDOWN.{self._stream}.{one.name}" for one in found]
            for subject in reversed(asked):
                with suppress(Error, TimeoutError):
                    await client.request(subject, b"", timeout=_PATIENCE)

    def _durable(self) -> ConsumerConfig:
        return ConsumerConfig(
            durable_name=_DURABLE,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=_ACK_WAIT,
            max_ack_pending=self._plan.workers * _LANES["durable"] * _BATCH,
        )

    @asynccontextmanager
    async def _plain(self) -> AsyncIterator[JetStreamContext]:
        async with connected(Client(), self._plan.address) as client:
            yield client.jetstream()


class Reading:
    """One subscription, however the scenario reads, begun again when its consumer is gone."""

    def __init__(self, js: VerifyingJetStream, plan: Plan, durable: ConsumerConfig) -> None:
        self._js = js
        self._plan = plan
        self._durable = durable
        self._subscription: Any = None

    async def begin(self) -> bool:
        """Subscribe, unless that is done; return True if it was done now."""
        if self._subscription is not None:
            return False
        stream = self._plan.channel
        own = ConsumerConfig(ack_wait=_ACK_WAIT, inactive_threshold=_ACK_WAIT, max_ack_pending=_MOST_UNACKED)
        match self._plan.scene.shape:
            case "durable" | "sole":
                self._subscription = await self._js.pull_subscribe_bind(_DURABLE, stream)
            case "push":
                self._subscription = await self._js.subscribe(
                    ">", durable=_DURABLE, stream=stream, config=self._durable, manual_ack=True
                )
            case "ephemeral pull":
                self._subscription = await self._js.pull_subscribe(">", stream=stream, config=own)
            case "ephemeral push":
                self._subscription = await self._js.subscribe(">", stream=stream, config=own, manual_ack=True)
            case _:
                self._subscription = await self._js.subscribe(">", stream=stream, ordered_consumer=True)
        return True

    async def read(self) -> list[Msg]:
        """Return what is there; empty after a while."""
        try:
            if hasattr(self._subscription, "fetch"):
                found: list[Msg] = await self._subscription.fetch(_BATCH, timeout=1)
                return found
            return [await self._subscription.next_msg(timeout=1)]
        except TimeoutError:
            await self.check()
            return []

    async def check(self) -> None:
        """Forget a subscription whose consumer is gone; an ordered one is recreated by the client itself."""
        if self._subscription is None or self._plan.scene.shape == "ordered":
            return
        try:
            await self._subscription.consumer_info()
        except NotFoundError:
            await self.end()
        except (Error, TimeoutError):  # the server is away
            return

    async def end(self) -> None:
        """Unsubscribe."""
        ending, self._subscription = self._subscription, None
        if ending is not None:
            with suppress(Error, TimeoutError):
                await ending.unsubscribe()


class _Speaking:
    def __init__(self, stream: str, subject: str, contexts: Sequence[VerifyingJetStream]) -> None:
        self._stream = stream
        self._subject = subject
        self._contexts = cycle(contexts)

    async def send(self, names: Sequence[str]) -> dict[str, str]:
        acked: dict[str, str] = {}

        async def one(js: VerifyingJetStream, name: str) -> None:
            try:
                async with asyncio.timeout(_PATIENCE):
                    told = await (await js.publish_async(self._subject, name.encode()))
            except (Error, SigningError, Unavailable, TimeoutError):
                return
            acked[name] = place(Position(self._stream, told.seq), None)

        await asyncio.gather(*(one(next(self._contexts), name) for name in names))
        return acked


class _Attacking:
    def __init__(self, ears: Eavesdropper, plan: Plan) -> None:
        self._ears = ears
        self._js = ears.client.jetstream()
        self._chance = plan.random("named")
        self.captures = ears.captures

    async def replay(self, captured: Captured) -> bool:
        headers = dict(captured.raw.headers)
        if self._chance.random() >= _NAMED:
            headers.pop(NATS_ID_HEADER, None)
        try:
            async with asyncio.timeout(_PATIENCE):
                sent = await self._js.publish_async(self._ears.elsewhere(), captured.raw.data, headers=headers)
                return not (await sent).duplicate
        except (Error, TimeoutError):
            return False
