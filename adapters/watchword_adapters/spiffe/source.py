"""Key source ``spiffe``: keys of workloads, by the certificates that they show on the presence channel.

The channel is read by a thread of its own: what was announced lately, then the rest of the day, and from then on what
is new, every few seconds and whenever somebody asks for a key that is not known. One reading is enough for all who ask
within a second: an agent signs by a new key only SETTLE seconds after its certificate was stored, so whoever has read
the channel to its end since then knows the key.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from contextlib import aclosing, suppress
from dataclasses import replace
from hashlib import sha256
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, TypeAlias

from watchword import ConfigurationError, Mode, Policy, Unavailable, Watchword
from watchword.extras import what_to_install
from watchword.presence import SVID_CONTENT_TYPE, is_of_type
from watchword.settings import Duration, Listed, Section
from watchword.spi import MemoryReplayStore, Verifier
from watchword.verifier import Authentic
from watchword_adapters.agent_context import presence_of
from watchword_adapters.background import Background
from watchword_adapters.boot_clock import since_boot
from watchword_adapters.spiffe.announcing import chain_of
from watchword_adapters.spiffe.bundles import FileBundles
from watchword_adapters.spiffe.certificates import NotVouchedForError, trust_domain_of, verified_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from watchword import VerificationKey
    from watchword.spi import Context, Message, Warn
    from watchword_adapters.agent_context import OpenPresence
    from watchword_adapters.control.presence import PresenceChannel
    from watchword_adapters.spiffe.bundles import Bundles

SETTLE: Final = 2.0
"""Seconds for which an agent waits between the storing of its certificate and its first message by that key."""

FRESH: Final = 1.0
"""Seconds for which one reading to the end answers for all keys that are not known; less than SETTLE."""

CHECK_FLOOR: Final = 0.05
CHECK_CEILING: Final = 60.0

LATELY: Final = 900.0
"""Seconds in which each agent shows its certificate once more."""

A_DAY: Final = 86_400.0

READ_LIMIT: Final = 5.0
"""Seconds that a message waits for the presence channel."""

MOST: Final = 20_000
"""Keys that are kept of all workloads."""

MOST_OF_ONE: Final = 1000
"""Keys that are kept of one SPIFFE ID; of more, those that end first are forgotten."""

_MOST_CHAINS: Final = 4096
"""Chains that were looked at and are not announced by their own keys: remembered, for anybody may show them again."""

_SHORTEST: Final = 0.1
_LONGEST: Final = 5.0

_Pair: TypeAlias = tuple[str, bytes]


class Options(Section):
    """``[[keys]]`` with ``source = "spiffe"``; paths are relative to the settings file.

    ``bundles`` are files in PEM by trust domain. Or ``trust_domains`` names those whose bundles the Workload API gives,
    at ``socket``, else at what SPIFFE_ENDPOINT_SOCKET says. Channel and files are looked at every ``check_every``.
    """

    bundles: dict[str, str] | None = None
    trust_domains: Annotated[tuple[str, ...], Listed] = ()
    socket: str | None = None
    check_every: Duration = 5.0
    max_staleness: Duration = 3600.0


def from_options(options: Mapping[str, Any], context: Context) -> SpiffeKeys:
    """Return the source that the table describes."""
    chosen = context.validate(Options, options)
    presence = presence_of(context)
    bundles: Bundles
    if (chosen.bundles is None) == (not chosen.trust_domains):
        raise ConfigurationError(
            'spiffe: whose workloads? write trust_domains = ["acme.example"], or [keys.bundles] with "acme.example" ='
            ' "bundle.pem"'
        )
    if chosen.bundles is not None:
        if chosen.socket is not None or not chosen.bundles:
            raise ConfigurationError("spiffe: socket goes with trust_domains, and bundles name at least one file")
        paths = {domain: context.directory / path for domain, path in chosen.bundles.items()}
        bundles = FileBundles(paths, max_staleness=chosen.max_staleness, warn=context.warn)
    else:
        try:
            from watchword_adapters.spiffe import bundles as made  # noqa: PLC0415 - py-spiffe comes with an extra
            from watchword_adapters.spiffe.workload import Workload  # noqa: PLC0415 - as above
        except ModuleNotFoundError as error:
            raise ConfigurationError(what_to_install(error) or str(error)) from error
        bundles = made.WorkloadBundles(
            Workload(chosen.socket, warn=context.warn),
            chosen.trust_domains,
            max_staleness=chosen.max_staleness,
            warn=context.warn,
        )
    return SpiffeKeys(
        realm=context.realm,
        bundles=bundles,
        open_presence=presence,
        wall_clock=context.clock,
        policy=context.policy,
        check_every=chosen.check_every,
        warn=context.warn,
    )


class SpiffeKeys:
    """Keys of workloads whose certificates chain to ``bundles`` and were shown on the presence channel, by their key.

    What it knows it goes on to tell while the channel is away; what it does not know is not unknown then, but
    Unavailable. When an authority leaves its bundle all that it issued is gone. Keys that have ended are kept for as
    long as ``policy`` lets a reader lag: what they signed may be read later. ``wall_clock`` is in seconds since the
    epoch, ``clock`` in seconds and never steps back.
    """

    def __init__(
        self,
        *,
        realm: str,
        bundles: Bundles,
        open_presence: OpenPresence,
        policy: Policy,
        warn: Warn,
        check_every: float = 5.0,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = since_boot,
    ) -> None:
        if not CHECK_FLOOR <= check_every <= CHECK_CEILING:
            raise ConfigurationError(
                f"check_every of {check_every:g} s: choose {CHECK_FLOOR:g} s to {CHECK_CEILING:g} s"
            )
        self._parts = _Parts(realm, bundles, open_presence, policy, warn, check_every, wall_clock, clock)
        self._bundles, self._clock = bundles, clock
        self._reading: _Reading | None = None
        self._lock = threading.Lock()
        bundles.listen(self._changed)

    @property
    def keys(self) -> tuple[VerificationKey, ...]:
        """The keys that it knows now."""
        reading = self._reading
        return () if reading is None else reading.known.keys

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``; Unavailable where the channel or the bundles cannot tell."""
        if not self._bundles.by_domain.get(trust_domain_of(principal) or ""):
            return None  # no certificate could make it a key
        reading = self._begun()
        if self._bundles.is_stale:
            raise Unavailable("keys", "trust bundles could not be read for longer than max_staleness")
        key = reading.known.by_pair.get((principal, key_id))
        if key is None and self._clock() - reading.read_at >= FRESH:
            key = await self._asked(reading, (principal, key_id))
        return key or reading.known.by_id.get(key_id)

    async def _asked(self, reading: _Reading, pair: _Pair) -> VerificationKey | None:
        failure = reading.failure
        try:
            if failure is None:
                async with asyncio.timeout(READ_LIMIT):
                    return await asyncio.wrap_future(reading.ask(pair))
        except TimeoutError:
            failure = f"it takes longer than {READ_LIMIT:g} s"
        raise Unavailable("keys", f"the presence channel cannot be read: {failure}")

    def close(self) -> None:
        """Read no more."""
        self._bundles.close()
        if self._reading is not None:
            self._reading.close()

    def _changed(self) -> None:
        if self._reading is not None:
            self._reading.look_at_bundles()

    def _begun(self) -> _Reading:
        with self._lock:
            if self._reading is None or self._reading.pid != os.getpid():
                self._reading = _Reading(self._parts)
            return self._reading


