"""Presence: what each process announces of itself, and the overview that a reader builds from it (docs/trust.md).

It writes and parses announcements, and keeps the latest of each process in bounded memory. Announcements are ordinary
messages: they must pass all checks, and contain only their writer's claims. No verdict depends on them. Operators see
them and may act, so a lying writer must gain little: it speaks only for itself, counts as one reporter however many
processes it claims to be, and takes no room from others.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StrictBool, ValidationError

from watchword.control import Link
from watchword.message import is_principal
from watchword.strict import json_object
from watchword.trust import Fact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from watchword.control import OperatorKey
    from watchword.message import Message, VerifiedMessage

CONTENT_TYPE: Final = "application/vnd.watchword.presence+json"
"""The value of the covered header ``content-type``."""

SVID_CONTENT_TYPE: Final = "application/vnd.watchword.svid+json"
"""The content type of messages on the presence channel that publish a certificate; operators are not shown these."""

MAX_BYTES: Final = 48 * 1024
MAX_ACCUSED: Final = 50
"""The most principals on which an announcement has evidence, those least trusted; it counts the others."""

MAX_HEARD: Final = 32
"""The most operators' keys in an announcement."""

MAX_INSTANCES: Final = 64
"""The most processes stored per principal: those heard from last."""

MAX_IN_ALL: Final = 20_000
"""The most processes stored in all; beyond that, the principal with the most processes loses its oldest."""

_FACTS: Final = frozenset(fact.value for fact in Fact)


class Evidence(NamedTuple):
    """A reporter's trust in a principal, from 0 to 1, and how often it saw each fact against it."""

    score: float
    facts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a process says of itself; its principal and key are those of the envelope.

    ``instance`` is 16 hex digits, different for each process. ``number`` grows with each announcement; ``started`` is
    in seconds. ``known`` says that the control log was read to its end; ``place`` is the log's identity and the
    position. ``heard`` says how far the chain of each operator's key is known: all its statements up to ``Link.whole``,
    except those of a kind that is ``full``.
    """

    instance: str
    number: int
    version: str
    buses: tuple[str, ...]
    started: int
    known: bool = False
    place: tuple[str, int] | None = None
    statements: int = 0
    heard: Mapping[OperatorKey, Link] = field(default_factory=dict)
    full: tuple[str, ...] = ()
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    left_out: int = 0

    def has_heard(self, by: OperatorKey, number: int, kind: str) -> bool:
        """Return True if that process knows an operator key's statements of ``kind`` up to ``number``."""
        link = self.heard.get(by)
        return link is not None and link.whole >= number and kind not in self.full

    def to_json(self) -> bytes:
        """Return the value of its message, with as much evidence and as many keys as there is room for."""
        accused = sorted(self.evidence.items(), key=lambda one: one[1].score)
        members = {
            "instance": self.instance,
            "number": self.number,
            "version": self.version,
            "buses": list(self.buses),
            "started": self.started,
            "control": {
                "known": self.known,
                "place": None if self.place is None else list(self.place),
                "statements": self.statements,
                "heard": [[*by, *link] for by, link in list(self.heard.items())[:MAX_HEARD]],
                "full": list(self.full),
            },
            "evidence": {name: [round(one.score, 4), dict(one.facts)] for name, one in accused[:MAX_ACCUSED]},
            "left_out": self.left_out + max(0, len(accused) - MAX_ACCUSED),
        }
        return json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("not printable")
    return text


def _named(text: str) -> str:
    if not is_principal(text):
        raise ValueError("not a principal")
    return text


def _known(facts: object) -> object:
    """Leave out the facts of later versions."""
    return {name: count for name, count in facts.items() if name in _FACTS} if isinstance(facts, dict) else facts


_Whole: TypeAlias = Annotated[int, Field(strict=True, ge=0, lt=1 << 53)]
_Text: TypeAlias = Annotated[str, Field(max_length=256), AfterValidator(_printable)]
_Word: TypeAlias = Annotated[str, Field(pattern="^[A-Za-z0-9_.+-]{1,64}$")]
_Words: TypeAlias = Annotated[tuple[_Word, ...], Field(max_length=3)]
_Principal: TypeAlias = Annotated[str, AfterValidator(_named)]
_Score: TypeAlias = Annotated[float, Field(strict=True, ge=0, le=1)]
_Facts: TypeAlias = Annotated[dict[str, _Whole], BeforeValidator(_known)]


class _Control(BaseModel):
    known: StrictBool
    place: tuple[_Text, _Whole] | None = None
    statements: _Whole
    heard: Annotated[list[tuple[_Principal, _Text, _Whole, _Text, _Whole]], Field(max_length=MAX_HEARD)]
    full: _Words


class _Members(BaseModel):
    instance: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    number: _Whole
    version: _Word
    buses: _Words
    started: _Whole
    control: _Control
    evidence: Annotated[dict[_Principal, tuple[_Score, _Facts]], Field(max_length=MAX_ACCUSED)]
    left_out: _Whole


