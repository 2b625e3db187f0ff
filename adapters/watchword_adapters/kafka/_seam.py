"""The seam to aiokafka: every name of its insides that Watchword uses stands here, once, with the reason.

aiokafka has no interceptors. What is public there is used as it is; what is not is listed in ``PRIVATE``, and checked
when a consumer is made or wrapped: a client that was changed stops the start with an error that names it. An attribute
that we write is among these, for written blindly it would do nothing, and let everything through.
"""

# ruff: noqa: SLF001 - this is the one place where aiokafka's private names are used

from __future__ import annotations

import asyncio
import inspect
import time
import weakref
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import (
    Assignment,
    Subscription,
    SubscriptionState,
    TopicPartitionState,
)
from aiokafka.errors import IllegalOperation, IllegalStateError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from watchword import ConfigurationError
from watchword.partition import Found

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from aiokafka.abc import ConsumerRebalanceListener
    from aiokafka.structs import ConsumerRecord


class Name(NamedTuple):
    """One name: whose it is, the parameters of a function (None for an attribute), why we use it."""

    owner: type
    name: str
    parameters: tuple[str, ...] | None
    why: str


CONNECTION: Final = (
    "bootstrap_servers", "client_id", "metadata_max_age_ms", "request_timeout_ms", "security_protocol", "ssl_context",
    "connections_max_idle_ms", "sasl_mechanism", "sasl_plain_username", "sasl_plain_password",
    "sasl_kerberos_service_name", "sasl_kerberos_domain_name", "sasl_oauth_token_provider",
)  # fmt: skip
"""Options of a client for its connections, which it keeps as private attributes."""

PRIVATE: Final = (
    Name(AIOKafkaConsumer, "_client", None, "its send() is where fetched bytes pass before they are decoded"),
    Name(AIOKafkaConsumer, "_subscription", None, "who reads what from where: nothing public names an assignment"),
    Name(
        AIOKafkaConsumer, "_coordinator", None, "commits carry metadata and are read with it; no public call reads it"
    ),
    Name(AIOKafkaConsumer, "_fetcher", None, "all reads go through it: what stands here decides what callers see"),
    Name(AIOKafkaConsumer, "_closed", None, "one that could not be made warns no more that it was not closed; written"),
    Name(AIOKafkaConsumer, "_group_id", None, "a reader without a group keeps no positions"),
    Name(AIOKafkaConsumer, "_enable_auto_commit", None, "the client would commit what nobody has judged; written"),
    Name(AIOKafkaConsumer, "_auto_commit_interval_ms", None, "we commit in the client's place, as often"),
    Name(AIOKafkaConsumer, "_request_timeout_ms", None, "bounds our own commits as it does the client's"),
    Name(AIOKafkaConsumer, "_key_deserializer", None, "would see bytes that nobody has judged; written"),
    Name(AIOKafkaConsumer, "_value_deserializer", None, "as _key_deserializer; written"),
    Name(SubscriptionState, "_listener", None, "a wrapped consumer commits at a revocation too; written"),
    Name(SubscriptionState, "_fetch_count", None, "a task that waits in the client would get a record past us"),
    Name(SubscriptionState, "_last_fetch_ended", None, "tells when a caller polled, for whom we count"),
    Name(Fetcher, "_create_fetch_waiter", (), "ends a wait when data, an error of the group, or the end has come"),
    Name(Fetcher, "_fetch_waiters", None, "a task that waits in the fetcher itself would get a record past us"),
    Name(Fetcher, "_fetch_max_wait_ms", None, "what is asked behind a fetch that waits for records waits too; written"),
    Name(Fetcher, "_isolation_level", None, "tells whether a fetch beyond the last stable offset comes back at once"),
    Name(Fetcher, "_pending_tasks", None, "fetches that were under way before us bring bytes that nobody has checked"),
    Name(GroupCoordinator, "_enable_auto_commit", None, "as the consumer's, once it has started; written"),
    *(Name(AIOKafkaClient, f"_{one}", None, "a quarantine connects as its consumer does") for one in CONNECTION),
)
"""What is not public. Functions that are, of classes that are not, are in ``USED``."""

