"""Key source ``spiffe``: keys of workloads, from the certificates that they announce on the presence channel.

A separate thread reads the channel: the latest announcements, then the rest of the day, and from then on new ones,
every few seconds and whenever an unknown key is looked up. One reading serves all look-ups within a second: an agent
signs with a new key only SETTLE seconds after its certificate was stored, so a reader that has read the channel to its
end since then knows the key.
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
from datetime import UTC, datetime
from hashlib import sha256
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, TypeAlias

from watchword import ConfigurationError, Mode, Policy, Unavailable, Watchword
from watchword.endings import delay_after
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
"""Seconds between the storing of an agent's certificate and the first message that it signs with that key."""

FRESH: Final = 1.0
"""Seconds for which one reading to the end answers for all unknown keys; less than SETTLE."""

CHECK_FLOOR: Final = 0.05
CHECK_CEILING: Final = 60.0

LATELY: Final = 900.0
"""Seconds within which each agent announces its certificate again."""

A_DAY: Final = 86_400.0

READ_LIMIT: Final = 5.0
"""Longest wait of a message for the presence channel, in seconds."""

MOST: Final = 20_000
"""Most keys that are stored, of all workloads."""

MOST_OF_ONE: Final = 1000
"""Most keys that are stored of one SPIFFE ID; of more, those that end first are dropped."""

MOST_CHAINS: Final = 4096
"""Most checked chains without an announcement by their own key that are cached, since anyone may show them again."""

PUBLISH_EVERY: Final = 0.25
"""Seconds of a long reading after which the keys found so far are made known."""

_SHORTEST: Final = 0.1
_LONGEST: Final = 5.0

_Pair: TypeAlias = tuple[str, bytes]


class Options(Section):
    """``[[keys]]`` with ``source = "spiffe"``; paths are relative to the settings file.

    ``bundles`` are PEM files by trust domain. Alternatively, ``trust_domains`` are those whose bundles the Workload API
    provides, at ``socket`` or SPIFFE_ENDPOINT_SOCKET. Channel and files are checked every ``check_every``.
    """

    bundles: dict[str, str] | None = None
    trust_domains: Annotated[tuple[str, ...], Listed] = ()
    socket: str | None = None
    check_every: Duration = 5.0
    max_staleness: Duration = 3600.0


