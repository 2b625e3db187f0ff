"""Core NATS readers: which subscriptions share a replay memory, and since when that memory is complete.

A reader is the unit that gets each message once: on core NATS a queue group, or one subscription. Open subscriptions
of one subject pattern are numbered, each with the lowest free number. Pattern and number identify the reader. So two
subscriptions of one pattern are two readers, and each gets every message; one that is closed and opened again is the
same reader and continues with its memory; overlapping patterns are different readers. A second reader of a pattern may
be meant to replace the first, which then closes. Therefore a reader that begins while another of its pattern is open,
or begins again after that, has a floor, and the journal stores the ids of all readers of a pattern together.

A reader begins when the server has confirmed its first subscription, and not when its process starts: an earlier
process may still be running and receive messages until then. Messages issued before that moment may have been delivered
to the earlier process, so they are stale unless a journal (or a shared store) knows what that process received.

A memory is needed only while its messages are fresh. After that, the memory of a closed subscription is forgotten, and
only a floor remains. The module also creates the ``StreamLife`` of each JetStream consumer; it does no I/O but asks the
journal.
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
"""The most patterns whose last close is remembered; the oldest are forgotten, and begin like new ones."""

_DRIFT: Final = 1.0
"""Seconds by which the wall clock may always be corrected, even if the policy's skew is smaller."""

INIT: Final = "run `watchword init` before the first start, which then begins without a floor"
NO_JOURNAL: Final = f"name a directory in [replay] state, and {INIT}"
TWO_PROCESSES: Final = (
    "another process of this agent reads this too and holds the journal: stop it first; or give each process its own"
    " directory in [replay] state; or its own name with connect(reader=...) and a shared replay store"
)
TWO_SUBSCRIPTIONS: Final = "another subscription of this process has the same subject: use only one, or await ready()"
PASSES: Final = "nothing to do: the floor ends by itself"


