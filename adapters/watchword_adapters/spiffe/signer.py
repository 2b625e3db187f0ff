"""Signer ``spiffe``: an agent signs by the key of its X.509-SVID, and changes to each new one before the old one ends.

A new key is of use once readers can know it. So its certificate is announced first, by a thread of its own; once it was
read back from the channel, and has been there for SETTLE seconds, the agent signs by it. The old one goes on to hold
meanwhile: an agent of SPIRE renews at half of a certificate's life.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from concurrent.futures import Future
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.serialization import Encoding

from watchword import ConfigurationError, MemoryKeys, Policy, SigningKey, Unavailable, Watchword
from watchword.extras import what_to_install
from watchword.settings import Duration, Section
from watchword.spi import Audit, MemoryReplayStore, Verifier
from watchword.verifier import Authentic
from watchword_adapters.agent_context import presence_of
from watchword_adapters.background import Background
from watchword_adapters.spiffe.announcing import HEADERS, to_value
from watchword_adapters.spiffe.certificates import NotVouchedForError, trust_domain_of, usable, verified_key
from watchword_adapters.spiffe.source import LATELY, SETTLE, check_stored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spiffe import X509Svid

    from watchword.keys import Algorithm, NamedBackend
    from watchword.spi import Context, KeySwitch, Warn
    from watchword_adapters.agent_context import OpenPresence
    from watchword_adapters.control.presence import PresenceChannel
    from watchword_adapters.spiffe.workload import Workload

EVERY: Final = LATELY / 3
"""Seconds between two announcements of a certificate."""

STORED_WITHIN: Final = 5.0
"""Seconds in which what was announced has to be read back."""

SIGN_LIMIT: Final = 30.0
"""Seconds that a message waits until its key is known to readers."""

_LOOK_EVERY: Final = 0.05
_SHORTEST: Final = 0.2
_LONGEST: Final = 5.0
_TIMEOUT_CEILING: Final = 300.0
_IN_FLIGHT: Final = 7.0
_BRIEFEST: Final = 0.1
"""A key signs no more so many seconds, or this part of its certificate's life, before that ends: what it has signed is
still to be appended, by the broker's clock."""


class Options(Section):
    """``[signer]`` with ``source = "spiffe"``.

    ``socket`` is that of the Workload API, else what SPIFFE_ENDPOINT_SOCKET says. ``timeout`` is how long a start waits
    for an SVID, and then until readers can know it.
    """

    socket: str | None = None
    timeout: Duration = 10.0


def from_options(options: Mapping[str, Any], context: Context) -> SvidSigner:
    """Return the signer that the table describes, which has an SVID."""
    chosen = context.validate(Options, options)
    if not 1.0 <= chosen.timeout <= _TIMEOUT_CEILING:
        raise ConfigurationError(f"timeout of {chosen.timeout:g} s: choose 1 s to {_TIMEOUT_CEILING:g} s")
    principal = context.principal
    if principal is None or trust_domain_of(principal) is None:
        raise ConfigurationError(
            'spiffe: the principal is the SPIFFE ID: write principal = "spiffe://<trust domain>/<path>"'
        )
    presence = presence_of(context)
    try:
        from watchword_adapters.spiffe.workload import Workload  # noqa: PLC0415 - py-spiffe comes with an extra
    except ModuleNotFoundError as error:
        raise ConfigurationError(what_to_install(error) or str(error)) from error
    signer = SvidSigner(
        realm=context.realm,
        principal=principal,
        workload=Workload(chosen.socket, warn=context.warn),
        open_presence=presence,
        policy=context.policy,
        warn=context.warn,
        clock=context.clock,
        timeout=chosen.timeout,
    )
    signer.wait(chosen.timeout)
    return signer


