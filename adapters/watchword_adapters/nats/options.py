"""The options of nats-py's ``connect`` and ``jetstream`` as types, for type checkers.

A test compares these with the installed nats-py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import ssl

    from nats.aio.client import (
        Callback,
        CredentialCallback,
        Credentials,
        ErrorCallback,
        JWTCallback,
        ReconnectToServerHandler,
        SignatureCallback,
        TokenCallback,
    )


class ConnectOptions(TypedDict, total=False):
    """Options of ``connect`` besides the servers; times in seconds."""

    error_cb: ErrorCallback | None
    disconnected_cb: Callback | None
    closed_cb: Callback | None
    discovered_server_cb: Callback | None
    reconnected_cb: Callback | None
    lame_duck_mode_cb: Callback | None
    name: str | None
    pedantic: bool
    verbose: bool
    allow_reconnect: bool
    connect_timeout: int
    reconnect_time_wait: int
    max_reconnect_attempts: int
    reconnect_to_server_handler: ReconnectToServerHandler | None
    ping_interval: int
    max_outstanding_pings: int
    dont_randomize: bool
    flusher_queue_size: int
    no_echo: bool
    tls: ssl.SSLContext | None
    tls_hostname: str | None
    tls_handshake_first: bool
    user: str | CredentialCallback | None
    password: str | CredentialCallback | None
    token: str | TokenCallback | None
    signature_cb: SignatureCallback | None
    user_jwt_cb: JWTCallback | None
    user_credentials: Credentials | None
    nkeys_seed: str | None
    nkeys_seed_str: str | None
    inbox_prefix: str | bytes
    drain_timeout: int
    flush_timeout: float | None
    pending_size: int
    ws_connection_headers: dict[str, list[str]] | None
    skip_subject_validation: bool


class StreamOptions(TypedDict, total=False):
    """Options of ``jetstream``; ``timeout`` in seconds."""

    prefix: str
    domain: str | None
    timeout: float
    publish_async_max_pending: int


class ManagerOptions(TypedDict, total=False):
    """Options of ``jsm``; ``timeout`` in seconds."""

    prefix: str
    timeout: float
