"""The verifier: nine checks in one fixed order, cheap before dear (docs/spec.md, section "Verification")."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from watchword.envelope import Claims, Envelope, is_envelope_name, metadata_digest, parse, value_digest
from watchword.errors import ConfigurationError, Reason, Rejected, Unavailable
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
from watchword.replay import Admission, Claim, LogStore, ReplayStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword.keys import KeySource

_ANYTHING: Final = Expected()

_REFUSED: Final = {
    Admission.REPLAYED: Reason.REPLAYED,
    Admission.TOO_OLD: Reason.STALE,
    Admission.OVER_QUOTA: Reason.OVER_QUOTA,
}


class Verifier:
    """Judges messages of one realm for one reader; ``verify`` returns a VerifiedMessage or raises.

    ``principal`` is who this process is: without it, a message addressed to somebody is rejected. ``clock`` returns
    seconds since the epoch. ``shared_replay`` says that ``replay`` is shared by all who read, so that a Kafka message
    needs no signed partition.
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
        self._keys = keys
        self.clock: Final = clock
        self._rates = RateLimiter()

    async def verify(self, message: Message, expected: Expected = _ANYTHING) -> VerifiedMessage:
        """Run the nine checks in order; Rejected (final) names the one that failed, Unavailable asks to come again."""
        claims: Claims | None = None
        now = self.clock()
        try:
            header = _the_envelope(message)  # 1
            envelope = parse(header)  # 2
            claims = envelope.claims
            request = self._addressed(message, claims, expected)  # 3
            reference = self._fresh(message, claims, now)  # 4
            key = await self._key(envelope, reference, now)  # 5
            _signed(envelope, key)  # 6
            headers = self._unaltered(message, claims)  # 7
            claim = self._claim(message, envelope, reference)
            first = await self._admitted(claim)  # 8
            self._permitted(message, claim, request, first=first)  # 9
        except Rejected as rejected:
            rejected.channel = message.channel.uri
            rejected.claimed_principal = None if claims is None else claims.issuer[:128]
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

    def settle(self, message: Message, verified: VerifiedMessage) -> None:
        """Say that a delivery which the broker offers until it is acknowledged was, so that its id may age."""
        self._settle(log_name(message), verified.principal, bytes.fromhex(verified.id))

    def rewind(self, log: str) -> None:
        """Say that a log (see ``log_name``) is read from elsewhere now, as after a seek or an assignment."""
        if isinstance(self.replay, LogStore):
            self.replay.rewind(log)

    def forget(self, log: str) -> None:
        """Say that a log is no longer read."""
        self._rates.forget(log)
        if isinstance(self.replay, LogStore):
            self.replay.forget(log)

    def _addressed(self, message: Message, claims: Claims, expected: Expected) -> Request | None:
        """Check 3: this channel, partition, reply subject; meant for us; an answer to our question; from our log."""
        if claims.channel != message.channel.uri or message.channel.realm != self.realm:
            raise Rejected(Reason.WRONG_CHANNEL, f"signed for {claims.channel[:128]!r}")
        unbound = claims.partition is None and self.shared_replay
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

    def _fresh(self, message: Message, claims: Claims, now: float) -> float:
        """Check 4: neither stale nor from the future at the reference time, nor expired at the present one."""
        reference = now if message.appended_at is None else message.appended_at
        age = reference - claims.issued_at
        if not age <= self.policy.max_age + self.policy.max_skew:
            raise Rejected(Reason.STALE, f"{age:.0f} s old")
        if not age >= -self.policy.max_skew:
            raise Rejected(Reason.FROM_FUTURE, f"{-age:.0f} s ahead")
        if claims.expires_at is not None and now >= claims.expires_at:
            raise Rejected(Reason.EXPIRED)
        return reference

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

    def _claim(self, message: Message, envelope: Envelope, reference: float) -> Claim:
        claims, policy = envelope.claims, self.policy
        return Claim(
            scope=f"{message.channel.uri}#{message.reader}",
            log=log_name(message),
            principal=claims.issuer,
            id=claims.id,
            digest=sha256(envelope.claims_bytes).digest(),
            place=None if message.position is None else (message.position, message.appended_at),
            issued_at=claims.issued_at,
            reference=reference,
            keep_until=claims.issued_at + policy.window + policy.max_lag,
            unsettled=message.delivered_by is not None,
        )

    async def _admitted(self, claim: Claim) -> bool:
        """Check 8: the id's first use in its scope (True), or an honest redelivery (False)."""
        try:
            admission: object = await self.replay.claim(claim)
        except Exception as error:
            raise Unavailable("replay", type(error).__name__) from error
        if not isinstance(admission, Admission):  # "first" would equal FIRST, and yet not be it
            raise Unavailable("replay", "the replay store gave no admission")
        if admission in _REFUSED:
            raise Rejected(_REFUSED[admission])
        return admission is Admission.FIRST

    def _permitted(self, message: Message, claim: Claim, request: Request | None, *, first: bool) -> None:
        """Check 9: the principal may speak here, at this rate, and is not contained.

        An answer is judged by the request: it comes from that one's recipient, else from who may speak where it went.
        """
        principal, policy = claim.principal, self.policy
        channel = message.channel if request is None else request.channel
        addressee = None if request is None else request.recipient
        if principal != addressee if addressee is not None else not policy.permits(principal, channel):
            raise self._dropped(claim, Reason.NOT_PERMITTED)
        rule = policy.rule_for(principal, channel)
        if first and rule is not None and not self._rates.spend(rule, claim.log, claim.reference):
            raise self._dropped(claim, Reason.RATE_LIMITED)
        if principal in policy.contained:
            raise self._dropped(claim, Reason.CONTAINED)

    def _dropped(self, claim: Claim, reason: Reason) -> Rejected:
        """Let the id of a message that policy drops age: nobody will acknowledge it."""
        if claim.unsettled:
            self._settle(claim.log, claim.principal, claim.id)
        return Rejected(reason)

    def _settle(self, log: str, principal: str, message_id: bytes) -> None:
        if isinstance(self.replay, LogStore):
            self.replay.settle(log, principal, message_id)


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
