"""Messages as the core sees them: ``Message`` before the checks, ``VerifiedMessage`` after, and their channels.

It also has the rules for names: realms, principals, topics and subjects. It checks no signature.
"""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, MISSING, dataclass, field, fields, make_dataclass
from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, NoReturn, Self, TypeAlias, TypeVar, final

from watchword.errors import ConfigurationError, Rejected, SigningError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from _typeshed import DataclassInstance

ENVELOPE_HEADER: Final = "watchword"
"""The name of the one header that Watchword adds; matched in any letter case."""

MAX_HEADER_BYTES: Final = 64 * 1024
"""The most bytes of all header names and values of a message; JetStream refuses more."""

MAX_HEADERS: Final = 1024
"""The most headers of a message; an empty one takes two or three bytes of a Kafka record, fewer if compressed."""

TRACE_HEADERS: Final = frozenset({"traceparent", "tracestate"})
"""Headers not covered by default: tracing libraries add and change them in transit; handlers may get them unsigned."""

NATS_ID_HEADER: Final = "Nats-Msg-Id"
"""Has the message's id on JetStream publishes; not covered, but compared with the signed id."""

CHANNELS_KEPT: Final = 1024

SERVERS_SUBJECTS: Final = "$"
"""The prefix of subjects that a NATS server itself acts on: an answer there would be a command with our rights."""

MAX_PRINCIPAL_BYTES: Final = 255
MAX_CHANNEL_BYTES: Final = 1024

Header: TypeAlias = tuple[str, bytes | None]
Scheme: TypeAlias = Literal["kafka", "nats"]

_MADE_BY: Final = "a VerifiedMessage is made only by Verifier.verify"

_REALM = re.compile(r"[a-z0-9-]{1,63}")
_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")  # "." and ".." are refused separately
_SUBJECT = re.compile(r"[!-~]+")  # printable ASCII without spaces
_PRINCIPAL = re.compile(r"[^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?")


def check_realm(realm: str) -> str:
    """Return ``realm``, the name of one cluster or account; ConfigurationError unless 1 to 63 of ``[a-z0-9-]``."""
    if not _REALM.fullmatch(realm):
        raise ConfigurationError(f"realm {realm!r}: use 1 to 63 of a-z, 0-9 and '-'")
    return realm


def is_principal(text: str) -> bool:
    """Return True if ``text`` may name an agent: 1 to 255 bytes of UTF-8, no control characters or outer spaces."""
    if not _PRINCIPAL.fullmatch(text):
        return False
    try:
        return len(text.encode()) <= MAX_PRINCIPAL_BYTES
    except UnicodeEncodeError:  # a lone surrogate
        return False


@dataclass(frozen=True, slots=True)
class Channel:
    """A Kafka topic or NATS subject in one realm; ``uri`` is what is signed.

    The realm holds no ``/``, so the name may hold any character without making two channels look alike.
    """

    scheme: Scheme
    realm: str
    name: str
    uri: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "uri", f"{self.scheme}://{self.realm}/{self.name}")

    @classmethod
    def parse(cls, uri: str) -> Channel:
        """Parse ``kafka://<realm>/<topic>`` or ``nats://<realm>/<subject>``; ValueError if it is neither."""
        scheme, separator, rest = uri.partition("://")
        realm, slash, name = rest.partition("/")
        if not (separator and slash and name and _REALM.fullmatch(realm)):
            raise ValueError(f"channel {uri!r}: write kafka://<realm>/<topic> or nats://<realm>/<subject>")
        match scheme:
            case "kafka" | "nats":
                return cls(scheme, realm, name)
            case _:
                raise ValueError(f"channel {uri!r}: the scheme is kafka or nats")

    def check_signable(self) -> None:
        """Raise SigningError if the bus could not carry this name unchanged, or it has a wildcard."""
        if len(self.uri) > MAX_CHANNEL_BYTES:
            raise SigningError(f"channel name of {len(self.uri)} characters: at most {MAX_CHANNEL_BYTES}")
        if self.scheme == "kafka":
            if not is_topic(self.name):
                raise SigningError(f"topic {self.name!r}: Kafka allows 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'")
        elif not is_subject(self.name):
            raise SigningError(f"subject {self.name!r}: write tokens of printable ASCII separated by '.', no wildcards")

    def __str__(self) -> str:
        return self.uri


@lru_cache(CHANNELS_KEPT)
def channel_of(scheme: Scheme, realm: str, name: str) -> Channel:
    """Return a channel; recent ones are cached."""
    return Channel(scheme, realm, name)


def is_topic(name: str) -> bool:
    """Return True if ``name`` is a valid topic by Kafka's own rule."""
    return bool(_TOPIC.fullmatch(name)) and name not in {".", ".."}


def is_subject(name: str) -> bool:
    """Return True if ``name`` is a NATS subject that can be published to and that all clients read the same way."""
    tokens = name.split(".")
    return bool(_SUBJECT.fullmatch(name)) and all(token not in {"", "*", ">"} for token in tokens)


