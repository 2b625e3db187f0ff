"""The seam to aiokafka's consumer: every internal name that Watchword uses is listed here once, with the reason.

aiokafka has no interceptors. Names that are not public are listed in ``PRIVATE`` and checked when a consumer is created
or wrapped, so that a changed client fails at the start with an error that gives the name. Attributes that we assign are
listed too: if aiokafka renamed one, the assignment would have no effect and unverified records would pass.
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
    """One name: its class, the parameters of a function (None for an attribute), and why we use it."""

    owner: type
    name: str
    parameters: tuple[str, ...] | None
    why: str


CONNECTION: Final = (
    "bootstrap_servers", "client_id", "metadata_max_age_ms", "request_timeout_ms", "security_protocol", "ssl_context",
    "connections_max_idle_ms", "sasl_mechanism", "sasl_plain_username", "sasl_plain_password",
    "sasl_kerberos_service_name", "sasl_kerberos_domain_name", "sasl_oauth_token_provider",
)  # fmt: skip
"""Connection options of a client, which it stores as private attributes."""

PRIVATE: Final = (
    Name(AIOKafkaConsumer, "_client", None, "fetched bytes pass through its send() before they are decoded"),
    Name(AIOKafkaConsumer, "_subscription", None, "the offsets being read: no public call returns an assignment"),
    Name(AIOKafkaConsumer, "_coordinator", None, "commits carry metadata, which no public call reads back"),
    Name(AIOKafkaConsumer, "_fetcher", None, "all reads go through it, so it decides what callers see"),
    Name(AIOKafkaConsumer, "_closed", None, "silences 'was not closed' if a constructor failed; written"),
    Name(AIOKafkaConsumer, "_group_id", None, "a reader without a group stores no positions"),
    Name(AIOKafkaConsumer, "_enable_auto_commit", None, "the client would commit unverified records; written"),
    Name(AIOKafkaConsumer, "_auto_commit_interval_ms", None, "we commit instead of the client, as often"),
    Name(AIOKafkaConsumer, "_request_timeout_ms", None, "bounds our own commits like the client's"),
    Name(AIOKafkaConsumer, "_key_deserializer", None, "would see unverified bytes; written"),
    Name(AIOKafkaConsumer, "_value_deserializer", None, "as _key_deserializer; written"),
    Name(SubscriptionState, "_listener", None, "a wrapped consumer commits at a revocation too; written"),
    Name(SubscriptionState, "_fetch_count", None, "a task that waits in the client would get an unverified record"),
    Name(SubscriptionState, "_last_fetch_ended", None, "the time of the last poll, which we count for the client"),
    Name(Fetcher, "_create_fetch_waiter", (), "completes on data, on an error of the group, and on close"),
    Name(Fetcher, "_fetch_waiters", None, "a task that waits in the fetcher itself would get an unverified record"),
    Name(Fetcher, "_fetch_max_wait_ms", None, "requests queued after a fetch that waits for records wait too; written"),
    Name(Fetcher, "_isolation_level", None, "decides whether a fetch beyond the last stable offset returns at once"),
    Name(Fetcher, "_pending_tasks", None, "fetches that were already under way return unchecked bytes"),
    Name(GroupCoordinator, "_enable_auto_commit", None, "as the consumer's, once it has started; written"),
    *(Name(AIOKafkaClient, f"_{one}", None, "a quarantine connects as its consumer does") for one in CONNECTION),
)
"""Names that are not public. Public functions of classes that are not public are in ``USED``."""

USED: Final = (
    Name(AIOKafkaClient, "send", ("node_id", "request", "group"), "fetched bytes pass through it; written"),
    Name(AIOKafkaClient, "coordinator_lookup", ("coordinator_type", "coordinator_key"), "finds a group's coordinator"),
    Name(AIOKafkaClient, "fetch_all_metadata", (), "returns the partitions of topics without a subscription"),
    Name(AIOKafkaClient, "get_random_node", (), "any node can describe a topic's configuration"),
    Name(AIOKafkaClient, "bootstrap", (), "the control log queries brokers itself: consumers do not expose topic ids"),
    Name(AIOKafkaClient, "close", (), "as bootstrap"),
    Name(
        Fetcher,
        "fetched_records",
        ("partitions", "timeout", "max_records"),
        "takes records, and returns ours to any other holder; written",
    ),
    Name(Fetcher, "next_record", ("partitions",), "returns our records to holders from before we took over; written"),
    Name(Fetcher, "seek_to", ("tp", "offset"), "moves the position and drops what was fetched"),
    Name(Fetcher, "request_offset_reset", ("tps", "strategy"), "seeks to the ends of a log"),
    Name(Fetcher, "get_offsets_by_times", ("timestamps", "timeout_ms"), "looks up times"),
    Name(Fetcher, "beginning_offsets", ("partitions", "timeout_ms"), "finds what retention has left"),
    Name(Fetcher, "end_offsets", ("partitions", "timeout_ms"), "for the caller, and to find what must be judged"),
    Name(Fetcher, "close", (), "stops the client's own fetches"),
    Name(GroupCoordinator, "fetch_committed_offsets", ("partitions",), "reads commits with their metadata"),
    Name(GroupCoordinator, "commit_offsets", ("assignment", "offsets"), "commits with metadata"),
    Name(SubscriptionState, "subscription", None, "leads to the assignment"),
    Name(SubscriptionState, "reassignment_in_progress", None, "a partition may already be another member's"),
    Name(SubscriptionState, "listener", None, "the caller's, which we call before we commit"),
    Name(SubscriptionState, "wait_for_assignment", (), "completes when partitions are assigned"),
    Name(SubscriptionState, "fetch_context", (), "never uncounts a call that ended with an error; written"),
    Name(Subscription, "assignment", None, "is another object after each rebalance"),
    Name(Assignment, "tps", None, "the partitions"),
    Name(Assignment, "state_value", ("tp",), "position and pause of a partition"),
    Name(TopicPartitionState, "has_valid_position", None, "True if there is a position"),
    Name(TopicPartitionState, "position", None, "the next offset that the client reads"),
    Name(TopicPartitionState, "paused", None, "True if the caller wants no records"),
)

_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
"""Parameter kinds that accept any argument, like those of wrappers that tracing puts around a client's functions."""

