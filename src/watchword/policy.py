"""Policy: which principals may send where and how fast, and how old a message may be; all limits have hard ceilings.

It holds and looks up rules; the verifier enforces them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from watchword.errors import ConfigurationError, SigningError
from watchword.message import Channel, is_subject, is_topic
from watchword.patterns import PREFIX, Patterns
from watchword.principals import PrincipalIndex, is_principal_pattern, is_wild

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_AGE_CEILING: Final = 24 * 3600.0
MAX_SKEW_CEILING: Final = 300.0
MAX_HOLD_CEILING: Final = 600.0
MAX_LAG_CEILING: Final = 90 * 24 * 3600.0
MEMORY_LEAST: Final = 1_000_000
MEMORY_CEILING: Final = 1 << 36
MAX_RATE: Final = 1_000_000

MOST_FOUND: Final = 4096
"""Rule look-ups that are cached: each takes 7 us, a fifth of the cost of a message in a batch."""

_UNKNOWN: Final = -1

_RATE = re.compile(r"([1-9][0-9]{0,6})/(s|m|h)")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Mode(StrEnum):
    """``enforce`` drops what does not verify; ``observe`` verifies and counts, and delivers everything, marked."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


@dataclass(frozen=True, slots=True)
class Rate:
    """``count`` messages per ``seconds``; at most one period's messages can be saved up."""

    count: int
    seconds: float

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Parse ``200/s``, ``30/m`` or ``5/h``; ConfigurationError otherwise."""
        match = _RATE.fullmatch(text)
        if match is None or int(match[1]) > MAX_RATE:
            raise ConfigurationError(
                f"rate {text!r}: write a number up to {MAX_RATE} and a unit, as '200/s', '30/m', '5/h'"
            )
        return cls(int(match[1]), _SECONDS[match[2]])

    def __str__(self) -> str:
        return f"{self.count} in {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class Allow:
    """Permission for principals to send on some channels, each at most at ``rate`` (None: no limit).

    In ``principal``, ``*`` matches one part between slashes, and a final ``**`` one or more. Channels are URIs: in a
    NATS subject ``*`` matches one token, and a final ``>`` one or more; a topic with a final ``*`` matches all topics
    with that prefix. A principal may not send there while its trust, from 0 to 1, is below ``min_trust``.
    """

    principal: str
    channels: tuple[str, ...]
    rate: Rate | None = None
    min_trust: float = 0.0

    def __post_init__(self) -> None:
        _refuse_wrong_principal(self.principal, "allow")
        if not self.channels:
            raise ConfigurationError(f"allow {self.principal!r}: name at least one channel")
        if not 0.0 <= self.min_trust <= 1.0:
            raise ConfigurationError(f"allow {self.principal!r}: min_trust of {self.min_trust:g}: choose 0 to 1")
        for uri in self.channels:
            _check_pattern(uri, "allow")

    def __hash__(self) -> int:
        """Return a hash, in the same time for any number of channels: it is computed for each rated message."""
        return hash((self.principal, self.channels[0], len(self.channels)))


@dataclass(frozen=True, slots=True)
class ChannelRule:
    """Settings of the channels that match the URI ``match``, with wildcards as in Allow; the most exact rule holds."""

    match: str
    mode: Mode

    def __post_init__(self) -> None:
        _check_pattern(self.match, "channels")

    @property
    def exactness(self) -> tuple[int, ...]:
        """The sort key of patterns that match one channel; the greatest is the most exact."""
        if self.match.startswith("kafka://"):
            return (0, len(self.match)) if self.match.endswith(PREFIX) else (1,)
        return tuple({">": 0, "*": 1}.get(token, 2) for token in self.match.split("/", 3)[-1].split("."))


@dataclass(frozen=True, slots=True)
class Alias:
    """Accept on ``channel`` messages signed for ``signed_for``, both URIs: for mirrored topics and mapped subjects."""

    channel: str
    signed_for: str

    def __post_init__(self) -> None:
        for uri in (self.channel, self.signed_for):
            try:
                Channel.parse(uri).check_signable()
            except (ValueError, SigningError) as error:
                raise ConfigurationError(f"alias: {error}") from None


class _ChannelRules(tuple[ChannelRule, ...]):  # noqa: SLOT001 - a subclass of tuple cannot have nonempty slots
    """Rules with their index, so that a policy made from another's rules need not index them again."""

    def __init__(self, _: Iterable[ChannelRule]) -> None:
        seen = set[str]()
        for rule in self:
            if rule.match in seen:
                raise ConfigurationError(f"channels: two rules for {rule.match!r}: keep one")
            seen.add(rule.match)
        self.patterns: Final = Patterns((rule.match, rule) for rule in self)


