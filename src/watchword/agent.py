"""``Watchword``, the object that an agent process gives to its clients: identity, verifier, signer and audit trail.

It judges messages for the interceptors (``admit``), logs and counts each verdict, and switches to changed settings. It
reads no files: ``watchword.load`` makes one from ``watchword.toml``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from inspect import iscoroutinefunction
from time import time
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeAlias

from watchword.audit import Audit
from watchword.errors import ConfigurationError, Pending, Rejected, Unavailable
from watchword.guard import MemoryReplayStore
from watchword.keys import KeySource, MemoryKeys, NamedBackend
from watchword.lives import Lives
from watchword.message import Channel, Expected, ObservedMessage, VerifiedMessage
from watchword.policy import Mode, Policy
from watchword.quota import Bounds
from watchword.signer import Signer
from watchword.trust import Demerits, Trust
from watchword.verifier import Verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watchword.journal import Journal
    from watchword.keys import VerificationKey
    from watchword.message import Message
    from watchword.replay import ReplayStore
    from watchword.settings import QuarantineSettings
    from watchword.signatures import CheckRunner
    from watchword.trust import TrustScore

Delivered: TypeAlias = VerifiedMessage | ObservedMessage
"""What an interceptor delivers: a verified message, or in observe mode only, the message as it came and its verdict."""

_ANYTHING: Final = Expected()
_OBSERVE: Final = Mode.OBSERVE  # Python 3.11 looks an enum member up each time
_FIXED: Final = ("max_age", "max_skew", "max_hold", "max_lag", "memory")
"""Policy fields that a running memory does not change, because a floor must never fall."""


_NO_KEYS: Final = (
    'this process has no key source, so every message would be dropped: add [[keys]] with source = "files" and'
    ' paths = ["agents.jwks"]; to run without keys at first, write mode = "observe" under [policy]'
)
_WRITE: Final = 'write watchword.load("watchword.toml"), or make one with watchword.Watchword(realm=...)'


def require(given: object, *, reads: bool = False, recipient: object = None, quarantine: object = None) -> None:
    """Raise ConfigurationError unless an interceptor's arguments fit: ``given`` must be a Watchword.

    If the interceptor ``reads`` it needs keys, except in observe mode, which shows before keys are handed out what
    would be dropped. A ``recipient`` must be a plain function, a ``quarantine`` an object with ``put``.
    """
    if not isinstance(given, Watchword):
        raise ConfigurationError(f"watchword=: {_WRITE}; this is of type {type(given).__name__}")
    if reads:
        given.begin_to_read()
    if recipient is not None and not callable(recipient):
        raise ConfigurationError(
            "recipient=: write a function (channel, key, headers) that returns the recipient's principal, or None for"
            f" any reader; this is of type {type(recipient).__name__}"
        )
    if iscoroutinefunction(recipient):  # it would not be awaited
        raise ConfigurationError("recipient=: write a plain function, not one with 'async def'")
    if quarantine is not None and not callable(getattr(quarantine, "put", None)):
        raise ConfigurationError(
            "quarantine=: give a KafkaQuarantine, a NatsQuarantine or another object with put(), to write copies of"
            f" what is not delivered; this is of type {type(quarantine).__name__}"
        )


class Watch(Protocol):
    """Port: checks whether the settings have changed, and calls ``Watchword.switch`` if so."""

    def is_due(self) -> bool:
        """Return True if it is time to check again."""
        ...

    async def look(self) -> None:
        """Check, and switch if they changed; errors in the settings are logged. It returns within a bounded time."""
        ...

    def reload(self) -> None:
        """Switch now; ConfigurationError if the settings are wrong, and then nothing changes."""
        ...


class Watchword:
    """One agent process: it verifies the messages that it reads, signs those that it sends, and audits both.

    Every interceptor takes one. ``watchword.load`` makes it from ``watchword.toml``; by hand it takes

    - ``realm``, the name of the cluster or account, and ``principal``, the identity of this process: without it,
      messages addressed to an agent are rejected;
    - ``key``, the signing key: a SigningKey, or a back-end that has a ``key_id`` and an ``algorithm``; None in a
      process that only reads;
    - ``keys``, the trusted keys: VerificationKeys, or a source that looks them up; None in a process that only signs;
    - ``policy``, by default any known principal on any channel; ``replay``, the replay store, by default this process's
      own memory; and ``journal``, which preserves that memory over restarts, by default none (``load`` keeps one on
      disk);
    - ``trust``, which turns the facts against a principal into a score, by default Demerits;
    - ``clock``, in seconds since the epoch; ``batch``, how many messages may share a signature, 1 to 4096, by
      default 64, and 256 with ML-DSA.

    ConfigurationError says which argument is wrong.
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
        trust: TrustScore | Trust | None = None,
        clock: Callable[[], float] = time,
        batch: int | None = None,
        audit: Audit | None = None,
        quarantine: QuarantineSettings | None = None,
    ) -> None:
        policy = Policy() if policy is None else policy
        if replay is None:  # not "if not replay": an empty store is false
            replay = MemoryReplayStore(horizon=policy.horizon, bounds=Bounds.within(policy.memory))
        verifier = Verifier(
            realm=realm,
            principal=principal,
            keys=_source_of(keys),
            replay=replay,
            policy=policy,
            clock=clock,
            journal=journal,
            trust=trust if isinstance(trust, Trust) else Trust(Demerits(clock) if trust is None else trust),
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
        """Return a Watchword of existing parts; ConfigurationError unless both have one realm and one principal."""
        if signer is not None and (signer.realm, signer.principal) != (verifier.realm, verifier.principal):
            raise ConfigurationError("signer and verifier differ in realm or principal: give both the same")
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
        self.audit = audit or Audit(clock=verifier.clock)
        self.lives = Lives(verifier, self.audit)
        self._signer = signer
        self._reads = False
        self._obstacles: dict[tuple[Channel, str], None] = {}
        self._watch: Watch | None = None
        self._aliased = frozenset(alias.channel for alias in verifier.policy.aliases)
        self._on_connected: list[Callable[[str], None]] = []
        self._warnings = verifier.warnings

    @property
    def signer(self) -> Signer:
        """The signer; ConfigurationError if this process is set up only to verify."""
        if self._signer is None:
            raise ConfigurationError(
                'this process only verifies: add [signer] with key = "..." and a principal to sign'
            )
        return self._signer

    @property
    def signing_as(self) -> tuple[str, bytes] | None:
        """The principal and the key id that this process signs with; None if it only reads."""
        return None if self._signer is None else (self._signer.principal, self._signer.key_id)

    @property
    def observing(self) -> bool:
        """Whether the default mode is observe: nothing is dropped, except on channels whose own rule enforces."""
        return self.verifier.policy.mode is Mode.OBSERVE

    def observes(self, channel: Channel) -> bool:
        """Return True if nothing is dropped on a channel, or on any channel that a subject with wildcards covers."""
        policy = self.verifier.policy
        return policy.observes(channel) if policy.channels else policy.mode is Mode.OBSERVE

    def begin_to_read(self) -> None:
        """Raise ConfigurationError if this process has no keys, so that it would drop every message that it reads."""
        self._reads = True
        if not (self.verifier.has_keys or self.observing):
            raise ConfigurationError(_NO_KEYS)

    def hinder(self, channel: Channel, why: str) -> None:
        """Remember why enforcing is impossible on a channel (or a subject with wildcards) that is now observed.

        Something reads there already in a way that enforcing does not allow; so ``switch`` will refuse to enforce.
        """
        self._obstacles[channel, why] = None

    def trust(self, principal: str) -> float:
        """Return how far this process trusts a principal, from 0 to 1; 1 if nothing counts against it."""
        return self.verifier.trust.score.score(principal)

    def report(self, message: object, weight: float = 1.0, why: str = "") -> bool:
        """Report a message that was delivered here, so that it counts against the principal that wrote it.

        ``message`` is the message as delivered, or its ``verified``; ``weight`` is more than 0 and at most 1, and
        ``why`` is for the log. Return True if it counts. Each message counts once; one that was redelivered, or that
        came through an alias, does not count, because others can cause that. ConfigurationError if it did not verify.
        """
        verified = getattr(message, "verified", message)
        if not isinstance(verified, VerifiedMessage):
            raise ConfigurationError(
                "report(): give a message that verified, as it was delivered, or its .verified, which is None for one"
                f" that did not verify; this is of type {type(verified).__name__}"
            )
        if not 0.0 < weight <= 1.0:
            raise ConfigurationError(f"report(weight={weight:g}): write more than 0 and at most 1")
        if verified.channel.realm != self.realm:
            raise ConfigurationError(
                f"report(): the message is of realm {verified.channel.realm!r}, not {self.realm!r}"
            )
        counts = not verified.redelivered and verified.channel.uri not in self._aliased
        if counts:
            bars = self.verifier.policy.bars_of(verified.principal)
            counts = self.verifier.trust.note_report(verified.principal, verified.id, weight=weight, bars=bars)
        self.audit.reported(verified, weight, why, counts=counts)
        return counts

    def when_connected(self, call: Callable[[str], None]) -> None:
        """Register ``call``, which gets ``kafka`` or ``nats`` when a client connects; it must not raise or wait."""
        self._on_connected.append(call)

    def connected(self, bus: str) -> None:
        """Report that a client of this bus, ``kafka`` or ``nats``, has connected."""
        for call in self._on_connected:
            call(bus)

    def follow(self, watch: Watch) -> None:
        """Follow the settings through ``watch`` from now on."""
        self._watch = watch

    def reload(self) -> None:
        """Switch to the current settings now; ConfigurationError if they are wrong, and then nothing changes."""
        if self._watch is None:
            raise ConfigurationError('no settings to follow: make this with watchword.load("watchword.toml")')
        self._watch.reload()

    def is_due(self) -> bool:
        """Return True if it is time to check the settings: then a caller that signs or reads must ``keep_up``."""
        return self._watch is not None and self._watch.is_due()

    async def keep_up(self) -> None:
        """Check the settings, and follow them, if it is time to."""
        if self._watch is not None and self._watch.is_due():
            await self._watch.look()

    def switch(self, policy: Policy, keys: KeySource | None, key: NamedBackend | None = None) -> list[str]:
        """Judge by this policy and these keys from now on, and sign with ``key`` if it is given.

        Return the names of changes that need a restart: the fields that a running memory keeps, and new aliases, since
        aliases decide which subscriptions are one reader. ConfigurationError if the new policy enforces where that is
        impossible in this process; then nothing changes.
        """
        before = self.verifier.policy
        for channel, why in self._obstacles:
            if not policy.observes(channel):
                raise ConfigurationError(f'mode = "enforce" is refused while this runs: {why}')
        if self._reads and keys is None and policy.mode is not Mode.OBSERVE:
            raise ConfigurationError(_NO_KEYS)
        kept = {name: getattr(before, name) for name in _FIXED}
        known = frozenset(before.aliases)
        aliases = tuple(alias for alias in policy.aliases if alias in known)
        later = [name for name in _FIXED if getattr(policy, name) != kept[name]]
        later += ["aliases"] if len(aliases) < len(policy.aliases) else []
        if key is not None:
            self.signer.switch(key)
        self.verifier.switch(replace(policy, aliases=aliases, **kept), keys)
        if before.mode is Mode.OBSERVE and policy.mode is not Mode.OBSERVE:
            self.lives.begin_to_enforce()
        return later

    async def admit(
        self, message: Message, expected: Expected = _ANYTHING, *, keys: KeySource | None = None
    ) -> Delivered:
        """Judge, count and log one message: return what may be delivered, or raise Rejected or Unavailable.

        In observe mode it raises neither, and returns an ObservedMessage.
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
        """Judge, count and log messages in order, as far as ``Verifier.verify_many`` goes.

        On an observed channel each verdict comes in an ObservedMessage, except Pending, which is not a verdict yet. For
        an answer, the channel of its request decides.
        """
        await self.keep_up()
        meter = self.audit.meter
        begun = meter.now()
        verdicts = await self.verifier.verify_many(messages, expected, check=check, enough=enough, keys=keys)
        if verdicts:
            meter.judged(messages[0].channel.scheme, len(verdicts), meter.now() - begun)
        found: list[Delivered | Rejected | Unavailable] = [*verdicts]
        policy, delivered = self.verifier.policy, list[Channel]()
        asked = next(iter(expected.requests.values())).channel if expected.requests else None
        observes = policy.mode is _OBSERVE
        for at, verdict in enumerate(verdicts):
            if policy.channels:
                observes = self.observes(asked or messages[at].channel)
            if isinstance(verdict, VerifiedMessage):
                delivered.append(verdict.channel)
            elif isinstance(verdict, Pending):
                continue
            else:
                self.audit.refused(messages[at], verdict, observed=observes)
                if observes and isinstance(verdict, Unavailable):  # it is delivered nevertheless
                    self.verifier.remember_unjudged(messages[at], comes_again=False)
            if observes:
                found[at] = ObservedMessage(messages[at], verdict)
        self.audit.delivered(delivered)
        while self._warnings:
            event, fields = self._warnings.popleft()
            self.audit.warn(event, **fields)
        return found


def _source_of(keys: KeySource | Iterable[VerificationKey] | None) -> KeySource | None:
    given: object = keys
    if isinstance(given, str | bytes) or not (given is None or isinstance(given, KeySource | Iterable)):
        raise ConfigurationError(
            f"keys: a {type(keys).__name__} is not a source of keys; give VerificationKeys, or write their file into"
            ' watchword.toml, with source = "files", and call watchword.load()'
        )
    return keys if keys is None or isinstance(keys, KeySource) else MemoryKeys(keys)
