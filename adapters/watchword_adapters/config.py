"""Builds a ``Watchword`` from ``watchword.toml``, and applies later changes of the file; most programs call ``load``.

It creates the key sources, the signer and the replay store through plug-ins. The clients are connected elsewhere.
"""

from __future__ import annotations

import math
import re
import time
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, runtime_checkable

from pydantic import ValidationError

from watchword import ConfigurationError, MemoryKeys, Mode, SigningKey, Unavailable, Watchword
from watchword.control import Control
from watchword.extras import what_to_install
from watchword.keys import listed, public_half
from watchword.mistakes import explain
from watchword.patterns import TokenTree
from watchword.settings import ControlSettings, KafkaSettings, NatsSettings, SignerSettings
from watchword.spi import Audit, Context, KeyChain, NamedBackend, RenewableKeys, RotatingBackend, ShownBackend
from watchword.trust import Trust
from watchword_adapters import plugins
from watchword_adapters.agent_context import AgentContext
from watchword_adapters.bus_options import kafka_options, nats_options
from watchword_adapters.control.following import Parts
from watchword_adapters.control.keys import ControlKeys
from watchword_adapters.control.presence import Announcer
from watchword_adapters.control.state import StateFile
from watchword_adapters.control.thread import FollowerThread
from watchword_adapters.keys.files import FileKeys
from watchword_adapters.settings_changes import changes
from watchword_adapters.settings_file import read_text, settings_of
from watchword_adapters.settings_watch import Change, SettingsWatch
from watchword_adapters.stores.journal import FileJournal
from watchword_adapters.trust_file import TrustFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from watchword import Policy
    from watchword.settings import Address, KeySourceSettings, Settings
    from watchword.spi import Channel, KeySource, ReplayStore, TrustScore, Warn
    from watchword_adapters.control.log import ControlLog
    from watchword_adapters.control.presence import PresenceChannel

_CONTROL: Final = "control"
_NO_ROOT: Final = frozenset({_CONTROL, "spiffe"})
"""Sources that must not hold operators' keys: a statement would lapse with a key that ends within the hour."""

_DAY: Final = 86_400.0
_SOON: Final = 14 * _DAY
"""Seconds before our own key ends at which the warnings begin."""

_READ_ONCE: Final = ("realm", "principal", "signer", "replay", "quarantine", "telemetry", "control")
"""Tables that take effect only after a restart, except for control's operators and the signer's key.

A key in a file is followed by that file, a key held elsewhere by its settings; a key that rotates itself needs neither.
"""

SETTLING: Final = 2.0
"""Seconds after a change within which another one may leave the file's status the same."""

_IN_FILES: Final = frozenset({"file", "nkey"})
"""Signers whose file is followed."""

_WHOLE: Final = (FileKeys, MemoryKeys)
"""Sources that have all of their keys from the start."""

_SIMILAR: Final = 0.8
_NAMED: Final = 10
"""The most unknown principals that a warning names."""


def load(
    path: str | Path = "watchword.toml",
    *,
    clock: Callable[[], float] = time.time,
    replay: ReplayStore | None = None,
    trust: TrustScore | Trust | None = None,
    warn: Warn | None = None,
    telemetry: bool = True,
) -> Watchword:
    """Read the settings file at ``path`` and the environment, and return the ``Watchword`` for the clients.

    It follows the file: changes of policy, key sources and the signer's key take effect within five seconds, or at once
    with its ``reload()``. ``clock`` returns seconds since the epoch. ``replay`` replaces ``[replay] store``, ``trust``
    replaces Demerits (docs/trust.md), and ``warn`` gets warnings about the set-up instead of the audit trail. Unless
    ``telemetry``, the table ``[telemetry]`` is ignored. A ConfigurationError is one line that says what to write.
    """
    path = Path(path)
    text = read_text(path)
    settings = settings_of(text, path)
    with _led_by(path):
        made, context = _build(settings, directory=path.parent, clock=clock, replay=replay, trust=trust, warn=warn)
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
    """Return a ``Watchword`` for these settings, with paths relative to ``directory``; it follows no file."""
    return _build(settings, directory=directory, clock=clock, replay=replay, trust=None, warn=warn)[0].agent