def from_options(options: Mapping[str, Any], context: Context) -> SpiffeKeys:
    """Return the source described by the table."""
    chosen = context.validate(Options, options)
    presence = presence_of(context)
    bundles: Bundles
    if chosen.bundles is not None and chosen.trust_domains:
        raise ConfigurationError("spiffe: write bundles or trust_domains, not both in one [[keys]] table")
    if chosen.bundles is None and not chosen.trust_domains:
        raise ConfigurationError(
            'spiffe: whose workloads? write trust_domains = ["acme.example"], or [keys.bundles] with "acme.example" ='
            ' "bundle.pem"'
        )
    if chosen.bundles is not None:
        if chosen.socket is not None or not chosen.bundles:
            raise ConfigurationError("spiffe: write socket only with trust_domains, and at least one file in bundles")
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
    now = datetime.fromtimestamp(context.clock(), UTC)
    for domain, authorities in bundles.by_domain.items():
        if authorities and all(one.not_valid_after_utc <= now for one in authorities):
            context.warn(
                "keys.bundle_ended",
                trust_domain=domain,
                remedy="only messages of the past verify: give readers the bundle of today",
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
    """Keys of workloads whose certificates chain to ``bundles`` and were announced on the channel by their own key.

    Known keys stay available while the channel is out of reach; unknown ones are then Unavailable. When an authority
    leaves its bundle, everything that it issued is dropped. Ended keys are kept for as long as ``policy`` lets a reader
    lag: what they signed may be read later. ``wall_clock`` is in seconds since the epoch; ``clock`` is in seconds and
    never steps back.
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
                f"check_every of {check_every:g} s: write {CHECK_FLOOR:g} s to {CHECK_CEILING:g} s"
            )
        self._parts = _Parts(realm, bundles, open_presence, policy, warn, check_every, wall_clock, clock)
        self._bundles, self._clock = bundles, clock
        self._reading: _Reading | None = None
        self._lock = threading.Lock()
        bundles.listen(self._changed)

    @property
    def keys(self) -> tuple[VerificationKey, ...]:
        """The currently known keys."""
        reading = self._reading
        return () if reading is None else reading.known.keys

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``; Unavailable if channel or bundles are out of reach."""
        if not self._bundles.by_domain.get(trust_domain_of(principal) or ""):
            return None  # no certificate could vouch for it
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
        """Stop reading."""
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
    """Raise ConfigurationError if the bus stores no announcements: later readers need the certificate, too."""
    if not await channel.stores():
        raise ConfigurationError(
            "announcements are not stored, or this user may not ask: 'watchword control init' sets that up"
        )


class _Parts(NamedTuple):
    """The dependencies of a reading; see SpiffeKeys."""

    realm: str
    bundles: Bundles
    open_presence: OpenPresence
    policy: Policy
    warn: Warn
    check_every: float
    wall_clock: Callable[[], float]
    clock: Callable[[], float]


class _Known(NamedTuple):
    """An immutable snapshot of the keys, which other threads may read while the next one is built."""

    keys: tuple[VerificationKey, ...] = ()
    by_pair: Mapping[_Pair, VerificationKey] = {}
    by_id: Mapping[bytes, VerificationKey] = {}


class _Shown(NamedTuple):
    """A chain that was announced by its own key, and that key."""

    chain: list[bytes]
    key: VerificationKey


class _Candidate:
    """The only key that may have signed an announcement: the certificate's own."""

    key: VerificationKey | None = None

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        del principal, key_id
        return self.key


class _Reading:
    """Reads the presence channel in a separate thread, until the process ends.

    ``known`` is the result so far. ``read_at`` is the start of the last reading that reached the end of the channel,
    including the whole day before it.
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
        """Why the channel cannot be read; None while it can, or is being opened."""
        if self._told is not None:
            return self._told
        lost_at = self._lost_at
        return None if lost_at is None or self._parts.clock() - lost_at < READ_LIMIT else "no connection"

    def ask(self, pair: _Pair) -> Future[VerificationKey | None]:
        """Read the channel to its end; return a future of the principal's key with this id, or of None."""
        answer: Future[VerificationKey | None] = Future()
        self._thread.call(self._asked, pair, answer)
        return answer

    def look_at_bundles(self) -> None:
        """Check the bundles for changes; may be called from any thread."""
        self._thread.call(self._wake_watch.set)

    def close(self) -> None:
        """Stop reading."""
        self._thread.close()

    def _asked(self, pair: _Pair, answer: Future[VerificationKey | None]) -> None:
        self._waiting.append((pair, answer))
        self._answer(0, is_final=False)  # it may be known by now
        self._wake.set()

    async def _watch(self) -> None:
        """Follow the bundles even if the channel cannot be read: a removed authority takes effect at once."""
        while True:
            self._wake_watch.clear()
            with suppress(Unavailable):  # this is a fork of the process that connected to the Workload API
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
        failures = 0
        while True:
            try:
                async with self._parts.open_presence(agent) as channel:
                    await check_stored(channel)
                    while True:
                        await self._look(channel)
                        failures, self._told, self._lost_at = 0, None, None
                        await self._pause(self._wake)
            except Exception as error:  # noqa: BLE001 - any error of a client is retried
                self._failed(f"{type(error).__name__}: {error}")
                await asyncio.sleep(delay_after(failures, _SHORTEST, _LONGEST))
                failures += 1

    def _failed(self, why: str) -> None:
        if why != self._told:
            self._parts.warn(
                "keys.presence_not_read", failure=why, remedy="until it can be read, known keys stay valid"
            )
        self._told, self._lost_at = why, self._parts.clock()
        waiting, self._waiting = self._waiting, []
        for _, answer in waiting:
            if answer.set_running_or_notify_cancel():
                answer.set_exception(Unavailable("keys", f"the presence channel cannot be read: {why}"))

    async def _look(self, channel: PresenceChannel) -> None:
        """Read new announcements to the end, and complete the look-ups that were made before."""
        self._wake.clear()
        begun, asked, trusted = self._parts.clock(), len(self._waiting), self._trusted
        now = self._parts.wall_clock()
        if not self._has_lately:
            await self._take_all(channel, now - LATELY)
            self._has_lately = True
            self._answer(asked, is_final=False)
        since = self._newest - 2 * self._skew - 1.0 if self._has_day else -inf
        await self._take_all(channel, max(since, now - A_DAY))
        self._forget(now)
        if trusted is self._trusted:  # otherwise part of it was checked against other bundles, and is read again
            self._has_day, self.read_at = True, begun
            self._answer(asked, is_final=True)

    def _answer(self, asked: int, *, is_final: bool) -> None:
        """Complete look-ups of known keys, and, if ``is_final``, the first ``asked`` ones with None."""
        left: list[tuple[_Pair, Future[VerificationKey | None]]] = []
        for at, (pair, answer) in enumerate(self._waiting):
            key = self.known.by_pair.get(pair)
            if key is None and not (is_final and at < asked):
                left.append((pair, answer))
            elif answer.set_running_or_notify_cancel():
                answer.set_result(key)
        self._waiting = left

    def _trust(self, bundles: Mapping[str, Sequence[Any]]) -> None:
        """Check all chains against new bundles: some keys are dropped, and others may be added."""
        self._trusted = bundles
        self._chains.clear()
        self._has_lately = self._has_day = False
        self.read_at = -inf
        now, still = self._parts.wall_clock(), dict[bytes, _Shown]()
        for digest, shown in self._shown.items():
            with suppress(NotVouchedForError):
                still[digest] = _Shown(shown.chain, verified_key(shown.chain, bundles, now=now))
        self._shown = still
        self._publish()

    async def _take_all(self, channel: PresenceChannel, since: float) -> None:
        changed, published_at = False, self._parts.clock()
        async with aclosing(channel.read(since=since, listen=0.0)) as coming:
            async for message in coming:
                self._newest = max(self._newest, message.appended_at or -inf)
                if message.appended_at is not None and is_of_type(message, SVID_CONTENT_TYPE):
                    changed |= await self._take(message)
                if changed and self._parts.clock() - published_at >= PUBLISH_EVERY:  # a flood may follow
                    changed, published_at = False, self._parts.clock()
                    self._publish()
                    self._answer(0, is_final=False)
        if changed:
            self._publish()

    async def _take(self, message: Message) -> bool:
        """Accept a certificate announced by its own key; return True if it is new."""
        value = message.value or b""
        digest = sha256(value).digest()
        if digest in self._shown:
            return False
        shown = self._vouched_for(digest, value)
        if shown is None:
            return False
        if self._owners.get(shown.key.key_id, shown.key.principal) != shown.key.principal:
            return False  # a public key of two workloads belongs to the first
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
        if len(self._chains) > MOST_CHAINS:
            self._chains.popitem(last=False)
        return found

    def _forget(self, now: float) -> None:
        """Drop keys that ended long ago, and those that end first if there are too many."""
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
            self._publish()

    def _publish(self) -> None:
        """Publish a new snapshot of the keys."""
        keys: dict[_Pair, VerificationKey] = {}
        for shown in self._shown.values():
            pair = shown.key.principal, shown.key.key_id
            known = keys.get(pair)
            keys[pair] = shown.key if known is None else _both(known, shown.key)
        self._owners = {key_id: principal for principal, key_id in keys}
        self.known = _Known(tuple(keys.values()), keys, {key.key_id: key for key in keys.values()})


def _both(one: VerificationKey, other: VerificationKey) -> VerificationKey:
    """Return a key with two certificates: for both periods if they are contiguous, else for the later one."""
    first, last = sorted((one, other), key=lambda key: (key.not_after or 0, key.not_before or 0))
    follows = (last.not_before or 0) <= (first.not_after or 0)
    return replace(last, not_before=min(first.not_before or 0, last.not_before or 0)) if follows else last
