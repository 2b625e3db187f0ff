"""A replay store in a NATS KV bucket, shared by the processes of many machines."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
import secrets
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import nats
from pydantic import Field

from watchword import Admission, ConfigurationError
from watchword_adapters.stores.batched import (
    PER_PRINCIPAL,
    TIMEOUT,
    BatchedReplayStore,
    StoreError,
    StoreOptions,
    too_old,
)
from watchword_adapters.stores.nats_bucket import Bucket, Entry, Put, check
from watchword_adapters.stores.nats_rooms import Rooms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nats.aio.client import Client

    from watchword import Policy
    from watchword_adapters.plugins import Context, Warn
    from watchword_adapters.stores.batched import Use

_BUCKET: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")
_MARK: Final = "mark"
_MARK_BYTES: Final = 16
_ATTEMPTS: Final = 10


class Options(StoreOptions):
    """Options of ``[replay] store = "nats_kv"``."""

    url: str
    bucket: str = "watchword"
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    credentials: str | None = None
    durable: bool = False


def from_options(options: Mapping[str, Any], context: Context) -> NatsKvReplayStore:
    """Return the store in ``bucket``; the path of ``credentials`` starts from the settings file."""
    chosen = context.validate(Options, options)
    extra = {} if chosen.credentials is None else {"user_credentials": str(context.directory / chosen.credentials)}
    return NatsKvReplayStore(
        chosen.url,
        policy=context.policy,
        clock=context.clock,
        bucket=chosen.bucket,
        replicas=chosen.replicas,
        durable=chosen.durable,
        timeout=chosen.timeout,
        per_principal=chosen.per_principal,
        warn=context.warn,
        connect=extra,
    )


class _Mark(NamedTuple):
    """When the bucket was born, on which server, and a number that no other mark has."""

    birth: float
    server: str
    nonce: bytes
    sequence: int


class _Session(NamedTuple):
    """What holds as long as one connection does."""

    connection: Client
    bucket: Bucket
    mark: _Mark
    rooms: Rooms


class NatsKvReplayStore(BatchedReplayStore):
    """Ids in the KV ``bucket`` of the NATS server or cluster at ``url``, which it makes if it is not there.

    It needs nats-server 2.11 or later: each key has its own TTL. A batch is a burst of conditional writes; then the
    birth mark is read, and only if it is still the one that was judged by do the answers count. A server that stands
    alone writes to its disk minutes late, so its restart is a birth, unless it is ``durable``: it has
    ``sync_interval: always``. Three ``replicas`` or more are durable by themselves. ``connect`` has further arguments
    of ``nats.connect``.
    """

    flights = 2

    def __init__(
        self,
        url: str,
        *,
        policy: Policy,
        clock: Callable[[], float],
        bucket: str = "watchword",
        replicas: int = 1,
        durable: bool = False,
        timeout: float = TIMEOUT,
        per_principal: int = PER_PRINCIPAL,
        warn: Warn | None = None,
        connect: Mapping[str, Any] | None = None,
    ) -> None:
        if not _BUCKET.fullmatch(bucket):
            raise ConfigurationError(f"bucket {bucket[:200]!r}: use letters, digits, '-' and '_'")
        self._url: Final = url
        self._name: Final = bucket
        self._replicas: Final = replicas
        self._durable: Final = durable
        self._options: Final = dict(connect or {})
        self._session: _Session | None = None
        super().__init__(policy=policy, clock=clock, timeout=timeout, per_principal=per_principal, warn=warn)

    async def _open(self) -> None:
        await self._close()
        # What a connection was told when it was opened holds as long as it does: it never finds another server itself.
        connection = await nats.connect(
            self._url,
            **{"error_cb": _told, "connect_timeout": math.ceil(self._timeout), **self._options},
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
        )
        try:
            bucket = Bucket(connection, self._name, timeout=self._timeout)
            await bucket.start()
            information = await bucket.settings() or await bucket.create(self._replicas)
            check(information, self._name, lifetime=self._lifetime)
            mark = await self._marked(bucket, self._server(connection, information))
        except BaseException:
            await connection.close()
            raise
        rooms = Rooms(self._per_principal, lambda owner: bucket.count(_text(owner)))
        self._session = _Session(connection, bucket, mark, rooms)

    def _server(self, connection: Client, information: Mapping[str, Any]) -> str:
        """Return the id of the run of the server that a birth is bound to; "" if it outlives any."""
        replicas = information["config"].get("num_replicas", 1)
        if self._durable or replicas > 1:
            return ""
        if (information.get("cluster") or {}).get("name"):
            raise ConfigurationError(
                f"bucket {self._name}: one replica in a cluster: set replicas = 3, or durable = true if each server"
                " has sync_interval: always"
            )
        return str(connection._server_info["server_id"])  # noqa: SLF001 - the client tells the server's version only

    async def _marked(self, bucket: Bucket, server: str) -> _Mark:
        for _ in range(_ATTEMPTS):
            entry = await bucket.get(_MARK)
            mark = None if entry is None else _mark(entry)
            if mark is not None and server in {"", mark.server}:
                return mark
            text = json.dumps({"birth": self._clock(), "server": server, "nonce": secrets.token_hex(_MARK_BYTES)})
            await bucket.put([Put(_MARK, text.encode(), after=0 if entry is None else entry.sequence)])
        raise StoreError("the birth mark changes all the time")

    def _is_open(self) -> bool:
        return super()._is_open() and self._session is not None and self._session.connection.is_connected

    async def _judge(self, uses: Sequence[Use]) -> Sequence[Admission]:
        session = self._session
        if session is None:
            raise StoreError("closed")
        _, bucket, mark, rooms = session
        await rooms.prepare({use.owner for use in uses})
        now = self._clock()
        refused: list[Admission | None] = []
        for use in uses:
            if too_old(use, mark.birth, self._max_skew):
                refused.append(Admission.TOO_OLD)
            else:
                refused.append(None if rooms.take(use.owner) else Admission.OVER_QUOTA)
        asked = [use for use, refusal in zip(uses, refused, strict=True) if refusal is None]
        try:
            done = await bucket.put([_put(use, mark, now) for use in asked])
        except StoreError:
            self._opened = False  # what was found at the start may be so no longer
            raise
        finally:
            for use in asked:
                rooms.arrived(use.owner)
        first = {id(use) for use, is_first in zip(asked, done, strict=True) if is_first}
        others = [(use, refusal) for use, refusal in zip(uses, refused, strict=True) if id(use) not in first]
        known = iter(await asyncio.gather(*(self._known(session, use, refusal) for use, refusal in others)))
        await self._still(session)
        return [Admission.FIRST if id(use) in first else next(known) for use in uses]

    async def _known(self, session: _Session, use: Use, refusal: Admission | None) -> Admission:
        """Answer for an id that was there when it was to be put, or that is refused unless it is there."""
        _, bucket, mark, rooms = session
        if refusal is None:
            rooms.give_back(use.owner)
            if not use.mark:
                return Admission.REPLAYED
        entry = await bucket.get(_key(use))
        if entry is None:
            return refusal or Admission.REPLAYED
        place, nonce = entry.value[:_MARK_BYTES], entry.value[_MARK_BYTES:]
        if not use.mark or place != use.mark:
            return Admission.REPLAYED
        # Under another birth it may have been put by one who did not know yet that all was forgotten.
        if nonce != mark.nonce and too_old(use, mark.birth, self._max_skew):
            return Admission.TOO_OLD
        return Admission.REDELIVERED

    async def _still(self, session: _Session) -> None:
        """Make sure that nothing was forgotten while the answers were gathered."""
        entry = await session.bucket.get(_MARK)
        if entry is None or _mark(entry) != session.mark:
            self._opened = False
            raise StoreError("the bucket was emptied or made anew meanwhile")
        self._is_born(session.mark.birth)

    async def _close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.connection.close()

    def _abandon(self) -> None:
        self._session = None


def _put(use: Use, mark: _Mark, now: float) -> Put:
    return Put(_key(use), use.mark.ljust(_MARK_BYTES, b"\0") + mark.nonce, ttl=max(1, math.ceil(use.lives - now)))


def _key(use: Use) -> str:
    return f"{_text(use.owner)}.{_text(use.key)}"


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _mark(entry: Entry) -> _Mark | None:
    """Read a mark; None where there is none that can be read, in whose place a new one is to be put."""
    try:
        told = json.loads(entry.value)
        mark = _Mark(float(told["birth"]), str(told["server"]), bytes.fromhex(told["nonce"]), entry.sequence)
    except (ValueError, TypeError, KeyError):
        return None
    return mark if len(mark.nonce) == _MARK_BYTES else None


async def _told(_error: Exception) -> None:
    """Keep the client from printing what the claims are told as well."""
