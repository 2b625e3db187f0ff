"""From ``watchword.toml`` to a ``Watchword``: ``load(path)`` is what most programs need."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import ValidationError

from watchword import ConfigurationError, Mode, SigningKey, Watchword
from watchword.extras import what_to_install
from watchword.mistakes import explain
from watchword.signer import BATCH
from watchword.spi import Audit, Context, KeyChain, NamedBackend
from watchword_adapters import plugins
from watchword_adapters.keys.files import FileKeys
from watchword_adapters.settings_changes import changes
from watchword_adapters.settings_file import read_text, settings_of
from watchword_adapters.settings_watch import Change, SettingsWatch
from watchword_adapters.stores.journal import FileJournal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from watchword.settings import Address, Settings, SignerSettings
    from watchword.spi import KeySource, ReplayStore, Warn

_READ_ONCE: Final = ("realm", "principal", "signer", "replay", "quarantine", "telemetry")
"""Tables that hold after a restart only; of the signer, the file with its key is followed."""

_SIMILAR: Final = 0.8
_NAMED: Final = 10
"""Unknown principals that a warning names."""


def load(
    path: str | Path = "watchword.toml",
    *,
    clock: Callable[[], float] = time.time,
    replay: ReplayStore | None = None,
    warn: Warn | None = None,
    telemetry: bool = True,
) -> Watchword:
    """Read the settings file at ``path`` and the environment, and return what plugs into the clients.

    It follows the file: policy, key sources and the signer's key change within five seconds, or at once by its
    ``reload()``. ``clock`` returns seconds since the epoch. ``replay`` takes the place of ``[replay] store``, ``warn``
    that of the audit trail for warnings about the set-up. ``[telemetry]`` is passed over unless ``telemetry``.
    ConfigurationError is one line that says what to write.
    """
    path = Path(path)
    text = read_text(path)
    settings = settings_of(text, path)
    with _led_by(path):
        made, context = _build(settings, directory=path.parent, clock=clock, replay=replay, warn=warn)
        if telemetry and settings.telemetry is not None:
            _measure(made.agent, settings.to_endpoint())
    agent = made.agent
    agent.follow(SettingsWatch(agent, _SettingsFile(path, text, made, context)))
    return agent


def build(
    settings: Settings,
    *,
    directory: Path,
    clock: Callable[[], float] = time.time,
    replay: ReplayStore | None = None,
    warn: Warn | None = None,
) -> Watchword:
    """Make a ``Watchword`` of settings whose relative paths start from ``directory``; it follows no file."""
    return _build(settings, directory=directory, clock=clock, replay=replay, warn=warn)[0].agent


class _Made(NamedTuple):
    """What settings became."""

    agent: Watchword
    settings: Settings
    sources: list[KeySource]
    key: NamedBackend | None


def _build(
    settings: Settings,
    *,
    directory: Path,
    clock: Callable[[], float],
    replay: ReplayStore | None,
    warn: Warn | None,
) -> tuple[_Made, Context]:
    policy = settings.to_policy()
    audit = Audit(clock=clock)
    context = Context(realm=settings.realm, directory=directory, clock=clock, policy=policy, warn=warn or audit.warn)
    key = None if settings.signer is None else _signing_key(settings.signer, context)
    sources = _key_sources(settings, context)
    if not sources and key is None and policy.mode is not Mode.OBSERVE:
        raise ConfigurationError('keys: none; add [[keys]] with source = "files" and paths = ["agents.jwks"]')
    if replay is None:
        store = settings.replay.store
        replay = _made(plugins.REPLAY_STORES, store, "replay", "store", settings.replay.options, context)
    _check_owners(settings.principal, sources, key)
    _check_names(settings, sources, context)
    agent = Watchword(
        realm=settings.realm,
        principal=settings.principal,
        key=key,
        keys=_all_of(sources),
        policy=policy,
        replay=replay,
        journal=journal_of(settings, context),
        clock=clock,
        batch=BATCH if settings.signer is None else settings.signer.batch,
        audit=audit,
        quarantine=settings.to_quarantine(),
    )
    return _Made(agent, settings, sources, key), context


def _measure(agent: Watchword, address: Address | None) -> None:
    """Measure an agent, and serve what is found if there is an address to."""
    provider = None
    try:
        if address is not None:
            from watchword_adapters.telemetry.endpoint import Endpoint  # noqa: PLC0415 - comes with an extra

            provider = Endpoint(address).provider
        from watchword_adapters.telemetry.metrics import Telemetry  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        extra = "telemetry" if address is None else "prometheus"
        raise ConfigurationError(f"telemetry: {what_to_install(error, extra) or error}") from error
    Telemetry(provider).follow(agent)


class _SettingsFile:
    """See ``Source``: the settings file, and the private key that it names."""

    def __init__(self, path: Path, text: bytes, made: _Made, context: Context) -> None:
        self._path = path
        self._text = text
        self._made = made
        self._context = context
        self._first = made.settings
        self._mistake: str | None = None

    def read(self, *, again: bool) -> Change | None:
        """See ``Source``."""
        try:
            with _led_by(self._path):
                return self._changed(again=again)
        except ConfigurationError as error:
            if str(error) == self._mistake and not again:
                return None
            self._mistake = str(error)
            raise

    def _changed(self, *, again: bool) -> Change | None:
        made = self._made
        text, new_key = read_text(self._path), self._new_key()
        if text == self._text and new_key is None and not again:
            self._mistake = None
            return None
        settings = settings_of(text, self._path)
        context, key = replace(self._context, policy=settings.to_policy()), new_key or made.key
        same = settings.keys == made.settings.keys and not again
        sources = made.sources if same else _key_sources(settings, context)
        _check_owners(settings.principal, sources, key)
        _check_names(settings, sources, context)
        later = tuple(name for name in _READ_ONCE if getattr(settings, name) != getattr(self._first, name))
        told = [*changes(made.settings, settings), *([] if new_key is None else ["signer's key"])]
        self._text, self._made, self._mistake = text, _Made(made.agent, settings, sources, key), None
        return Change(context.policy, _all_of(sources), new_key, later, ", ".join(told) or "nothing")

    def _new_key(self) -> SigningKey | None:
        """Return the key that stands in the signer's file now, if it is another one."""
        signer, known = self._first.signer, self._made.key
        if signer is None or signer.source != "file" or not isinstance(known, SigningKey):
            return None
        found = _signing_key(signer, replace(self._context, warn=lambda *_, **__: None))  # the start has warned
        return found if isinstance(found, SigningKey) and found.public != known.public else None