class Position(NamedTuple):
    """Where the broker put a message: ``log`` (``topic/partition`` or stream name) and ``offset`` (or sequence)."""

    log: str
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message, to be signed or as read from a bus.

    ``value`` and ``key`` are bytes or None (an absent value is not an empty one). ``headers`` keep order and
    duplicates. Times are in seconds since the epoch: ``appended_at`` is the broker's stamp, ``created_at`` the
    producer's. If the broker does not stamp, ``appended_between`` has the bounds from the reader's own looks at the
    log's end (see ``Looks``); the lower one is minus infinity without an earlier look. ``reader`` names the reader (a
    consumer group, a queue group or one subscription): each may see an id once. ``delivered_by`` is the stream and
    consumer named by a JetStream ack subject. ``exclusive`` says that this process alone reads for ``reader``, in log
    order. ``arrival`` replaces the position on a bus without positions: random bytes that this process assigned to this
    copy when it arrived. ``fault`` says why the message could not be parsed; then ``headers`` are those that could be.
    """

    channel: Channel
    value: bytes | None
    key: bytes | None = None
    headers: tuple[Header, ...] = ()
    partition: int | None = None
    reply_to: str | None = None
    position: Position | None = None
    appended_at: float | None = None
    created_at: float | None = None
    reader: str = ""
    delivered_by: tuple[str, str] | None = None
    exclusive: bool = False
    appended_between: tuple[float, float] | None = None
    arrival: bytes | None = None
    fault: str | None = None

    def __repr__(self) -> str:
        size = "none" if self.value is None else f"{len(self.value)} bytes"
        return f"Message(channel={self.channel.uri!r}, value=<{size}>, position={self.position!r})"


def log_name(message: Message) -> str:
    """Return the name of the log, for one reader: the sequence of messages that it reads in order of reference time."""
    return f"{message.reader}#{message.position.log if message.position is not None else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A pending request of ours: its id, the channel that it was sent on, and its recipient."""

    id: bytes
    channel: Channel
    recipient: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the reader expects, against which messages are checked.

    ``requests`` are the pending ones by id; with ``only_replies`` a message that answers none of them is rejected.
    ``consumer`` is the (stream, consumer) pair to which a JetStream subscription is bound. A message issued before
    ``floor`` (seconds since the epoch) is stale unless it answers a pending request, because the reader began to
    remember ids only then. With ``was_passed`` the messages may have been seen before log time passed them: a memory
    that cannot tell gives no verdict instead of STALE.
    """

    requests: Mapping[bytes, Request] = field(default_factory=dict)
    only_replies: bool = False
    consumer: tuple[str, str] | None = None
    floor: float = -inf
    was_passed: bool = False


@final
@dataclass(frozen=True, slots=True)
class VerifiedMessage:
    """A message that passed every check; only a verifier makes one.

    ``principal`` is the agent that wrote it. ``headers`` has only the headers that the sender covered, and
    ``traceparent`` and ``tracestate``. ``id`` is lower-case hex, unique per message: de-duplicate by it.
    ``redelivered`` is certain if True; if False, the message may still be a redelivery. ``issued_at`` is in seconds
    since the epoch. ``in_reply_to`` is the id of the request that this message answers.
    """

    _: KW_ONLY
    principal: str
    key_id: str
    id: str
    channel: Channel
    value: bytes | None = field(repr=False)
    key: bytes | None = field(repr=False)
    headers: tuple[Header, ...] = field(repr=False)
    issued_at: int
    redelivered: bool
    recipient: str | None = None
    reply_to: str | None = None
    in_reply_to: str | None = None
    position: Position | None = None

    def __post_init__(self) -> None:
        raise TypeError(_MADE_BY)

    def __init_subclass__(cls) -> None:
        raise TypeError(_MADE_BY)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __getstate__(self) -> NoReturn:
        raise TypeError("a VerifiedMessage cannot be pickled: send the message and verify it there")

    def __setstate__(self, _: object) -> NoReturn:  # without it, that of dataclasses would accept any state
        raise TypeError(_MADE_BY)


@final
@dataclass(frozen=True, slots=True)
class ObservedMessage:
    """A message as it arrived, with the verdict that enforcing would have given; made in observe mode only.

    Its ``message`` is NOT verified unless ``verdict`` is a VerifiedMessage.
    """

    message: Message
    verdict: VerifiedMessage | Rejected | Unavailable


def verdict_of(
    delivered: VerifiedMessage | ObservedMessage | Rejected | Unavailable,
) -> VerifiedMessage | Rejected | Unavailable:
    """Return the verdict of enforce mode, which an observed message carries."""
    return delivered.verdict if isinstance(delivered, ObservedMessage) else delivered


_Frozen = TypeVar("_Frozen", bound="DataclassInstance")


def _unfrozen(cls: type[_Frozen]) -> type[Any]:
    """Return an unfrozen copy of ``cls``, a frozen slotted dataclass.

    A frozen class sets each field through ``object.__setattr__``; its twin sets slots directly, in a fifth of the time.
    Its instances are then given the original class.
    """
    plain: list[Any] = [
        one.name if one.default is MISSING else (one.name, object, field(default=one.default)) for one in fields(cls)
    ]
    return make_dataclass(cls.__name__, plain, slots=True, eq=False, repr=False)


def maker_of(cls: type[_Frozen]) -> Callable[..., _Frozen]:
    """Return a fast constructor of ``cls``, a frozen slotted dataclass, that takes the fields by position."""
    twin = _unfrozen(cls)

    def make(*values: object) -> _Frozen:
        made: Any = twin(*values)
        made.__class__ = cls
        result: _Frozen = made
        return result

    return make


def seal() -> Callable[..., VerifiedMessage]:
    """Return the constructor of genuine VerifiedMessages; only the verifier may use it."""
    return maker_of(VerifiedMessage)


def seal_many() -> Callable[..., list[VerifiedMessage]]:
    """Return the constructor of many genuine VerifiedMessages, from an iterable per field; only for the verifier."""
    twin = _unfrozen(VerifiedMessage)

    def make(*columns: Iterable[object]) -> list[VerifiedMessage]:
        made: list[Any] = [*map(twin, *columns)]
        for one in made:
            one.__class__ = VerifiedMessage
        return made

    return make


make_message: Final = maker_of(Message)
"""Makes a Message from its fields by position, for adapters that make many."""