@runtime_checkable
class Closable(Protocol):
    """A key source with open resources, which is closed when it is replaced."""

    def close(self) -> None:
        """Close it."""
        ...


class _Made(NamedTuple):
    """What was built from the settings."""

    agent: Watchword
    settings: Settings
    sources: list[KeySource]
    key: NamedBackend | None
    control: Control | None = None
    follower: FollowerThread | None = None


def _build(
    settings: Settings,
    *,
    directory: Path,
    clock: Callable[[], float],
    replay: ReplayStore | None,
    trust: TrustScore | Trust | None,
    warn: Warn | None,
) -> tuple[_Made, Context]:
    policy = settings.to_policy()
    audit = Audit(clock=clock)
    context = _context(settings, directory=directory, clock=clock, policy=policy, warn=warn or audit.warn)
    key = None if settings.signer is None else signing_key(settings.signer, context)
    channel = settings.to_control()
    control = None if settings.control is None else Control(settings.control.to_operators(), clock=clock)
    sources = _key_sources(settings, context, control)
    if not sources and key is None and policy.mode is not Mode.OBSERVE:
        raise ConfigurationError('keys: none; add [[keys]] with source = "files" and paths = ["agents.jwks"]')
    if replay is None:
        store = settings.replay.store
        replay = _made(plugins.REPLAY_STORES, store, "replay", "store", settings.replay.options, context)
    _check_owners(settings.principal, sources, key)
    _check_names(settings, sources, context)
    journal = journal_of(settings, context)
    agent = Watchword(
        realm=settings.realm,
        principal=settings.principal,
        key=key,
        keys=_all_of(sources),
        policy=policy,
        replay=replay,
        journal=journal,
        trust=trust,
        clock=clock,
        batch=None if settings.signer is None else settings.signer.batch,
        audit=audit,
        quarantine=settings.to_quarantine(),
    )
    if journal is not None and not isinstance(trust, Trust):  # the caller stores its own Trust
        TrustFile(journal.path.with_suffix(".trust"), agent.verifier.trust, clock=clock, warn=context.warn)
    follower = None
    if control is not None and channel is not None:
        parts = _parts(agent, settings, context, control, channel)
        follower = FollowerThread(agent, parts, announcer=_announcer(agent, settings, directory))
    return _Made(agent, settings, sources, key, control, follower), context


def _context(
    settings: Settings, *, directory: Path, clock: Callable[[], float], policy: Policy, warn: Warn
) -> AgentContext:
    channel = settings.to_presence()
    return AgentContext(
        realm=settings.realm,
        directory=directory,
        clock=clock,
        policy=policy,
        warn=warn,
        principal=settings.principal,
        presence=None if channel is None else partial(_open_presence, settings, directory, channel),
    )


def control_parts(agent: Watchword, settings: Settings, directory: Path) -> Parts:
    """Return the parts that follow these settings' control log, for the agent that was built from them.

    ConfigurationError if they name no control channel.
    """
    channel = settings.to_control()
    if channel is None or settings.control is None:
        raise ConfigurationError('control: no channel; write [control] with channel = "nats://<realm>/<subject>"')
    context = _context(
        settings, directory=directory, clock=agent.clock, policy=agent.verifier.policy, warn=agent.audit.warn
    )
    return _parts(agent, settings, context, Control(settings.control.to_operators(), clock=agent.clock), channel)


def _parts(agent: Watchword, settings: Settings, context: Context, control: Control, channel: Channel) -> Parts:
    """Return what a follower needs; it gets its own key sources, because it runs in another thread."""
    assert settings.control is not None  # noqa: S101 - for the type checker
    with_root = settings.model_copy(update={"keys": [one for one in settings.keys if one.source not in _NO_ROOT]})
    root = _all_of(_key_sources(with_root, context, None))
    if root is None:
        raise ConfigurationError('control: no key source for operators\' own keys: add [[keys]] with source = "files"')
    return Parts(
        realm=settings.realm,
        control=control,
        operators=settings.control.to_operators(),
        root=root,
        open_log=partial(_open_log, agent, settings, context.directory, channel),
        state=StateFile(context.directory / settings.replay.state, channel.uri),
        clock=context.clock,
        audit=agent.audit,
        max_staleness=settings.control.max_staleness,
    )


