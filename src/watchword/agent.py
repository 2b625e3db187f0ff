"""What one agent process plugs into its clients: who it is, how it judges, and its audit trail."""

from __future__ import annotations

from collections.abc import Iterable
from time import time
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from watchword.audit import Audit
from watchword.errors import ConfigurationError, Pending, Rejected, Unavailable
from watchword.guard import MemoryReplayStore
from watchword.keys import KeySource, MemoryKeys, NamedBackend
from watchword.lives import Lives
from watchword.message import Expected, ObservedMessage, VerifiedMessage
from watchword.policy import Mode, Policy
from watchword.quota import Bounds
from watchword.signer import BATCH, Signer
from watchword.verifier import Verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watchword.journal import Journal
    from watchword.keys import VerificationKey
    from watchword.message import Message
    from watchword.replay import ReplayStore
    from watchword.settings import QuarantineSettings
    from watchword.signatures import CheckRunner

Delivered: TypeAlias = VerifiedMessage | ObservedMessage
"""What an interceptor hands on: verified; or, in observe mode only, as it came and with its verdict."""

_ANYTHING: Final = Expected()


_WRITE: Final = 'write watchword.load("watchword.toml"), or make one with watchword.Watchword(realm=...)'


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
    """One agent process: it judges what it reads, signs what it says, and keeps the audit trail of both.

    Every interceptor takes one. ``watchword.load`` makes it from ``watchword.toml``; by hand it takes

    - ``realm``, which names the cluster or account, and ``principal``, who this process is: without it, messages that
      are addressed to an agent are rejected;
    - ``key``, with which it signs: a SigningKey, or a back-end that knows its ``key_id`` and ``algorithm``; None in a
      process that only reads;
    - ``keys``, whom it believes: VerificationKeys, or a source that looks them up; None in a process that only signs;
    - ``policy``, by default any known principal anywhere; ``replay``, by default this process's own memory, and
      ``journal``, what that memory leaves over restarts, by default nothing (``load`` keeps one on disk);
    - ``clock``, seconds since the epoch; ``batch``, how many messages may share a signature, 1 to 4096.

    ConfigurationError says what does not fit.
    """

    def __init__(
        self,
        *,
        realm: str,
        principal: str | None = None,
        key: NamedBackend | None = None,
        keys: KeySource | Iterable[VerificationKey] | None = None,
        policy: Policy | None = None,
        replay: ReplayStore | None = None,
        journal: Journal | None = None,
        clock: Callable[[], float] = time,
        batch: int = BATCH,
        audit: Audit | None = None,
        quarantine: QuarantineSettings | None = None,
    ) -> None:
        policy = Policy() if policy is None else policy
        if replay is None:  # and not where it is empty
            replay = MemoryReplayStore(horizon=policy.horizon, bounds=Bounds.within(policy.memory))
        verifier = Verifier(
            realm=realm,
            principal=principal,
            keys=_source_of(keys),
            replay=replay,
            policy=policy,
            clock=clock,
            journal=journal,
        )
        signer = None
        if key is not None:
            if principal is None:
                raise ConfigurationError('principal: missing; a signer needs principal = "agent://..." to sign as')
            if not isinstance(key, NamedBackend):
                raise ConfigurationError(f"key: a {type(key).__name__} has no key_id and algorithm; give a SigningKey")
            signer = Signer(
                realm=realm,
                principal=principal,
                key=key,
                key_id=key.key_id,
                algorithm=key.algorithm,
                clock=clock,
                batch=batch,
            )
        self._assemble(verifier, signer, audit, quarantine)

    @classmethod
    def of(
        cls,
        verifier: Verifier,
        signer: Signer | None = None,
        *,
        audit: Audit | None = None,
        quarantine: QuarantineSettings | None = None,
    ) -> Self:
        """Return one of parts that were made before; ConfigurationError unless both are of one agent."""
        if signer is not None and (signer.realm, signer.principal) != (verifier.realm, verifier.principal):
            raise ConfigurationError("signer and verifier name another realm or principal: one process is one agent")
        made = cls.__new__(cls)
        made._assemble(verifier, signer, audit, quarantine)  # noqa: SLF001 - our own, by its other constructor
        return made

    def _assemble(
        self, verifier: Verifier, signer: Signer | None, audit: Audit | None, quarantine: QuarantineSettings | None
    ) -> None:
        self.verifier = verifier
        self.clock = verifier.clock
        self.realm = verifier.realm
        self.quarantine = quarantine
        self.audit = audit or Audit(clock=verifier.clock, observing=verifier.policy.mode is Mode.OBSERVE)
        self.lives = Lives(verifier, self.audit)
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


def _source_of(keys: KeySource | Iterable[VerificationKey] | None) -> KeySource | None:
    given: object = keys
    if isinstance(given, str | bytes) or not (given is None or isinstance(given, KeySource | Iterable)):
        raise ConfigurationError(
            f"keys: a {type(keys).__name__} is no source of keys; give VerificationKeys, or write their file into"
            ' watchword.toml, with source = "files", and call watchword.load()'
        )
    return keys if keys is None or isinstance(keys, KeySource) else MemoryKeys(keys)
