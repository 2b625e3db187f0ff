"""The verifier: nine checks in one fixed order, cheap before dear (docs/spec.md, section "Verification")."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from watchword.envelope import Claims, Envelope, is_envelope_name, metadata_digest, parse, value_digest
from watchword.errors import ConfigurationError, Reason, Rejected, Unavailable
from watchword.guard import MemoryReplayStore
from watchword.keys import VerificationKey
from watchword.message import (
    MAX_HEADER_BYTES,
    NATS_ID_HEADER,
    TRACE_HEADERS,
    Expected,
    Header,
    Message,
    Request,
    VerifiedMessage,
    check_realm,
    is_principal,
    seal,
)
from watchword.policy import Policy, RateLimiter
from watchword.replay import Admission, Claim, OpenedStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword.keys import KeySource
    from watchword.replay import ReplayStore

_ANYTHING: Final = Expected()

_REFUSED: Final = {
    Admission.REPLAYED: Reason.REPLAYED,
    Admission.TOO_OLD: Reason.STALE,
    Admission.OVER_QUOTA: Reason.OVER_QUOTA,
}


class Verifier:
    """Judges messages of one realm for one reader; ``verify`` returns a VerifiedMessage or raises.

    ``principal`` is who this process is: without it, a message addressed to somebody is rejected. ``clock`` returns
    seconds since the epoch. ``shared_replay`` says that ``replay`` is shared by all who read: then a Kafka message
    needs no signed partition. What this process reads alone (``Message.alone``) is kept in its own memory even so.
    """

    def __init__(
        self,
        *,
        realm: str,
        keys: KeySource,
        replay: ReplayStore,
        policy: Policy,
        clock: Callable[[], float],
        principal: str | None = None,
        shared_replay: bool = False,
    ) -> None:
        if principal is not None and not is_principal(principal):
            raise ConfigurationError(f"principal {principal[:128]!r}: 1 to 255 bytes of UTF-8, no control characters")
        self.realm: Final = check_realm(realm)
        self.principal: Final = principal
        self.policy = policy
        self.replay: Final = replay
        self.shared_replay: Final = shared_replay
        own = replay if isinstance(replay, MemoryReplayStore) else None
        self._guard: Final = MemoryReplayStore(horizon=policy.horizon) if own is None else own
        self._keys = keys
        self.clock: Final = clock
        self._rates = RateLimiter()

    async def verify(self, message: Message, expected: Expected = _ANYTHING) -> VerifiedMessage:
        """Run the nine checks in order; Rejected (final) names the one that failed, Unavailable asks to come again."""
        claims: Claims | None = None
        claim: Claim | None = None
        now = self.clock()
        try:
            header = _the_envelope(message)  # 1
            envelope = parse(header)  # 2
            claims = envelope.claims
            request = self._addressed(message, claims, expected)  # 3
            reference = self._fresh(message, claims, now, alive=now)  # 4
            claim = self._claim(message, envelope, reference, solicited=request is not None)
            key = await self._known_key(message, envelope, claim, now)  # 5
            _signed(envelope, key)  # 6
            headers = self._unaltered(message, claims)  # 7
            first = await self._admitted(message, claim, expected)  # 8
            self._permitted(message, claim, request, first=first)  # 9
        except Rejected as rejected:
            rejected.channel = message.channel.uri
            rejected.claimed_principal = None if claims is None else claims.issuer[:128]
            if claim is not None and claim.unsettled:
                self._guard.drop(claim)  # nobody will acknowledge it
            raise
        return VerifiedMessage(
            principal=key.principal,
            key_id=key.key_id.decode(),
            id=claims.id.hex(),
            channel=message.channel,
            value=message.value,
            key=message.key,
            headers=headers,
            issued_at=claims.issued_at,
            redelivered=not first,
            recipient=claims.recipient,
            reply_to=claims.reply_to,
            in_reply_to=None if claims.request_id is None else claims.request_id.hex(),
            position=message.position,
            seal=seal(),
        )

    async def start(self) -> None:
        """Open a replay store that wants it; ConfigurationError if it cannot be trusted, Unavailable if it is down."""
        if isinstance(self.replay, OpenedStore):
            try:
                await self.replay.start()
            except ConfigurationError:
                raise
            except Exception as error:
                raise Unavailable("replay", type(error).__name__) from error

    def begin(self, log: str, *, floor: float) -> None:
        """Start the memory of a log (see ``log_name``) anew; what was issued below ``floor`` seconds is stale there."""
        self._guard.begin(log, floor=floor)

    async def recall(self, message: Message, *, unsettled: bool = False) -> None:
        """Remember a message that passed in its log before we read on, if it passes checks 1 to 7; Unavailable else.

        What has expired or lost its key since is remembered too: it may have been delivered. ``unsettled`` as in Claim.
        """
        now = self.clock()
        try:
            envelope = parse(_the_envelope(message))
            self._addressed(message, envelope.claims, _ANYTHING)
            # Where the broker stamps nothing, it may have been read as soon as it was issued, and by another clock.
            read_at = min(now + self.policy.max_skew, envelope.claims.issued_at)
            reference = self._fresh(message, envelope.claims, read_at, alive=0.0)
            claim = replace(self._claim(message, envelope, reference), unsettled=unsettled)
            _signed(envelope, await self._known_key(message, envelope, claim, now))
            self._unaltered(message, envelope.claims)
        except Rejected:
            return
        self._guard.recall(claim)

    def pass_over(self, message: Message) -> None:
        """Remember a message that ended ``Unavailable`` and will not be judged: its claims are a replay elsewhere."""
        if not self._is_guarded(message):
            return
        with suppress(Rejected):
            envelope = parse(_the_envelope(message))
            reference = self.clock() if message.appended_at is None else message.appended_at
            self._guard.pass_over(self._claim(message, envelope, reference))

    def settle(self, message: Message, verified: VerifiedMessage) -> None:
        """Say that a delivery which the broker offers until it is acknowledged was, so that its id may age."""
        self._guard.settle(log_name(message), verified.principal, bytes.fromhex(verified.id), verified.issued_at)

    def forget(self, log: str) -> None:
        """Say that a log is no longer read."""
        self._rates.forget(log)
        self._guard.forget(log)

    def _addressed(self, message: Message, claims: Claims, expected: Expected) -> Request | None:
        """Check 3: this channel, partition, reply subject; meant for us; an answer to our question; from our log."""
        if not self.policy.accepts(message.channel, claims.channel) or message.channel.realm != self.realm:
            raise Rejected(Reason.WRONG_CHANNEL, f"signed for {claims.channel[:128]!r}")
        unbound = claims.partition is None and self.shared_replay and not message.alone
        needed = message.channel.scheme == "kafka" and claims.partition is None
        if not unbound and (needed or claims.partition != message.partition):
            raise Rejected(Reason.WRONG_PARTITION, f"signed for {claims.partition}, found in {message.partition}")
        at_stream = message.channel.scheme == "nats" and message.position is not None
        if claims.reply_to is not None and not at_stream and claims.reply_to != message.reply_to:
            raise Rejected(Reason.WRONG_REPLY_TO)
        if claims.recipient is not None and claims.recipient != self.principal:
            raise Rejected(Reason.WRONG_RECIPIENT, f"addressed to {claims.recipient[:128]!r}")
        request = None if claims.request_id is None else expected.requests.get(claims.request_id)
        if request is None and (claims.request_id is not None or expected.only_replies):
            raise Rejected(Reason.WRONG_REQUEST)
        if expected.consumer is not None and message.delivered_by != expected.consumer:
            raise Rejected(Reason.WRONG_DELIVERY)
        return request

    def _fresh(self, message: Message, claims: Claims, now: float, *, alive: float) -> float:
        """Check 4: neither stale nor from the future at the reference time, nor expired at ``alive``."""
        reference = now if message.appended_at is None else message.appended_at
        age = reference - claims.issued_at
        if not age <= self.policy.max_age + self.policy.max_skew:
            raise Rejected(Reason.STALE, f"{age:.0f} s old")
        if not age >= -self.policy.max_skew:
            raise Rejected(Reason.FROM_FUTURE, f"{-age:.0f} s ahead")
        if claims.expires_at is not None and alive >= claims.expires_at:
            raise Rejected(Reason.EXPIRED)
        return reference

    async def _known_key(self, message: Message, envelope: Envelope, claim: Claim, now: float) -> VerificationKey:
        """Check 5; what passes without it is remembered, for its key may become known later."""
        try:
            return await self._key(envelope, claim.reference, now)
        except Rejected:
            if self._is_guarded(message):
                self._guard.pass_over(claim)
            raise

    async def _key(self, envelope: Envelope, reference: float, now: float) -> VerificationKey:
        """Check 5: the key is the named principal's, valid, not revoked; the source is not taken at its word."""
        try:
            key: object = await self._keys.find(envelope.claims.issuer, envelope.key_id)
        except Exception as error:
            raise Unavailable("keys", type(error).__name__) from error
        if key is None:
            raise Rejected(Reason.UNKNOWN_KEY)
        if not isinstance(key, VerificationKey) or key.key_id != envelope.key_id:
            raise Unavailable("keys", "the key source answered with another key than was asked for")
        if key.principal != envelope.claims.issuer:
            raise Rejected(Reason.WRONG_PRINCIPAL)
        if (key.not_before is not None and reference < key.not_before) or (
            key.not_after is not None and reference >= key.not_after
        ):
            raise Rejected(Reason.KEY_NOT_VALID)
        if key.revoked_at is not None and now >= key.revoked_at:
            raise Rejected(Reason.KEY_REVOKED)
        return key

    def _unaltered(self, message: Message, claims: Claims) -> tuple[Header, ...]:
        """Check 7: value, key and headers as signed; return the headers that may reach a handler."""
        if claims.value_digest != value_digest(message.value):
            raise Rejected(Reason.ALTERED, "value")
        covered = frozenset(claims.covered)
        if claims.metadata_digest != metadata_digest(message.key, message.headers, covered):
            raise Rejected(Reason.ALTERED, "key or covered header")
        if message.created_at is not None and not abs(message.created_at - claims.issued_at) <= self.policy.max_skew:
            raise Rejected(Reason.ALTERED, "record timestamp")
        if message.channel.scheme == "nats" and NATS_ID_HEADER not in covered:
            expected = claims.id.hex().encode()
            if any(name == NATS_ID_HEADER and value != expected for name, value in message.headers):
                raise Rejected(Reason.ALTERED, NATS_ID_HEADER)
        visible = covered | TRACE_HEADERS
        return tuple(header for header in message.headers if header[0] in visible)

    def _claim(self, message: Message, envelope: Envelope, reference: float, *, solicited: bool = False) -> Claim:
        claims, policy = envelope.claims, self.policy
        return Claim(
            scope=f"{message.channel.uri}#{message.reader}",
            log=log_name(message),
            principal=claims.issuer,
            key_id=envelope.key_id,
            id=claims.id,
            digest=sha256(envelope.claims_bytes).digest(),
            place=None if message.position is None else (message.position, message.appended_at),
            issued_at=claims.issued_at,
            reference=reference,
            keep_until=claims.issued_at + policy.window + policy.max_lag,
            unsettled=message.delivered_by is not None,
            solicited=solicited,
        )

    async def _admitted(self, message: Message, claim: Claim, expected: Expected) -> bool:
        """Check 8: the id's first use in its scope (True), or an honest redelivery (False)."""
        if claim.issued_at < expected.floor and not claim.solicited:
            raise Rejected(Reason.STALE, "issued before this reader began to remember")
        try:
            admission: object = await (self._guard if self._is_guarded(message) else self.replay).claim(claim)
        except Exception as error:
            raise Unavailable("replay", type(error).__name__) from error
        if not isinstance(admission, Admission):  # "first" would equal FIRST, and yet not be it
            raise Unavailable("replay", "the replay store gave no admission")
        if admission in _REFUSED:
            raise Rejected(_REFUSED[admission])
        return admission is Admission.FIRST

    def _is_guarded(self, message: Message) -> bool:
        """Tell whether our own memory answers for this message, and not a store that is shared."""
        return message.alone or self.replay is self._guard

    def _permitted(self, message: Message, claim: Claim, request: Request | None, *, first: bool) -> None:
        """Check 9: the principal may speak here, at this rate, and is not contained.

        An answer is judged by the request: it comes from that one's recipient, else from who may speak where it went.
        """
        principal, policy = claim.principal, self.policy
        channel = message.channel if request is None else request.channel
        addressee = None if request is None else request.recipient
        if principal != addressee if addressee is not None else not policy.permits(principal, channel):
            raise Rejected(Reason.NOT_PERMITTED)
        rule = policy.rule_for(principal, channel)
        if first and rule is not None and not self._rates.spend(rule, claim.log, claim.reference):
            raise Rejected(Reason.RATE_LIMITED)
        if principal in policy.contained:
            raise Rejected(Reason.CONTAINED)


def log_name(message: Message) -> str:
    """Name the run of messages that one reader reads in the order of their reference times."""
    return f"{message.reader}#{message.position.log if message.position is not None else ''}"


def _the_envelope(message: Message) -> bytes:
    """Check 1: exactly one envelope, within the size limits."""
    found: list[bytes | None] = []
    size = 0
    for name, value in message.headers:
        size += len(name.encode(errors="surrogatepass")) + len(value or b"")
        if is_envelope_name(name):
            found.append(value)
    if not found:
        raise Rejected(Reason.UNSIGNED)
    envelope = found[0]
    if len(found) > 1 or envelope is None or size > MAX_HEADER_BYTES:
        raise Rejected(Reason.MALFORMED, "more than one envelope, an empty one, or headers over the limit")
    return envelope


def _signed(envelope: Envelope, key: VerificationKey) -> None:
    """Check 6: the signature is the key's, by the key's own algorithm."""
    data = envelope.to_be_signed()
    if envelope.algorithm != key.algorithm or data is None or not key.verifies(envelope.signature, data):
        raise Rejected(Reason.BAD_SIGNATURE)