def _open_log(agent: Watchword, settings: Settings, directory: Path, channel: Channel) -> ControlLog:
    try:
        if channel.scheme == "kafka":
            from watchword_adapters.kafka.control_log import KafkaControlLog  # noqa: PLC0415 - comes with an extra

            kafka = kafka_options(settings.kafka or KafkaSettings(), directory)
            return KafkaControlLog(channel.name, watchword=agent, **kafka)
        from watchword_adapters.nats.control_log import NatsControlLog  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"control: {what_to_install(error) or error}") from error
    return NatsControlLog(channel.name, watchword=agent, **nats_options(settings.nats or NatsSettings(), directory))


def _announcer(agent: Watchword, settings: Settings, directory: Path) -> Announcer | None:
    """Return the announcer of this agent; None if it has no channel for it, or no key to sign with."""
    channel = settings.to_presence()
    if channel is None or settings.control is None or agent.signing_as is None:
        return None
    every = settings.control.announce_every
    return Announcer(agent, partial(open_presence, agent, settings, directory, channel), every=every)


def open_presence(
    agent: Watchword, settings: Settings, directory: Path, channel: Channel, **options: Any
) -> PresenceChannel:
    """Return the channel of announcements, not yet connected; ``options`` replace ``[nats]`` or ``[kafka]``."""
    return _open_presence(settings, directory, channel, agent, **options)


def _open_presence(
    settings: Settings, directory: Path, channel: Channel, agent: Watchword, **options: Any
) -> PresenceChannel:
    try:
        if channel.scheme == "kafka":
            from watchword_adapters.kafka.presence import KafkaPresence  # noqa: PLC0415 - comes with an extra

            kafka = options or kafka_options(settings.kafka or KafkaSettings(), directory)
            return KafkaPresence(channel.name, watchword=agent, **kafka)
        from watchword_adapters.nats.presence import NatsPresence  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"control: {what_to_install(error) or error}") from error
    nats = options or nats_options(settings.nats or NatsSettings(), directory)
    return NatsPresence(channel.name, watchword=agent, **nats)


