"""Key source ``jwks``: a JWK Set or a Web Bot Auth directory over HTTPS, kept through outages for a while.

The set is fetched when keys are asked for, at most once per cool-down, no matter how many unknown keys strangers
invent, and whether or not the last attempt succeeded. Known keys are found in the last set. A look-up waits only if
that set is older than allowed, and not at all while the server is known to be down. So a withdrawn key is refused
within ``check_every``, or sooner if the server says so. After ``keep`` without an answer no key is known.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, Protocol

from pydantic import BeforeValidator, Field, model_validator

from watchword import ConfigurationError, MemoryKeys, Unavailable
from watchword.errors import MAX_CLAIMED
from watchword.jwk import MAX_SET_BYTES, MAX_SET_KEYS, parse_shared_jwks
from watchword.message import is_principal
from watchword.principals import PrincipalIndex
from watchword.settings import Duration, Listed, Principal, Principals, Section, Size
from watchword_adapters.boot_clock import since_boot
from watchword_adapters.keys.https import Https, NotFetchedError, check_url, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    from watchword import VerificationKey
    from watchword.spi import Context, Warn
    from watchword_adapters.keys.https import Fetched

CHECK_EVERY: Final = 300.0
COOL_DOWN: Final = 10.0
KEEP: Final = 3600.0
MAX_SIZE: Final = 1 << 20
MAX_KEYS: Final = 1000

_DAY: Final = 86_400.0
_MOST_TIMEOUT: Final = 30.0
_MOST_REDIRECTS: Final = 5
_AHEAD: Final = 0.8
"""The fraction of its lifetime after which a set is fetched again, while look-ups still use the old one."""


def _hosts(value: object) -> object:
    if isinstance(value, bool) or (isinstance(value, list) and all(isinstance(one, str) for one in value)):
        return value
    raise ValueError('write true, or the names of hosts, such as ["keys.internal"]')


class Options(Section):
    """``[[keys]]`` with ``source = "jwks"``: where the set is, for whom it may speak, and how it is fetched."""

    url: str
    principal: Principal | None = None
    principals: Annotated[list[Principals], Listed] = Field(default_factory=list)
    check_every: Duration = CHECK_EVERY
    cool_down: Duration = COOL_DOWN
    keep: Duration = KEEP
    timeout: Duration = 5.0
    max_size: Size = MAX_SIZE
    max_keys: int = MAX_KEYS
    redirects: int = 0
    allow_private: Annotated[bool | list[str], BeforeValidator(_hosts)] = False
    ca: str | None = None
    proxy: str | None = None

    @model_validator(mode="after")
    def _within(self) -> Self:
        for name, least, most in (("timeout", 0.1, _MOST_TIMEOUT), ("max_size", 1, MAX_SET_BYTES)):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name}: choose {least:g} to {most:g}")
        if not 0 <= self.redirects <= _MOST_REDIRECTS:
            raise ValueError(f"redirects: choose 0 to {_MOST_REDIRECTS}")
        return self


def from_options(options: Mapping[str, Any], context: Context) -> JwksKeys:
    """Return the source that the options describe; nothing is fetched yet."""
    chosen = context.validate(Options, options)
    allowed = chosen.allow_private
    https = Https(
        timeout=chosen.timeout,
        max_size=chosen.max_size,
        redirects=chosen.redirects,
        allow_private=allowed if isinstance(allowed, bool) else frozenset(allowed),
        ca=None if chosen.ca is None else context.directory / chosen.ca,
        proxy=chosen.proxy,
    )
    try:
        https.check(chosen.url)
    except ValueError as error:
        raise ConfigurationError(f"url = {shown(chosen.url)!r}: {error}") from None
    return JwksKeys(
        chosen.url,
        owner=chosen.principal,
        principals=chosen.principals,
        check_every=chosen.check_every,
        cool_down=chosen.cool_down,
        keep=chosen.keep,
        max_keys=chosen.max_keys,
        https=https,
        warn=context.warn,
    )


class Gets(Protocol):
    """Fetches documents; ``Https`` is the only implementation."""

    @property
    def timeout(self) -> float: ...  # noqa: D102 - as there

    def get(self, url: str, *, etag: str | None = None) -> Fetched: ...  # noqa: D102 - as there


class _Held(NamedTuple):
    """The usable keys of a set; ``others`` counts skipped and foreign keys, and names an owner of the latter."""

    keys: tuple[VerificationKey, ...]
    lookup: MemoryKeys
    etag: str | None
    others: tuple[int, int, str | None]


class _Found(NamedTuple):
    """The result of a fetch: a new set, or None if it is unchanged; and for how many seconds it is fresh."""

    held: _Held | None
    max_age: float | None


_NOTHING: Final = _Held((), MemoryKeys(), None, (0, 0, None))


class JwksKeys:
    """Keys in a JWK Set at a URL, of the principals that its server may speak for (docs/keys/jwks.md).

    ``principals`` are patterns; ``owner`` owns the keys without a principal, and is the only principal if there are no
    patterns. For all others ``find`` returns None without a fetch. The set is fetched by a look-up if it is older than
    the server's ``max-age`` or ``check_every`` seconds, or the key is unknown; but not within ``cool_down`` seconds of
    another attempt. If a fetch fails, the last good set is used for ``keep`` seconds since it was last known to be
    current, and a key that is not in it raises Unavailable. ``clock`` returns seconds and must not step back.
    ConfigurationError at construction says what to write.
    """

    def __init__(
        self,
        url: str,
        *,
        owner: str | None = None,
        principals: Sequence[str] = (),
        check_every: float = CHECK_EVERY,
        cool_down: float = COOL_DOWN,
        keep: float = KEEP,
        max_keys: int = MAX_KEYS,
        https: Gets | None = None,
        clock: Callable[[], float] = since_boot,
        warn: Warn | None = None,
    ) -> None:
        try:
            check_url(url)
        except ValueError as error:
            raise ConfigurationError(f"url = {shown(url)!r}: {error}") from None
        self._ours = PrincipalIndex[bool]()
        for pattern in principals or ([] if owner is None else [owner]):
            self._ours.put(pattern, True)  # noqa: FBT003 - a set of patterns
        if not len(self._ours):
            raise ConfigurationError(
                f'{shown(url)}: write whom it may speak for: principals = ["agent://acme/**"], or principal ='
                ' "agent://acme/planner" for the owner of keys without one'
            )
        if owner is not None and not self._speaks_for(owner):
            raise ConfigurationError(f"{shown(url)}: principal {owner!r} is not covered by principals: add it there")
        _in_range("cool_down", cool_down, 1.0, _DAY)
        _in_range("check_every", check_every, cool_down, _DAY)
        _in_range("keep", keep, check_every, 7 * _DAY)
        if not 1 <= max_keys <= MAX_SET_KEYS:
            raise ConfigurationError(f"max_keys of {max_keys}: choose 1 to {MAX_SET_KEYS}")
        self._url = url
        self._owner = owner
        self._check_every = check_every
        self._cool_down = cool_down
        self._keep = keep
        self._max_keys = max_keys
        self._https: Gets = https or Https()
        self._clock = clock
        self._warn = warn
        self._held = _NOTHING
        self._lifetime = 0.0
        self._current = self._begun = self._attempted = -math.inf
        self._fetching: asyncio.Future[_Found] | None = None
        self._failure: str | None = None

    @property
    def keys(self) -> tuple[VerificationKey, ...]:
        """The keys of the last good set."""
        return self._held.keys

    def renew(self) -> None:
        """See ``RenewableKeys``: the next look-up waits for a new fetch, if the cool-down is over."""
        self._lifetime = 0.0

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``; Unavailable if the server cannot be reached to decide."""
        if not self._speaks_for(principal):
            return None
        key = await self._held.lookup.find(principal, key_id)
        is_known, age = key is not None and key.principal == principal, self._age()
        if not is_known or age >= self._lifetime * _AHEAD:
            is_down = self._failure is not None
            await self._look(wait=not is_known or age > self._keep or (age >= self._lifetime and not is_down))
            key = await self._held.lookup.find(principal, key_id)
        if self._failure is not None and (key is None or key.principal != principal):
            raise Unavailable("keys", self._failure)
        if self._age() > self._keep:
            raise Unavailable("keys", self._failure or f"{shown(self._url)}: not fetched for longer than keep")
        return key

    def _speaks_for(self, principal: str) -> bool:
        return next(self._ours.find(principal), None) is not None

    def _age(self) -> float:
        return self._clock() - self._current

    async def _look(self, *, wait: bool) -> None:
        """Fetch the set in another thread if it is time for that; one fetch at a time."""
        loop = asyncio.get_running_loop()
        fetching = self._fetching
        if fetching is None or fetching.get_loop() is not loop:
            if self._clock() - self._attempted < self._cool_down:
                return
            self._begun = self._attempted = self._clock()
            fetching = loop.run_in_executor(None, self._fetch, self._held)
            self._fetching = fetching
            fetching.add_done_callback(self._take)
        if wait:
            left = self._begun + self._https.timeout - self._clock()
            _, waiting = await asyncio.wait([fetching], timeout=max(0.0, left))
            if waiting:  # a name server may be slower than any limit of ours
                self._failed(f"{shown(self._url)}: takes longer than {self._https.timeout:g} s")

    def _fetch(self, held: _Held) -> _Found:
        """Fetch the set; NotFetchedError, or ConfigurationError if it is invalid."""
        answer = self._https.get(self._url, etag=held.etag)
        if answer.body is None:
            return _Found(None, answer.max_age)
        try:
            read = parse_shared_jwks(answer.body, owner=self._owner, most=self._max_keys, speaks_for=self._speaks_for)
            lookup = MemoryKeys(read.keys)
        except ConfigurationError as error:
            raise ConfigurationError(f"{shown(self._url)}: {error}") from None
        claimed = min(filter(is_principal, read.foreign), default=None)
        others = read.passed_over, len(read.foreign), claimed
        return _Found(_Held(tuple(read.keys), lookup, answer.etag, others), answer.max_age)

    def _take(self, fetching: asyncio.Future[_Found]) -> None:
        if fetching is not self._fetching:  # started in an event loop that has ended since
            return
        self._fetching = None
        self._attempted = self._clock()
        if fetching.cancelled():
            return
        error = fetching.exception()
        if error is not None:
            is_ours = isinstance(error, NotFetchedError | ConfigurationError)
            self._failed(str(error) if is_ours else f"{shown(self._url)}: {type(error).__name__}")
            return
        held, max_age = fetching.result()
        self._current = self._begun
        if max_age is not None or held is not None:  # otherwise the earlier max-age of this set still applies
            self._lifetime = self._check_every if max_age is None else min(max_age, self._check_every)
        self._failure = None
        if held is not None:
            if held.others != self._held.others:
                self._warn_of_others(*held.others)
            self._held = held

    def _failed(self, failure: str) -> None:
        if failure != self._failure and self._warn is not None:
            self._warn("keys.jwks_not_fetched", failure=failure, kept_keys=len(self._held.keys))
        self._failure = failure

    def _warn_of_others(self, of_another_kind: int, of_others: int, claimed: str | None) -> None:
        if self._warn is not None and (of_another_kind or of_others):
            self._warn(
                "keys.jwks_passed_over",
                url=shown(self._url),
                of_another_kind=of_another_kind,
                of_principals_not_named=of_others,
                claimed_principal=None if claimed is None else claimed[:MAX_CLAIMED],
            )


def _in_range(name: str, value: float, least: float, most: float) -> None:
    if not (math.isfinite(value) and least <= value <= most):
        raise ConfigurationError(f"{name} of {value:g} s: choose {least:g} s to {most:g} s")
