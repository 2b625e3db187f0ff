"""A replay store in Redis or Valkey, shared by the processes of many machines."""

from __future__ import annotations

import math
import secrets
import struct
from hashlib import sha1
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import Redis, SSLConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,  # noqa: A004 - the client's own, of that name
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004 - as above
)

from watchword import ConfigurationError
from watchword.replay import ReaderBirth, StoreError
from watchword.spi import Admission
from watchword_adapters.stores.batched import (
    FORGOTTEN,
    MOST_TIMEOUT,
    PER_PRINCIPAL,
    TIMEOUT,
    BatchedReplayStore,
    StoreOptions,
)
from watchword_adapters.stores.redis_script import SCRIPT, USE_FORMAT
from watchword_adapters.stores.where import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from watchword import Policy
    from watchword.spi import Context, Warn
    from watchword_adapters.stores.batched import Answer, Use

_OLDEST: Final = (6, 2)
_CLOCK_TOLERANCE: Final = MOST_TIMEOUT
"""Seconds beyond the skew by which the server's clock may differ; included in ``GRACE``."""
BUCKETS: Final = 64
_DIGEST: Final = sha1(SCRIPT.encode()).hexdigest()  # noqa: S324 - Redis identifies scripts by it
_ANSWERS: Final[dict[str, Answer]] = {
    "F": Admission.FIRST,
    "D": Admission.REDELIVERED,
    "P": Admission.REPLAYED,
    "T": Admission.TOO_OLD,
    "Q": Admission.OVER_QUOTA,
    "G": FORGOTTEN,
}


_NO_CONNECTION: Final = (ConnectionError, TimeoutError)

RIGHTS: Final = (
    "+info +time +script|load +evalsha +unlink +hget +hset +hsetnx +hmget +hgetall +hkeys +hlen +hdel +hincrby"
)
"""The rights that a Redis user needs, on keys with the prefix; ``+config|get`` also shows durability."""


class Options(StoreOptions):
    """Options of ``[replay] store = "redis"``."""

    url: str
    sentinels: tuple[str, ...] = ()
    prefix: str = "watchword:"
    assume_no_eviction: bool = False


def from_options(options: Mapping[str, Any], context: Context) -> RedisReplayStore:
    """Return the store on the server at ``url``."""
    chosen = context.validate(Options, options)
    return RedisReplayStore(
        chosen.url,
        policy=context.policy,
        clock=context.clock,
        realm=context.realm,
        sentinels=chosen.sentinels,
        prefix=chosen.prefix,
        timeout=chosen.timeout,
        per_principal=chosen.per_principal,
        assume_no_eviction=chosen.assume_no_eviction,
        warn=context.warn,
    )


