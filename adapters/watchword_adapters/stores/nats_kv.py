"""A replay store in a NATS KV bucket, shared by the processes of many machines."""

from __future__ import annotations

import asyncio
import math
import re
import secrets
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from nats import errors
from nats.aio.client import Client
from pydantic import Field

from watchword import ConfigurationError
from watchword.replay import StoreError
from watchword.spi import Admission
from watchword.strict import base64url
from watchword_adapters.stores.batched import PER_PRINCIPAL, TIMEOUT, BatchedReplayStore, StoreOptions, refusal
from watchword_adapters.stores.nats_bucket import Bucket, Put, RightError, check, server_time
from watchword_adapters.stores.nats_mark import (
    NONCE_BYTES,
    Mark,
    encoded_reader,
    read_mark,
    read_reader,
    reader_key,
)
from watchword_adapters.stores.nats_rooms import Rooms
from watchword_adapters.stores.where import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from watchword import Policy
    from watchword.replay import ReaderBirth
    from watchword.spi import Context, Warn
    from watchword_adapters.stores.batched import Answer, Refusal, Use

_BUCKET: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")
_REFUSED_LOGIN: Final = re.compile("authorization violation|authentication (?:expired|revoked)", re.IGNORECASE)
_MARK: Final = "mark"
_CANARY: Final = "id.canary"
_IDS: Final = "id.*.*.*"
_MARK_BYTES: Final = 16
_ATTEMPTS: Final = 10
PARTS: Final = 64
"""Number of parts of an id's lifetime; ids are purged by whole parts, so up to one part late."""
TIDY: Final = 60.0
TIDY_MORE: Final = 0.25
"""Seconds between two searches for expired ids; the second value applies while there are more."""
_TRIPS: Final = 6
"""Round trips of one search; each may take up to a time-out."""
LEAVING_AT_ONCE: Final = 5000
"""Most ids that one purge removes, so that purging does not delay claims."""


class Options(StoreOptions):
    """Options of ``[replay] store = "nats_kv"``."""

    url: str
    bucket: str = "watchword"
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    credentials: str | None = None
    durable: bool = False


def from_options(options: Mapping[str, Any], context: Context) -> NatsKvReplayStore:
    """Return the store in ``bucket``; a relative ``credentials`` path starts from the settings file."""
    chosen = context.validate(Options, options)
    extra = {} if chosen.credentials is None else {"user_credentials": str(context.directory / chosen.credentials)}
    return NatsKvReplayStore(
        chosen.url,
        policy=context.policy,
        clock=context.clock,
        realm=context.realm,
        bucket=chosen.bucket,
        replicas=chosen.replicas,
        durable=chosen.durable,
        timeout=chosen.timeout,
        per_principal=chosen.per_principal,
        warn=context.warn,
        connect=extra,
    )


@dataclass(slots=True)
class _Session:
    """The state of one connection; ``births`` are the readers that are known under ``mark``."""

    connection: Client
    bucket: Bucket
    server: str
    mark: Mark
    rooms: Rooms
    births: dict[str, ReaderBirth] = field(default_factory=dict)
    tidying: asyncio.Task[None] | None = None
    tidy_at: float = 0.0


