"""Collects outgoing messages for one turn of the event loop, signs them as one tree, and writes them in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from nats.protocol.command import hpub_cmd

from watchword.spi import Request
from watchword_adapters.signing_queue import SigningQueue

if TYPE_CHECKING:
    from watchword import Watchword
    from watchword.spi import Channel
    from watchword.unsigned import UnsignedEnvelope
    from watchword_adapters.nats._seam import Wire

MOST_BYTES: Final = 1 << 20
"""Most bytes that wait for a signature, apart from the last message."""


class Outgoing(NamedTuple):
    """A message to be signed: its header block ``before`` and ``after`` the envelope, and the rest.

    ``size`` is the largest size of header block and payload together, which counts against ``max_payload``. It goes to
    the ``recipient`` on ``channel``.
    """

    unsigned: UnsignedEnvelope
    subject: str
    reply: str
    before: bytes
    after: bytes
    payload: bytes
    size: int
    channel: Channel
    recipient: str | None

    @property
    def request(self) -> Request:
        """The request against which answers to it are checked."""
        return Request(id=self.unsigned.id, channel=self.channel, recipient=self.recipient)


class Outbox:
    """The messages that a client has accepted but not written yet; there is no linger and no thread.

    They are signed when ``Signer.batch`` messages or MOST_BYTES wait, at the loop's next turn, and before any other
    command of this client, so that the server receives everything in the order of the calls.
    """

    def __init__(self, watchword: Watchword, wire: Wire) -> None:
        self._watchword = watchword
        self._wire = wire
        self.waiting: list[Outgoing] = []
        self.waiting_size = 0
        self._pong: asyncio.Future[bool] | None = None
        self._comes_round = False
        self._queue: SigningQueue | None = None

    async def put(self, one: Outgoing) -> None:
        """Accept a message for sending, or raise the base's errors; waits only where the base would.

        With a remote signing back-end it waits for the signature: Unavailable if that fails. If settings are due to be
        reread, the first message waits for that, since they may name another key.
        """
        if not self.waiting and self._watchword.is_due():
            await self._watchword.keep_up()
        self._wire.check_open(len(one.payload) + self.waiting_size)
        signer = self._watchword.signer
        if not signer.in_memory:
            self._queue = self._queue or SigningQueue(signer)
            signed = await self._queue.sign(one.unsigned)
            self._wire.check_open(len(one.payload) + self.waiting_size)
            self._write(one, signed.header[1] or b"")
            self._wire.kick()
        else:
            self.waiting.append(one)
            self.waiting_size += one.size
            if len(self.waiting) < signer.batch and self.waiting_size < MOST_BYTES:
                self._come_round()
                return
            self.post()
        await self._wire.make_room()

    def pong_behind(self) -> asyncio.Future[bool]:
        """Return a future that completes when the server has answered a PING sent after everything so far.

        Calls in the same turn of the event loop share it; if the connection is lost first, it never completes.
        """
        if self._pong is None:
            self._pong = asyncio.get_running_loop().create_future()
            self._come_round()
        return self._pong

    def post(self) -> None:
        """Sign and write the waiting messages, then the requested PING."""
        if self.waiting:
            waiting, self.waiting, self.waiting_size = self.waiting, [], 0
            envelopes = self._watchword.signer.sign_now([one.unsigned for one in waiting])
            for one, envelope in zip(waiting, envelopes, strict=True):
                self._write(one, envelope)
            self._wire.kick()
        if self._pong is not None:
            pong, self._pong = self._pong, None
            self._wire.ping(pong)

    def _come_round(self) -> None:
        if not self._comes_round:
            self._comes_round = True
            asyncio.get_running_loop().call_soon(self._came_round)
            self._wire.kick()  # the flusher then wakes right after that, in the same turn

    def _came_round(self) -> None:
        self._comes_round = False
        self.post()

    def _write(self, one: Outgoing, envelope: bytes) -> None:
        block = one.before + envelope + one.after
        self._wire.write(hpub_cmd(one.subject, one.reply, block, one.payload), len(one.payload))