class RedisReplayStore(BatchedReplayStore):
    """Stores ids in the Redis or Valkey server at ``url`` (``redis://`` or ``rediss://``); all keys have ``prefix``.

    If ``sentinels`` (each ``host:port``) watch the server, the host in ``url`` is the master's name there, and the
    store follows them to the next master, where it is reborn.

    A batch is one script. The server must be a master, with or without replicas, and not a cluster. It must not evict
    keys: ``assume_no_eviction`` is for servers that do not report it. A restart, failover or eviction that may have
    lost ids is detected by the run id and by counts, and the store is reborn; a server that syncs each write
    (``appendfsync always``) and has no replica keeps its birth across restarts.
    """

    flights = 2

    def __init__(
        self,
        url: str,
        *,
        policy: Policy,
        clock: Callable[[], float],
        sentinels: Sequence[str] = (),
        prefix: str = "watchword:",
        timeout: float = TIMEOUT,
        per_principal: int = PER_PRINCIPAL,
        realm: str = "",
        assume_no_eviction: bool = False,
        warn: Warn | None = None,
    ) -> None:
        self._url: Final = url
        self._sentinels: Final = [_address(one) for one in sentinels]
        self._prefix: Final = prefix.encode()
        self._assume_no_eviction: Final = assume_no_eviction
        self._client: Redis | None = None
        self._watching: list[Redis] = []
        self._run_id = ""
        self._durable = False
        super().__init__(
            policy=policy, clock=clock, timeout=timeout, per_principal=per_principal, realm=realm, warn=warn
        )
        self._width: Final = math.ceil(self._lifetime / BUCKETS)
        self._connect()

    @property
    def where(self) -> str:
        """See the base."""
        return f"url {shown(self._url)}"

    def _connect(self) -> Redis:
        options: dict[str, Any] = {
            "socket_timeout": self._timeout,
            "socket_connect_timeout": self._timeout,
            "protocol": 2,
            # A batch that is sent again would find its own ids.
            "retry": Retry(NoBackoff(), 0),
        }
        try:
            if not self._sentinels:
                return Redis.from_url(self._url, **options)
            told = dict(parse_url(self._url))
            name, kind = told.pop("host"), told.pop("connection_class", None)
            told.pop("port", None)
        except (KeyError, ValueError, TypeError) as error:
            raise ConfigurationError(f"url: {error}; write redis://host:6379/0") from None
        watching: Any = Sentinel(self._sentinels, sentinel_kwargs=options, **options)
        self._watching = watching.sentinels
        client: Redis = watching.master_for(name, ssl=kind is SSLConnection, **options, **told)
        return client

    async def _open(self) -> None:
        if self._client is None:
            self._client = self._connect()
        try:
            info = await self._client.info()
            await self._check_eviction(self._client, info)
            self._durable = _stands_alone(info) and await _asked(self._client, "appendfsync") == "always"
            await self._client.script_load(SCRIPT)
        except (ResponseError, AuthenticationError) as error:
            raise ConfigurationError(f"redis refuses: {error}; the user needs {RIGHTS}") from None
        except _NO_CONNECTION as error:
            raise self._no_connection(error) from error
        _check_server(info)
        self._run_id = str(info["run_id"])
        self._read(await self._run("claim"))  # stores the birth mark, if there is none

    async def _judge(self, uses: Sequence[Use]) -> Sequence[Answer]:
        numbers: dict[str, int] = {}
        numbered = count(1)
        packed = [
            struct.pack(
                USE_FORMAT,
                use.key,
                use.mark,
                use.owner,
                use.issued_at,
                numbers.get(use.reader) or numbers.setdefault(use.reader, next(numbered)),
                (numbers.get(use.log) or numbers.setdefault(use.log, next(numbered))) if use.log else 0,
                use.offset,
                use.appended,
            )
            for use in uses
        ]
        found = await self._asked_again("claim", b"".join(packed), *numbers, lifetime=self._longest(uses))
        return self._read(found)

    async def _birth_of(self, reader: str) -> ReaderBirth | None:
        return _born(await self._asked_again("birth", b"", reader))

    async def _admit(self, reader: str, birth: ReaderBirth, *, replace: bool) -> ReaderBirth:
        fields: list[str] = ["floor", repr(birth.floor)]
        for log, (last, appended) in birth.accepted.items():
            fields += [f"log:{log}", f"{last} {appended!r}"]
        found = _born(await self._asked_again("replace" if replace else "admit", b"", reader, *fields))
        if found is None:
            raise _nonsense()
        return found

    async def _asked_again(self, verb: str, packed: bytes, *names: str, lifetime: int = 0) -> object:
        """Run the script; reopen and run it again if the server has changed or lacks the script."""
        found = await self._run(verb, packed, *names, lifetime=lifetime)
        if _word(found) != "moved":
            return found
        await self._open()
        return await self._run(verb, packed, *names, lifetime=lifetime)

    def _read(self, found: object) -> list[Answer]:
        match found:
            case [bytes() as letters, bytes() as stamp, list() as unknown]:
                try:
                    answers = [_ANSWERS[letter] for letter in letters.decode("latin-1")]
                    birth = float(stamp)
                    readers = [name.decode(errors="surrogatepass") for name in unknown]
                except (KeyError, ValueError, AttributeError):
                    raise _nonsense() from None
            case _:
                raise _nonsense()
        self._noted(birth, readers)
        return answers

    async def _run(self, verb: str, packed: bytes = b"", *names: str, lifetime: int = 0) -> object:
        if self._client is None:
            raise StoreError("closed")
        try:
            found: object = await self._client.evalsha(
                _DIGEST,
                0,
                self._prefix,
                self._run_id,
                int(self._durable),
                repr(self._clock()),
                secrets.token_hex(8),
                verb,
                self._max_skew,
                self._tolerance,
                self._per_principal,
                self._width,
                max(lifetime, self._lifetime),
                packed,
                *(name.encode(errors="surrogatepass") for name in names),
            )
        except (NoScriptError, ReadOnlyError):  # or it has become a replica since
            return [b"moved"]
        except _NO_CONNECTION as error:
            raise self._no_connection(error) from error
        if _word(found) == "clock":
            raise StoreError(f"the server's clock differs from this one by more than {self._tolerance:g} s")
        return found

    def _no_connection(self, error: Exception) -> StoreError:
        watched = f", which {' or '.join(f'{host}:{port}' for host, port in self._sentinels)} watch" * bool(
            self._sentinels
        )
        return StoreError(
            f"{self.where}{watched}: no connection ({type(error).__name__}); start the server, or correct url"
        )

    @property
    def _tolerance(self) -> float:
        return self._max_skew + _CLOCK_TOLERANCE

    async def _check_eviction(self, client: Redis, info: Mapping[str, Any]) -> None:
        limit, policy = info.get("maxmemory"), info.get("maxmemory_policy")
        if policy is None:
            limit, policy = await _asked(client, "maxmemory"), await _asked(client, "maxmemory-policy")
        if policy is None and not self._assume_no_eviction:
            raise ConfigurationError(
                "redis does not report its maxmemory-policy, and might evict ids; set it to noeviction, and then write"
                " assume_no_eviction = true"
            )
        if policy not in {None, "noeviction"} and str(limit) != "0":
            raise ConfigurationError(f"redis evicts ({policy}) and so forgets ids: set maxmemory-policy noeviction")

    async def _close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            for one in (client, *self._watching):
                await one.aclose()

    def _abandon(self) -> None:
        self._client = None


