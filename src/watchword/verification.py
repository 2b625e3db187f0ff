"""One message before the verifier: what the checks have found of it so far, and its verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchword.envelope import Envelope
from watchword.message import VerifiedMessage, log_name, maker_of, seal
from watchword.replay import Claim

if TYPE_CHECKING:
    from watchword.errors import Rejected, Unavailable
    from watchword.keys import VerificationKey
    from watchword.message import Header, Message, Request

_make_verified, _make_claim = seal(), maker_of(Claim)


class Verification(Envelope):
    """A message's envelope and what else is known of it.

    The envelope is there once it is ``read``; its ``claim`` on an id once it is ``opened``, by checks 1 to 4; ``key``
    once it is ``keyed``, by check 5. ``signed`` tells whether the signature holds, as far as that is known. ``lesson``
    is what the reader may learn from it. ``ahead`` is the verdict on what is from the future as things stand, which
    checks 5 to 7 do not change.
    """

    __slots__ = (
        "ahead", "claim", "first", "headers", "key", "keyed", "lesson", "message", "opened", "read", "request",
        "signed", "too_fast", "verdict",
    )  # fmt: skip

    claim: Claim
    key: VerificationKey
    headers: tuple[Header, ...]
    first: bool

    def __init__(self, message: Message) -> None:
        self.message = message
        self.read = self.opened = self.keyed = self.too_fast = False
        self.request: Request | None = None
        self.signed: bool | None = None
        self.lesson: bytes | None = None
        self.ahead: Rejected | None = None
        self.verdict: VerifiedMessage | Rejected | Unavailable | None = None

    def open(self, reference: float, keep_until: float) -> None:
        """Say what its envelope claims of its id, at the reference time."""
        message, common, position = self.message, self.common, self.message.position
        between = None if message.appended_at is not None else message.appended_between
        self.claim = _make_claim(
            f"{common.channel}#{message.reader}",  # as signed, wherever it was found
            log_name(message),
            common.issuer,
            common.key_id,
            self.id,
            self.leaf,
            None if position is None else (position, message.appended_at),
            self.issued_at,
            reference,
            keep_until,
            message.delivered_by is not None,
            self.request is not None,
            None if between is None else between[0],
            message.reader,
            message.arrival if position is None else None,
        )
        self.opened = True

    def cases(self) -> tuple[Verification]:
        """Return itself, as a stretch returns each of its messages."""
        return (self,)

    def reject(self, verdict: Rejected) -> None:
        """End with ``verdict``; what is ahead ends as such, for that check comes first."""
        if self.ahead is not None and verdict is not self.ahead:
            verdict = self.ahead
            self.opened = self.opened and not self.keyed  # a forgery: there is nothing to remember
        verdict.channel = self.message.channel.uri
        verdict.claimed_principal = self.common.issuer[:128] if self.read else None
        self.verdict = verdict.with_traceback(None)  # else the frames of a whole batch live on in it

    def accept(self) -> None:
        """End with a VerifiedMessage: every check has passed."""
        message, common, key = self.message, self.common, self.key
        self.verdict = _make_verified(
            key.principal,
            key.key_id.decode(),
            self.id.hex(),
            message.channel,
            message.value,
            message.key,
            self.headers,
            self.issued_at,
            not self.first,
            common.recipient,
            common.reply_to,
            None if common.request_id is None else common.request_id.hex(),
            message.position,
        )
