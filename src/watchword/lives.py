"""The lives of readers whose bus keeps nothing: whose memory is whose, and since when it knows everything.

A reader is what is to be given each message once: on core NATS the members of a queue group together, or one
subscription. A subscription is the same reader as one before it if it has the same subject pattern and the same number,
the lowest that is free among those that are open. So two of one pattern in one process are two readers, each of which
is given everything, and one that is closed and opened again goes on with what it knew. Patterns that overlap are two
readers. But of two readers of one pattern the later may be there to replace the earlier, which goes then: so one that
begins while another is open, or begins again after that, has a floor, and a journal keeps what they know together.

A reader is born when the server has confirmed its first subscription, and not when its process starts: an earlier
process may still be running, and be given messages until then. What was issued before that moment may have been given
to the earlier one, so it is stale, unless a journal (or a shared store) tells what that one was given.

Nothing is issued twice, so a memory is needed no longer than its messages are fresh: that of a closed subscription is
forgotten then, and all that stays is a floor.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from math import ceil, inf
from typing import TYPE_CHECKING, Final

from watchword.errors import ConfigurationError
from watchword.message import Channel
from watchword.policy import Mode
from watchword.stream_life import StreamLife
from watchword.turns import others_turn

if TYPE_CHECKING:
    from watchword.audit import Audit
    from watchword.verifier import Verifier

MAX_ENDED: Final = 100_000
"""Patterns of which is known when their last reader was closed; the oldest are forgotten, and begin as new ones."""

_DRIFT: Final = 1.0
"""Seconds by which the wall clock may be corrected whatever the policy says."""

INIT: Final = "run `watchword init` before the first start, so that it need not begin with a floor"
NO_JOURNAL: Final = f"name a directory in [replay] state, and {INIT}"
TWO_PROCESSES: Final = (
    "another process of this agent reads this, too, and has the journal: end that first; or give each process a"
    " directory of its own in [replay] state, or a name by connect(reader=...) with a store that all share"
)
TWO_SUBSCRIPTIONS: Final = "another subscription of this process has the same subject: keep to one, or await ready()"
PASSES: Final = "none is needed: it is over then"


class Life:
    """One reader; ``name`` is its scope, ``kind`` what it shares with others of its pattern.

    ``users`` subscriptions are open that are this reader, or aliases of it.
    """

    __slots__ = ("closed_at", "is_beginning", "is_born", "keys", "kind", "name", "users")

    def __init__(self, name: str, kind: str) -> None:
        self.name: Final = name
        self.kind: Final = kind
        self.users = 0
        self.is_beginning = self.is_born = False
        self.closed_at = -inf
        self.keys: list[tuple[str, int]] = []

    @property
    def log(self) -> str:
        """The name of its memory."""
        return f"{self.name}#"


class Lives:
    """All readers of one process that have their memory in this process."""

    def __init__(self, verifier: Verifier, audit: Audit) -> None:
        self._verifier = verifier
        self._audit = audit
        self._lives: dict[str, Life] = {}
        self._closed: OrderedDict[str, Life] = OrderedDict()
        self._ended: OrderedDict[str, float] = OrderedDict()
        self._open: dict[str, set[int]] = {}
        self._kinds: Counter[str] = Counter()
        self._streams: dict[str, StreamLife] = {}
        self._announced = -inf
        self._drift: float | None = None
        self.floor_ends_at = -inf

    def open(self, pattern: str) -> Life:
        """Return the reader that a new subscription to ``pattern`` is."""
        self._forget_old()
        number = self.take_number(pattern)
        kind = f"sub:{self.signed_pattern(pattern)}"
        name = f"{kind}#{number}"
        life = self._closed.pop(name, None) or self._lives.get(name) or Life(name, kind)
        self._lives[name] = life
        self._kinds[kind] += not life.users
        life.users += 1
        life.keys.append((pattern, number))
        return life

    def close(self, life: Life, pattern: str) -> None:
        """Say that a subscription is closed; its memory stays for as long as it may be needed."""
        key = next(key for key in life.keys if key[0] == pattern)
        life.keys.remove(key)
        self.free_number(*key)
        life.users -= 1
        if not life.users:
            del self._lives[life.name]
            self._kinds[life.kind] -= 1
            if not self._kinds[life.kind]:
                del self._kinds[life.kind]
            life.closed_at = self._verifier.clock()
            if life.is_born:  # whatever any reader of the pattern was given, was issued by then
                earlier = self._ended.pop(life.kind, -inf)
                self._ended[life.kind] = max(earlier, self.floor_from(life.closed_at))
                if len(self._ended) > MAX_ENDED:
                    self._ended.popitem(last=False)
            life.is_born = life.is_born and not self._has_others(life)
            self._closed[life.name] = life

    def _has_others(self, life: Life) -> bool:
        """Return True if another reader of the pattern is open: it may be given what this one is not, and go."""
        return self._kinds[life.kind] > (life.users > 0)

    def take_number(self, key: str) -> int:
        """Return the lowest number that is free among those that are taken of ``key``, and take it."""
        numbers = self._open.setdefault(key, set())
        number = next(one for one in range(len(numbers) + 1) if one not in numbers)
        numbers.add(number)
        return number

    def take_name(self, name: str) -> None:
        """Take a client's name; ConfigurationError where another one of this process has it."""
        number = self.take_number(f"name:{name}")
        if number:
            self.free_number(f"name:{name}", number)
            raise ConfigurationError(
                f"reader={name!r}: another client of this process has that name, and each would take messages from the"
                " other: give each its own"
            )

    def free_number(self, key: str, number: int) -> None:
        """Let a number be taken again."""
        self._open[key].discard(number)
        if not self._open[key]:
            del self._open[key]

    async def bear(self, *lives: Life, solicited: bool = False) -> None:
        """Let their memories begin, now that the server has confirmed the subscriptions; the journal is asked once.

        Nothing is judged before they have begun. A reader that is only given what it has ``solicited``, answers to
        requests of this process, has no floor. A large memory lets others run meanwhile. If it is interrupted, the next
        one begins from the start.
        """
        while any(life.is_beginning for life in lives):  # by another subscription that is this reader
            await others_turn()
        unborn = [life for life in dict.fromkeys(lives) if not life.is_born]
        if not unborn:
            return
        for life in unborn:
            life.is_beginning = True
        try:
            await self._begin(unborn, solicited=solicited)
        finally:
            for life in unborn:
                life.is_beginning = False

    async def _begin(self, unborn: list[Life], *, solicited: bool) -> None:
        verifier, now = self._verifier, self._verifier.clock()
        birth = self.floor_from(now)
        if verifier.journal is None or solicited:
            for life in unborn:
                ended = birth if self._has_others(life) else self._ended.get(life.kind, birth)
                floor = -inf if solicited else ended
                verifier.begin(life.log, floor=floor)
                self._has_begun(life, floor, now, NO_JOURNAL)
            return
        known = verifier.journal.recall([f"{life.kind}#" for life in unborn], birth=birth)
        for life, recalled in zip(unborn, known, strict=True):
            floor = max(recalled.floor, birth) if self._has_others(life) else recalled.floor
            await verifier.resume(life.log, floor=floor, notes=recalled.notes, noted=f"{life.kind}#")
            self._has_begun(life, floor, now, TWO_PROCESSES if recalled.is_shared else INIT)

    def _has_begun(self, life: Life, floor: float, now: float, remedy: str) -> None:
        life.is_born = True  # not before: where it fails, or is interrupted, it is tried again
        if floor > now:
            self.announce(life.name, floor, remedy=TWO_SUBSCRIPTIONS if self._has_others(life) else remedy)

    def rest(self) -> None:
        """Close the journal in good order if no subscription is open; another process may be these readers now.

        So each begins again with what the journal knows by then.
        """
        journal = self._verifier.journal
        if journal is not None and not self._lives:
            journal.close()
            for life in self._closed.values():
                life.is_born = False

    def floor_now(self) -> float:
        """Return the floor that is above whatever was issued by now."""
        return self.floor_from(self._verifier.clock())

    def floor_from(self, time: float) -> float:
        """Return the floor that is above whatever was issued up to ``time``, by any clock within the skew."""
        return self._verifier.policy.floor_at(-inf, cut=time)

    def announce(self, reader: str, floor: float, *, remedy: str) -> None:
        """Warn of a floor that honest messages meet; many that end together are one warning."""
        ends = ceil(floor)  # times of issue are whole seconds
        self.floor_ends_at = max(self.floor_ends_at, ends)
        if ends > self._announced and self._verifier.policy.mode is not Mode.OBSERVE:  # else nothing is dropped for it
            self._announced = ends
            self._audit.warn(
                "replay.floor",
                reader=reader,
                until=ends,
                cost="what was issued before then is dropped as stale, for it may have been handed over before",
                remedy=remedy,
            )

    def begin_to_enforce(self) -> None:
        """Warn of a floor that held while nothing was dropped for it, and holds on."""
        if self.floor_ends_at > self._verifier.clock():
            self.announce("all: enforcing begins", self.floor_ends_at, remedy=PASSES)

    def compare_clocks(self, wall: float, boot: float) -> None:
        """Let all memories begin anew if the wall clock moved against the machine's own since it was last compared.

        So it does when a virtual machine is set back to an older state: then this process has forgotten what it was
        given since. ``boot`` is in seconds since the machine was started, sleep included.
        """
        drift = wall - boot
        before, self._drift = self._drift, drift
        if before is None or abs(drift - before) <= max(_DRIFT, self._verifier.policy.max_skew):
            return
        floor = self.floor_from(wall)
        self._ended.clear()
        for life in (*self._lives.values(), *self._closed.values()):
            if life.is_born or life.is_beginning:
                self._verifier.raise_floor(life.log, floor)
        if self._lives:
            self.announce("all: the clock was set", floor, remedy=PASSES)
        if self._verifier.journal is not None:
            self._verifier.journal.raise_floors(floor)

    def open_stream(self, stream: str, consumer: str) -> StreamLife:
        """Return the life of a consumer that this process reads alone, for one more subscription."""
        self._forget_old()
        name = stream_reader(stream, consumer)
        life = self._streams.get(name)
        if life is None:
            life = self._streams[name] = StreamLife(name, stream, self._verifier.policy)
        life.users += 1
        return life

    def close_stream(self, life: StreamLife, *, for_good: bool) -> None:
        """Say that a subscription is closed; ``for_good`` that the consumer is of no use to another."""
        life.users -= 1
        life.closed_at = -inf if for_good else self._verifier.clock()
        self._forget_old()

    def acknowledged_at(self, stream: str, consumer: str, sequence: int) -> None:
        """Take note that the delivery at a place does not come again."""
        name = stream_reader(stream, consumer)
        self._verifier.acknowledge_at(f"{name}#{stream}", sequence)
        if (life := self._streams.get(name)) is not None:
            life.acknowledged(sequence)

    def settle(self, life: StreamLife, sequence: int) -> None:
        """Take note that what a reader was given at a place does not come again."""
        self._verifier.acknowledge_at(life.log, sequence)
        life.acknowledged(sequence)

    def signed_pattern(self, pattern: str) -> str:
        """Return what is signed for the subject of an alias: both are one reader, for whom an id is used once."""
        realm = self._verifier.realm
        uri = Channel("nats", realm, pattern).uri if not {"*", ">"} & set(pattern.split(".")) else ""
        for alias in self._verifier.policy.aliases:
            if alias.channel == uri:
                return Channel.parse(alias.signed_for).name
        return pattern

    def _forget_old(self) -> None:
        """Forget memories of subscriptions that were closed so long ago that nothing they knew is fresh."""
        policy = self._verifier.policy
        before = self._verifier.clock() - policy.window - policy.max_skew
        for name, stream in list(self._streams.items()):
            if not stream.users and stream.closed_at < before:
                del self._streams[name]
                self._verifier.forget(stream.log)
        while self._closed:
            name, life = next(iter(self._closed.items()))
            if life.closed_at >= before:
                return
            del self._closed[name]
            self._verifier.forget(life.log)


def stream_reader(stream: str, consumer: str) -> str:
    """Return the name of the reader that a consumer is."""
    return f"js:{stream}:{consumer}"
