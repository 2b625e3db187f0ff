"""The bucket of the NATS KV store: requests and answers of JetStream, and what its settings must be."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nats.errors import NoRespondersError

from watchword import ConfigurationError
from watchword_adapters.stores.batched import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nats.aio.client import Client
    from nats.aio.msg import Msg

_STREAM_NOT_FOUND: Final = 10059
_MESSAGE_NOT_FOUND: Final = 10037
_WRONG_LAST_SEQUENCE: Final = {10071, 10164}
_NANOSECONDS: Final = 1e9


class Entry(NamedTuple):
    """What a key holds, and its sequence in the stream; ``value`` is b"" where the key was deleted."""

    value: bytes
    sequence: int


class Put(NamedTuple):
    """One value to be put under a key whose last sequence is ``after`` (0: there is none); ``ttl`` in whole seconds."""

    key: str
    value: bytes
    after: int = 0
    ttl: int | None = None


class Bucket:
    """One KV bucket over one connection, which must be that of the caller alone.

    Reads go to the stream's leader, which has applied what it has acknowledged; any server may answer direct reads.
    """

    def __init__(self, connection: Client, name: str, *, timeout: float) -> None:
        self._connection: Final = connection
        self._name: Final = name
        self._stream: Final = f"KV_{name}"
        self._timeout: Final = timeout
        self._inbox: Final = connection.new_inbox()
        self._batch = 0
        self._acks: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def start(self) -> None:
        """Listen for acknowledgements."""
        await self._connection.subscribe(f"{self._inbox}.*", cb=self._acknowledged)

    async def settings(self) -> dict[str, Any] | None:
        """Return the stream's information; None if there is no bucket."""
        answer = await self._ask(f"STREAM.INFO.{self._stream}", {})
        return None if _error(answer) == _STREAM_NOT_FOUND else _checked(answer)

    async def create(self, replicas: int) -> dict[str, Any]:
        """Make the bucket and return the stream's information."""
        answer = await self._ask(
            f"STREAM.CREATE.{self._stream}",
            {
                "name": self._stream,
                "subjects": [f"$KV.{self._name}.>"],
                "description": "ids that were used once",
                "retention": "limits",
                "storage": "file",
                "discard": "new",
                "num_replicas": replicas,
                "max_msgs_per_subject": 1,
                "allow_rollup_hdrs": True,
                "allow_direct": True,
                "allow_msg_ttl": True,
                "deny_delete": True,
            },
        )
        if "error" in answer:
            raise ConfigurationError(f"bucket {self._name}: cannot be made: {answer['error'].get('description')}")
        return answer

    async def get(self, key: str) -> Entry | None:
        """Return what a key holds."""
        answer = await self._ask(f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": self._subject(key)})
        if _error(answer) == _MESSAGE_NOT_FOUND:
            return None
        try:
            message = _checked(answer)["message"]
            return Entry(base64.b64decode(message.get("data", "")), int(message["seq"]))
        except (KeyError, TypeError, ValueError):
            raise StoreError("the server gave an answer that makes no sense") from None

    async def count(self, prefix: str) -> int:
        """Return how many keys begin with ``prefix``, a whole token."""
        subject = f"$JS.API.DIRECT.GET.{self._stream}"
        wanted = {"seq": 1, "next_by_subj": self._subject(f"{prefix}.*"), "batch": 1}
        answer = await self._connection.request(subject, json.dumps(wanted).encode(), timeout=self._timeout)
        headers = answer.headers or {}
        if headers.get("Status") == "404":
            return 0
        pending = headers.get("Nats-Num-Pending", "")
        if not pending.isdecimal():
            raise StoreError("the server did not count; nats-server 2.11 or later does")
        return int(pending) + 1

    async def put(self, puts: Sequence[Put]) -> list[bool]:
        """Put each value, atomically and all under way at once; False where the key's last sequence is another."""
        self._batch += 1
        loop = asyncio.get_running_loop()
        waiting = {f"{self._inbox}.{self._batch}-{number}": loop.create_future() for number in range(len(puts))}
        self._acks.update(waiting)
        try:
            for put, reply in zip(puts, waiting, strict=True):
                headers = {"Nats-Expected-Last-Subject-Sequence": str(put.after)}
                if put.ttl is not None:
                    headers["Nats-TTL"] = str(put.ttl)
                await self._connection.publish(self._subject(put.key), put.value, reply, headers)
            done = []
            for answer in await asyncio.gather(*waiting.values()):
                done.append(_error(answer) not in _WRONG_LAST_SEQUENCE)
                if done[-1]:
                    _sequence(_checked(answer))
            return done
        finally:
            for reply in waiting:
                del self._acks[reply]

    async def _acknowledged(self, message: Msg) -> None:
        future = self._acks.get(message.subject)
        if future is None or future.done():
            return
        try:
            future.set_result(_parsed(message.data))
        except StoreError as error:  # nothing at all, where there is no stream
            future.set_exception(error)

    async def _ask(self, what: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        try:
            payload = json.dumps(wanted).encode()
            answer = await self._connection.request(f"$JS.API.{what}", payload, timeout=self._timeout)
        except NoRespondersError:
            raise StoreError("nobody answers for JetStream") from None
        return _parsed(answer.data)

    def _subject(self, key: str) -> str:
        return f"$KV.{self._name}.{key}"


def check(information: Mapping[str, Any], name: str, *, lifetime: float) -> None:
    """Refuse a bucket that would forget ids within ``lifetime`` seconds; ConfigurationError says what to set."""
    config: Mapping[str, Any] = information["config"]
    limited = config.get("max_msgs", -1) > 0 or config.get("max_bytes", -1) > 0
    max_age = config.get("max_age", 0) / _NANOSECONDS
    wrong = [
        complaint
        for applies, complaint in (
            (not config.get("allow_msg_ttl"), "has no TTL per key: allow_msg_ttl, which nats-server 2.11 or later has"),
            (config.get("storage") != "file", "is kept in memory, and forgets at a restart: storage file"),
            (config.get("persist_mode") == "async", "acknowledges what it has not written: persist_mode default"),
            (config.get("retention") != "limits", "gives entries away: retention limits"),
            (limited and config.get("discard") != "new", "drops the oldest ids when it is full: discard new"),
            (0 < max_age < lifetime, f"drops ids after {max_age:.0f} s: a TTL of none, or {lifetime:.0f} s"),
            (not config.get("allow_direct"), "cannot count: allow_direct"),
            (config.get("subjects") != [f"$KV.{name}.>"], "is not filled by its own keys alone: no mirror, no sources"),
            (bool(config.get("mirror") or config.get("sources")), "is a copy of another: no mirror, no sources"),
            (bool(config.get("sealed") or config.get("no_ack")), "takes nothing, or does not say so: neither"),
        )
        if applies
    ]
    if wrong:
        raise ConfigurationError(f"bucket {name}: {wrong[0]}; set that, or name a new one, which is made as needed")


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(data)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise StoreError("the server gave an answer that makes no sense")
    return answer


def _error(answer: Mapping[str, Any]) -> int | None:
    error = answer.get("error")
    code = error.get("err_code") if isinstance(error, dict) else None
    return code if isinstance(code, int) else None


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise StoreError(f"the server refuses: {answer['error']}")
    return answer


def _sequence(answer: Mapping[str, Any]) -> int:
    sequence = answer.get("seq")
    if not isinstance(sequence, int):
        raise StoreError("the server gave an answer that makes no sense")
    return sequence