HELD: Final = "_fetched_by"
"""Where our consumer, whose ``_fetcher`` is a property, stores the value that the client assigns."""

_LATER: Final = (Subscription, Assignment, TopicPartitionState)
"""Classes that may have no instance yet: the names that we use are defined on the class itself."""


def check(consumer: AIOKafkaConsumer) -> None:
    """Raise ConfigurationError unless a consumer has every name that we use, with the parameters we expect.

    The fetcher and the coordinator, which it creates when it starts, are checked as soon as they exist.
    """
    _check(consumer, AIOKafkaConsumer)
    held = vars(consumer)
    if not {"_fetcher", HELD} & held.keys():  # our property exists, but the client never assigns it
        raise _changed(next(one for one in PRIVATE if one.name == "_fetcher"), "is not set")
    _check(consumer._client, AIOKafkaClient)
    _check(consumer._subscription, SubscriptionState)
    for owner in _LATER:
        _check(owner, owner)
    _check_started(held.get("_fetcher"), consumer._coordinator)


def check_client(client: AIOKafkaClient) -> None:
    """Raise ConfigurationError unless a client that belongs to no consumer has every name that we use."""
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
            raise _changed(one, "does not exist")
        if one.parameters is None:
            continue
        if not callable(found):
            raise _changed(one, "is not a function")
        parameters = inspect.signature(found).parameters
        named = tuple(name for name, parameter in parameters.items() if parameter.kind not in _VARIADIC)
        expected = ("self", *one.parameters) if instance is owner else one.parameters
        if named != (expected if len(named) == len(parameters) else expected[: len(named)]):
            raise _changed(one, f"takes {tuple(parameters)}, not {expected}")


def changed(name: str) -> ConfigurationError:
    """Return the error for a client that no longer assigns one of its own attributes."""
    return _changed(next(one for one in PRIVATE if one.name == name), "is not set by start()")


def _changed(one: Name, how: str) -> ConfigurationError:
    return ConfigurationError(
        f"aiokafka {version('aiokafka')}: {one.owner.__name__}.{one.name} {how}; Watchword uses it ({one.why})."
        " Install a version of aiokafka that watchword[kafka] allows"
    )


