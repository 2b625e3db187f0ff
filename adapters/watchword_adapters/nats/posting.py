"""The part of the NATS client that signs what has gathered, as one tree, and writes it in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nats import errors
from nats.aio.client import PING_PROTO, Client
from nats.protocol.command import hpub_cmd

from watchword.agent import require
from watchword_adapters.signing_queue import SigningQueue

if TYPE_CHECKING:
    from watchword import Watchword
    from watchword.drafting import Draft
    from watchword.signer import Signed

MOST_BYTES: Final = 1 << 20
"""Bytes that wait for a signature at most, beside the last message."""


class Letter(NamedTuple):
    """A message that waits for its signature: its header block ``before`` and ``after`` the envelope, and the rest.

    ``size`` is the most bytes of header block and payload together, which count against ``max_payload``.
    """

    draft: Draft
    subject: str
    reply: str
    before: bytes
    after: bytes
    payload: bytes
    size: int


class PostingClient(Client):
    """Gathers what is to be signed until the event loop comes round, without linger and without a thread.

    What has gathered is signed when ``Signer.batch`` letters wait, or MOST_BYTES, when the loop comes round, and before
    any other command of this client: so the server sees everything in the order in which it was asked for.
    """

    def __init__(self, watchword: Watchword) -> None:
        require(watchword)
        super().__init__()
        self.watchword: Final = watchword
        self._letters: list[Letter] = []
        self._letters_size = 0
        self._pong: asyncio.Future[bool] | None = None
        self._comes_round = False
        self._gathering: SigningQueue | None = None

    async def post(self, letter: Letter) -> None:
        """Accept a letter for sending; the base's errors where it accepts none. Waits only where the base would.

        With a signing back-end that takes its time it waits for the signature: Unavailable where that failed.
        """
        self._check_open(letter)
        signer = self.watchword.signer
        if not signer.in_memory:
            self._gathering = self._gathering or SigningQueue(signer)
            signed = await self._gathering.sign(letter.draft)
            self._check_open(letter)
            self._write(letter, signed)
            self._kick()
        else:
            self._letters.append(letter)
            self._letters_size += letter.size
            if len(self._letters) < signer.batch and self._letters_size < MOST_BYTES:
                self._come_round()
                return
            self._post()
        if 0 < self._max_pending_size < self._pending_data_size:
            await self._flush_pending(force_flush=True)

    def pong_behind(self) -> asyncio.Future[bool]:
        """Return what is done when the server has answered a PING that goes out behind all that was posted so far.

        Whoever asks before the event loop comes round shares it; where the connection is lost first, it never is.
        """
        if self._pong is None:
            self._pong = asyncio.get_running_loop().create_future()
            self._come_round()
        return self._pong

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:  # noqa: FBT001, FBT002 - the base's own signature
        self._post()
        await super()._send_command(cmd, priority)

    async def _flush_pending(self, force_flush: bool = False) -> Any:  # noqa: FBT001, FBT002 - as above
        self._post()
        return await super()._flush_pending(force_flush)

    def _check_open(self, letter: Letter) -> None:
        """Refuse what the base's ``publish`` refuses; what waits here counts with what waits there."""
        if self.is_closed:
            raise errors.ConnectionClosedError
        if self.is_draining_pubs:
            raise errors.ConnectionDrainingError
        if not self.is_connected:
            waiting = len(letter.payload) + self._pending_data_size + self._letters_size
            if self._max_pending_size <= 0 or waiting > self._max_pending_size:
                raise errors.OutboundBufferLimitError

    def _come_round(self) -> None:
        if not self._comes_round:
            self._comes_round = True
            asyncio.get_running_loop().call_soon(self._came_round)
            self._kick()  # the flusher wakes right behind that, in the same round

    def _came_round(self) -> None:
        self._comes_round = False
        self._post()

    def _post(self) -> None:
        """Sign and write what waits, and the PING that is asked for behind it."""
        if self._letters:
            letters, self._letters, self._letters_size = self._letters, [], 0
            signed = self.watchword.signer.sign_now([letter.draft for letter in letters])
            for letter, each in zip(letters, signed, strict=True):
                self._write(letter, each)
            self._kick()
        if self._pong is not None:
            pong, self._pong = self._pong, None
            if self.is_connected:
                self._pongs.append(pong)
                self._append(PING_PROTO)
                self._kick()

    def _write(self, letter: Letter, signed: Signed) -> None:
        block = letter.before + (signed.header[1] or b"") + letter.after
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += len(letter.payload)
        self._append(hpub_cmd(letter.subject, letter.reply, block, letter.payload))

    def _append(self, command: bytes) -> None:
        self._pending.append(command)
        self._pending_data_size += len(command)

    def _kick(self) -> None:
        """Wake the flusher, as the base's ``_flush_pending`` does, but without waiting."""
        queue = self._flush_queue
        if queue is not None and queue.empty() and self.is_connected:
            queue.put_nowait(asyncio.get_running_loop().create_future())