@contextmanager
def _led_by(path: Path) -> Iterator[None]:
    """Let errors begin with the file's name."""
    try:
        yield
    except ConfigurationError as error:
        text = str(error)
        raise ConfigurationError(text if text.startswith(str(path)) else f"{path}: {text}") from error.__cause__


def journal_of(settings: Settings, context: Context) -> FileJournal | None:
    """Return what this principal keeps on this machine, for what enforces now or will; None for ``state = ""``."""
    if not settings.replay.state:
        return None
    return FileJournal(
        context.directory / settings.replay.state,
        realm=settings.realm,
        principal=settings.principal,
        policy=context.policy,
        clock=context.clock,
        warn=context.warn,
        required="state" in settings.replay.model_fields_set and context.policy.mode is not Mode.OBSERVE,
    )


def _signing_key(chosen: SignerSettings, context: Context) -> NamedBackend:
    key = _made(plugins.SIGNERS, chosen.source, "signer", "source", chosen.options, context)
    if not isinstance(key, NamedBackend):
        raise ConfigurationError(f'signer.source = "{chosen.source}": the plug-in gave no key_id and algorithm')
    return key


def _key_sources(settings: Settings, context: Context) -> list[KeySource]:
    return [
        _made(plugins.KEY_SOURCES, chosen.source, f"keys[{number}]", "source", chosen.options, context)
        for number, chosen in enumerate(settings.keys)
    ]


def _all_of(sources: list[KeySource]) -> KeySource | None:
    """Return one source for all; None where there are none, for then this process only signs, or only observes."""
    return KeyChain(sources) if len(sources) > 1 else next(iter(sources), None)


def _made(  # noqa: PLR0917 - one row of a table
    group: str, name: str, table: str, field: str, options: Mapping[str, Any], context: Context
) -> Any:
    """Let the plug-in make what the settings name; its mistakes are told like ours."""
    factory = plugins.find(group, name, where=f"{table}.{field}")
    try:
        return factory(options, context)
    except ValidationError as error:
        raise ConfigurationError(f"{table}: {explain(error)}") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{table}: {error}") from error.__cause__


def _check_owners(principal: str | None, sources: Iterable[KeySource], key: NamedBackend | None) -> None:
    """Refuse a public key that two principals own: within a source the source sees it, between sources nobody else."""
    own = key.verification_key(principal) if isinstance(key, SigningKey) and principal is not None else None
    owners = {} if own is None else {own.public_bytes: own.principal}
    for source in sources:
        for found in source.keys if isinstance(source, FileKeys) else ():
            owner = owners.setdefault(found.public_bytes, found.principal)
            if owner != found.principal:
                raise ConfigurationError(
                    f"keys: one public key for {owner!r} and {found.principal!r}: give each its own"
                )


def _check_names(settings: Settings, sources: Iterable[KeySource], context: Context) -> None:
    """Warn of principals in the policy that have no key; refuse one that lacks nothing but its scheme.

    It is not said of whom a plug-in may know a key.
    """
    known: set[str] = set()
    for source in sources:
        if not isinstance(source, FileKeys):
            return
        known |= {key.principal for key in source.keys}
    # Found at once: a set may have 20,000 keys, and the policy as many rules.
    without_scheme = dict[str, str]()
    for one in sorted(known, reverse=True):
        for scheme in re.finditer("://", one):
            without_scheme[one[scheme.end() :]] = one
    policy = settings.policy
    for table, names in (("contained", policy.contained), ("allow", [rule.principal for rule in policy.allow])):
        unknown = list[str]()
        for number, name in enumerate(names):
            if name in known:
                continue
            if name in without_scheme:
                whole = without_scheme[name]
                raise ConfigurationError(f"policy.{table}[{number}]: {name!r} has no key; write {whole!r}, which has")
            unknown.append(name)
        if unknown and known:
            context.warn(
                "policy.unknown_principals",
                setting=f"policy.{table}",
                principals=_told(list(dict.fromkeys(unknown)), known),
                remedy="write them as in the key files, or publish their keys there",
            )


def _told(unknown: list[str], known: set[str]) -> str:
    """Name those that are unknown, with what may have been meant; of many the first ones, for to guess takes time."""
    told = []
    for name in unknown[:_NAMED]:
        similar = get_close_matches(name, known, 1, _SIMILAR)
        told.append(f"{name!r} (did you mean {similar[0]!r}?)" if similar else repr(name))
    more = len(unknown) - len(told)
    return ", ".join(told) + (f" and {more} more" if more else "")
