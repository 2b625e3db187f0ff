"""Requests for a topic's id, and fetches by id: aiokafka addresses topics by name only.

A topic that was deleted and recreated has the same name, but another id (KIP-516). A fetch by id is answered from the
topic with that id or not at all, so that no reader silently continues in another log. Layouts are those of the Kafka
protocol guide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

if TYPE_CHECKING:
    from io import BytesIO

_TAGS: Final = ("tags", TaggedFields)
_ID_BYTES: Final = 16
NO_ID: Final = bytes(_ID_BYTES)


class _Id(AbstractType[bytes]):
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        value = data.read(_ID_BYTES)
        if len(value) != _ID_BYTES:
            raise ValueError("a topic id that is cut off")
        return value


class _TopicResponse(Response):
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                _TAGS,
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Id),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("authorized_operations", Int32),
                _TAGS,
            ),
        ),
        ("cluster_authorized_operations", Int32),
        _TAGS,
    )


class _TopicStruct(RequestStruct):
    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _TopicResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Id), ("name", CompactString("utf-8")), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class TopicRequest(Request[_TopicStruct]):
    """Asks for the metadata of one topic, without letting the broker create it."""

    API_KEY = 3

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[_TopicStruct]) -> _TopicStruct:
        """See Request."""
        return request_struct_class([(NO_ID, self._topic, {})], False, False, False, {})  # noqa: FBT003 - a wire layout


class Topic(NamedTuple):
    """A topic's metadata: Kafka's error code or 0, its id, its number of partitions, and the leader of partition 0.

    Without a leader, ``leader`` is negative. ``controller`` is the broker that creates topics; ``brokers`` counts them.
    """

    error: int
    id: bytes
    partitions: int
    leader: int
    controller: int
    brokers: int


def topic_in(response: Any) -> Topic:
    """Read the response to a TopicRequest."""
    ((error, _, identity, _, partitions, _, _),) = response.topics
    leader = next((leader for _, number, leader, *_ in partitions if number == 0), -1)
    return Topic(error, identity, len(partitions), leader, response.controller_id, len(response.brokers))


class _FetchResponse(Response):
    API_KEY = 1
    API_VERSION = 13
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("session_id", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", _Id),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("high_watermark", Int64),
                        ("last_stable_offset", Int64),
                        ("log_start_offset", Int64),
                        ("aborted", CompactArray(("producer_id", Int64), ("first_offset", Int64), _TAGS)),
                        ("preferred_read_replica", Int32),
                        ("records", CompactBytes),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class _FetchStruct(RequestStruct):
    API_KEY = 1
    API_VERSION = 13
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _FetchResponse
    SCHEMA = Schema(
        ("replica_id", Int32),
        ("max_wait_ms", Int32),
        ("min_bytes", Int32),
        ("max_bytes", Int32),
        ("isolation_level", Int8),
        ("session_id", Int32),
        ("session_epoch", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", _Id),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("current_leader_epoch", Int32),
                        ("fetch_offset", Int64),
                        ("last_fetched_epoch", Int32),
                        ("log_start_offset", Int64),
                        ("max_bytes", Int32),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        ("forgotten", CompactArray(("topic_id", _Id), ("partitions", CompactArray(Int32)), _TAGS)),
        ("rack_id", CompactString("utf-8")),
        _TAGS,
    )


class FetchByIdRequest(Request[_FetchStruct]):
    """Fetches partition 0 of the topic with an id from an offset on, including open and aborted transactions.

    The broker holds it for ``wait_ms`` while there is no data, and returns at most ``most`` bytes, or one batch.
    """

    API_KEY = 1

    def __init__(self, topic_id: bytes, offset: int, *, wait_ms: int, most: int) -> None:
        self._topic_id = topic_id
        self._offset = offset
        self._wait_ms = wait_ms
        self._most = most

    def build(self, request_struct_class: type[_FetchStruct]) -> _FetchStruct:
        """See Request."""
        topics: list[Any] = [(self._topic_id, [(0, -1, self._offset, -1, -1, self._most, {})], {})]
        return request_struct_class(-1, self._wait_ms, 1, self._most, 0, 0, -1, topics, [], "", {})


class Fetched(NamedTuple):
    """A fetch response: Kafka's error code or 0, the log's end offset, and batches as stored."""

    error: int
    end: int
    records: bytes


def fetched_in(response: Any) -> Fetched:
    """Read the response to a FetchByIdRequest."""
    if response.error_code or not response.topics:
        return Fetched(response.error_code or -1, -1, b"")
    ((_, ((_, error, end, _, _, _, _, records, _),), _),) = response.topics
    return Fetched(error, end, records or b"")