USED: Final = (
    Name(AIOKafkaClient, "send", ("node_id", "request", "group"), "where fetched bytes pass; written"),
    Name(AIOKafkaClient, "coordinator_lookup", ("coordinator_type", "coordinator_key"), "knows all that a group read"),
    Name(AIOKafkaClient, "fetch_all_metadata", (), "tells the partitions of a topic that nobody has subscribed to"),
    Name(AIOKafkaClient, "get_random_node", (), "any node can tell how a topic is set up"),
    Name(AIOKafkaClient, "bootstrap", (), "the control log asks brokers itself: a consumer shows no topic's identity"),
    Name(AIOKafkaClient, "close", (), "as bootstrap"),
    Name(
        Fetcher,
        "fetched_records",
        ("partitions", "timeout", "max_records"),
        "takes records, and gives others ours; written",
    ),
    Name(Fetcher, "next_record", ("partitions",), "gives others our records, who had it before us; written"),
    Name(Fetcher, "seek_to", ("tp", "offset"), "moves the position and drops what was fetched"),
    Name(Fetcher, "request_offset_reset", ("tps", "strategy"), "seeks to the ends of a log"),
    Name(Fetcher, "get_offsets_by_times", ("timestamps", "timeout_ms"), "looks up times"),
    Name(Fetcher, "beginning_offsets", ("partitions", "timeout_ms"), "tells what retention has left"),
    Name(Fetcher, "end_offsets", ("partitions", "timeout_ms"), "for the caller; tells what is at stake"),
    Name(Fetcher, "close", (), "ends the client's own work"),
    Name(GroupCoordinator, "fetch_committed_offsets", ("partitions",), "reads commits with their metadata"),
    Name(GroupCoordinator, "commit_offsets", ("assignment", "offsets"), "commits with metadata"),
    Name(SubscriptionState, "subscription", None, "leads to the assignment"),
    Name(SubscriptionState, "reassignment_in_progress", None, "what is assigned may be another member's by now"),
    Name(SubscriptionState, "listener", None, "the caller's, which we call before we commit"),
    Name(SubscriptionState, "wait_for_assignment", (), "ends a wait when partitions come"),
    Name(SubscriptionState, "fetch_context", (), "counts a caller whose call ended with an error for ever; written"),
    Name(Subscription, "assignment", None, "is another object after each rebalance"),
    Name(Assignment, "tps", None, "the partitions"),
    Name(Assignment, "state_value", ("tp",), "position and pause of a partition"),
    Name(TopicPartitionState, "has_valid_position", None, "whether there is a position"),
    Name(TopicPartitionState, "position", None, "where the client goes on"),
    Name(TopicPartitionState, "paused", None, "whether the caller wants records"),
)

_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
"""Kinds of parameters that take whatever is given, as those of functions do that tracing puts around a client's."""

HELD: Final = "_fetched_by"
"""Where a consumer of ours, whose ``_fetcher`` is a property, keeps what the client puts there."""

_LATER: Final = (Subscription, Assignment, TopicPartitionState)
"""Classes of which there may be no instance yet: what we use of these is defined in the class."""


def check(consumer: AIOKafkaConsumer) -> None:
    """Raise ConfigurationError unless a consumer has every name that we use, in the shape we know.

    What it makes when it starts, its fetcher and its coordinator, is checked as soon as it is there.
    """
    _check(consumer, AIOKafkaConsumer)
    held = vars(consumer)
    if not {"_fetcher", HELD} & held.keys():  # our property is there, but the client does not set it
        raise _changed(next(one for one in PRIVATE if one.name == "_fetcher"), "is not set")
    _check(consumer._client, AIOKafkaClient)
    _check(consumer._subscription, SubscriptionState)
    for owner in _LATER:
        _check(owner, owner)
    _check_started(held.get("_fetcher"), consumer._coordinator)


def check_client(client: AIOKafkaClient) -> None:
    """Raise ConfigurationError unless a client that is no consumer's has every name that we use."""
    _check(client, AIOKafkaClient)


def _check_started(fetcher: object, coordinator: object) -> None:
    if fetcher is not None:
        _check(fetcher, Fetcher)
    if isinstance(coordinator, GroupCoordinator):
        _check(coordinator, GroupCoordinator)


