"""One message before the verifier: what the checks have found of it so far, and its verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchword.message import VerifiedMessage, seal

if TYPE_CHECKING:
    from watchword.envelope import Envelope
    from watchword.errors import Rejected, Unavailable
    from watchword.keys import VerificationKey
    from watchword.message import Header, Message, Request
    from watchword.replay import Claim

_make_verified = seal()


class Case:
    """A message and what is known of it.

    ``claimed`` is the principal that it names, once it was read. What checks 1 to 4 find is there once it is
    ``opened``, the key of check 5 once it is ``keyed``. ``signed`` tells whether its signature holds, as far as that
    is known; ``lesson`` is what the reader may learn from it.
    """

    __slots__ = (
        "claim", "claimed", "envelope", "first", "headers", "key", "keyed",
        "lesson", "message", "opened", "request", "signed", "verdict",
    )  # fmt: skip

    envelope: Envelope
    claim: Claim
    key: VerificationKey
    headers: tuple[Header, ...]
    first: bool

    def __init__(self, message: Message) -> None:
        self.message = message
        self.opened = self.keyed = False
        self.signed: bool | None = None
        self.claimed: str | None = None
        self.request: Request | None = None
        self.lesson: bytes | None = None
        self.verdict: VerifiedMessage | Rejected | Unavailable | None = None

    def reject(self, verdict: Rejected) -> None:
        """End with ``verdict``."""
        verdict.channel = self.message.channel.uri
        verdict.claimed_principal = None if self.claimed is None else self.claimed[:128]
        self.verdict = verdict.with_traceback(None)  # else the frames of a whole batch live on in it

    def accept(self) -> None:
        """End with a VerifiedMessage: every check has passed."""
        message, envelope, key = self.message, self.envelope, self.key
        common = envelope.common
        self.verdict = _make_verified(
            key.principal,
            key.key_id.decode(),
            envelope.id.hex(),
            message.channel,
            message.value,
            message.key,
            self.headers,
            envelope.issued_at,
            not self.first,
            common.recipient,
            common.reply_to,
            None if common.request_id is None else common.request_id.hex(),
            message.position,
        )
