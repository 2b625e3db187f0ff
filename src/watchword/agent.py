"""What one agent process plugs into its clients: who it is, how it judges, and its audit trail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from watchword.audit import Audit
from watchword.errors import ConfigurationError, Pending, Rejected, Unavailable
from watchword.lives import Lives
from watchword.message import Expected, ObservedMessage, VerifiedMessage
from watchword.policy import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watchword.keys import KeySource
    from watchword.message import Message
    from watchword.settings import QuarantineSettings
    from watchword.signatures import CheckRunner
    from watchword.signer import Signer
    from watchword.verifier import Verifier

Delivered: TypeAlias = VerifiedMessage | ObservedMessage
"""What an interceptor hands on: verified; or, in observe mode only, as it came and with its verdict."""

_ANYTHING: Final = Expected()


_WRITE: Final = 'write load("watchword.toml"), with load from watchword_adapters.config'


def require(given: object, *, reads: bool = False) -> None:
    """Raise ConfigurationError unless what an interceptor was given is a Watchword, with keys if it ``reads``.

    An observer may be without: before keys are given out, it shows what would be dropped.
    """
    if not isinstance(given, Watchword):
        raise ConfigurationError(f"watchword=: {_WRITE}; this is of type {type(given).__name__}")
    if reads and not (given.verifier.has_keys or given.observing):
        raise ConfigurationError(
            'this process has no key source, so every message would be dropped: add [[keys]] with source = "files" and'
            ' paths = ["agents.jwks"]; to watch before there are keys, write mode = "observe" under [policy]'
        )


class Watchword:
    """A verifier, the signer of an agent that also speaks, and the audit trail of what they did.

    Every interceptor takes one. The mode is the verifier's policy's. ``quarantine`` says where interceptors keep what
    they do not deliver.
    """

    def __init__(
        self,
        *,
        verifier: Verifier,
        signer: Signer | None = None,
        audit: Audit | None = None,
        quarantine: QuarantineSettings | None = None,
    ) -> None:
        if signer is not None and (signer.realm, signer.principal) != (verifier.realm, verifier.principal):
            raise ConfigurationError("signer and verifier name another realm or principal: one process is one agent")
        self.verifier: Final = verifier
        self.clock: Final = verifier.clock
        self.realm: Final = verifier.realm
        self.quarantine: Final = quarantine
        self.audit: Final = audit or Audit(clock=verifier.clock, observing=verifier.policy.mode is Mode.OBSERVE)
        self.lives: Final = Lives(verifier, self.audit)
        self._signer = signer

    @property
    def signer(self) -> Signer:
        """The signer; ConfigurationError where this process was set up as a pure consumer."""
        if self._signer is None:
            raise ConfigurationError(
                'this process only verifies: add [signer] with key = "..." and a principal to sign'
            )
        return self._signer

    @property
    def observing(self) -> bool:
        """Whether verdicts are only attached and counted, and nothing is dropped."""
        return self.verifier.policy.mode is Mode.OBSERVE

    async def admit(
        self, message: Message, expected: Expected = _ANYTHING, *, keys: KeySource | None = None
    ) -> Delivered:
        """Judge and account for one message: return what may be delivered, else raise Rejected or Unavailable.

        In observe mode it never raises these, and returns an ObservedMessage.
        """
        (delivered,) = await self.admit_many((message,), expected, keys=keys)
        if isinstance(delivered, Rejected | Unavailable):
            raise delivered
        return delivered

    async def admit_many(
        self,
        messages: Sequence[Message],
        expected: Expected = _ANYTHING,
        *,
        check: CheckRunner | None = None,
        enough: Callable[[], bool] | None = None,
        keys: KeySource | None = None,
    ) -> list[Delivered | Rejected | Unavailable]:
        """Judge and account for messages in order, as far as ``Verifier.verify_many`` does.

        In observe mode each verdict comes as an ObservedMessage, but not one that is Pending: that is none yet.
        """
        verdicts = await self.verifier.verify_many(messages, expected, check=check, enough=enough, keys=keys)
        delivered = 0
        for message, verdict in zip(messages, verdicts, strict=False):
            if isinstance(verdict, VerifiedMessage):
                delivered += 1
            elif not isinstance(verdict, Pending):
                self.audit.refused(message, verdict)
        self.audit.delivered(delivered)
        while self.verifier.warnings:
            event, fields = self.verifier.warnings.popleft()
            self.audit.warn(event, **fields)
        if not self.observing:
            return [*verdicts]
        return [
            verdict if isinstance(verdict, Pending) else ObservedMessage(message, verdict)
            for message, verdict in zip(messages, verdicts, strict=False)
        ]
