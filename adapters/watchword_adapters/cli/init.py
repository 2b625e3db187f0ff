"""``watchword init``: the least that an agent needs, and a journal with which its readers begin without a floor."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from watchword import Algorithm, ConfigurationError, MemoryKeys, SigningKey
from watchword.jwk import to_jwks
from watchword.message import check_realm, is_principal
from watchword_adapters.cli.jwks import replace_file
from watchword_adapters.cli.keygen import create, plain_name
from watchword_adapters.config import load
from watchword_adapters.keys.public_files import read_keys
from watchword_adapters.settings_file import read_settings
from watchword_adapters.signers.file import read_private_key
from watchword_adapters.stores.journal import FileJournal

if TYPE_CHECKING:
    from watchword import VerificationKey
    from watchword.settings import Settings

_SETTINGS: Final = Path("watchword.toml")
_KEY_SET: Final = Path("agents.jwks")

_TEXT: Final = """\
realm = {realm}                             # names this cluster or account; the same for all agents
principal = {principal}                     # who this process is

[signer]                                    # leave it out in a process that only reads
key = {key}                                 # private: mode 0600, never in a repository

[[keys]]                                    # whom it believes: the public keys of all agents
source = "files"
paths = [{keys}]

[replay]
state = ".watchword"                        # what this machine remembers over restarts; "" for nothing
"""


@dataclass
class _Report:
    """What was made, and what was there."""

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    said: dict[str, Any] = field(default_factory=dict)

    def add(self, path: Path, *, is_new: bool) -> None:
        """Say of a file whether it was made."""
        (self.made if is_new else self.kept).append(str(path))


def run_init(config: Path | None, realm: str | None, principal: str | None, *, as_json: bool) -> str:
    """Make what is missing, and return what to print; ConfigurationError, in one line, for what does not fit."""
    report = _Report()
    path = config or _path_for(principal)
    if path.exists():
        settings = read_settings(path)
        for name, given, there in (("realm", realm, settings.realm), ("principal", principal, settings.principal)):
            if given not in {None, there}:
                raise ConfigurationError(f"{path}: {name} is {there!r}, not {given!r}: name another file by --config")
        report.add(path, is_new=False)
    elif realm is None or principal is None:
        raise ConfigurationError(f"{path} is not there: add --realm and --principal, and it is made")
    else:
        _make_settings(path, realm, principal, report)
        settings = read_settings(path)
    _make_journal(settings, path, report)
    if as_json:
        return json.dumps({"config": str(path), "made": report.made, "kept": report.kept, **report.said}) + "\n"
    return _told(path, settings, report)


def _path_for(principal: str | None) -> Path:
    """Return ``watchword.toml``; where that is another agent's, a file that is named after this one."""
    if principal is None or not _SETTINGS.exists() or read_settings(_SETTINGS).principal == principal:
        return _SETTINGS
    name = plain_name(principal)
    if not name:
        raise ConfigurationError(f"no file name in principal {principal[:128]!r}: name the settings by --config")
    return Path(f"{name}.toml")


def _make_settings(path: Path, realm: str, principal: str, report: _Report) -> None:
    check_realm(realm)
    if not is_principal(principal):
        raise ConfigurationError(f"principal {principal[:128]!r}: 1 to 255 bytes of UTF-8, no control characters")
    private = path.with_name(f"{plain_name(principal) or path.stem}.pem")
    public = path.with_name(_KEY_SET.name)
    known = _known(public)
    if not private.exists():
        _check_new(public, known, principal)
    _publish(public, known, _key(private, report).verification_key(principal), report)
    text = _TEXT.format(
        realm=_quoted(realm), principal=_quoted(principal), key=_quoted(private.name), keys=_quoted(public.name)
    )
    create(path, text.encode(), 0o644)
    report.add(path, is_new=True)


def _key(path: Path, report: _Report) -> SigningKey:
    is_new = not path.exists()
    if is_new:
        create(path, SigningKey.generate(Algorithm.ED25519).to_pem(), 0o600)
    report.add(path, is_new=is_new)
    return read_private_key(path, warn=lambda *_, **__: None)  # the start warns


def _known(path: Path) -> list[VerificationKey]:
    try:
        return read_keys([path])[0] if path.exists() else []
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None


def _check_new(path: Path, known: list[VerificationKey], principal: str) -> None:
    if any(key.principal == principal for key in known):
        raise ConfigurationError(
            f"{path}: has another key of {principal!r}: put its private key in place, or take the old one out"
        )


def _publish(path: Path, known: list[VerificationKey], own: VerificationKey, report: _Report) -> None:
    """Add the public key to the set, in one step; whatever is in it stays."""
    if own not in known:
        _check_new(path, known, own.principal)
        MemoryKeys([*known, own])
        replace_file(path, to_jwks([*known, own]))
    report.add(path, is_new=own not in known)


def _make_journal(settings: Settings, path: Path, report: _Report) -> None:
    def warn(event: str, **fields: object) -> None:
        if event == "replay.no_journal":
            raise ConfigurationError(f"{path}: state: {fields['detail']}")

    journal = load(path, warn=warn, telemetry=False).verifier.journal  # so that settings with a mistake are told now
    report.said = {"journal": None, "store": settings.replay.store}
    if not isinstance(journal, FileJournal):
        return
    is_new = journal.initialise()
    journal.close()
    report.add(journal.path, is_new=is_new)
    report.said |= {"journal": str(journal.path), "initialised": is_new, "stopped_for": journal.settled}


def _told(path: Path, settings: Settings, report: _Report) -> str:
    lines = [f"made: {name}" for name in report.made] + [f"kept as it is: {name}" for name in report.kept]
    who = settings.principal or "this configuration"
    if report.said["journal"] is None:
        lines.append('No journal: [replay] state is "".')
    elif report.said["initialised"]:
        lines.append(
            f"Core NATS readers of {who} on this machine begin without losing anything. That is right if they have"
            f" never run, or have been stopped for {report.said['stopped_for']:g} s; not while an older process of this"
            " agent still runs, here or elsewhere."
        )
    else:
        lines.append("Nothing to do: the journal was made before.")
    if settings.replay.store != "memory":
        lines.append(
            f"Readers that share the {settings.replay.store} store have their births there: run `watchword store init"
            f" READER --config {path}` for each queue group and each durable with several workers, before it first"
            " runs."
        )
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return a TOML string, whose escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False)