class Inside:
    """The internals of one consumer, as far as a reader needs them.

    It holds no reference to the consumer, so that a consumer that is no longer referenced is collected, and warns that
    it was not closed.
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
        """Pass the response of each fetch, and the time before the request, to ``heard`` before the client decodes it.

        ``heard`` returns how many seconds to withhold the response, during which the client sends no further fetch. The
        client retries after a KafkaError; any other error would end its fetches for good.
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
        """Take the client's own fetcher; any other holder of it gets the records of ``ours``."""
        self._fetcher = fetcher  # first, so that it is closed even if the check fails
        _check_started(fetcher, None)
        self._fetched_records = fetcher.fetched_records
        fetcher.fetched_records, fetcher.next_record = ours.fetched_records, ours.next_record
        self._longest_wait_ms = fetcher._fetch_max_wait_ms

    def keep_fetches(self, most_ms: int | None) -> None:
        """Limit how long brokers may hold an empty fetch, in ms; None: only the caller's setting applies."""
        if self._fetcher is not None:
            longest = self._longest_wait_ms
            self._fetcher._fetch_max_wait_ms = longest if most_ms is None else min(most_ms, longest)

    @property
    def reads_committed(self) -> bool:
        """True if the broker withholds records of open transactions and everything after them."""
        return bool(self.fetcher._isolation_level)

    def started(self) -> None:
        """Check what the client created when it started."""
        consumer = self._consumer()
        _check_started(None, None if consumer is None else consumer._coordinator)

    @property
    def _coordinator(self) -> Any:
        """The client's own coordinator; ConfigurationError before the start."""
        consumer = self._consumer()
        found = None if consumer is None else consumer._coordinator
        if found is None:
            raise _not_started()
        return found

    @property
    def fetcher(self) -> Any:
        """The client's own fetcher; ConfigurationError before the start."""
        self.require_start()
        return self._fetcher

    def require_start(self) -> None:
        """Raise ConfigurationError if the consumer was not started."""
        if self._fetcher is None:
            raise _not_started()

    def require_commits(self, offsets: Iterable[TopicPartition] | None) -> None:
        """Raise the client's own error if it cannot commit."""
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
        """Drop what a consumer fetched or is fetching from before it was wrapped; return its positions."""
        for task in self.fetcher._pending_tasks:
            task.cancel()
        assignment = self.assignment()
        found = {tp: self.position(tp) for tp in (() if assignment is None else assignment.tps)}
        positions = {tp: position for tp, position in found.items() if position is not None}
        for tp, position in positions.items():
            self.seek(tp, position)
        return positions

    # State

    def assignment(self) -> Any:
        """Return the present assignment, a new object after each rebalance; None without one."""
        subscription = self.subscriptions.subscription
        return None if subscription is None else subscription.assignment

    @property
    def rebalancing(self) -> bool:
        """True while the group rebalances: assigned partitions may already be another member's."""
        return bool(self.subscriptions.reassignment_in_progress)

    def position(self, tp: TopicPartition) -> int | None:
        """Return the client's own position; None if there is none yet."""
        state = self._state(tp)
        return state.position if state is not None and state.has_valid_position else None

    def is_paused(self, tp: TopicPartition) -> bool:
        """Return True if the caller has paused this partition."""
        state = self._state(tp)
        return state is not None and bool(state.paused)

    def _state(self, tp: TopicPartition) -> Any:
        assignment = self.assignment()
        return None if assignment is None else assignment.state_value(tp)

    # Actions

    async def take(self, tp: TopicPartition, most: int | None) -> list[ConsumerRecord[Any, Any]]:
        """Return fetched records of a partition and advance its position past them; raises the client's errors.

        After an error the position is restored: the client would otherwise skip what it had decoded by then.
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
        """Return the group's committed offset and its metadata; None if nothing is committed."""
        if self.group is None:
            return None
        found = (await self._coordinator.fetch_committed_offsets([tp])).get(tp)
        return None if found is None or found.offset < 0 else (found.offset, found.metadata or "")

    async def ends(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the end offsets of logs."""
        found: dict[TopicPartition, int] = await self.fetcher.end_offsets(list(tps), self._timeout_ms)
        return found

    async def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        """Commit offsets with their metadata; raises the client's errors and TimeoutError."""
        assignment = self.assignment()
        tps = () if assignment is None else assignment.tps
        wanted = {tp: OffsetAndMetadata(*one) for tp, one in offsets.items() if tp in tps}
        await self._coordinator.commit_offsets(assignment, wanted)

    async def first_offset(self, tp: TopicPartition) -> int:
        """Return the first offset still in the log."""
        found: dict[TopicPartition, int] = await self.fetcher.beginning_offsets([tp], self._timeout_ms)
        return found[tp]

    async def look_up(self, tp: TopicPartition, seconds: float) -> Found | None:
        """Return the first record at or after a time, in seconds since the epoch."""
        milliseconds = max(0, int(seconds * 1000) - 1)
        found = (await self.fetcher.get_offsets_by_times({tp: milliseconds}, self._timeout_ms))[tp]
        return None if found is None else Found(found.offset, found.timestamp / 1000)

    def news(self) -> asyncio.Future[None]:
        """Return a future that completes when the client has records or an error, or is closed."""
        future: asyncio.Future[None] = self.fetcher._create_fetch_waiter()
        future.add_done_callback(_look_at)
        return future

    def new_assignment(self) -> asyncio.Future[None]:
        """Return a future that completes when partitions are assigned; waiting calls share it."""
        if self._assigned is None or self._assigned.done():
            self._assigned = self.subscriptions.wait_for_assignment()
            self._assigned.add_done_callback(_look_at)
        return self._assigned

    def listen(self, listener: ConsumerRebalanceListener) -> None:
        """Replace the caller's listener."""
        self.subscriptions._listener = listener

    @property
    def listener(self) -> ConsumerRebalanceListener | None:
        """The caller's listener."""
        found: ConsumerRebalanceListener | None = self.subscriptions.listener
        return found


class _Polls:
    """Replaces the client's count of polling callers with one that is decremented however a call ends.

    The client's own is not decremented after an error, and a member that seems to poll forever is never expelled.
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
    """Mark an error as retrieved, so that the event loop does not log it: the client raises it in the next call."""
    if not future.cancelled():
        future.exception()


def _not_started() -> ConfigurationError:
    return ConfigurationError("the consumer is not started: await consumer.start(), or use 'async with'")


class Settings(NamedTuple):
    """Options of a consumer that we take over."""

    key_deserializer: Any
    value_deserializer: Any
    auto_commit: bool
    interval: float
    timeout: float


def take_over(consumer: AIOKafkaConsumer) -> Settings:
    """Disable a consumer's deserializers and automatic commits, and return how they were configured."""
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
    """Suppress the warning of a consumer whose constructor failed: no caller has it to stop it."""
    if hasattr(consumer, "_closed"):
        consumer._closed = True


def connection_of(consumer: AIOKafkaConsumer) -> dict[str, Any]:
    """Return the options with which another client connects like this one."""
    check(consumer)
    return {name: getattr(consumer._client, f"_{name}") for name in CONNECTION}


async def partitions_at_the_broker(consumer: AIOKafkaConsumer, topic: str) -> list[int]:
    """Ask the broker for a topic's partitions: a consumer without topics knows none, and waits for a missing topic."""
    cluster = await consumer._client.fetch_all_metadata()
    return sorted(cluster.partitions_for_topic(topic) or ())


def has_started(consumer: AIOKafkaConsumer) -> bool:
    """Return True if a plain aiokafka consumer was started."""
    return consumer._fetcher is not None


def has_deserializers(consumer: AIOKafkaConsumer) -> bool:
    """Return True if a plain aiokafka consumer has deserializers."""
    return consumer._key_deserializer is not None or consumer._value_deserializer is not None


def is_waited_on(consumer: AIOKafkaConsumer) -> bool:
    """Return True if a task waits for a record in a plain aiokafka consumer or in its fetcher."""
    waiters = () if consumer._fetcher is None else consumer._fetcher._fetch_waiters
    return bool(consumer._subscription._fetch_count) or not all(waiter.done() for waiter in waiters)


def boot_time() -> float:
    """Return the seconds of a monotonic clock that includes time during which the machine is suspended."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