class _AllowRules(tuple[Allow, ...]):  # noqa: SLOT001 - as above
    """As _ChannelRules; the index has the numbers of the rules, by principal and then by channel."""

    def __init__(self, _: Iterable[Allow]) -> None:
        written: dict[str, list[tuple[str, int]]] = {}
        for number, rule in enumerate(self):
            written.setdefault(rule.principal, []).extend((uri, number) for uri in rule.channels)
        self._channels: Final = PrincipalIndex[Patterns[int]]()
        for principal, uris in written.items():
            self._channels.put(principal, Patterns(uris))
        self.has_rates: Final = any(rule.rate is not None for rule in self)
        self._bars: Final = PrincipalIndex[set[float]]()
        for rule in self:
            if rule.min_trust:
                known = self._bars.get(rule.principal)
                self._bars.put(rule.principal, {rule.min_trust} if known is None else known | {rule.min_trust})
        self._found: Final[dict[tuple[str, str], int | None]] = {}

    def bars_of(self, principal: str) -> set[float]:
        """Return the distinct values of ``min_trust`` in the rules for a principal."""
        return {bar for _, bars in self._bars.find(principal) for bar in bars}

    def holding(self, principal: str, uri: str) -> int | None:
        """Return the number of the rule that applies; None if none does."""
        pair = principal, uri
        found = self._found.get(pair, _UNKNOWN)
        if found == _UNKNOWN:
            if len(self._found) >= MOST_FOUND:
                self._found.clear()
            found = self._found[pair] = next(self.matching(principal, uri), None)
        return found

    def matching(self, principal: str, uri: str) -> Iterator[int]:
        """Yield the numbers of the rules that let a principal send on a channel, most specific first."""
        for _, patterns in self._channels.find(principal):
            yield from patterns.covering(uri)


