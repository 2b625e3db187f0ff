"""The control log on NATS: creates, checks, reads and publishes to a stream of one subject."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from nats.js.errors import APIError

from watchword import ConfigurationError, Unavailable
from watchword_adapters.control.log import End
from watchword_adapters.control.speaker import speaker
from watchword_adapters.nats.client import WatchwordClient
from watchword_adapters.nats.control_reader import StreamFollower
from watchword_adapters.nats.control_stream import check_settings, settings_for, stream_name
from watchword_adapters.nats_rights import NotAllowed
from watchword_adapters.redriving import onlooker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
    from types import TracebackType

    from watchword import Watchword
    from watchword.spi import Message

_SECONDS: Final = 5.0
"""Time limit for a response of the server."""

_NAME_IN_USE: Final = 10058
_OVERLAPS: Final = 10065
_NOT_FOUND: Final = 10059


class _Stream(NamedTuple):
    name: str
    config: Mapping[str, Any]
    end: End


class NatsControlLog:
    """A stream over exactly one subject, from which nothing is ever deleted.

    ``replicas`` is for ``make``; ``options`` are those of nats-py's ``connect``, with ``servers``. Reading verifies
    nothing; publishing signs with ``watchword``. The log's identity is the stream's name and its time of creation. A
    missing right is a ConfigurationError (docs/control.md); other errors are nats-py's, and Unavailable if the log that
    was being read is gone.
    """

    def __init__(self, subject: str, *, watchword: Watchword, replicas: int | None = None, **options: Any) -> None:
        self._made_as: Final = stream_name(subject)
        self.subject: Final = subject
        self._watchword: Final = watchword
        self._replicas: Final = replicas
        self._options: Final = options
        self._reading: WatchwordClient | None = None
        self._speaking: WatchwordClient | None = None

    async def __aenter__(self) -> Self:
        """Connect."""
        self._reading = await self._connected(onlooker(self._watchword))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        clients = [one for one in (self._speaking, self._reading) if one is not None]
        self._speaking = self._reading = None
        for client in clients:
            await client.close()

    async def make(self) -> bool:
        """Create the stream if no stream has the subject, and check it; return True if it was created."""
        with self._explained():
            if await self._name() is not None:
                await self.check()
                return False
            settings = settings_for(self.subject, replicas=self._replicas)
            try:
                await self._ask(f"STREAM.CREATE.{self._made_as}", settings)
            except APIError as error:
                if error.err_code not in {_NAME_IN_USE, _OVERLAPS}:
                    raise
                if await self._name() is None:
                    raise ConfigurationError(
                        f"stream {self._made_as!r}, which would be created for the control subject {self.subject!r},"
                        " exists with other subjects: rename or remove it, or choose another control subject"
                    ) from None
                await self.check()  # another process was faster
                return False
            await self.check()
            return True

    async def check(self) -> None:
        """See ControlLog."""
        with self._explained():
            check_settings((await self._stream()).config, self.subject)

    async def end(self) -> End:
        """See ControlLog."""
        with self._explained():
            return (await self._stream()).end

    async def read(self, position: int) -> AsyncGenerator[tuple[Sequence[Message], int]]:
        """See ControlLog; Unavailable if the log was recreated, or ends before ``position``."""
        known: str | None = None

        async def found() -> tuple[str, End]:
            nonlocal known
            stream = await self._stream()
            known = known or stream.end.identity
            if stream.end.identity != known:
                raise Unavailable("control", f"stream {stream.name!r} was deleted and recreated")
            return stream.name, stream.end

        with self._explained():
            async with StreamFollower(self._client, self.subject, position, found) as follower:
                while True:
                    yield await follower.next()

    async def publish(self, value: bytes, headers: Mapping[str, str]) -> int:
        """See ControlLog; SigningError if it cannot be signed, ConfigurationError without a signer."""
        agent = speaker(self._watchword)
        with self._explained():
            if self._speaking is None:
                self._speaking = await self._connected(agent)
            context = self._speaking.jetstream()
            return (await context.publish(self.subject, value, headers=dict(headers), timeout=_SECONDS)).seq

    async def _connected(self, agent: Watchword) -> WatchwordClient:
        client = WatchwordClient(watchword=agent)
        await client.connect(**self._options)
        return client

    @property
    def _client(self) -> WatchwordClient:
        if self._reading is None:
            raise ConfigurationError("the control log is not connected: use 'async with NatsControlLog(...) as log'")
        return self._reading

    async def _name(self) -> str | None:
        """Return the name of the stream that has the subject; None if there is none."""
        answer = await self._ask("STREAM.NAMES", {"subject": self.subject})
        names = answer.get("streams") or []
        return str(names[0]) if names else None

    async def _stream(self) -> _Stream:
        name = await self._name()
        try:
            answer = None if name is None else await self._ask(f"STREAM.INFO.{name}", {})
        except APIError as error:
            if error.err_code != _NOT_FOUND:
                raise
            answer = None  # it was deleted in between
        if name is None or answer is None:
            raise ConfigurationError(
                f"no stream has the control subject {self.subject!r}: run watchword control init, which creates it"
            )
        state = answer["state"]
        first, last = int(state["first_seq"]), int(state["last_seq"])
        end = End(f"{name} {answer['created']}", first=max(1, first), next=max(last + 1, first, 1))
        return _Stream(name, answer["config"], end)

    async def _ask(self, what: str, question: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self._client.request(f"$JS.API.{what}", json.dumps(question).encode(), timeout=_SECONDS)
        found: dict[str, Any] = json.loads(answer.data)
        if "error" in found:
            raise APIError.from_error(found["error"])
        return found

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise a missing right as a ConfigurationError, since reconnecting does not help."""
        try:
            yield
        except NotAllowed as refusal:
            missing = " nor ".join(refusal.rights)
            raise ConfigurationError(
                f"control log {self.subject!r}: this user may not {missing}; permit it on the server (docs/control.md)"
            ) from refusal
