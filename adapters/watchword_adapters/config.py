"""From ``watchword.toml`` to a ``Watchword``: ``load(path)`` is what most programs need."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from watchword import ConfigurationError, Mode, SigningKey, Watchword
from watchword.mistakes import explain
from watchword.signer import BATCH
from watchword.spi import Audit, Context, KeyChain, NamedBackend
from watchword_adapters import plugins
from watchword_adapters.keys.files import FileKeys
from watchword_adapters.settings_file import read_settings
from watchword_adapters.stores.journal import FileJournal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from watchword.settings import Settings, SignerSettings
    from watchword.spi import KeySource, ReplayStore, Warn


def load(
    path: str | Path = "watchword.toml",
    *,
    clock: Callable[[], float] = time.time,
    replay: ReplayStore | None = None,
    warn: Warn | None = None,
) -> Watchword:
    """Read the settings file at ``path`` and the environment, and return what plugs into the clients.

    ``clock`` returns seconds since the epoch. ``replay`` takes the place of ``[replay] store``, ``warn`` that of the
    audit trail for warnings about the set-up. ConfigurationError is one line that says what to write.
    """
    path = Path(path)
    settings = read_settings(path)
    try:
        return build(settings, directory=path.parent, clock=clock, replay=replay, warn=warn)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error.__cause__


def build(
    settings: Settings,
    *,
    directory: Path,
    clock: Callable[[], float] = time.time,
    replay: ReplayStore | None = None,
    warn: Warn | None = None,
) -> Watchword:
    """Make a ``Watchword`` of settings whose relative paths start from ``directory``; see ``load``."""
    policy = settings.to_policy()
    audit = Audit(clock=clock, observing=policy.mode is Mode.OBSERVE)
    context = Context(realm=settings.realm, directory=directory, clock=clock, policy=policy, warn=warn or audit.warn)
    key = None if settings.signer is None else _signing_key(settings.signer, context)
    sources = _key_sources(settings, context)
    if not sources and key is None and policy.mode is not Mode.OBSERVE:
        raise ConfigurationError('keys: none; add [[keys]] with source = "files" and paths = ["agents.jwks"]')
    if replay is None:
        store = settings.replay.store
        replay = _made(plugins.REPLAY_STORES, store, "replay", "store", settings.replay.options, context)
    _check_owners(settings.principal, sources, key)
    return Watchword(
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


def journal_of(settings: Settings, context: Context) -> FileJournal | None:
    """Return what this principal keeps on this machine; None where the settings say so, or nothing is dropped."""
    if not settings.replay.state or context.policy.mode is Mode.OBSERVE:
        return None
    return FileJournal(
        context.directory / settings.replay.state,
        realm=settings.realm,
        principal=settings.principal,
        policy=context.policy,
        clock=context.clock,
        warn=context.warn,
        required="state" in settings.replay.model_fields_set,
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