def parse_announcement(value: bytes) -> Announcement:
    """Parse the value of a message; ValueError says what is wrong. Members of later versions are ignored."""
    if len(value) > MAX_BYTES:
        raise ValueError(f"{len(value)} bytes: an announcement has at most {MAX_BYTES}")
    try:
        said = _Members.model_validate(json_object(value))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f'"{first["loc"][0]}": {first["msg"]}') from None
    return Announcement(
        instance=said.instance,
        number=said.number,
        version=said.version,
        buses=said.buses,
        started=said.started,
        known=said.control.known,
        place=said.control.place,
        statements=said.control.statements,
        heard={(name, key): Link(number, digest, whole) for name, key, number, digest, whole in said.control.heard},
        full=said.control.full,
        evidence={name: Evidence(*one) for name, one in said.evidence.items()},
        left_out=said.left_out,
    )


class Instance(NamedTuple):
    """A process by its latest announcement: principal, key id, issue time (seconds) and content."""

    principal: str
    key_id: str
    issued_at: int
    said: Announcement


class Reported(NamedTuple):
    """Others' reports on a principal: the reporters, their scores (0 to 1), and how many of them saw each fact."""

    reporters: tuple[str, ...]
    least: float
    median: float
    greatest: float
    facts: Mapping[str, int]


class Present(NamedTuple):
    """A principal: its processes, whether it is contained, and what others report of it."""

    principal: str
    contained: bool
    instances: tuple[Instance, ...]
    reported: Reported | None


class Presence:
    """The latest announcement of each process, in bounded memory."""

    def __init__(self, *, most_of_one: int = MAX_INSTANCES, most_in_all: int = MAX_IN_ALL) -> None:
        self._most_of_one = most_of_one
        self._most_in_all = most_in_all
        self._known: dict[str, dict[str, Instance]] = {}
        self._count = 0
        self.dropped = 0
        """How many processes were dropped for lack of room."""

    def hear(self, message: VerifiedMessage) -> None:
        """Take an announcement that verified, in any order; ValueError if it is not a valid one."""
        if not is_of_type(message, CONTENT_TYPE):
            raise ValueError(f"its covered content-type is not {CONTENT_TYPE}")
        said = parse_announcement(message.value or b"")
        heard = Instance(message.principal, message.key_id, message.issued_at, said)
        of_one = self._known.setdefault(heard.principal, {})
        known = of_one.get(said.instance)
        if known is not None:
            if said.number > known.said.number:  # not the issue time: a clock may have been set back
                of_one[said.instance] = heard
            return
        of_one[said.instance] = heard
        self._count += 1
        if len(of_one) > self._most_of_one:
            self._drop_oldest(of_one)
        elif self._count > self._most_in_all:
            self._drop_oldest(max(self._known.values(), key=len))

    def _drop_oldest(self, of_one: dict[str, Instance]) -> None:
        oldest = min(of_one.values(), key=lambda one: (one.issued_at, one.said.number))
        del of_one[oldest.said.instance]
        self._count -= 1
        self.dropped += 1

    def look(
        self, *, since: float, is_contained: Callable[[str], bool], names: Iterable[str] = ()
    ) -> tuple[Present, ...]:
        """Return the principals heard of since ``since`` (issue time, seconds), and always ``names``, in order of name.

        Reports by contained principals are left out.
        """
        live = {
            principal: tuple(sorted((one for one in of_one.values() if one.issued_at >= since), key=_by_age))
            for principal, of_one in self._known.items()
        }
        reports: dict[str, dict[str, Evidence]] = {}
        for reporter, instances in live.items():
            if not is_contained(reporter):
                for accused, evidence in _merged(reporter, instances).items():
                    reports.setdefault(accused, {})[reporter] = evidence
        found = sorted({*(name for name, instances in live.items() if instances), *reports, *names})
        return tuple(
            Present(name, is_contained(name), live.get(name, ()), _reported(reports.get(name))) for name in found
        )


def is_of_type(message: Message | VerifiedMessage, content_type: str) -> bool:
    """Return True if a message says that it has this content type."""
    return any(name.lower() == "content-type" and value == content_type.encode() for name, value in message.headers)


def _by_age(one: Instance) -> tuple[int, str]:
    return -one.issued_at, one.said.instance


def _merged(reporter: str, instances: Iterable[Instance]) -> dict[str, Evidence]:
    """Merge what all processes of one principal say of others: the lowest score counts, as each process saw a part."""
    found: dict[str, Evidence] = {}
    for one in instances:
        for accused, evidence in one.said.evidence.items():
            if accused != reporter:
                known = found.get(accused, Evidence(1.0, {}))
                facts = Counter(known.facts) + Counter(evidence.facts)
                found[accused] = Evidence(min(known.score, evidence.score), facts)
    return found


def _reported(reports: Mapping[str, Evidence] | None) -> Reported | None:
    if reports is None:
        return None
    scores: list[Any] = [one.score for one in reports.values()]
    facts: Counter[str] = Counter(fact for one in reports.values() for fact in one.facts)
    return Reported(tuple(sorted(reports)), min(scores), median(scores), max(scores), dict(sorted(facts.items())))