async def check_stored(channel: PresenceChannel) -> None:
    """Raise ConfigurationError where the bus keeps no announcements: later readers need the certificate, too."""
    if not await channel.stores():
        raise ConfigurationError(
            "nothing stores what is announced, or this user may not ask: 'watchword control init' makes what does"
        )


class _Parts(NamedTuple):
    """What a reading needs; see SpiffeKeys."""

    realm: str
    bundles: Bundles
    open_presence: OpenPresence
    policy: Policy
    warn: Warn
    check_every: float
    wall_clock: Callable[[], float]
    clock: Callable[[], float]


class _Known(NamedTuple):
    """The keys of one moment: a value that others may look at while the next one is made."""

    keys: tuple[VerificationKey, ...] = ()
    by_pair: Mapping[_Pair, VerificationKey] = {}
    by_id: Mapping[bytes, VerificationKey] = {}


class _Shown(NamedTuple):
    """Certificates that were shown by their own key, and the key that they make."""

    chain: list[bytes]
    key: VerificationKey


class _Candidate:
    """The one key by which a certificate's announcement may be signed."""

    key: VerificationKey | None = None

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        del principal, key_id
        return self.key


class _Reading:
    """Reads the presence channel in a thread of its own, until the process ends.

    ``known`` is what was found so far. ``read_at`` is when the reading began that was the last to come to the end, with
    the whole day before it.
    """

    def __init__(self, parts: _Parts) -> None:
        self.pid: Final = os.getpid()
        self.known = _Known()
        self.read_at = -inf
        self._parts = parts
        self._trusted: Mapping[str, Sequence[Any]] = parts.bundles.by_domain
        self._lost_at: float | None = parts.clock()
        self._told: str | None = None
        self._candidate = _Candidate()
        self._skew = parts.policy.max_skew
        self._verifier = Verifier(
            realm=parts.realm,
            keys=self._candidate,
            replay=MemoryReplayStore(horizon=None),
            policy=Policy(max_skew=self._skew),
            clock=parts.wall_clock,
        )
        self._shown: dict[bytes, _Shown] = {}
        self._chains: OrderedDict[bytes, _Shown | None] = OrderedDict()
        self._owners: dict[bytes, str] = {}
        self._newest = -inf
        self._has_lately = self._has_day = False
        self._waiting: list[tuple[_Pair, Future[VerificationKey | None]]] = []
        self._wake, self._wake_watch = asyncio.Event(), asyncio.Event()
        self._thread = Background("watchword-spiffe", self._read_on, self._watch)

    @property
    def failure(self) -> str | None:
        """Why the channel cannot be read; None while it can, or is about to be."""
        if self._told is not None:
            return self._told
        lost_at = self._lost_at
        return None if lost_at is None or self._parts.clock() - lost_at < READ_LIMIT else "no connection"

    def ask(self, pair: _Pair) -> Future[VerificationKey | None]:
        """Have the channel read to its end, and return what will be the principal's key of this id, or None."""
        answer: Future[VerificationKey | None] = Future()
        self._thread.call(self._asked, pair, answer)
        return answer

    def look_at_bundles(self) -> None:
        """Look whether the bundles have changed; any thread may say so."""
        self._thread.call(self._wake_watch.set)

    def close(self) -> None:
        """Read no more."""
        self._thread.close()

    def _asked(self, pair: _Pair, answer: Future[VerificationKey | None]) -> None:
        self._waiting.append((pair, answer))
        self._answer(0, told=False)  # it may have become known meanwhile
        self._wake.set()

    async def _watch(self) -> None:
        """Look after the bundles, whether the channel can be read or not: whoever is taken out of them is gone."""
        while True:
            self._wake_watch.clear()
            with suppress(Unavailable):  # this is a fork of the process that asked the Workload API
                await asyncio.to_thread(self._parts.bundles.look)
            if self._trusted is not self._parts.bundles.by_domain:
                self._trust(self._parts.bundles.by_domain)
                self._wake.set()
            await self._pause(self._wake_watch)

    async def _pause(self, wake: asyncio.Event) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._parts.check_every):
                await wake.wait()

    async def _read_on(self) -> None:
        agent = Watchword(realm=self._parts.realm, policy=Policy(mode=Mode.OBSERVE), clock=self._parts.wall_clock)
        pause = _SHORTEST
        while True:
            try:
                async with self._parts.open_presence(agent) as channel:
                    await check_stored(channel)
                    while True:
                        await self._look(channel)
                        pause, self._told, self._lost_at = _SHORTEST, None, None
                        await self._pause(self._wake)
            except Exception as error:  # noqa: BLE001 - whatever a client raises, it is tried again
                self._failed(f"{type(error).__name__}: {error}")
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST)

    def _failed(self, why: str) -> None:
        if why != self._told:
            self._parts.warn(
                "keys.presence_not_read", failure=why, remedy="until it can be read, keys that are known go on to hold"
            )
        self._told, self._lost_at = why, self._parts.clock()
        waiting, self._waiting = self._waiting, []
        for _, answer in waiting:
            if answer.set_running_or_notify_cancel():
                answer.set_exception(Unavailable("keys", f"the presence channel cannot be read: {why}"))

    async def _look(self, channel: PresenceChannel) -> None:
        """Read what is new to the end, and answer who asked before that began."""
        self._wake.clear()
        begun, asked, trusted = self._parts.clock(), len(self._waiting), self._trusted
        now = self._parts.wall_clock()
        if not self._has_lately:
            await self._take_all(channel, now - LATELY)
            self._has_lately = True
            self._answer(asked, told=False)
        since = self._newest - 2 * self._skew - 1.0 if self._has_day else -inf
        await self._take_all(channel, max(since, now - A_DAY))
        self._forget(now)
        if trusted is self._trusted:  # else some of it was looked at by other bundles, and is read again
            self._has_day, self.read_at = True, begun
            self._answer(asked, told=True)

    def _answer(self, asked: int, *, told: bool) -> None:
        """Answer those who asked first whose key is known, and where all is ``told`` the others, too."""
        left: list[tuple[_Pair, Future[VerificationKey | None]]] = []
        for at, (pair, answer) in enumerate(self._waiting):
            key = self.known.by_pair.get(pair)
            if key is None and not (told and at < asked):
                left.append((pair, answer))
            elif answer.set_running_or_notify_cancel():
                answer.set_result(key)
        self._waiting = left

    def _trust(self, bundles: Mapping[str, Sequence[Any]]) -> None:
        """Look at all chains by other bundles: whom they vouch for no more is gone, and others may have come in."""
        self._trusted = bundles
        self._chains.clear()
        self._has_lately = self._has_day = False
        self.read_at = -inf
        now, still = self._parts.wall_clock(), dict[bytes, _Shown]()
        for digest, shown in self._shown.items():
            with suppress(NotVouchedForError):
                still[digest] = _Shown(shown.chain, verified_key(shown.chain, bundles, now=now))
        self._shown = still
        self._tell()

    async def _take_all(self, channel: PresenceChannel, since: float) -> None:
        changed = False
        async with aclosing(channel.read(since=since, listen=0.0)) as coming:
            async for message in coming:
                self._newest = max(self._newest, message.appended_at or -inf)
                if message.appended_at is not None and is_of_type(message, SVID_CONTENT_TYPE):
                    changed |= await self._take(message)
        if changed:
            self._tell()

    async def _take(self, message: Message) -> bool:
        """Take a certificate that its own key shows; return True if it is a new one."""
        value = message.value or b""
        digest = sha256(value).digest()
        if digest in self._shown:
            return False
        shown = self._vouched_for(digest, value)
        if shown is None:
            return False
        if self._owners.get(shown.key.key_id, shown.key.principal) != shown.key.principal:
            return False  # one public key of two workloads: it stays with the first
        self._candidate.key = shown.key
        trusted = self._trusted
        (verdict,) = await self._verifier.authenticate([message])
        if not isinstance(verdict, Authentic) or trusted is not self._trusted:
            return False
        self._shown[digest] = shown
        self._owners[shown.key.key_id] = shown.key.principal
        return True

    def _vouched_for(self, digest: bytes, value: bytes) -> _Shown | None:
        if digest in self._chains:
            self._chains.move_to_end(digest)
            return self._chains[digest]
        try:
            chain = chain_of(value)
            found = _Shown(chain, verified_key(chain, self._trusted, now=self._parts.wall_clock()))
        except (NotVouchedForError, ConfigurationError):
            found = None
        self._chains[digest] = found
        if len(self._chains) > _MOST_CHAINS:
            self._chains.popitem(last=False)
        return found

    def _forget(self, now: float) -> None:
        """Forget keys that ended long ago, and of too many of them those that end first."""
        ends = sorted((shown.key.not_after or 0, digest) for digest, shown in self._shown.items())
        gone = [digest for end, digest in ends if end + self._parts.policy.longest < now]
        per_owner: dict[str, int] = {}
        for _, digest in reversed(ends):
            owner = self._shown[digest].key.principal
            per_owner[owner] = per_owner.get(owner, 0) + 1
            if per_owner[owner] > MOST_OF_ONE:
                gone.append(digest)
        gone += [digest for _, digest in ends[: max(0, len(ends) - MOST)]]
        for digest in gone:
            self._shown.pop(digest, None)
        if gone:
            self._tell()

    def _tell(self) -> None:
        """Let others see what is known now."""
        keys: dict[_Pair, VerificationKey] = {}
        for shown in self._shown.values():
            pair = shown.key.principal, shown.key.key_id
            known = keys.get(pair)
            keys[pair] = shown.key if known is None else _both(known, shown.key)
        self._owners = {key_id: principal for principal, key_id in keys}
        self.known = _Known(tuple(keys.values()), keys, {key.key_id: key for key in keys.values()})


def _both(one: VerificationKey, other: VerificationKey) -> VerificationKey:
    """Return a key for which there are two certificates: of both where the one follows on the other, else the later."""
    first, last = sorted((one, other), key=lambda key: (key.not_after or 0, key.not_before or 0))
    follows = (last.not_before or 0) <= (first.not_after or 0)
    return replace(last, not_before=min(first.not_before or 0, last.not_before or 0)) if follows else last