class _Contained(frozenset[str]):
    """The contained principals, with an index of the patterns among them, as in _ChannelRules."""

    patterns: PrincipalIndex[str]

    def __new__(cls, names: Iterable[str]) -> Self:
        made = super().__new__(cls, names)
        made.patterns = PrincipalIndex()
        for name in made:
            _refuse_wrong_principal(name, "contained")
            if is_wild(name):
                made.patterns.put(name, name)
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a verifier enforces; durations are in seconds.

    A message is fresh if ``-max_skew <= reference - issued_at <= max_age + max_skew``. Without any ``allow``, every
    known principal may send anywhere; with some, only what a rule allows is permitted. If several rules match, the most
    specific one applies (docs/policy.md has the order). ``contained`` has principals and patterns. ``max_hold`` limits
    how long an outage may hold a partition, ``max_lag`` how far a shared reader may lag, and ``memory`` the bytes that
    this process uses to remember ids. A message must be signed for the channel where it is found, or for one that
    ``aliases`` pairs with it. ``channels`` give some channels another ``mode``.
    """

    mode: Mode = Mode.ENFORCE
    max_age: float = 300.0
    max_skew: float = 5.0
    max_hold: float = 30.0
    max_lag: float = 7 * 24 * 3600.0
    memory: int = 256 * 1024 * 1024
    contained: frozenset[str] = frozenset()
    allow: tuple[Allow, ...] = ()
    aliases: tuple[Alias, ...] = ()
    channels: tuple[ChannelRule, ...] = ()
    _allowed: _AllowRules = field(init=False, repr=False, compare=False)
    _contained: _Contained = field(init=False, repr=False, compare=False)
    _modes: Patterns[ChannelRule] = field(init=False, repr=False, compare=False)
    _pairs: frozenset[tuple[str, str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        channels = self.channels if isinstance(self.channels, _ChannelRules) else _ChannelRules(self.channels)
        allow = self.allow if isinstance(self.allow, _AllowRules) else _AllowRules(self.allow)
        contained = self.contained if isinstance(self.contained, _Contained) else _Contained(self.contained)
        pairs = frozenset((alias.channel, alias.signed_for) for alias in self.aliases)
        for name, value in (
            ("channels", channels), ("_modes", channels.patterns), ("allow", allow), ("_allowed", allow),
            ("contained", contained), ("_contained", contained), ("_pairs", pairs),
        ):  # fmt: skip
            object.__setattr__(self, name, value)
        _within("max_age", self.max_age, 1.0, MAX_AGE_CEILING)
        _within("max_skew", self.max_skew, 0.0, MAX_SKEW_CEILING)
        _within("max_hold", self.max_hold, 0.0, MAX_HOLD_CEILING)
        _within("max_lag", self.max_lag, 1.0, MAX_LAG_CEILING)
        if not MEMORY_LEAST <= self.memory <= MEMORY_CEILING:
            raise ConfigurationError(f"memory of {self.memory} bytes: choose {MEMORY_LEAST} to {MEMORY_CEILING}")

    @property
    def window(self) -> float:
        """Seconds during which two sightings of one message may both be fresh."""
        return self.max_age + 2 * self.max_skew

    @property
    def horizon(self) -> float:
        """Seconds after its issue, in log time, for which an id must be remembered."""
        return self.max_age + self.max_skew

    @property
    def longest(self) -> float:
        """Seconds after its issue for which a store must keep an id."""
        return self.window + self.max_lag

    def floor_at(self, anchor: float, *, cut: float | None = None) -> float:
        """Return the floor of a guard that resumes at ``anchor``, the next record's reference time (docs/replay.md).

        ``cut`` is the append time of the first record that retention has left, if it is inside the window: the records
        deleted before it may have been issued up to ``max_skew`` after that time.
        """
        floor = anchor - self.horizon
        return floor if cut is None else max(floor, math.nextafter(cut + self.max_skew, math.inf))

    def observes(self, pattern: Channel) -> bool:
        """Return True if no channel that ``pattern`` covers is enforced; it may be a subject with wildcards."""
        uri = pattern.uri
        best = next(self._modes.covering(uri), None)
        if (best.mode if best else self.mode) is not Mode.OBSERVE:
            return False
        if not ("*" in uri or ">" in uri):
            return True
        # A rule that covers only a part, but is less exact than the one that covers all, does not apply there.
        return all(
            rule.mode is Mode.OBSERVE or (best and rule.exactness <= best.exactness)
            for rule in self._modes.meeting(uri)
        )

    def accepts(self, channel: Channel, signed_for: str) -> bool:
        """Return True if a message signed for ``signed_for`` may be found on ``channel``."""
        return channel.uri == signed_for or (channel.uri, signed_for) in self._pairs

    @property
    def has_rates(self) -> bool:
        """Whether any rule has a rate."""
        return self._allowed.has_rates

    def rule_for(self, principal: str, channel: Channel) -> Allow | None:
        """Return the most specific rule that lets ``principal`` send on ``channel``; None if none does."""
        number = self._allowed.holding(principal, channel.uri)
        return None if number is None else self.allow[number]

    def rules_matching(self, principal: str, channel: Channel) -> list[int]:
        """Return the indexes in ``allow`` of all rules that let ``principal`` send there; the first one applies."""
        return list(dict.fromkeys(self._allowed.matching(principal, channel.uri)))

    def bars_of(self, principal: str) -> set[float]:
        """Return the distinct values of ``min_trust`` in the rules for a principal."""
        return self._allowed.bars_of(principal)

    def containing(self, principal: str) -> str | None:
        """Return the entry of ``contained`` that matches a principal, its own name or a pattern; None without one."""
        if not self._contained:
            return None
        if principal in self._contained:
            return principal
        patterns = self._contained.patterns
        return next((name for name, _ in patterns.find(principal)), None) if len(patterns) else None


def _within(name: str, value: float, least: float, most: float) -> None:
    if not (math.isfinite(value) and least <= value <= most):
        raise ConfigurationError(f"{name} of {value:g} s: choose {least:g} s to {most:g} s")


def check_principal_pattern(text: str) -> str:
    """Return ``text`` if it is a principal or a valid pattern of principals; ValueError otherwise."""
    if not is_principal_pattern(text):
        raise ValueError(
            f"principal {text[:128]!r}: write 1 to 255 bytes of text without control characters; '*' may stand for a"
            " whole part, as in agent://acme/*, and a final '**' for the rest"
        )
    return text


def _refuse_wrong_principal(text: str, table: str) -> None:
    try:
        check_principal_pattern(text)
    except ValueError as error:
        raise ConfigurationError(f"{table}: {error}") from None


def _check_pattern(uri: str, table: str) -> None:
    try:
        channel = Channel.parse(uri)
    except ValueError as error:
        raise ConfigurationError(f"{table}: {error}") from None
    if channel.scheme == "kafka":
        # A prefix must begin some valid topic: "." is not a topic, but a prefix of some.
        if not is_topic(channel.name.removesuffix(PREFIX) + "x" * channel.name.endswith(PREFIX)):
            raise ConfigurationError(f"{table}: {uri!r}: write a topic; a '*' at its end matches any ending")
        return
    *tokens, last = channel.name.split(".")
    written = [part for part in (*tokens, "x" if last == ">" else last) if part != "*"]
    if written and (not is_subject(".".join(written)) or {"*", ">"} & set("".join(written))):
        raise ConfigurationError(f"{table}: {uri!r}: write '*' for one whole token, and '>' only as the last token")