class Life:
    """One reader; ``name`` is its own, and ``kind`` is that of all readers of its pattern.

    ``users`` counts its open subscriptions, those through aliases included.
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
        """The name of its replay memory."""
        return f"{self.name}#"


class Lives:
    """All readers of this process whose replay memory is in this process."""

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
        """Return the reader for a new subscription to ``pattern``."""
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
        """Close one subscription of a reader; the memory stays for as long as it may be needed."""
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
            if life.is_born:  # every message delivered to a reader of the pattern was issued by then
                earlier = self._ended.pop(life.kind, -inf)
                self._ended[life.kind] = max(earlier, self.floor_from(life.closed_at))
                if len(self._ended) > MAX_ENDED:
                    self._ended.popitem(last=False)
            life.is_born = life.is_born and not self._has_others(life)
            self._closed[life.name] = life

    def _has_others(self, life: Life) -> bool:
        """Return True if another reader of the pattern is open, which may get messages without this one."""
        return self._kinds[life.kind] > (life.users > 0)

    def take_number(self, key: str) -> int:
        """Take the lowest number of ``key`` that is free, and return it."""
        numbers = self._open.setdefault(key, set())
        number = next(one for one in range(len(numbers) + 1) if one not in numbers)
        numbers.add(number)
        return number

    def take_name(self, name: str) -> None:
        """Take a client's name; ConfigurationError if another client of this process has it."""
        number = self.take_number(f"name:{name}")
        if number:
            self.free_number(f"name:{name}", number)
            raise ConfigurationError(
                f"reader={name!r}: another client of this process has this name, and each would take messages from the"
                " other: give each client its own name"
            )

    def free_number(self, key: str, number: int) -> None:
        """Free a number of ``key``."""
        self._open[key].discard(number)
        if not self._open[key]:
            del self._open[key]

    async def bear(self, *lives: Life, solicited: bool = False) -> None:
        """Begin the memories of these readers, once the server has confirmed their subscriptions.

        No message may be judged before it returns. Readers that only get ``solicited`` messages, answers to requests of
        this process, have no floor. The journal is asked once. A large memory gives the event loop turns. After an
        interruption, the next call starts over.
        """
        while any(life.is_beginning for life in lives):  # begun by another subscription of the same reader
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
                self._mark_begun(life, floor, now, NO_JOURNAL)
            return
        known = verifier.journal.recall([f"{life.kind}#" for life in unborn], birth=birth)
        for life, recalled in zip(unborn, known, strict=True):
            floor = max(recalled.floor, birth) if self._has_others(life) else recalled.floor
            await verifier.resume(life.log, floor=floor, notes=recalled.notes, noted=f"{life.kind}#")
            self._mark_begun(life, floor, now, TWO_PROCESSES if recalled.is_shared else INIT)

    def _mark_begun(self, life: Life, floor: float, now: float, remedy: str) -> None:
        life.is_born = True  # only now, so that a failure or an interruption leads to another try
        if floor > now:
            self.announce(life.name, floor, remedy=TWO_SUBSCRIPTIONS if self._has_others(life) else remedy)

    def rest(self) -> None:
        """Close the journal cleanly if no subscription is open: another process may take these readers over.

        So each reader here begins again with what the journal knows by then.
        """
        journal = self._verifier.journal
        if journal is not None and not self._lives:
            journal.close()
            for life in self._closed.values():
                life.is_born = False

    def floor_now(self) -> float:
        """Return the floor above every message issued up to now."""
        return self.floor_from(self._verifier.clock())

    def floor_from(self, time: float) -> float:
        """Return the floor above every message issued up to ``time``, by any clock within the skew."""
        return self._verifier.policy.floor_at(-inf, cut=time)

    def announce(self, reader: str, floor: float, *, remedy: str) -> None:
        """Warn of a floor that drops honest messages; floors that end together give one warning."""
        ends = ceil(floor)  # issue times are whole seconds
        self.floor_ends_at = max(self.floor_ends_at, ends)
        if ends > self._announced and self._verifier.policy.mode is not Mode.OBSERVE:  # else nothing is dropped for it
            self._announced = ends
            self._audit.warn(
                "replay.floor",
                reader=reader,
                until=ends,
                cost="messages issued before then are dropped as stale, because they may have been delivered before",
                remedy=remedy,
            )

    def begin_to_enforce(self) -> None:
        """Warn of a floor that is still in force, and under which nothing was dropped until now."""
        if self.floor_ends_at > self._verifier.clock():
            self.announce("all: enforcing begins", self.floor_ends_at, remedy=PASSES)

    def compare_clocks(self, wall: float, boot: float) -> None:
        """Raise the floors of all memories if the wall clock has jumped against the boot clock since the last call.

        It jumps when a virtual machine is restored from a snapshot: then this process has forgotten the messages that
        it received since. ``boot`` is in seconds since the machine started, including sleep.
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
        """Return the state of a consumer that this process reads alone, for one more subscription."""
        self._forget_old()
        name = stream_reader(stream, consumer)
        life = self._streams.get(name)
        if life is None:
            life = self._streams[name] = StreamLife(name, stream, self._verifier.policy)
        life.users += 1
        return life

    def close_stream(self, life: StreamLife, *, for_good: bool) -> None:
        """Close one subscription of a consumer; ``for_good`` if no other subscription can use that consumer."""
        life.users -= 1
        life.closed_at = -inf if for_good else self._verifier.clock()
        self._forget_old()

    def acknowledged_at(self, stream: str, consumer: str, sequence: int) -> None:
        """Note that the delivery at this sequence will not come again."""
        name = stream_reader(stream, consumer)
        self._verifier.acknowledge_at(f"{name}#{stream}", sequence)
        if (life := self._streams.get(name)) is not None:
            life.acknowledged(sequence)

    def settle(self, life: StreamLife, sequence: int) -> None:
        """Note that the reader's delivery at this sequence will not come again."""
        self._verifier.acknowledge_at(life.log, sequence)
        life.acknowledged(sequence)

    def signed_pattern(self, pattern: str) -> str:
        """Return the subject that an alias stands for, or ``pattern`` itself: both are one reader, with one memory."""
        realm = self._verifier.realm
        uri = Channel("nats", realm, pattern).uri if not {"*", ">"} & set(pattern.split(".")) else ""
        for alias in self._verifier.policy.aliases:
            if alias.channel == uri:
                return Channel.parse(alias.signed_for).name
        return pattern

    def _forget_old(self) -> None:
        """Forget memories of subscriptions closed so long ago that none of their messages is fresh any more."""
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
    """Return the reader name of a JetStream consumer."""
    return f"js:{stream}:{consumer}"