def _measure(agent: Watchword, address: Address | None) -> None:
    """Collect an agent's metrics, and serve them if there is an address."""
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
        self._told_at = -math.inf
        self._key_state: object = None
        self._tell_of_end()

    def read(self, *, again: bool) -> Change | None:
        """See ``Source``."""
        self._tell_of_end()
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
        text, new_key = read_text(self._path), self._key_in_file(again=again)
        if text == self._text and new_key is None and not again:
            self._mistake = None
            return None
        settings = settings_of(text, self._path)
        context = replace(self._context, policy=settings.to_policy())
        held = self._key_elsewhere(settings.signer, context)
        key = new_key or held or made.key
        settings.to_control()
        settings.to_presence()
        known = [*zip(made.settings.keys, made.sources, strict=True)]
        kept = [(chosen, source) for chosen, source in known if not again or isinstance(source, RenewableKeys)]
        same = settings.keys == made.settings.keys and not again
        sources = made.sources if same else _key_sources(settings, context, made.control, kept)
        _check_owners(settings.principal, sources, key)
        _check_names(settings, sources, context)
        once = (tuple(_read_once(one, name, made.key) for name in _READ_ONCE) for one in (self._first, settings))
        later = tuple(name for name, before, after in zip(_READ_ONCE, *once, strict=True) if before != after)
        told = [*changes(made.settings, settings), *([] if new_key is None else ["signer's key"])]
        for source in sources if again else ():
            if isinstance(source, RenewableKeys):
                source.renew()
        before, self._mistake = made.settings.control, None
        self._text, self._made = text, made._replace(settings=settings, sources=sources, key=key)
        gone = [source for source in made.sources if isinstance(source, Closable) and source not in sources]
        operators = None
        if made.follower is not None and settings.control is not None and settings.control != before:
            operators = partial(made.follower.switch, settings.control.to_operators())

        def then() -> None:
            for source in gone:
                source.close()
            if operators is not None:
                operators()

        return Change(context.policy, _all_of(sources), new_key or held, later, ", ".join(told) or "nothing", then)

    def _tell_of_end(self) -> None:
        """Warn once a day that our own key ends soon, so that it is replaced in time."""
        made, now = self._made, self._context.clock()
        if made.key is None or isinstance(made.key, RotatingBackend) or now < self._told_at + _DAY:
            return
        self._told_at = now
        for key in (key for source in made.sources for key in listed(source)):
            if (key.principal, key.key_id) == (made.settings.principal, made.key.key_id):
                end = (key if made.control is None else made.control.limited(key)).not_after
                if end is not None and end - now < _SOON:
                    self._context.warn(
                        "keys.end_soon",
                        key_id=key.key_id.decode(errors="replace"),
                        seconds=max(0, int(end - now)),
                        remedy="watchword key rotate, or a new key by hand: docs/rotation.md",
                    )

    def _key_in_file(self, *, again: bool) -> SigningKey | None:
        """Return the key that is in the signer's file now, if it is another one.

        An unchanged file is not read again, because decrypting a key is slow by design.
        """
        signer, known = self._first.signer, self._made.key
        if signer is None or signer.source not in _IN_FILES or not isinstance(known, SigningKey):
            return None
        state = _state_of_key(signer, self._context)
        if state is not None and state == self._key_state and not again:
            return None
        found = signing_key(signer, replace(self._context, warn=lambda *_, **__: None))  # warnings came at the start
        self._key_state = state
        same = isinstance(found, SigningKey) and (found.public, found.not_after) == (known.public, known.not_after)
        return found if isinstance(found, SigningKey) and not same else None

    def _key_elsewhere(self, named: SignerSettings | None, context: Context) -> NamedBackend | None:
        """Return the key that the settings name now, if it is not in a file and its options have changed."""
        before, known = self._made.settings.signer, self._made.key
        if before is None or named is None or known is None or not _is_followed(named, known):
            return None
        if before.source != named.source or before.options == named.options:
            return None
        try:
            found = signing_key(named, context)
        except Unavailable as error:
            raise ConfigurationError(f"signer: {error}") from error
        if len(found.key_id) != len(known.key_id) or isinstance(found, SigningKey) != isinstance(known, SigningKey):
            raise ConfigurationError(
                "signer: the new key's id has another length, or the key is kept in another place: restart"
            )
        return found


@contextmanager
def _led_by(path: Path) -> Iterator[None]:
    """Prefix errors with the file's name."""
    try:
        yield
    except ConfigurationError as error:
        text = str(error)
        raise ConfigurationError(text if text.startswith(str(path)) else f"{path}: {text}") from error.__cause__


def journal_of(settings: Settings, context: Context) -> FileJournal | None:
    """Return the journal of this principal on this machine; None for ``state = ""``.

    It is required if ``state`` is set in the file, unless the mode is observe.
    """
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


def signing_key(chosen: SignerSettings, context: Context) -> NamedBackend:
    """Return the key that ``[signer]`` names; ConfigurationError, or Unavailable if its holder is unreachable."""
    key = _made(plugins.SIGNERS, chosen.source, "signer", "source", chosen.options, context)
    if not isinstance(key, NamedBackend):
        raise ConfigurationError(f'signer.source = "{chosen.source}": the plug-in\'s key has no key_id or algorithm')
    return key


def _key_sources(
    settings: Settings,
    context: Context,
    control: Control | None,
    kept: Iterable[tuple[KeySourceSettings, KeySource]] = (),
) -> list[KeySource]:
    """Return the key sources; the one named control has the keys that operators gave, unless another source differs.

    Sources in ``kept`` are used again if their settings are the same: their caches may be the only copies just now.
    """
    sources: list[KeySource | None] = []
    for number, chosen in enumerate(settings.keys):
        where = f"keys[{number}]"
        if chosen.source != _CONTROL:
            same = next((source for before, source in kept if before == chosen), None)
            sources.append(same or _made(plugins.KEY_SOURCES, chosen.source, where, "source", chosen.options, context))
            continue
        if chosen.options or control is None or None in sources:
            raise ConfigurationError(
                f'{where}: source = "{_CONTROL}" takes no options, may occur once, and needs [control] with a channel'
            )
        sources.append(None)
    others = [source for source in sources if source is not None]
    return [ControlKeys(control, others) if source is None and control else source for source in sources]  # type: ignore[misc]  # None only with control


