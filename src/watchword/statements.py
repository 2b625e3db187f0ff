"""Operators' statements on the control log: one per message, as strict JSON, built and parsed (docs/control.md).

A statement's signature and its operator's authority are checked elsewhere.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from watchword.errors import ConfigurationError
from watchword.jwk import parse_jwk, to_jwk
from watchword.keys import thumbprint, thumbprint_id
from watchword.principals import is_principal_pattern
from watchword.strict import base64url, json_object

if TYPE_CHECKING:
    from watchword.keys import VerificationKey

CONTENT_TYPE: Final = "application/vnd.watchword.control+json"
"""The value of the covered header ``content-type``."""

MAX_BYTES: Final = 8 * 1024
MAX_RANK: Final = 1 << 32
MAX_WHY: Final = 200
_MAX_NUMBER: Final = 1 << 53
_MAX_TIME: Final = 1 << 33
_DIGEST: Final = re.compile("[A-Za-z0-9_-]{43}")
_CHAIN_OF: Final = re.compile(".+ [A-Za-z0-9_-]{43}", re.DOTALL)
_VERB: Final = re.compile("[a-z_]{1,32}")
_CHAIN: Final = frozenset({"s", "prev", "n"})


class Verb(StrEnum):
    """The verbs of statements."""

    KEY = "key"
    REVOKE = "revoke"
    CONTAIN = "contain"
    RELEASE = "release"
    HEAD = "head"


@dataclass(frozen=True, slots=True)
class GiveKey:
    """This key is trusted from now on. Its id is derived from its thumbprint, so that ids are unique."""

    key: VerificationKey


@dataclass(frozen=True, slots=True)
class Revoke:
    """The public key with this RFC 7638 thumbprint is revoked from ``at`` (seconds), whatever its ids or principals."""

    thumbprint: str
    at: int


@dataclass(frozen=True, slots=True)
class Contain:
    """No message of a principal that matches ``who`` is delivered before ``until`` (seconds; None: for good)."""

    who: str
    until: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """The containment with exactly this ``who`` ends."""

    who: str


@dataclass(frozen=True, slots=True)
class Head:
    """A heartbeat: nothing is withheld up to here.

    ``of`` says how far the writer knows the chains of others: principal and thumbprint of an operator's key, separated
    by a space, and the highest number of its chain.
    """

    of: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Unknown:
    """A verb of a later version; it is counted in its chain and has no effect here."""

    verb: str


Saying: TypeAlias = GiveKey | Revoke | Contain | Release | Head | Unknown

Entry: TypeAlias = tuple[str, str]
"""What a statement is about: a kind, and a text within it. Statements on the same entry override one another."""

_VERBS: Final[dict[type, Verb]] = {
    GiveKey: Verb.KEY, Revoke: Verb.REVOKE, Contain: Verb.CONTAIN, Release: Verb.RELEASE, Head: Verb.HEAD,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Statement:
    """``number`` and ``previous`` chain the statements of one operator's key; a higher ``rank`` overrides a lower one.

    ``previous`` is the digest of the previous statement, and empty for the first.
    """

    number: int
    previous: str
    rank: int
    saying: Saying

    @property
    def verb(self) -> str:
        """The statement's verb."""
        return verb_of(self.saying)

    @property
    def entry(self) -> Entry | None:
        """What the statement is about; None for heads and unknown verbs."""
        match self.saying:
            case GiveKey(key):
                return "key", f"{key.principal} {thumbprint(key.public)}"
            case Revoke(dead, _):
                return "revoke", dead
            case Contain(who, _, _) | Release(who):
                return "contain", who
        return None

    def to_json(self) -> bytes:
        """Return the value of its message."""
        members = {"s": self.number, "prev": self.previous, "n": self.rank, self.verb: _members_of(self.saying)}
        return json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()


