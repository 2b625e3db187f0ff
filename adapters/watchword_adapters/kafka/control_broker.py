"""Broker requests about the topic of a control log: metadata, offsets, settings, creation and fetches, with retries."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.errors import IncompatibleBrokerVersion, KafkaConnectionError, KafkaError, for_code
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.offset import OffsetRequest

from watchword import ConfigurationError, Unavailable
from watchword.endings import delay_after
from watchword.strict import base64url
from watchword_adapters.control.log import End
from watchword_adapters.kafka import _seam as seam
from watchword_adapters.kafka.control_topic import MADE, SETTINGS
from watchword_adapters.kafka.topic_ids import (
    NO_ID,
    FetchByIdRequest,
    Fetched,
    Topic,
    TopicRequest,
    fetched_in,
    topic_in,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiokafka.protocol.api import Request

OFFSET_OUT_OF_RANGE: Final = 1

_UNKNOWN_TOPIC: Final = 3
_NO_LEADER: Final = 5
_TOPIC_EXISTS: Final = 36
_DESCRIBE: Final = "Read, or at least Describe,"  # Describe is implied by Read and by Write
_NOT_ALLOWED: Final = frozenset({29, 31})  # on the topic, on the cluster

# Unknown topic, no leader, not the leader, request timed out, replica not available, storage error, listener not found,
# fenced or unknown epoch, offset not available, not the controller; topic ids that this broker does not know (yet), or
# that do not match. Fresh metadata show where to ask (Kafka protocol guide, "Error Codes").
_LOOK_AGAIN: Final = frozenset({_UNKNOWN_TOPIC, _NO_LEADER, 6, 7, 9, 56, 72, 74, 75, 76, 78, 41, 100, 103})

_FIRST, _NEXT = -2, -1
_PARTITION: Final = 0
_TOPIC_RESOURCE: Final = 2
_MOST_REPLICAS: Final = 3

_WAIT_MS: Final = 1000
"""How long a broker holds a fetch while there is no data, in milliseconds."""

_FETCH_BYTES: Final = 1 << 20

PATIENCE: Final = 10.0
"""Seconds from the first failure on during which a failed request is retried."""

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0

_T = TypeVar("_T")


class LookAgainError(KafkaError):
    """A broker cannot answer now; retry with fresh metadata."""

    retriable = True


class ControlBroker:
    """Sends requests about one topic to its brokers; retries for ``PATIENCE``, then raises the client's error.

    A missing right, a missing topic and brokers that are too old raise ConfigurationError.
    """

    def __init__(self, topic: str, **options: Any) -> None:
        self.topic_name: Final = topic
        self._client: Final = AIOKafkaClient(**options)
        seam.check_client(self._client)
        self._is_closed = False

    async def connect(self) -> None:
        """Connect to a broker."""
        await self._client.bootstrap()

    async def close(self) -> None:
        """Close all connections."""
        self._is_closed = True
        await self._client.close()

    async def patiently(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Call ``ask``; retry for a while if brokers or connections are not ready."""
        loop = asyncio.get_running_loop()
        failures, failed_at = 0, None
        while True:
            try:
                return await ask()
            except KafkaError as error:
                failed_at = loop.time() if failed_at is None else failed_at
                if not error.retriable or loop.time() - failed_at >= PATIENCE:
                    raise
            await asyncio.sleep(delay_after(failures, FIRST_PAUSE, LONGEST_PAUSE))
            failures += 1

    async def topic(self) -> Topic:
        """Return the topic's metadata, with retries."""
        return await self.patiently(self.look)

    async def look(self) -> Topic:
        """Return the topic's metadata as a broker has them now."""
        found = await self._found()
        if found.error == _UNKNOWN_TOPIC:
            raise ConfigurationError(
                f"control topic {self.topic_name!r} does not exist: run watchword control init, which creates it"
            )
        self._check(found.error, _DESCRIBE)
        if found.leader < 0:
            raise LookAgainError(f"topic {self.topic_name!r} has no leader")
        if found.id == NO_ID:
            raise self._too_old()
        return found

    async def end(self) -> End:
        """Return the topic's identity, first offset and end offset."""
        return await self.patiently(self._end)

    async def _end(self) -> End:
        topic = await self.look()
        first, behind = await self._offset(topic, _FIRST), await self._offset(topic, _NEXT)
        if (await self.look()).id != topic.id:  # offset requests name the topic
            raise LookAgainError(f"topic {self.topic_name!r} is being recreated")
        return End(identity(topic), first, behind)

    async def _offset(self, topic: Topic, which: int) -> int:
        answer = await self._send(topic.leader, OffsetRequest(-1, 0, [(self.topic_name, [(_PARTITION, which)])]))
        ((_, ((_, error, _, offset),)),) = answer.topics
        self._check(error, _DESCRIBE)
        return int(offset)

    async def settings(self) -> Mapping[str, str | None]:
        """Return those settings of the topic that matter here, as far as the broker reports them."""

        async def ask() -> Mapping[str, str | None]:
            request = DescribeConfigsRequest([(_TOPIC_RESOURCE, self.topic_name, list(SETTINGS))])
            answer = await self._send(self._any(), request)
            ((error, _, _, _, entries),) = answer.resources
            self._check(error, "DescribeConfigs")
            return {name: value for name, value, *_ in entries}

        return await self.patiently(ask)

    async def make(self, replicas: int | None, settings: Mapping[str, str] = MADE) -> bool:
        """Create the topic if missing; return True if so. ``replicas`` None: three, or one per broker if fewer.

        Brokers learn late of what was created or deleted, so this looks and creates until one knows the topic.
        """
        made = False

        async def known() -> None:
            nonlocal made
            found = await self._found()
            if found.error == _UNKNOWN_TOPIC:
                made = await self._create(found, replicas, settings) or made
                raise LookAgainError(f"topic {self.topic_name!r} is being created or deleted: no broker knows it")

        await self.patiently(known)
        return made

    async def _create(self, missing: Topic, replicas: int | None, settings: Mapping[str, str]) -> bool:
        """Create a topic that brokers do not know; return False if their controller knows it."""
        count = min(_MOST_REPLICAS, missing.brokers) if replicas is None else replicas
        topics: list[Any] = [(self.topic_name, 1, count, [], list(settings.items()))]
        request = CreateTopicsRequest(topics, int(PATIENCE * 1000), validate_only=False)
        answer = await self._send(missing.controller, request)
        ((_, error, told),) = answer.topic_errors
        if error == _TOPIC_EXISTS:  # created meanwhile, or not deleted yet
            return False
        self._check(error, "Create", told or "")
        return True

    async def fetch(self, topic: Topic, position: int) -> Fetched:
        """Fetch from an offset on; waits about a second if there is no data."""
        request = FetchByIdRequest(topic.id, position, wait_ms=_WAIT_MS, most=_FETCH_BYTES)
        # On a separate connection: a broker answers the requests of one connection in order.
        found = fetched_in(await self._send(topic.leader, request, group=ConnectionGroup.DEFAULT))
        if found.error != OFFSET_OUT_OF_RANGE:
            self._check(found.error, "Read")
        return found

    def lacks(self, right: str) -> ConfigurationError:
        """Return the error for a missing right on the topic."""
        return ConfigurationError(
            f"control topic {self.topic_name!r}: this user lacks the right {right} on it; grant it on the broker"
            " (docs/control.md)"
        )

    async def _found(self) -> Topic:
        """Return the topic's metadata; a topic is missing only if no broker knows it, since one may lag behind."""
        asked = self._any()
        found = await self._metadata(asked)
        for broker in self._client.cluster.brokers():
            if found.error != _UNKNOWN_TOPIC:
                break
            if broker.nodeId != asked:
                with suppress(KafkaError):
                    found = await self._metadata(broker.nodeId)
        return found

    async def _metadata(self, node: int) -> Topic:
        return topic_in(await self._send(node, TopicRequest(self.topic_name)))

    def _any(self) -> int:
        node: int | None = self._client.get_random_node()
        if node is None:
            raise KafkaConnectionError("no broker is known")
        return node

    async def _send(
        self, node: int, request: Request[Any], group: ConnectionGroup = ConnectionGroup.COORDINATION
    ) -> Any:
        if self._is_closed:  # the client would reconnect
            raise Unavailable("control", "the connection to the log was closed")
        try:
            return await self._client.send(node, request, group=group)
        except (IncompatibleBrokerVersion, NotImplementedError) as error:
            raise self._too_old() from error

    def _too_old(self) -> ConfigurationError:
        return ConfigurationError(
            f"control topic {self.topic_name!r}: these brokers know topics by name only, which would hide that one"
            " was recreated; a control log needs Kafka 3.1 or later"
        )

    def _check(self, error: int, right: str, told: str = "") -> None:
        if error in _NOT_ALLOWED:
            raise self.lacks(right)
        if error in _LOOK_AGAIN:
            raise LookAgainError(f"topic {self.topic_name!r}: error {error} of the broker ({for_code(error).__name__})")
        if error:
            raise for_code(error)(told)


def identity(topic: Topic) -> str:
    """Return a topic's id as Kafka's own tools write it."""
    return base64url(topic.id)
