"""Gathers what is to be signed until the event loop comes round, signs it as one tree, and writes it in order."""

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
"""Bytes that wait for a signature at most, beside the last message."""


class Outgoing(NamedTuple):
    """A message that waits for its signature: its header block ``before`` and ``after`` the envelope, and the rest.

    ``size`` is the most bytes of header block and payload together, which count against ``max_payload``. It goes to the
    ``recipient`` on ``channel``.
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
        """What answers to it are held against."""
        return Request(id=self.unsigned.id, channel=self.channel, recipient=self.recipient)


class Outbox:
    """What one client has accepted and not written; without linger and without a thread.

    It is signed when ``Signer.batch`` messages wait, or MOST_BYTES, when the loop comes round, and before any other
    command of this client: so the server sees everything in the order in which it was asked for.
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
        """Accept a message for sending; the base's errors where it accepts none. Waits only where the base would.

        With a signing back-end that takes its time it waits for the signature: Unavailable where that failed. The first
        to be signed waits while the settings are looked at, if that is due, for they may name another key.
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
        """Return what is done when the server has answered a PING that goes out behind all that was put in so far.

        Whoever asks before the event loop comes round shares it; where the connection is lost first, it never is.
        """
        if self._pong is None:
            self._pong = asyncio.get_running_loop().create_future()
            self._come_round()
        return self._pong

    def post(self) -> None:
        """Sign and write what waits, and the PING that is asked for behind it."""
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
            self._wire.kick()  # the flusher wakes right behind that, in the same round

    def _came_round(self) -> None:
        self._comes_round = False
        self.post()

    def _write(self, one: Outgoing, envelope: bytes) -> None:
        block = one.before + envelope + one.after
        self._wire.write(hpub_cmd(one.subject, one.reply, block, one.payload), len(one.payload))