def _address(text: str) -> tuple[str, int]:
    """Parse ``host:port``."""
    host, _, port = text.rpartition(":")
    if not (host and port.isdecimal()):
        raise ConfigurationError(f"sentinels: {text[:128]!r}: write host:26379")
    return host, int(port)


def _word(found: object) -> str:
    """Return the first word of a reply."""
    match found:
        case [bytes() as word, *_]:
            return word.decode("latin-1")
        case _:
            return ""


def _born(found: object) -> ReaderBirth | None:
    """Parse the server's entry of a reader."""
    match found:
        case [b"unknown", *_]:
            return None
        case [b"known", _, list() as pairs]:
            try:
                fields = {
                    str(name, "utf-8", "surrogatepass"): value
                    for name, value in zip(pairs[::2], pairs[1::2], strict=True)
                }
                accepted = {name[4:]: value.split() for name, value in fields.items() if name.startswith("log:")}
                return ReaderBirth(
                    floor=float(fields["floor"]),
                    accepted={log: (int(last), float(appended)) for log, (last, appended) in accepted.items()},
                )
            except (KeyError, ValueError, TypeError, AttributeError):
                raise _nonsense() from None
        case _:
            raise _nonsense()


def _nonsense() -> StoreError:
    return StoreError("the server returned a malformed reply")


def _check_server(info: Mapping[str, Any]) -> None:
    version = tuple(int(part) for part in str(info.get("redis_version", "0")).split(".")[:2])
    if version < _OLDEST:
        raise ConfigurationError(f"redis {info.get('redis_version')}: use 6.2 or later, or Valkey")
    if info.get("redis_mode", "standalone") != "standalone" or info.get("cluster_enabled"):
        raise ConfigurationError("redis: a cluster moves its slots, and ids with them; use a server outside a cluster")
    if info.get("role") != "master":
        raise ConfigurationError("redis: a replica cannot store ids; use its master")
    if not all(name in info for name in ("run_id", "evicted_keys", "connected_slaves")):
        raise ConfigurationError("redis does not report run_id, evicted_keys and connected_slaves; use Redis or Valkey")


def _stands_alone(info: Mapping[str, Any]) -> bool:
    """Return True if this server has everything that was written, provided that it logs each write.

    A replica that took over has a second replication id, that of the former master, whose last writes it may lack.
    """
    return (
        info.get("aof_enabled") == 1
        and info.get("aof_last_write_status") == "ok"
        and info.get("connected_slaves") == 0
        and not str(info.get("master_replid2", "1")).strip("0")
    )


async def _asked(client: Redis, name: str) -> str | None:
    """Return a setting, or None if the server does not report it."""
    try:
        answer: Mapping[Any, Any] = await client.config_get(name)
    except RedisError:
        return None
    found = answer.get(name, answer.get(name.encode()))
    return found.decode() if isinstance(found, bytes) else found
