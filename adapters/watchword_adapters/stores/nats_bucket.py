"""The bucket of the NATS KV store: JetStream requests and responses, and a check of the bucket's settings."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from watchword import ConfigurationError
from watchword.replay import StoreError
from watchword_adapters.nats_rights import NotAllowed, refused_right

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nats.aio.client import Client
    from nats.aio.msg import Msg

_STREAM_NOT_FOUND: Final = 10059
_NAME_IN_USE: Final = 10058
_MESSAGE_NOT_FOUND: Final = 10037
_WRONG_LAST_SEQUENCE: Final = {10071, 10164}
_NO_RESPONDERS: Final = "503"
_NANOSECONDS: Final = 1e9


class RightError(StoreError):
    """The store's user lacks a right on the server."""


class Entry(NamedTuple):
    """The value of a key, and its sequence in the stream; ``value`` is b"" if the key was deleted."""

    value: bytes
    sequence: int


class Put(NamedTuple):
    """A value to store under a key whose last sequence is ``after`` (0: no value yet)."""

    key: str
    value: bytes
    after: int = 0


class Bucket:
    """One KV bucket over one connection, which the caller must not share.

    Reads go to the stream's leader, which has applied what it has acknowledged; any server may answer direct reads.
    There are no time limits here: the caller sets them.
    """

    def __init__(self, connection: Client, name: str) -> None:
        self._connection: Final = connection
        self._name: Final = name
        self._stream: Final = f"KV_{name}"
        self._inbox: Final = connection.new_inbox()
        self._batch = 0
        self._waiting: dict[str, tuple[str, asyncio.Future[Msg]]] = {}

    async def start(self) -> None:
        """Subscribe to responses."""
        await self._connection.subscribe(f"{self._inbox}.*", cb=self._answered)

    def refused(self, told: str) -> None:
        """Handle an error of the server; the request that it is about fails with RightError."""
        verb, refused = refused_right(told)
        for subject, answer in self._waiting.values():
            if verb == "publish" and subject.lower() == refused:
                _fail(answer, f"publish to {subject}")
            elif verb == "subscription" and refused == f"{self._inbox}.*".lower():
                _fail(answer, f"subscribe to {self._inbox}.*")

    async def settings(self) -> dict[str, Any] | None:
        """Return the stream's information; None if there is no bucket."""
        answer = await self._ask(f"STREAM.INFO.{self._stream}", {})
        return None if _error(answer) == _STREAM_NOT_FOUND else _checked(answer)

    async def create(self, replicas: int) -> dict[str, Any]:
        """Create the bucket and return the stream's information."""
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
                "allow_direct": True,
                "deny_delete": True,
                # A sequence read in a bucket deleted meanwhile must not be mistaken for one of this bucket.
                "first_seq": time.time_ns() // 1000,
            },
        )
        if _error(answer) == _NAME_IN_USE:  # another process was faster
            answer = await self._ask(f"STREAM.INFO.{self._stream}", {})
        if "error" in answer:
            raise ConfigurationError(f"bucket {self._name}: cannot be created: {answer['error'].get('description')}")
        return answer

    async def get(self, key: str) -> Entry | None:
        """Return the entry of a key; None if there is none."""
        answer = await self._ask(f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": self._subject(key)})
        if _error(answer) == _MESSAGE_NOT_FOUND:
            return None
        try:
            message = _checked(answer)["message"]
            return Entry(base64.b64decode(message.get("data", "")), int(message["seq"]))
        except (KeyError, TypeError, ValueError):
            raise StoreError("the server returned a malformed response") from None

    async def oldest(self, pattern: str) -> tuple[str, int] | None:
        """Return the oldest key that matches a pattern, and its sequence; None if there is none."""
        wanted = {"seq": 1, "next_by_subj": self._subject(pattern)}
        answer = await self._ask(f"STREAM.MSG.GET.{self._stream}", wanted)
        if _error(answer) == _MESSAGE_NOT_FOUND:
            return None
        try:
            message = _checked(answer)["message"]
            return str(message["subject"]).removeprefix(self._subject("")), int(message["seq"])
        except (KeyError, TypeError, ValueError):
            raise StoreError("the server returned a malformed response") from None

    async def purge(self, pattern: str, before: int) -> None:
        """Remove the keys that match a pattern and whose sequence is below ``before``."""
        wanted = {"filter": self._subject(pattern), "seq": before}
        _checked(await self._ask(f"STREAM.PURGE.{self._stream}", wanted))

    async def count(self, pattern: str) -> int:
        """Return the number of keys that match a pattern."""
        subject = f"$JS.API.DIRECT.GET.{self._stream}"
        wanted = {"seq": 1, "next_by_subj": self._subject(pattern), "batch": 1}
        (answer,) = await self._answers([(subject, json.dumps(wanted).encode(), None)])
        headers = answer.headers or {}
        if headers.get("Status") == "404":
            return 0
        pending = headers.get("Nats-Num-Pending", "")
        if not pending.isdecimal():
            raise StoreError("the server did not count keys; use nats-server 2.11 or later")
        return int(pending) + 1

    async def put(self, puts: Sequence[Put]) -> list[bool]:
        """Store each value atomically, all concurrently; False if the key's last sequence differs."""
        # Of constant length, so that a replacement is longer only if its value is.
        done = []
        for message in await self._answers(
            [
                (self._subject(put.key), put.value, {"Nats-Expected-Last-Subject-Sequence": f"{put.after:020}"})
                for put in puts
            ]
        ):
            answer = _parsed(message.data)
            done.append(_error(answer) not in _WRONG_LAST_SEQUENCE)
            if done[-1]:
                _sequence(_checked(answer))
        return done

    async def _ask(self, what: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        (answer,) = await self._answers([(f"$JS.API.{what}", json.dumps(wanted).encode(), None)])
        return _parsed(answer.data)

    async def _answers(self, requests: Sequence[tuple[str, bytes, dict[str, str] | None]]) -> list[Msg]:
        """Publish each (subject, payload, headers) concurrently, and return the responses in this order."""
        self._batch += 1
        loop = asyncio.get_running_loop()
        waiting: dict[str, tuple[str, asyncio.Future[Msg]]] = {
            f"{self._inbox}.{self._batch}-{number}": (subject, loop.create_future())
            for number, (subject, _, _) in enumerate(requests)
        }
        self._waiting.update(waiting)
        try:
            for (subject, payload, headers), reply in zip(requests, waiting, strict=True):
                await self._connection.publish(subject, payload, reply, headers)
            return await asyncio.gather(*(answer for _, answer in waiting.values()))
        finally:
            for reply in waiting:
                del self._waiting[reply]

    async def _answered(self, message: Msg) -> None:
        _, answer = self._waiting.get(message.subject, ("", None))
        if answer is None or answer.done():
            return
        if (message.headers or {}).get("Status") == _NO_RESPONDERS:
            answer.set_exception(StoreError("JetStream does not respond: is it enabled for this account?"))
        else:
            answer.set_result(message)

    def _subject(self, key: str) -> str:
        return f"$KV.{self._name}.{key}"


def server_time(information: Mapping[str, Any]) -> float:
    """Return the server's time of a stream's information, in seconds; StoreError if it is missing."""
    try:
        return datetime.fromisoformat(information["ts"]).timestamp()
    except (KeyError, TypeError, ValueError):
        raise StoreError("the server does not report its time; use nats-server 2.11 or later") from None


def check(information: Mapping[str, Any], name: str) -> None:
    """Refuse a bucket that would forget ids by itself; ConfigurationError says what to set."""
    config: Mapping[str, Any] = information["config"]
    limited = config.get("max_msgs", -1) > 0 or config.get("max_bytes", -1) > 0
    max_age = config.get("max_age", 0) / _NANOSECONDS
    wrong = [
        complaint
        for applies, complaint in (
            (config.get("storage") != "file", "is kept in memory and lost at a restart: storage file"),
            (config.get("persist_mode") == "async", "acknowledges what it has not written: persist_mode default"),
            (config.get("retention") != "limits", "deletes entries that were read: retention limits"),
            (limited and config.get("discard") != "new", "drops the oldest ids when it is full: discard new"),
            (max_age > 0, f"drops ids after {max_age:.0f} s, by a clock that may jump: a TTL of none"),
            (bool(config.get("deny_purge")), "can never purge old ids: no deny_purge"),
            (not config.get("allow_direct"), "cannot count its keys: allow_direct"),
            (config.get("subjects") != [f"$KV.{name}.>"], "does not hold its own keys alone: no mirror, no sources"),
            (bool(config.get("mirror") or config.get("sources")), "is a copy of another: no mirror, no sources"),
            (bool(config.get("sealed") or config.get("no_ack")), "takes nothing, or does not acknowledge: neither"),
        )
        if applies
    ]
    if wrong:
        raise ConfigurationError(f"bucket {name}: {wrong[0]}; set that, or write the name of a new bucket")


def _fail(answer: asyncio.Future[Msg], right: str) -> None:
    if not answer.done():
        answer.set_exception(RightError(str(NotAllowed(right))))


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(data)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise StoreError("the server returned a malformed response")
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
