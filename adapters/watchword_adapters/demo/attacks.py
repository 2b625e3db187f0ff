"""The attacks of the demo: an attacker may publish and subscribe everywhere, but has no agent's key.

Every attack turns what was captured into messages to send. Nothing here knows a client.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cbor2

from watchword import SigningKey
from watchword.encoding import Layout, encode_direct, encode_protected, sig_structure
from watchword.envelope import parse
from watchword.spi import Channel, Message, Signer

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword import VerificationKey
    from watchword.message import Scheme

EVIL = json.dumps({"order": "attacker", "action": "scale_up", "instances": 1000}).encode()
ENVELOPE = "watchword"


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """A message as an attacker puts it on the bus: ``name`` is the topic or subject."""

    name: str
    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    partition: int | None = None
    reply: str | None = None
    broken_headers: bool = False
    status: str = ""

    def header(self, name: str) -> bytes:
        """Return a header's value, empty if there is none."""
        return next((value or b"" for known, value in self.headers if known == name), b"")

    def with_envelope(self, envelope: bytes | None) -> Raw:
        """Return the message with another envelope, or without one."""
        others = tuple(header for header in self.headers if header[0] != ENVELOPE)
        return replace(self, headers=others if envelope is None else (*others, (ENVELOPE, envelope)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Loot:
    """What the attacker has: two commands, one from another channel, one for another agent, public keys.

    ``earlier`` signed what was recorded long ago.
    """

    bus: Scheme
    realm: str
    command: Raw
    another: Raw
    elsewhere: Raw
    for_auditor: Raw
    planner: VerificationKey | None
    earlier: Signer | None


@dataclass(frozen=True, slots=True)
class Attack:
    """One row of the table; ``buses`` are those on which it is possible."""

    id: str
    title: str
    forge: Callable[[Loot], Raw]
    buses: tuple[str, ...] = ("nats", "kafka")


def _flip(value: bytes, at: int) -> bytes:
    return value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]


def _claiming_planner(loot: Loot, *, own_key_id: bool) -> Raw:
    """Sign an evil command with the attacker's own key, in the planner's name."""
    message = replace(loot.command, value=EVIL)
    if loot.planner is None:
        return message
    return _sign(loot, message, _signer(loot, None if own_key_id else loot.planner.key_id))


def _signer(loot: Loot, key_id: bytes | None = None) -> Signer:
    """Return a signer in the planner's name, with the attacker's own key."""
    key = SigningKey.generate()
    return Signer(
        realm=loot.realm, principal="agent://acme/planner", key=key, key_id=key_id or key.key_id, clock=time.time
    )


def _recorded_earlier(loot: Loot) -> Raw:
    return loot.command if loot.earlier is None else _sign(loot, loot.command, loot.earlier)


def _sign(loot: Loot, message: Raw, signer: Signer) -> Raw:
    bare = message.with_envelope(None)
    signing = signer.sign(
        Message(
            channel=Channel(loot.bus, loot.realm, bare.name),
            value=bare.value,
            key=bare.key,
            headers=bare.headers,
            partition=bare.partition,
        )
    )
    try:  # a key in memory never waits, so the coroutine ends at its first step
        signing.send(None)
    except StopIteration as done:
        return bare.with_envelope(done.value.header[1])
    raise AssertionError("signing waited")


def _hmac_with_public_key(loot: Loot) -> Raw:
    message = replace(loot.command, value=EVIL)
    if loot.planner is None:
        return message
    envelope = parse(loot.command.header(ENVELOPE))
    common, value_digest = envelope.common, hashlib.sha256(EVIL).digest()
    layout = Layout(
        issuer=common.issuer,
        channel=common.channel,
        recipient=common.recipient,
        covered=common.covered,
        partition=common.partition,
    )
    claims = layout.claims(os.urandom(16), envelope.issued_at, envelope.metadata_digest, value_digest)
    protected = encode_protected(5, loot.planner.key_id)  # HMAC 256/256, RFC 9053 section 3.1
    tag = hmac.digest(loot.planner.public_bytes, sig_structure(protected, 0, claims), "sha256")
    return message.with_envelope(encode_direct(claims, protected, tag))


def _own_key_inside(loot: Loot) -> Raw:
    """Put the attacker's public key where a careless verifier would look for one (COSE's x5chain)."""
    message = replace(loot.command, value=EVIL)
    if loot.planner is None:
        return message
    key = SigningKey.generate()
    version, claims, proof = cbor2.loads(_decode(_sign(loot, message, _signer(loot)).header(ENVELOPE)))
    proof[1] = {33: key.verification_key("agent://acme/planner").public_bytes}
    raw = cbor2.dumps([version, claims, proof], canonical=True)
    return message.with_envelope(base64.urlsafe_b64encode(raw).rstrip(b"="))


def _decode(envelope: bytes) -> bytes:
    return base64.urlsafe_b64decode(envelope + b"=" * (-len(envelope) % 4))


def _moved(loot: Loot) -> Raw:
    """Move a byte from the end of a covered header to the front of the value."""
    (name, value), *rest = loot.command.headers
    value = value or b""
    return replace(loot.command, headers=((name, value[:-1]), *rest), value=value[-1:] + (loot.command.value or b""))


def _added(raw: Raw, *headers: tuple[str, bytes | None]) -> Raw:
    return replace(raw, headers=(*raw.headers, *headers))


def _changed_header(loot: Loot) -> Raw:
    headers = tuple((name, b"urgent" if name == "priority" else value) for name, value in loot.command.headers)
    return replace(loot.command, headers=headers)


ATTACKS: tuple[Attack, ...] = (
    Attack("A01", "command without a signature", lambda loot: Raw(name=loot.command.name, value=EVIL, partition=0)),
    Attack("A01", "signature stripped", lambda loot: loot.command.with_envelope(None)),
    Attack("A02", "captured, 1000 instances instead", lambda loot: replace(loot.command, value=EVIL)),
    Attack("A02", "captured, covered header changed", _changed_header),
    Attack("A02", "captured, another key", lambda loot: replace(loot.command, key=b"other"), ("kafka",)),
    Attack("A03", "captured, header added", lambda loot: _added(loot.command, ("x-admin", b"yes"))),
    Attack("A04", "captured, value emptied", lambda loot: replace(loot.command, value=b"")),
    Attack("A04", "tombstone under a captured signature", lambda loot: replace(loot.command, value=None), ("kafka",)),
    Attack("A05", "a byte moved from header to value", _moved),
    Attack(
        "A06",
        "a second envelope, in capitals",
        lambda loot: _added(replace(loot.command, value=EVIL), (ENVELOPE.upper(), loot.another.header(ENVELOPE))),
    ),
    Attack("A06", "oversize envelope", lambda loot: loot.command.with_envelope(b"A" * 20_000)),
    Attack(
        "A07",
        "a bit flipped in the envelope",
        lambda loot: loot.command.with_envelope(_flip(loot.command.header(ENVELOPE) or b"0" * 60, 50)),
    ),
    Attack(
        "A07",
        "random bytes for an envelope",
        lambda loot: loot.command.with_envelope(base64.urlsafe_b64encode(os.urandom(240))),
    ),
    Attack("A08", "HMAC, public key as the secret", _hmac_with_public_key),
    Attack("A09", "own key inside the envelope", _own_key_inside),
    Attack(
        "A10",
        "own key, in the planner's name",
        lambda loot: _claiming_planner(loot, own_key_id=True),
    ),
    Attack("A10", "... under the planner's key id", lambda loot: _claiming_planner(loot, own_key_id=False)),
    Attack(
        "A11",
        "envelope of one command on another",
        lambda loot: loot.command.with_envelope(loot.another.header(ENVELOPE) or None),
    ),
    Attack("A12", "captured, sent again", lambda loot: loot.command),
    Attack("A16", "captured an hour ago, sent again", _recorded_earlier),
    Attack("A13", "captured elsewhere, sent here", lambda loot: replace(loot.elsewhere, name=loot.command.name)),
    Attack("A13", "sent to another partition", lambda loot: replace(loot.command, partition=1), ("kafka",)),
    Attack(
        "A22",
        "captured, attacker's reply subject",
        lambda loot: replace(loot.command, reply="evil.inbox"),
        ("nats",),
    ),
    Attack(
        "A27",
        "deserializer bomb (nested JSON)",
        lambda loot: Raw(name=loot.command.name, value=b"[" * 100_000, partition=0),
    ),
    Attack("A28", "broken header block", lambda loot: replace(loot.command, broken_headers=True), ("nats",)),
    Attack("A28", "header name that is not UTF-8", lambda loot: replace(loot.command, broken_headers=True), ("kafka",)),
    Attack(
        "A28",
        "forged status line with a payload",
        lambda loot: Raw(name=loot.command.name, value=EVIL, status="503"),
        ("nats",),
    ),
    Attack("A36", "command meant for another agent", lambda loot: loot.for_auditor),
)

RESTARTED = Attack("A14", "captured, sent again after a restart", lambda loot: loot.command, ("nats",))
