"""Signer ``spiffe``: signs with the key of the agent's X.509-SVID, and switches to each new one before the old ends.

A new key is useful only once readers know it. Its certificate is therefore announced first, by a separate thread; once
it was read back from the channel, and SETTLE seconds have passed, the agent signs with it. The old one stays valid
meanwhile: a SPIRE agent renews at half of a certificate's lifetime.
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
from watchword.endings import delay_after
from watchword.extras import what_to_install
from watchword.settings import Duration, Section
from watchword.spi import Audit, MemoryReplayStore, Verifier
from watchword.verifier import Authentic
from watchword_adapters.agent_context import presence_of
from watchword_adapters.background import Background
from watchword_adapters.spiffe.announcing import HEADERS, to_value
from watchword_adapters.spiffe.certificates import NotVouchedForError, trust_domain_of, verified_key
from watchword_adapters.spiffe.source import LATELY, SETTLE, check_stored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cryptography.x509 import Certificate
    from spiffe import X509Svid

    from watchword.algorithms import Algorithm
    from watchword.keys import NamedBackend
    from watchword.spi import Context, KeySwitch, Warn
    from watchword_adapters.agent_context import OpenPresence
    from watchword_adapters.control.presence import PresenceChannel
    from watchword_adapters.spiffe.workload import Workload

EVERY: Final = LATELY / 3
"""Seconds between two announcements of a certificate."""

STORED_WITHIN: Final = 5.0
"""Seconds within which an announcement must be read back."""

SIGN_LIMIT: Final = 30.0
"""Longest wait of a message until readers know its key, in seconds."""

_LOOK_EVERY: Final = 0.05
_SHORTEST: Final = 0.2
_LONGEST: Final = 5.0
_TIMEOUT_CEILING: Final = 300.0
_IN_FLIGHT: Final = 7.0
_BRIEFEST: Final = 0.1
"""A key stops signing this many seconds, or this part of its certificate's lifetime, before the end: its last messages
are still to be appended, by the broker's clock."""


class Options(Section):
    """``[signer]`` with ``source = "spiffe"``.

    ``socket`` is that of the Workload API, by default SPIFFE_ENDPOINT_SOCKET. ``timeout`` is how long a start waits for
    an SVID, and then until readers know it.
    """

    socket: str | None = None
    timeout: Duration = 10.0


def from_options(options: Mapping[str, Any], context: Context) -> SvidSigner:
    """Return the signer described by the table, once it has an SVID."""
    chosen = context.validate(Options, options)
    if not 1.0 <= chosen.timeout <= _TIMEOUT_CEILING:
        raise ConfigurationError(f"timeout of {chosen.timeout:g} s: write 1 s to {_TIMEOUT_CEILING:g} s")
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
    """One of the agent's certificates, its key, and a future that completes once readers know it.

    ``seen`` is the key as readers see it. NotVouchedForError if ``bundles`` do not vouch for it.
    """

    def __init__(self, svid: X509Svid, bundles: Mapping[str, Sequence[Certificate]], *, now: float) -> None:
        self.chain = [one.public_bytes(Encoding.DER) for one in svid.cert_chain]
        self.seen = verified_key(self.chain, bundles, now=now)
        if svid.private_key.public_key() != svid.leaf.public_key():
            raise NotVouchedForError(
                "the SVID's private key is not that of its certificate: readers would reject what it signs; is the"
                " Workload API at socket the right one?"
            )
        self.key = SigningKey(svid.private_key)
        begin, end = (moment.timestamp() for moment in (svid.leaf.not_valid_before_utc, svid.leaf.not_valid_after_utc))
        self.begins = float(self.seen.not_before or 0)
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
        """Sign once readers know the key; Unavailable if that takes too long, or another certificate comes first."""
        try:
            async with asyncio.timeout(SIGN_LIMIT):
                await asyncio.shield(asyncio.wrap_future(self.known))
        except TimeoutError:
            raise Unavailable("signing", "this agent's certificate could not be announced yet") from None
        return self.key.sign_now(data)