class _Svid:
    """One certificate of ours, its key, and whether readers can know it by now."""

    def __init__(self, svid: X509Svid) -> None:
        self.chain = [one.public_bytes(Encoding.DER) for one in svid.cert_chain]
        usable(svid.private_key.public_key())
        self.key = SigningKey(svid.private_key)
        begin, end = (moment.timestamp() for moment in (svid.leaf.not_valid_before_utc, svid.leaf.not_valid_after_utc))
        self.ends = end - min(_IN_FLIGHT, _BRIEFEST * (end - begin))
        self.known: Future[None] = Future()

    @property
    def key_id(self) -> bytes:
        """See ``NamedBackend``."""
        return self.key.key_id

    @property
    def algorithm(self) -> Algorithm:
        """See ``NamedBackend``."""
        return self.key.algorithm

    async def sign(self, data: bytes) -> bytes:
        """Sign once readers can know the key; Unavailable where that takes too long, or another one came first."""
        try:
            async with asyncio.timeout(SIGN_LIMIT):
                await asyncio.shield(asyncio.wrap_future(self.known))
        except TimeoutError:
            raise Unavailable("signing", "this agent's certificate could not be announced yet") from None
        return self.key.sign_now(data)


class SvidSigner:
    """The key of this process's SVID, whichever that is now; see ``RotatingBackend``.

    Of several SVIDs it is the one whose SPIFFE ID is ``principal``. Where the last one has ended, and no other was
    announced, nothing is signed. ConfigurationError where no SVID comes in ``timeout`` seconds, or it has a key of a
    kind that signs no messages. ``clock`` is in seconds since the epoch.
    """

    def __init__(
        self,
        *,
        realm: str,
        principal: str,
        workload: Workload,
        open_presence: OpenPresence,
        policy: Policy,
        warn: Warn,
        clock: Callable[[], float] = time.time,
        timeout: float = 10.0,
    ) -> None:
        self._realm, self._principal = realm, principal
        self._workload = workload
        self._open_presence = open_presence
        self._skew = policy.max_skew
        self._warn = warn
        self._clock = clock
        self._audit = Audit(clock=clock)
        self._signers: list[KeySwitch] = []
        self._told: str | None = None
        workload.wait(timeout)
        try:
            self._latest = self._ours()
        except NotVouchedForError as error:
            raise ConfigurationError(str(error)) from None
        self._signing: NamedBackend = self._latest  # which waits until it is known
        self._ends = self._latest.ends
        self._lock = threading.Lock()
        self._held: str | None = None
        self._came = asyncio.Event()
        self._thread = Background("watchword-svid", self._announce_each, self._look_after_end)
        workload.listen(self._changed)
        _hold_in_forks(self)

    @property
    def key_id(self) -> bytes:
        """See ``NamedBackend``: of the key that signs now."""
        return self._signing.key_id

    @property
    def algorithm(self) -> Algorithm:
        """See ``NamedBackend``."""
        return self._signing.algorithm

    async def sign(self, data: bytes) -> bytes:
        """See ``SigningBackend``."""
        return await self._signing.sign(data)

    def serve(self, signer: KeySwitch) -> None:
        """See ``RotatingBackend``."""
        with self._lock:
            self._signers.append(signer)
            signer.switch(self._signing)
            signer.hold(self._held, by="identity")

    def wait(self, timeout: float) -> bool:
        """Wait until readers can know the first key, ``timeout`` seconds at most; return whether they can."""
        try:
            self._latest.known.result(timeout)
        except (TimeoutError, Unavailable):
            return False
        return True

    def close(self) -> None:
        """Announce nothing more, and ask for no other SVID."""
        self._workload.close()
        self._thread.close()

    # What the Workload API gives

    def _ours(self) -> _Svid:
        """Return the SVID of our principal; NotVouchedForError where there is none that others would take."""
        given = self._workload.given
        mine = [svid for svid in given.svids if str(svid.spiffe_id) == self._principal]
        if not mine:
            others = ", ".join(sorted(str(svid.spiffe_id) for svid in given.svids))[:255]
            raise NotVouchedForError(f"no SVID of {self._principal!r}: the Workload API gives {others}")
        found = _Svid(mine[0])
        if verified_key(found.chain, given.bundles, now=self._clock()).principal != self._principal:
            raise NotVouchedForError(f"the certificate is not that of {self._principal!r}, letter by letter")
        return found

    def _changed(self) -> None:
        """Take what the Workload API says now; its thread says so."""
        try:
            found = self._ours()
        except (NotVouchedForError, Unavailable) as error:
            self._tell(str(error), "until there is another one the last SVID signs, for as long as it lasts")
            return
        if found.chain != self._latest.chain:
            self._thread.call(self._take, found)

    def _take(self, found: _Svid) -> None:
        latest, self._latest = self._latest, found
        if not latest.known.done():
            latest.known.set_exception(Unavailable("signing", "another certificate came before this one was announced"))
        if self._signing is latest:  # nobody can know it any more
            self._sign_by(found, found)
        self._came.set()

    # The thread

    async def _announce_each(self) -> None:
        while True:
            self._came.clear()
            announcing = asyncio.ensure_future(self._announce(self._latest))
            came = asyncio.ensure_future(self._came.wait())
            try:
                await came
            finally:
                announcing.cancel()
                await asyncio.gather(announcing, return_exceptions=True)

    async def _announce(self, svid: _Svid) -> None:
        """Announce a certificate again and again, and sign by its key once readers can know it."""
        agent = Watchword(
            realm=self._realm, principal=self._principal, key=svid.key, clock=self._clock, audit=self._audit
        )
        pause = _SHORTEST
        while True:
            try:
                async with self._open_presence(agent) as channel:
                    await check_stored(channel)
                    while True:
                        await self._show(svid, channel)
                        if not svid.known.done():
                            await asyncio.sleep(SETTLE)
                            self._sign_by(svid.key, svid)
                            svid.known.set_result(None)
                        pause, self._told = _SHORTEST, None
                        await asyncio.sleep(EVERY)
            except Exception as error:  # noqa: BLE001 - whatever a client raises, it is tried again
                self._tell(f"{type(error).__name__}: {error}", "until then the key before it signs, if it lasts")
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST)

    async def _show(self, svid: _Svid, channel: PresenceChannel) -> None:
        """Announce a certificate, and read it back; ConfigurationError where it was not stored."""
        value, begun = to_value(svid.chain), self._clock()
        await channel.announce(value, HEADERS)
        verifier = Verifier(
            realm=self._realm,
            keys=MemoryKeys([svid.key.verification_key(self._principal)]),
            replay=MemoryReplayStore(horizon=None),
            policy=Policy(max_skew=self._skew),
            clock=self._clock,
        )
        end = time.monotonic() + STORED_WITHIN
        while time.monotonic() < end:
            async with aclosing(channel.read(since=begun - 2 * self._skew - 1.0, listen=0.0)) as coming:
                async for message in coming:
                    if message.value == value and message.appended_at is not None:
                        (verdict,) = await verifier.authenticate([message])
                        if isinstance(verdict, Authentic):
                            return
            await asyncio.sleep(_LOOK_EVERY)
        raise ConfigurationError(f"the certificate was not read back in {STORED_WITHIN:g} s: is the channel full?")

    def _sign_by(self, key: NamedBackend, svid: _Svid) -> None:
        with self._lock:
            self._signing, self._ends = key, svid.ends
            for signer in self._signers:
                signer.switch(key)

    def hold(self, why: str | None) -> None:
        """Have nothing signed for now, and say why; None lets it be signed again."""
        with self._lock:
            self._held = why
            for signer in self._signers:
                signer.hold(why, by="identity")

    async def _look_after_end(self) -> None:
        """Hold the signer once its key ends and no other has come: readers would reject what it signs."""
        while True:
            ended = self._clock() >= self._ends
            self.hold("this agent's SVID has ended, and no newer one could be announced" if ended else None)
            await asyncio.sleep(_SHORTEST)

    def _tell(self, why: str, remedy: str) -> None:
        if why != self._told:
            self._told = why
            self._warn("signer.svid_not_announced", detail=why, remedy=remedy)


def _hold_in_forks(signer: SvidSigner) -> None:
    """Have a forked child sign nothing: there is no thread in it that would change to the next key."""
    known = weakref.ref(signer)

    def hold() -> None:
        found = known()
        if found is not None:
            found._lock = threading.Lock()  # noqa: SLF001 - our own; another thread may have held it when this forked
            found.hold("forked after its SVID was asked for: load the agent in the child")

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=hold)