def _check(instance: object, owner: type) -> None:
    for one in (*PRIVATE, *USED):
        if one.owner is not owner:
            continue
        found = getattr(instance, one.name, inspect.Parameter.empty)
        if found is inspect.Parameter.empty:
            raise _changed(one, "is not there")
        if one.parameters is None:
            continue
        if not callable(found):
            raise _changed(one, "is no function")
        parameters = inspect.signature(found).parameters
        named = tuple(name for name, parameter in parameters.items() if parameter.kind not in _VARIADIC)
        expected = ("self", *one.parameters) if instance is owner else one.parameters
        if named != (expected if len(named) == len(parameters) else expected[: len(named)]):
            raise _changed(one, f"takes {tuple(parameters)}, not {expected}")


def changed(name: str) -> ConfigurationError:
    """Return what to raise where the client does not use one of its own names any more."""
    return _changed(next(one for one in PRIVATE if one.name == name), "is not set by start()")


def _changed(one: Name, how: str) -> ConfigurationError:
    return ConfigurationError(
        f"aiokafka {version('aiokafka')}: {one.owner.__name__}.{one.name} {how}; Watchword uses it ({one.why})."
        " Install a version of aiokafka that watchword[kafka] allows"
    )


class Inside:
    """The inside of one consumer, as far as a reader needs it.

    It does not refer to the consumer: a consumer that nobody holds any more is to be collected, and to warn that it was
    not closed.
    """

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        check(consumer)
        self.group: Final[str | None] = consumer._group_id
        self.client: Final[Any] = consumer._client
        self.subscriptions: Final[Any] = consumer._subscription
        self._timeout_ms: Final[int] = consumer._request_timeout_ms
        self._consumer: Final = weakref.ref(consumer)
        self._fetcher: Any = None
        self._fetched_records: Any = None
        self._longest_wait_ms = 0
        self._assigned: asyncio.Future[None] | None = None
        _Polls(self.subscriptions)

    def tap(self, heard: Callable[[Any, float], Awaitable[float]], clock: Callable[[], float]) -> None:
        """Let ``heard`` see the answer to each fetch, and the time before that, before the client decodes anything.

        It returns the seconds for which the client is not to get the answer, and so not to ask again. The client tries
        again after an error of Kafka's own; any other would end its fetches for ever.
        """
        send: Any = self.client.send

        async def tapped(node_id: Any, request: Any, **options: Any) -> Any:
            before = clock()
            response = await send(node_id, request, **options)
            if isinstance(request, FetchRequest):
                rest = await heard(response, before)
                if rest:
                    await asyncio.sleep(rest)
            return response

        self.client.send = tapped

    def use(self, fetcher: Any, ours: Any) -> None:
        """Take the client's own fetcher; whoever else has it gets what ``ours`` gives."""
        self._fetcher = fetcher  # so that it is closed, whatever is found
        _check_started(fetcher, None)
        self._fetched_records = fetcher.fetched_records
        fetcher.fetched_records, fetcher.next_record = ours.fetched_records, ours.next_record
        self._longest_wait_ms = fetcher._fetch_max_wait_ms

    def keep_fetches(self, most_ms: int | None) -> None:
        """Let brokers keep a fetch that finds nothing for at most so long; None: for as long as the caller has said."""
        if self._fetcher is not None:
            longest = self._longest_wait_ms
            self._fetcher._fetch_max_wait_ms = longest if most_ms is None else min(most_ms, longest)

    @property
    def reads_committed(self) -> bool:
        """Whether the client is given nothing of open transactions, nor what stands behind them."""
        return bool(self.fetcher._isolation_level)

    def started(self) -> None:
        """Check what the client has made when it started."""
        consumer = self._consumer()
        _check_started(None, None if consumer is None else consumer._coordinator)

    @property
    def _coordinator(self) -> Any:
        """The client's own coordinator; ConfigurationError where it has none yet."""
        consumer = self._consumer()
        found = None if consumer is None else consumer._coordinator
        if found is None:
            raise _not_started()
        return found

    @property
    def fetcher(self) -> Any:
        """The client's own fetcher; ConfigurationError where it has none yet."""
        self.require_start()
        return self._fetcher

    def require_start(self) -> None:
        """Raise ConfigurationError where the consumer was not started."""
        if self._fetcher is None:
            raise _not_started()

    def require_commits(self, offsets: Iterable[TopicPartition] | None) -> None:
        """Raise what the client raises where it cannot commit."""
        if self.group is None:
            raise IllegalOperation("Requires group_id")
        self.require_start()
        if self.subscriptions.subscription is None:
            raise IllegalStateError("Not subscribed to any topics")
        assignment = self.assignment()
        if assignment is None:
            raise IllegalStateError("No partitions assigned")
        for tp in offsets or ():
            if tp not in assignment.tps:
                raise IllegalStateError(f"Partition {tp} is not assigned")

    def start_over(self) -> dict[TopicPartition, int]:
        """Drop what was fetched, and what is being fetched, before a wrapped consumer was ours; return where it is."""
        for task in self.fetcher._pending_tasks:
            task.cancel()
        assignment = self.assignment()
        found = {tp: self.position(tp) for tp in (() if assignment is None else assignment.tps)}
        positions = {tp: position for tp, position in found.items() if position is not None}
        for tp, position in positions.items():
            self.seek(tp, position)
        return positions

    # Where it stands

    def assignment(self) -> Any:
        """Return the present assignment, which is another object after each rebalance; None if there is none."""
        subscription = self.subscriptions.subscription
        return None if subscription is None else subscription.assignment

    @property
    def rebalancing(self) -> bool:
        """Whether the group is being rebalanced: what is assigned may be another member's."""
        return bool(self.subscriptions.reassignment_in_progress)

    def position(self, tp: TopicPartition) -> int | None:
        """Return the client's own position; None where it has none yet."""
        state = self._state(tp)
        return state.position if state is not None and state.has_valid_position else None

    def is_paused(self, tp: TopicPartition) -> bool:
        """Return True if the caller wants no records of this partition now."""
        state = self._state(tp)
        return state is not None and bool(state.paused)

    def _state(self, tp: TopicPartition) -> Any:
        assignment = self.assignment()
        return None if assignment is None else assignment.state_value(tp)

    # What it does

    async def take(self, tp: TopicPartition, most: int | None) -> list[ConsumerRecord[Any, Any]]:
        """Return what was fetched of a partition, and move its position behind that; the client's errors.

        After an error the client is where it was: left alone, it would go on behind what it had decoded by then.
        """
        self.require_start()
        before = self.position(tp)
        try:
            taken: dict[TopicPartition, Any] = await self._fetched_records((tp,), 0, most)
        except Exception:
            if before is not None and self.position(tp) == before:
                self.seek(tp, before)
            raise
        return list(taken.get(tp, ()))

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Move the position."""
        self.fetcher.seek_to(tp, offset)

    async def committed(self, tp: TopicPartition) -> tuple[int, str] | None:
        """Return the group's offset and its metadata; None where nothing is committed."""
        if self.group is None:
            return None
        found = (await self._coordinator.fetch_committed_offsets([tp])).get(tp)
        return None if found is None or found.offset < 0 else (found.offset, found.metadata or "")

    async def ends(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the ends of logs."""
        found: dict[TopicPartition, int] = await self.fetcher.end_offsets(list(tps), self._timeout_ms)
        return found

    async def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        """Commit offsets with their metadata; the client's errors, TimeoutError."""
        assignment = self.assignment()
        tps = () if assignment is None else assignment.tps
        wanted = {tp: OffsetAndMetadata(*one) for tp, one in offsets.items() if tp in tps}
        await self._coordinator.commit_offsets(assignment, wanted)

    async def first_offset(self, tp: TopicPartition) -> int:
        """Return the first offset that the log still has."""
        found: dict[TopicPartition, int] = await self.fetcher.beginning_offsets([tp], self._timeout_ms)
        return found[tp]

    async def look_up(self, tp: TopicPartition, seconds: float) -> Found | None:
        """Return the first record at or after a time, in seconds since the epoch."""
        milliseconds = max(0, int(seconds * 1000) - 1)
        found = (await self.fetcher.get_offsets_by_times({tp: milliseconds}, self._timeout_ms))[tp]
        return None if found is None else Found(found.offset, found.timestamp / 1000)

    def news(self) -> asyncio.Future[None]:
        """Return what ends when the client has something new: records, an error, its end."""
        future: asyncio.Future[None] = self.fetcher._create_fetch_waiter()
        future.add_done_callback(_look_at)
        return future

    def new_assignment(self) -> asyncio.Future[None]:
        """Return what ends when partitions are assigned; one future for all who wait."""
        if self._assigned is None or self._assigned.done():
            self._assigned = self.subscriptions.wait_for_assignment()
            self._assigned.add_done_callback(_look_at)
        return self._assigned

    def listen(self, listener: ConsumerRebalanceListener) -> None:
        """Put a listener in the place of the caller's."""
        self.subscriptions._listener = listener

    @property
    def listener(self) -> ConsumerRebalanceListener | None:
        """The caller's listener."""
        found: ConsumerRebalanceListener | None = self.subscriptions.listener
        return found


class _Polls:
    """The client's own count of callers who poll, which ends with a call however that ends.

    The client's forgets to after an error, and a member that seems to poll for ever is never expelled when it does not.
    """

    def __init__(self, subscription: Any) -> None:
        self._subscription: Final = subscription
        subscription.fetch_context = self._context

    def _context(self) -> _Polls:
        return self

    def __enter__(self) -> None:
        self._subscription._fetch_count += 1

    def __exit__(self, *_: object) -> None:
        subscription = self._subscription
        subscription._fetch_count -= 1
        if not subscription._fetch_count:
            subscription._last_fetch_ended = time.monotonic()


def _look_at(future: asyncio.Future[None]) -> None:
    """Let an error that nobody waits for be no error of the event loop's: the client keeps it for the next call."""
    if not future.cancelled():
        future.exception()


def _not_started() -> ConfigurationError:
    return ConfigurationError("the consumer is not started: await consumer.start(), or use 'async with'")


class Settings(NamedTuple):
    """What a consumer was told, and is done by us in its place."""

    key_deserializer: Any
    value_deserializer: Any
    auto_commit: bool
    interval: float
    timeout: float


def take_over(consumer: AIOKafkaConsumer) -> Settings:
    """Take deserializers and automatic commits away from a consumer, and return what it was told of them."""
    check(consumer)
    found = Settings(
        consumer._key_deserializer,
        consumer._value_deserializer,
        bool(consumer._enable_auto_commit) and consumer._group_id is not None,
        consumer._auto_commit_interval_ms / 1000,
        consumer._request_timeout_ms / 1000,
    )
    consumer._key_deserializer = consumer._value_deserializer = None
    consumer._enable_auto_commit = False
    if isinstance(consumer._coordinator, GroupCoordinator):
        consumer._coordinator._enable_auto_commit = False
    return found


def abandon(consumer: AIOKafkaConsumer) -> None:
    """Let a consumer that could not be made go without a warning: nobody has it, to stop it."""
    if hasattr(consumer, "_closed"):
        consumer._closed = True


def connection_of(consumer: AIOKafkaConsumer) -> dict[str, Any]:
    """Return the options with which another client connects as this one does."""
    check(consumer)
    return {name: getattr(consumer._client, f"_{name}") for name in CONNECTION}


async def partitions_at_the_broker(consumer: AIOKafkaConsumer, topic: str) -> list[int]:
    """Ask for the partitions of a topic: a consumer without topics knows none, and waits for one that is not there."""
    cluster = await consumer._client.fetch_all_metadata()
    return sorted(cluster.partitions_for_topic(topic) or ())


def has_started(consumer: AIOKafkaConsumer) -> bool:
    """Return True if a consumer that is not ours was started."""
    return consumer._fetcher is not None


def has_deserializers(consumer: AIOKafkaConsumer) -> bool:
    """Return True if a consumer that is not ours has deserializers."""
    return consumer._key_deserializer is not None or consumer._value_deserializer is not None


def is_waited_on(consumer: AIOKafkaConsumer) -> bool:
    """Return True if a task waits for a record in a consumer that is not ours, or in its fetcher."""
    waiters = () if consumer._fetcher is None else consumer._fetcher._fetch_waiters
    return bool(consumer._subscription._fetch_count) or not all(waiter.done() for waiter in waiters)


def boot_time() -> float:
    """Return seconds of a clock that never steps back and goes on while the machine is suspended."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