class SvidSigner:
    """The key of this process's current SVID; see ``RotatingBackend``.

    Of several SVIDs it uses the one whose SPIFFE ID is ``principal``. If the last one has ended and no other was
    announced, nothing is signed. ConfigurationError if no SVID arrives within ``timeout`` seconds, or its key is of a
    kind that cannot sign messages. ``clock`` is in seconds since the epoch.
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
        self._signing: NamedBackend = self._latest  # which waits until readers know it
        self._ends = self._latest.ends
        self._lock = threading.Lock()
        self._held: str | None = None
        self._came = asyncio.Event()
        self._thread = Background("watchword-svid", self._announce_each, self._look_after_end)
        workload.listen(self._changed)
        _hold_in_forks(self)

    @property
    def key_id(self) -> bytes:
        """See ``NamedBackend``: the id of the current key."""
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
        """Wait at most ``timeout`` seconds until readers know the first key; return True if they do."""
        try:
            self._latest.known.result(timeout)
        except (TimeoutError, Unavailable):
            return False
        return True

    def close(self) -> None:
        """Stop announcing, and close the Workload API."""
        self._workload.close()
        self._thread.close()

    # Updates from the Workload API

    def _ours(self) -> _Svid:
        """Return our principal's SVID; NotVouchedForError if there is none that readers would accept."""
        given = self._workload.given
        mine = [svid for svid in given.svids if str(svid.spiffe_id) == self._principal]
        if not mine:
            others = ", ".join(sorted(str(svid.spiffe_id) for svid in given.svids))[:255]
            raise NotVouchedForError(f"no SVID of {self._principal!r}: the Workload API gives {others}")
        found = _Svid(mine[0], given.bundles, now=self._clock())
        if found.seen.principal != self._principal:
            raise NotVouchedForError(f"the certificate's SPIFFE ID is not exactly {self._principal!r}")
        return found

    def _changed(self) -> None:
        """Handle an update of the Workload API, in its thread."""
        try:
            found = self._ours()
        except (NotVouchedForError, Unavailable) as error:
            self._tell(str(error), "the last SVID keeps signing until it ends, or another one arrives")
            return
        if found.chain != self._latest.chain:
            self._thread.call(self._take, found)

    def _take(self, found: _Svid) -> None:
        latest, self._latest = self._latest, found
        if not latest.known.done():
            latest.known.set_exception(Unavailable("signing", "a new certificate came before this one was announced"))
        if self._signing is latest:  # readers can no longer learn it
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
        """Announce a certificate repeatedly, and sign with its key once readers know it."""
        agent = Watchword(
            realm=self._realm, principal=self._principal, key=svid.key, clock=self._clock, audit=self._audit
        )
        failures = 0
        while True:
            try:
                async with self._open_presence(agent) as channel:
                    await check_stored(channel)
                    while True:
                        await self._while_not_valid(svid)
                        await self._show(svid, channel)
                        if not svid.known.done():
                            await asyncio.sleep(SETTLE)
                            self._sign_by(svid.key, svid)
                            svid.known.set_result(None)
                        failures, self._told = 0, None
                        await asyncio.sleep(EVERY)
            except Exception as error:  # noqa: BLE001 - any error of a client is retried
                self._tell(f"{type(error).__name__}: {error}", "until then the previous key signs, while it is valid")
                await asyncio.sleep(delay_after(failures, _SHORTEST, _LONGEST))
                failures += 1

    async def _while_not_valid(self, svid: _Svid) -> None:
        """Wait as long as readers would pass an announcement over: before the certificate begins, and after its end."""
        left = svid.begins - self._clock()
        if left > 0:
            self._tell(f"it begins in {left:.0f} s", "until then the previous key signs, while it is valid")
        while not svid.begins <= self._clock() < svid.ends:  # noqa: ASYNC110 - a clock that may be set meanwhile
            await asyncio.sleep(_SHORTEST)

    async def _show(self, svid: _Svid, channel: PresenceChannel) -> None:
        """Announce a certificate, and read it back; ConfigurationError if it was not stored."""
        value, begun = to_value(svid.chain), self._clock()
        await channel.announce(value, HEADERS)
        verifier = Verifier(
            realm=self._realm,
            keys=MemoryKeys([svid.seen]),  # so what the broker stamped before the certificate's begin does not count
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
        raise ConfigurationError(
            f"the certificate was not read back in {STORED_WITHIN:g} s: is the channel full, or the broker's clock"
            " behind?"
        )

    def _sign_by(self, key: NamedBackend, svid: _Svid) -> None:
        with self._lock:
            self._signing, self._ends = key, svid.ends
            for signer in self._signers:
                signer.switch(key)

    def hold(self, why: str | None) -> None:
        """Suspend signing, with the reason; None resumes it."""
        with self._lock:
            self._held = why
            for signer in self._signers:
                signer.hold(why, by="identity")

    async def _look_after_end(self) -> None:
        """Suspend signing once the key ends and there is no other: readers would reject its messages."""
        while True:
            ended = self._clock() >= self._ends
            self.hold("this agent's SVID has ended, and no newer one could be announced" if ended else None)
            await asyncio.sleep(_SHORTEST)

    def _tell(self, why: str, remedy: str) -> None:
        if why != self._told:
            self._told = why
            self._warn("signer.svid_not_announced", detail=why, remedy=remedy)


def _hold_in_forks(signer: SvidSigner) -> None:
    """Suspend signing in a forked child, which has no thread to switch to the next key."""
    known = weakref.ref(signer)

    def hold() -> None:
        found = known()
        if found is not None:
            found._lock = threading.Lock()  # noqa: SLF001 - our own; another thread may have held it during the fork
            found.hold("forked after its SVID was asked for: load the agent in the child")

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=hold)
