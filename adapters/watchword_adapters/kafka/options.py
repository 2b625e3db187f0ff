"""The options of aiokafka's constructors as types, since aiokafka has no type hints for them.

A test compares these with the constructors of the installed aiokafka.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    import ssl
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Sequence

    from aiokafka.abc import AbstractTokenProvider
    from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor

Serializer: TypeAlias = "Callable[[Any], bytes | None]"
Deserializer: TypeAlias = "Callable[[bytes | None], Any]"


class ClientOptions(TypedDict, total=False):
    """Options of producers and consumers; times in milliseconds."""

    loop: AbstractEventLoop | None
    bootstrap_servers: str | list[str]
    client_id: str | None
    request_timeout_ms: int
    retry_backoff_ms: int
    metadata_max_age_ms: int
    connections_max_idle_ms: int
    api_version: str | None
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
    ssl_context: ssl.SSLContext | None
    sasl_mechanism: Literal["PLAIN", "GSSAPI", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
    sasl_plain_username: str | None
    sasl_plain_password: str | None
    sasl_kerberos_service_name: str
    sasl_kerberos_domain_name: str | None
    sasl_oauth_token_provider: AbstractTokenProvider | None


class ProducerOptions(ClientOptions, total=False):
    """Options of a producer; sizes in bytes."""

    acks: Literal[0, 1, -1, "all"]
    key_serializer: Serializer | None
    value_serializer: Serializer | None
    compression_type: Literal["gzip", "snappy", "lz4", "zstd"] | None
    max_batch_size: int
    max_request_size: int
    partitioner: Callable[[bytes | None, list[int], list[int]], int]
    linger_ms: int
    enable_idempotence: bool
    transactional_id: str | None
    transaction_timeout_ms: int


class ConsumerOptions(ClientOptions, total=False):
    """Options of a consumer; sizes in bytes."""

    group_id: str | None
    group_instance_id: str | None
    key_deserializer: Deserializer | None
    value_deserializer: Deserializer | None
    fetch_min_bytes: int
    fetch_max_bytes: int
    fetch_max_wait_ms: int
    max_partition_fetch_bytes: int
    max_poll_records: int | None
    max_poll_interval_ms: int
    auto_offset_reset: Literal["latest", "earliest", "none"]
    enable_auto_commit: bool
    auto_commit_interval_ms: int
    check_crcs: bool
    partition_assignment_strategy: Sequence[type[AbstractPartitionAssignor]]
    rebalance_timeout_ms: int | None
    session_timeout_ms: int
    heartbeat_interval_ms: int
    consumer_timeout_ms: int
    exclude_internal_topics: bool
    isolation_level: Literal["read_uncommitted", "read_committed"]
    client_rack: str | None
