"""A callback subscription without a server: what the server would send is handed to the client as it comes."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

from nats.aio.msg import Msg

from tests.support.kept import Kept
from tests.unit.kafka.fakes import REALM, SENDER, signer
from watchword import Watchword
from watchword.spi import Channel, Message
from watchword_adapters.nats import WatchwordClient
from watchword_adapters.nats.reader import Reader
from watchword_adapters.nats.subscription import VerifyingSubscription

SUBJECT = "tasks"
Handler: TypeAlias = Callable[[Msg], Awaitable[None]]


async def tree(values: Iterable[bytes], principal: str = SENDER) -> list[tuple[bytes, bytes]]:
    """Sign values under one signature, and return each as header block and payload."""
    messages = [Message(channel=Channel("nats", REALM, SUBJECT), value=value) for value in values]
    signed = await signer(principal).sign_many(messages)
    return [
        (b"NATS/1.0\r\nwatchword: %b\r\n\r\n" % (one.header[1] or b""), message.value or b"")
        for one, message in zip(signed, messages, strict=True)
    ]


class Subscribed:
    """A client with one subscription; ``got`` is what the handler received, ``errors`` what the error callback did.

    Without a handler of its own (``pulls``), someone takes the messages from ``sub``.
    """

    def __init__(
        self,
        agent: Watchword,
        *,
        handler: Handler | None = None,
        reader: Any = None,
        pulls: bool = False,
        **options: Any,
    ) -> None:
        self.agent = agent
        self.kept = Kept()
        self.got: list[Any] = []
        self.errors: list[Exception] = []
        self.client = WatchwordClient(watchword=agent, quarantine=self.kept)
        self.reader = reader or Reader(agent, "sub:1", copies=self.client.copies)
        self.handler = handler

        async def told(error: Exception) -> None:
            self.errors.append(error)

        async def nothing(*_: object, **__: object) -> None:
            pass

        self.client._error_cb = told
        self.client._send_unsubscribe = nothing  # type: ignore[method-assign]  # no server
        self.client._flush_pending = nothing  # type: ignore[method-assign]  # no server
        self.client.flush = nothing  # type: ignore[method-assign]  # no server
        handled = None if pulls else self.take
        self.sub = VerifyingSubscription(self.client, 1, SUBJECT, reader=self.reader, cb=handled, **options)
        self.client._subs[1] = self.sub
        self.sub.begin(told)

    async def take(self, msg: Any) -> None:
        """Note a message, and hand it to the handler."""
        self.got.append(msg)
        if self.handler is not None:
            await self.handler(msg)

    @property
    def task(self) -> asyncio.Task[None]:
        """The subscription's own."""
        task: Any = self.sub._wait_for_msgs_task
        assert isinstance(task, asyncio.Task)
        return task

    @property
    def values(self) -> list[bytes]:
        """What the handler was given."""
        return [msg.data for msg in self.got]

    async def arrive(self, *messages: tuple[bytes, bytes], reply: bytes = b"") -> None:
        """Let messages come in one piece, so that they wait together."""
        for block, payload in messages:
            await self.client._process_msg(1, SUBJECT.encode(), reply, payload, block)

    async def handled(self) -> None:
        """Wait until all that came was handled."""
        await asyncio.wait_for(self.sub._pending_queue.join(), 20)
