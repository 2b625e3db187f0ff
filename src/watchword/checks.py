"""Checks 1, 4, 5 and 7 of the verifier, which need only the message, its key, the policy and the time.

The numbers are those of docs/spec.md, section "Verification". Each check raises Rejected or returns what it found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from watchword.encoding import encode_pairs, may_be_kept, metadata_digest, value_digest
from watchword.envelope import is_envelope_name
from watchword.errors import Pending, Reason, Rejected
from watchword.message import ENVELOPE_HEADER, MAX_HEADER_BYTES, MAX_HEADERS, NATS_ID_HEADER, TRACE_HEADERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchword.keys import VerificationKey
    from watchword.message import Header, Message
    from watchword.policy import Policy
    from watchword.verification import Verification

_CHANGED: Final = ": changed since it was signed; code that changes messages must run before the signer"


def the_envelope(message: Message) -> bytes:
    """Check 1: the message could be parsed, and has exactly one envelope within the size limits; return it."""
    if message.fault is not None:
        raise Rejected(Reason.MALFORMED, message.fault)
    if len(message.headers) > MAX_HEADERS:  # the count first, before each header costs time
        raise Rejected(Reason.MALFORMED, f"{len(message.headers)} headers: at most {MAX_HEADERS}")
    size = sum([len(name.encode(errors="surrogatepass")) + len(value or b"") for name, value in message.headers])
    found = [value for name, value in message.headers if is_envelope_name(name)]
    if not found:
        raise Rejected(Reason.UNSIGNED, "no Watchword header: sent by a plain client, or lost on the way")
    envelope = found[0]
    if len(found) > 1 or envelope is None or size > MAX_HEADER_BYTES:
        raise Rejected(Reason.MALFORMED, "more than one envelope, an empty one, or headers over the limit")
    return envelope


def reference_time(case: Verification, now: float, policy: Policy, *, recalled: bool) -> float:
    """Check 4: neither stale nor from the future when it was appended, nor expired now; return the reference time.

    That is the issue time, moved into the interval in which the message was appended. With another reader's interval it
    may not be from the future. So a message that is ahead by at most the window is not rejected yet: its verdict is put
    into ``case.ahead``, and it is remembered first if checks 5 to 7 pass.
    """
    message, issued_at, skew = case.message, case.issued_at, policy.max_skew
    between = message.appended_between
    if message.appended_at is not None:
        low = high = message.appended_at
    elif between is not None:
        low, high = between
    elif recalled:  # it may have been read as soon as it was issued, by another clock
        low = high = min(now + skew, issued_at)
    else:
        low = high = now
    # A reader with another max_age may have delivered a recalled message; without a stamp, the floor decides staleness.
    is_known = recalled and message.appended_at is None
    if not (low - issued_at <= policy.max_age + skew or is_known):
        raise Rejected(Reason.STALE, f"{low - issued_at:.0f} s old, and {_limits_text(policy)}")
    ahead = issued_at - high
    if not ahead <= skew:
        verdict = Rejected(Reason.FROM_FUTURE, f"{ahead:.0f} s ahead, and {_limits_text(policy)}: set the clocks")
        if message.appended_at is not None or between is None or ahead > policy.window:
            raise verdict
        case.ahead = verdict
        return high
    expires_at = case.common.expires_at
    if expires_at is not None and now >= expires_at and not recalled:
        raise Rejected(Reason.EXPIRED, f"{now - expires_at:.0f} s after its own end (exp)")
    return min(max(issued_at, low), high)


def _limits_text(policy: Policy) -> str:
    return f"max_age is {policy.max_age:g} s, max_skew {policy.max_skew:g} s"


_NO_KEY: Final = {
    Reason.UNKNOWN_KEY: "is not in [[keys]] for this principal: add its public key, unless the message is forged",
    Reason.WRONG_PRINCIPAL: "belongs to another principal: its sender mixed up principal and key, or it is forged",
}


def in_force(key: VerificationKey | Reason | Pending, key_id: bytes, reference: float, now: float) -> VerificationKey:
    """Check 5: the key was found, was valid at the reference time, and is not revoked now; return it."""
    if isinstance(key, Reason):
        raise Rejected(key, f"key {shown_id(key_id)} {_NO_KEY[key]}")
    if isinstance(key, Pending):
        raise key.with_traceback(None)  # several messages may wait for one look-up, and each would lengthen it
    if key.not_before is not None and reference < key.not_before:
        raise Rejected(
            Reason.KEY_NOT_VALID, _validity_detail(key_id, key.not_before - reference, "before it begins (nbf)")
        )
    if key.not_after is not None and reference >= key.not_after:
        raise Rejected(Reason.KEY_NOT_VALID, _validity_detail(key_id, reference - key.not_after, "after its end (exp)"))
    if key.revoked_at is not None and now >= key.revoked_at:
        since = f" {now - key.revoked_at:.0f} s ago" if key.revoked_at else ""
        raise Rejected(Reason.KEY_REVOKED, f"key {shown_id(key_id)}: revoked{since}; the sender needs another key")
    return key


def _validity_detail(key_id: bytes, seconds: float, what: str) -> str:
    return f"key {shown_id(key_id)}: used {seconds:.0f} s {what}; the sender needs another key"


def shown_id(key_id: bytes) -> str:
    """Return a key id for an error text, quoted and escaped, because an unverified message chose it."""
    return repr(key_id.decode(errors="backslashreplace"))


class HeaderCoverage:
    """Separates covered headers from others; the last result is cached, as many messages have the same headers."""

    def __init__(self) -> None:
        self._last: tuple[Sequence[Header], frozenset[str], tuple[Header, ...], bytes] | None = None

    def of(self, headers: Sequence[Header], covered: frozenset[str]) -> tuple[tuple[Header, ...], bytes]:
        """Return the headers that a handler may see if nothing was altered, and the covered ones as digested."""
        if headers and headers[-1][0] == ENVELOPE_HEADER:
            headers = headers[:-1]  # the envelope differs in each message
        last = self._last
        if last is not None and headers == last[0] and covered == last[1]:
            return last[2:]
        visible = tuple([one for one in headers if one[0] in covered or one[0] in TRACE_HEADERS])
        pairs = encode_pairs([header for header in headers if header[0] in covered])
        if may_be_kept(headers):
            self._last = headers, covered, visible, pairs
        return visible, pairs


def unaltered(case: Verification, max_skew: float, coverage: HeaderCoverage) -> tuple[Header, ...]:
    """Check 7: value, key and covered headers are as signed; return the headers that a handler may see."""
    message = case.message
    if case.value_digest != value_digest(message.value):
        raise Rejected(Reason.ALTERED, f"value{_CHANGED}")
    covered = case.common.visible
    visible, pairs = coverage.of(message.headers, covered)
    if case.metadata_digest != (metadata_digest(message.key, pairs) if covered or message.key is not None else None):
        raise Rejected(Reason.ALTERED, f"key or covered header{_CHANGED}")
    if message.created_at is not None and not abs(message.created_at - case.issued_at) <= max_skew:
        raise Rejected(Reason.ALTERED, f"record timestamp: over max_skew ({max_skew:g} s) from the time of signing")
    if message.channel.scheme == "nats" and NATS_ID_HEADER not in covered:
        for name, value in message.headers:
            if name == NATS_ID_HEADER and value != case.id.hex().encode():
                raise Rejected(Reason.ALTERED, f"{NATS_ID_HEADER}: not the one that was signed, nor the message's id")
    return visible
