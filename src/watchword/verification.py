"""The state of one message's verification: its envelope, the results of the checks so far, and its verdict.

It makes no checks itself; ``verifier`` and the modules of the checks fill it in.
"""

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
    """A message's envelope, and what the checks have found.

    The envelope is set once ``read`` is true; the ``claim`` on its id once ``opened`` is, after checks 1 to 4; the
    ``key`` once ``keyed`` is, after check 5. ``signed`` is whether the signature holds, or None if not checked yet.
    ``lesson`` is the envelope's bytes, if the reader may learn from them. ``ahead`` is the rejection of a message from
    the future, which checks 5 to 7 do not change.
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
        """Set the claim on its id, with this reference time; the store must keep the id until ``keep_until``."""
        message, common, position = self.message, self.common, self.message.position
        between = None if message.appended_at is not None else message.appended_between
        self.claim = _make_claim(
            f"{common.channel}#{message.reader}",  # the signed channel, which an alias makes another one
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
        """Return itself; a ``Stretch`` has the same method for all of its messages."""
        return (self,)

    def reject(self, verdict: Rejected) -> None:
        """Set the verdict; a message from the future is rejected as such, because that check comes first."""
        if self.ahead is not None and verdict is not self.ahead:
            verdict = self.ahead
            self.opened = self.opened and not self.keyed  # a forgery: its claim must not be remembered
        verdict.channel = self.message.channel.uri
        verdict.claimed_principal = self.common.issuer[:128] if self.read else None
        self.verdict = verdict.with_traceback(None)  # a traceback would keep a whole batch alive

    def accept(self) -> None:
        """Set a VerifiedMessage as the verdict; every check has passed."""
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