class NatsKvReplayStore(BatchedReplayStore):
    """Stores ids in the KV ``bucket`` of the NATS server or cluster at ``url``, and creates the bucket if missing.

    It needs nats-server 2.11 or later, which can count keys. A batch is a set of concurrent conditional writes; then
    the birth mark is read, and the answers count only if it is still the mark that they were judged by. Nothing has a
    time to live, since a clock that jumps ahead would let ids expire without a trace: expired ids are purged once the
    mark records it. A single server writes to its disk minutes late, so its restart is a birth, unless it is
    ``durable``, with ``sync_interval: always``. Three or more ``replicas`` are durable in any case. ``connect`` holds
    further arguments of ``nats.connect``.
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
        realm: str = "",
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
        self._untidy = False
        super().__init__(
            policy=policy, clock=clock, timeout=timeout, per_principal=per_principal, realm=realm, warn=warn
        )

    @property
    def where(self) -> str:
        """See the base."""
        return f"url {shown(self._url)}"

    async def _open(self) -> None:
        await self._close()
        _check_credentials(self._options.get("user_credentials"))
        bucket: Bucket | None = None

        async def told(error: Exception) -> None:
            """Handle errors here, or the client would print them in addition to the claims' errors."""
            if bucket is not None:
                bucket.refused(str(error))

        # What was checked when a connection was opened stays true for it: it never reconnects to another server.
        connection = Client()
        try:
            await connection.connect(
                self._url,
                **{"error_cb": told, "connect_timeout": math.ceil(self._timeout), **self._options},
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
            )
        except BaseException as error:
            with suppress(AssertionError):  # the connection failed before there was anything to close
                await connection.close()  # otherwise the socket of a refused connection stays open
            if (why := self._not_connected(error)) is not None:
                raise why from error
            raise
        try:
            bucket = Bucket(connection, self._name)
            await bucket.start()
            information = await bucket.settings() or await bucket.create(self._replicas)
            check(information, self._name)
            server = self._server(connection, information)
            mark = await self._marked(bucket, server, self._lifetime)
            # Report missing rights and features now; this stores nothing, since there is a mark.
            await asyncio.gather(bucket.put([Put(_MARK, b"")]), bucket.count(_MARK))
        except RightError as error:
            await connection.close()
            raise ConfigurationError(f"bucket {self._name}: {error}") from None
        except BaseException:
            await connection.close()
            raise
        rooms = Rooms(self._per_principal, lambda owner: bucket.count(f"id.*.{base64url(owner)}.*"))
        self._session = _Session(connection, bucket, server, mark, rooms)

    def _not_connected(self, error: BaseException) -> Exception | None:
        """Return an error with a remedy for the operator; None if the error itself says enough."""
        match error:
            case TimeoutError():
                return None
            case errors.NoServersError() | OSError():
                kind = type(error).__name__
                return StoreError(f"{self.where}: no connection ({kind}); start the server, or correct url")
            case errors.Error() if _REFUSED_LOGIN.search(str(error)):
                return ConfigurationError(
                    f"{self.where}: the server refuses the login; correct user and password in url, or credentials"
                )
            case ImportError():
                return ConfigurationError(f"credentials: {error}; pip install 'watchword[nkeys]'")
        return None

    def _server(self, connection: Client, information: Mapping[str, Any]) -> str:
        """Return the id of the server run that a birth is bound to; "" if births survive restarts."""
        replicas = information["config"].get("num_replicas", 1)
        if self._durable or replicas > 1:
            return ""
        if (information.get("cluster") or {}).get("name"):
            raise ConfigurationError(
                f"bucket {self._name}: one replica in a cluster: write replicas = 3, or durable = true if each server"
                " has sync_interval: always"
            )
        return str(connection._server_info["server_id"])  # noqa: SLF001 - nats-py exposes only the server's version

    async def _marked(self, bucket: Bucket, server: str, lifetime: float) -> Mark:
        """Return the mark, raised to a ``lifetime`` in seconds if need be; create one if this server has none."""
        for _ in range(_ATTEMPTS):
            entry, canary = await asyncio.gather(bucket.get(_MARK), bucket.get(_CANARY))
            mark = read_mark(entry)
            if canary is None:
                await bucket.put([Put(_CANARY, b"goes with the ids")])
                continue
            if mark is None or server not in {"", mark.server} or mark.canary != canary.sequence:
                width, nonce = math.ceil(self._lifetime / PARTS), secrets.token_bytes(NONCE_BYTES)
                mark = Mark(self._clock(), server, nonce, width, lifetime, since=0, canary=canary.sequence)
            elif mark.lifetime >= lifetime:
                return mark
            text = mark._replace(lifetime=max(mark.lifetime, lifetime)).encoded()
            await bucket.put([Put(_MARK, text, after=0 if entry is None else entry.sequence)])
        raise StoreError("the birth mark keeps changing: other processes are writing it at the same time")

    def _is_open(self) -> bool:
        return super()._is_open() and self._session is not None and self._session.connection.is_connected

    async def _judge(self, uses: Sequence[Use]) -> Sequence[Answer]:
        with self._in_session() as session:
            return await self._judged(session, uses)

    async def _judged(self, session: _Session, uses: Sequence[Use]) -> Sequence[Answer]:
        longest = self._longest(uses)
        if longest > session.mark.lifetime:
            session.mark, session.births = await self._marked(session.bucket, session.server, longest), {}
        self._tidy(session)
        mark, readers = session.mark, {use.reader for use in uses}
        known, _ = await asyncio.gather(
            self._births(session, readers), session.rooms.prepare({use.owner for use in uses})
        )
        refused: list[Refusal | None] = [self._refusal(use, mark, known) for use in uses]
        put = await self._put(session, uses, refused, mark)
        # Concurrently, to save round trips. An id that is read in a bucket that was emptied after the mark
        # was read has no place mark, or was stored since.
        answers, still = await asyncio.gather(
            self._all_known(session.bucket, mark, uses, put, refused), self._still(session, mark)
        )
        if still.sequence != mark.sequence:
            # The operator changed a reader meanwhile, or ids may have expired: the refusals must still be the same.
            known = await self._births(session, readers)
            refused_now = [self._refusal(use, still, known) for use in uses]
            for at, (before, now) in enumerate(zip(refused, refused_now, strict=True)):
                if before == now or answers[at] in {Admission.REDELIVERED, Admission.REPLAYED}:
                    continue
                if answers[at] is Admission.FIRST:
                    await self._spoil(session.bucket, uses[at], still)
                answers[at] = now or StoreError("the store's entry of the reader changed meanwhile")
        self._noted(still.birth, [reader for reader, birth in known.items() if birth is None])
        return answers

    async def _put(
        self, session: _Session, uses: Sequence[Use], refused: Sequence[Refusal | None], mark: Mark
    ) -> list[Answer | None]:
        """Store the ids that are not refused, and return answers; None for ids that were there already."""
        bucket, rooms = session.bucket, session.rooms
        answers: list[Answer | None] = list(refused)
        for at, use in enumerate(uses):
            if answers[at] is None and not rooms.take(use.owner):
                answers[at] = Admission.OVER_QUOTA
        asked = [at for at, answer in enumerate(answers) if answer is None]
        try:
            done = await bucket.put([_entry(uses[at], mark) for at in asked])
        finally:
            for at in asked:
                rooms.arrived(uses[at].owner)
        for at, is_first in zip(asked, done, strict=True):
            answers[at] = Admission.FIRST if is_first else None
            if not is_first:
                rooms.give_back(uses[at].owner)
        return answers

    async def _all_known(
        self,
        bucket: Bucket,
        mark: Mark,
        uses: Sequence[Use],
        answers: Sequence[Answer | None],
        refused: Sequence[Refusal | None],
    ) -> list[Answer]:
        """Complete the answers with what is known of ids that were not stored."""
        told = dict(enumerate(answers))
        others = [at for at, answer in told.items() if answer is not Admission.FIRST]
        found = await asyncio.gather(*(self._known(bucket, mark, uses[at], answers[at], refused[at]) for at in others))
        told.update(zip(others, found, strict=True))
        return [answer for answer in told.values() if answer is not None]

    @staticmethod
    async def _spoil(bucket: Bucket, use: Use, mark: Mark) -> None:
        """Make sure that an id that was stored, but then refused, can never count as a redelivery."""
        entry = await bucket.get(_key(use, mark))
        if entry is not None:
            await bucket.put([Put(_key(use, mark), bytes(_MARK_BYTES) + mark.nonce, after=entry.sequence)])

    async def _known(
        self, bucket: Bucket, mark: Mark, use: Use, answer: Answer | None, refused: Refusal | None
    ) -> Answer:
        """Answer for an id that was there already (``answer`` is None), or that may be there."""
        if answer is None and not use.mark:
            return Admission.REPLAYED
        if answer is not None and use.issued_at <= mark.floor:
            return answer  # it may still be there, and may have been stored after it had expired
        entry = await bucket.get(_key(use, mark))
        if entry is None:
            return answer or Admission.REPLAYED
        place, nonce = entry.value[:_MARK_BYTES], entry.value[_MARK_BYTES:]
        if not use.mark or place != use.mark:
            return Admission.REPLAYED
        # Under another birth it may have been stored by a process that did not know yet that ids were lost.
        return refused if nonce != mark.nonce and refused is not None else Admission.REDELIVERED

    def _refusal(self, use: Use, mark: Mark, known: Mapping[str, ReaderBirth | None]) -> Refusal | None:
        if use.issued_at <= mark.floor:
            return Admission.TOO_OLD
        return refusal(use, known[use.reader], birth=mark.birth, max_skew=self._max_skew)

    async def _births(self, session: _Session, readers: Collection[str]) -> dict[str, ReaderBirth | None]:
        """Return what is known of readers; only the operator can change that, which changes the mark too."""
        births, nonce = session.births, session.mark.nonce
        unread = [reader for reader in readers if reader not in births]
        for reader, entry in zip(
            unread, await asyncio.gather(*(session.bucket.get(reader_key(one)) for one in unread)), strict=True
        ):
            birth = read_reader(entry, nonce)
            if birth is not None:
                births[reader] = birth
        return {reader: births.get(reader) for reader in readers}

    async def _birth_of(self, reader: str) -> ReaderBirth | None:
        with self._in_session() as session:
            mark = session.mark
            birth = read_reader(await session.bucket.get(reader_key(reader)), mark.nonce)
            await self._remembered(session, mark, reader, birth)
            return birth

    async def _admit(self, reader: str, birth: ReaderBirth, *, replace: bool) -> ReaderBirth:
        with self._in_session() as session:
            return await self._admitted(session, reader, birth, replace=replace)

    async def _admitted(self, session: _Session, reader: str, birth: ReaderBirth, *, replace: bool) -> ReaderBirth:
        bucket, mark, key = session.bucket, session.mark, reader_key(reader)
        text = encoded_reader(birth, mark.nonce)
        for _ in range(_ATTEMPTS):
            entry = await bucket.get(key)
            holds = None if replace else read_reader(entry, mark.nonce)
            if holds is None:
                put = Put(key, text, after=0 if entry is None else entry.sequence)
                holds = birth if (await bucket.put([put]))[0] else None
            if holds is None:
                continue  # another process was faster
            mark = await self._remembered(session, mark, reader, holds)
            # Processes that have cached the reader read it again when the mark changes.
            spoken = mark._replace(words=mark.words + 1)
            if not replace or (await bucket.put([Put(_MARK, spoken.encoded(), after=mark.sequence)]))[0]:
                return holds
        raise StoreError("the reader's entry keeps changing: other processes are writing it at the same time")

    async def _remembered(self, session: _Session, mark: Mark, reader: str, birth: ReaderBirth | None) -> Mark:
        """Return the current mark; if it is unchanged, cache what was just read of a reader for claims."""
        still = await self._still(session, mark)
        if birth is not None and still.sequence == mark.sequence == session.mark.sequence:
            session.births[reader] = birth
        return still

    async def _still(self, session: _Session, mark: Mark) -> Mark:
        """Return the current mark; StoreError if ids were lost since ``mark`` was read."""
        entry, canary = await asyncio.gather(session.bucket.get(_MARK), session.bucket.get(_CANARY))
        found = read_mark(entry)
        if found is None or found.nonce != mark.nonce or canary is None or found.canary != canary.sequence:
            raise StoreError("the bucket was emptied or recreated meanwhile")
        if found.sequence > session.mark.sequence:
            if found.words != session.mark.words:
                session.births = {}
            session.mark = found
        return found

    def _tidy(self, session: _Session) -> None:
        """Start purging expired ids in the background, if it is time."""
        if time.monotonic() >= session.tidy_at and (session.tidying is None or session.tidying.done()):
            session.tidy_at = time.monotonic() + min(TIDY, session.mark.width)
            session.tidying = asyncio.get_running_loop().create_task(self._tidied(session))

    async def _tidied(self, session: _Session) -> None:
        bucket, mark = session.bucket, session.mark
        try:
            async with asyncio.timeout(_TRIPS * self._timeout):
                if _over(mark, self._clock()) > mark.since:
                    # By two clocks, since each may be wrong; the mark first, so that nothing is purged without a trace.
                    told = await bucket.settings()
                    over = _over(mark, min(self._clock(), 0.0 if told is None else server_time(told)))
                    # Read it again, since a sequence of a previous bucket means nothing in a new one.
                    mark = await self._still(session, mark)
                    if over > mark.since:
                        await bucket.put([Put(_MARK, mark._replace(since=over).encoded(), after=mark.sequence)])
                        mark = await self._still(session, mark)
                oldest = await bucket.oldest(_IDS)
                if oldest is not None and _part(oldest[0]) < mark.since:
                    await bucket.purge(f"id.{_part(oldest[0])}.>", oldest[1] + LEAVING_AT_ONCE)
                    session.tidy_at = time.monotonic() + TIDY_MORE
        except Exception as error:  # noqa: BLE001 - this costs only space, and is retried
            if self._warn is not None and not self._untidy:
                self._untidy = True
                self._warn(
                    "replay.store_not_tidied",
                    store=type(self).__name__,
                    error=type(error).__name__,
                    remedy=f"allow its user to publish to $JS.API.STREAM.PURGE.KV_{self._name}, or old ids stay",
                )

    @contextmanager
    def _in_session(self) -> Iterator[_Session]:
        """Yield the open session; after a StoreError reopen, since what was checked at the start may have changed."""
        if self._session is None:
            raise StoreError("closed")
        try:
            yield self._session
        except StoreError:
            self._opened = False
            raise

    async def _close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            if session.tidying is not None:
                session.tidying.cancel()
                await asyncio.gather(session.tidying, return_exceptions=True)
            await session.connection.close()

    def _abandon(self) -> None:
        self._session = None


def _check_credentials(path: object) -> None:
    if isinstance(path, str) and not Path(path).is_file():
        raise ConfigurationError(f"credentials {path}: no such file; write the path of a .creds file")


def _entry(use: Use, mark: Mark) -> Put:
    return Put(_key(use, mark), use.mark.ljust(_MARK_BYTES, b"\0") + mark.nonce)


def _key(use: Use, mark: Mark) -> str:
    return f"id.{use.issued_at // mark.width}.{base64url(use.owner)}.{base64url(use.key)}"


def _part(key: str) -> int:
    """Return the number of the part that an id's key belongs to."""
    number = key.split(".")[1]
    return int(number) if number.isdecimal() else 0


def _over(mark: Mark, now: float) -> int:
    """Return the number of the first part that has not expired."""
    return math.floor((now - mark.lifetime) / mark.width)