def _read_once(settings: Settings, name: str, key: NamedBackend | None) -> object:
    """Return the part of a table that takes effect only after a restart."""
    found = getattr(settings, name)
    if isinstance(found, SignerSettings) and _is_followed(found, key):
        return found.source, found.batch
    return found.model_copy(update={"operators": []}) if isinstance(found, ControlSettings) else found


def _is_followed(signer: SignerSettings, key: NamedBackend | None) -> bool:
    """Return True if changed settings of the key are followed: neither for a file, nor for a key that rotates."""
    return signer.source not in _IN_FILES and not isinstance(key, RotatingBackend)


def _state_of_key(signer: SignerSettings, context: Context) -> object:
    """Return the status of the signer's file, for comparison; None if it was changed too recently to rely on."""
    try:
        status = (context.directory / str(signer.options.get("key"))).stat()
    except OSError:
        return None
    newest = max(status.st_mtime, status.st_ctime)
    same = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return same if newest + SETTLING < time.time() else None


def _all_of(sources: list[KeySource]) -> KeySource | None:
    """Return one source for all; None if there are none, as in a process that only signs or only observes."""
    return KeyChain(sources) if len(sources) > 1 else next(iter(sources), None)


def _made(  # noqa: PLR0917 - one row of a table
    group: str, name: str, table: str, field: str, options: Mapping[str, Any], context: Context
) -> Any:
    """Return what the named plug-in creates; its errors are reported like ours."""
    factory = plugins.find(group, name, where=f"{table}.{field}")
    try:
        return factory(options, context)
    except ValidationError as error:
        raise ConfigurationError(f"{table}: {explain(error)}") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{table}: {error}") from error.__cause__


def _check_owners(principal: str | None, sources: Iterable[KeySource], key: NamedBackend | None) -> None:
    """Refuse a public key that two principals own; each source checks only its own keys."""
    owners: dict[bytes, str] = {}
    if isinstance(key, ShownBackend) and principal is not None:
        owners[public_half(key, principal).public_bytes] = principal
    for source in sources:
        for found in source.keys if isinstance(source, _WHOLE) else ():
            owner = owners.setdefault(found.public_bytes, found.principal)
            if owner != found.principal:
                raise ConfigurationError(
                    f"keys: one public key for {owner!r} and {found.principal!r}: give each its own"
                )


def _check_names(settings: Settings, sources: Iterable[KeySource], context: Context) -> None:
    """Warn of principals and patterns in the policy that match no key; refuse a name that only lacks its scheme.

    Nothing is checked if any source cannot list all of its keys.
    """
    known: set[str] = set()
    for source in sources:
        if not isinstance(source, _WHOLE):
            return
        known |= {key.principal for key in source.keys}
    # Indexed, because a set may have 20,000 keys, and the policy as many rules.
    without_scheme, tree = dict[str, str](), TokenTree[str]("*", "**")
    for one in sorted(known, reverse=True):
        tree.add(one.split("/"), one)
        for scheme in re.finditer("://", one):
            without_scheme[one[scheme.end() :]] = one
    policy = settings.policy
    for table, names in (("contained", policy.contained), ("allow", [rule.principal for rule in policy.allow])):
        unknown = list[str]()
        for number, name in enumerate(names):
            if name in known or next(tree.meeting(name.split("/")), None) is not None:
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
    """Return the first unknown names, each with a similar known one; guessing for all would take long."""
    told = []
    for name in unknown[:_NAMED]:
        similar = get_close_matches(name, known, 1, _SIMILAR)
        told.append(f"{name!r} (did you mean {similar[0]!r}?)" if similar else repr(name))
    more = len(unknown) - len(told)
    return ", ".join(told) + (f" and {more} more" if more else "")