def parse_statement(value: bytes) -> Statement:
    """Parse the value of a message; ValueError says what is wrong with it."""
    if len(value) > MAX_BYTES:
        raise ValueError(f"{len(value)} bytes: a statement has at most {MAX_BYTES}")
    members = json_object(value)
    verbs = members.keys() - _CHAIN
    if len(verbs) != 1 or not members.keys() >= _CHAIN:
        raise ValueError('not a statement: write "s", "prev", "n" and one verb')
    (verb,) = verbs
    number, rank = _whole(members["s"], "s", 1, _MAX_NUMBER), _whole(members["n"], "n", 0, MAX_RANK)
    previous = members["prev"]
    if not isinstance(previous, str) or not (_DIGEST.fullmatch(previous) if number > 1 else previous == ""):
        raise ValueError('"prev" is not a digest (or, in the first statement, not empty)')
    saying = _saying(verb, members[verb])
    statement = Statement(number, previous, rank, saying)
    if not isinstance(saying, Unknown) and (rank > 0) is not (statement.entry is not None):
        raise ValueError('"n" is not 1 or more, or in a head not 0')
    return statement


def verb_of(saying: Saying) -> str:
    """Return the verb."""
    return saying.verb if isinstance(saying, Unknown) else _VERBS[type(saying)]


def digest_text(digest: bytes) -> str:
    """Return the digest of a statement's claims as the next one names it."""
    return base64url(digest)


def _saying(verb: str, body: object) -> Saying:
    if not isinstance(body, dict):
        raise ValueError(f'"{verb[:32]}" is not an object')  # noqa: TRY004 - wrong text, not a wrong type of the caller's
    match verb:
        case Verb.KEY:
            return GiveKey(_key(body))
        case Verb.REVOKE:
            _exactly(body, {"thumbprint", "at"})
            dead = body["thumbprint"]
            if not (isinstance(dead, str) and _DIGEST.fullmatch(dead)):
                raise ValueError('"thumbprint" is not an RFC 7638 thumbprint (SHA-256)')
            return Revoke(dead, _whole(body["at"], "at", 0, _MAX_TIME))
        case Verb.CONTAIN:
            _exactly(body, {"who"}, {"until", "why"})
            until, why = body.get("until"), body.get("why", "")
            if not isinstance(why, str) or len(why) > MAX_WHY or not why.isprintable():
                raise ValueError(f'"why" is not text of at most {MAX_WHY} printable characters')
            return Contain(_who(body), None if until is None else _whole(until, "until", 0, _MAX_TIME), why)
        case Verb.RELEASE:
            _exactly(body, {"who"})
            return Release(_who(body))
        case Verb.HEAD:
            _exactly(body, set(), {"of"})
            return Head(_chains(body.get("of", {})))
    if not _VERB.fullmatch(verb):
        raise ValueError("the verb is not 1 to 32 of a-z and '_'")
    return Unknown(verb)


def _key(body: dict[str, object]) -> VerificationKey:
    try:
        key = parse_jwk(body, "key")
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    if key.key_id != thumbprint_id(key.public):
        raise ValueError('"kid" is not the first 16 characters of the thumbprint')
    if key.revoked_at is not None:
        raise ValueError('"revoked" is not allowed here: use a revoke statement')
    return key


def _members_of(saying: Saying) -> dict[str, object]:
    match saying:
        case GiveKey(key):
            return to_jwk(key)
        case Revoke(dead, at):
            return {"thumbprint": dead, "at": at}
        case Contain(who, until, why):
            told: dict[str, object] = {"who": who, "until": until, "why": why or None}
            return {name: value for name, value in told.items() if value is not None}
        case Release(who):
            return {"who": who}
        case Head(of) if of:
            return {"of": dict(of)}
    return {}


def _chains(of: object) -> tuple[tuple[str, int], ...]:
    if not isinstance(of, dict) or not all(_CHAIN_OF.fullmatch(name) for name in of):
        raise ValueError('"of" does not map operators\' keys ("principal thumbprint") to numbers of statements')
    return tuple((name, _whole(number, "of", 1, _MAX_NUMBER)) for name, number in of.items())


def _who(body: dict[str, object]) -> str:
    who = body["who"]
    if not (isinstance(who, str) and is_principal_pattern(who)):
        raise ValueError('"who" is not a principal, in which "*" may stand for one part and a final "**" for the rest')
    return who


def _exactly(body: dict[str, object], needed: set[str], optional: set[str] = frozenset()) -> None:  # type: ignore[assignment]  # it is not modified
    if not needed <= body.keys() <= needed | optional:
        raise ValueError(f"the members must be {', '.join(sorted(needed | optional)) or 'none'}")


def _whole(value: object, name: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f'"{name}" is not a whole number from {least} to {most}')
    return value
