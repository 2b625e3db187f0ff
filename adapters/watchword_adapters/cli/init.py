"""``watchword init``: creates an agent's settings, key and key set, and the journal with which its readers start.

With a bus it also creates an example: a reader with public keys only, and a program that runs both.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from watchword import Algorithm, ConfigurationError, MemoryKeys, SigningKey
from watchword.jwk import to_jwks
from watchword.message import check_realm
from watchword_adapters import brokers
from watchword_adapters.cli.connecting import addresses
from watchword_adapters.cli.jwks import replace_file
from watchword_adapters.cli.keygen import create
from watchword_adapters.cli.names import KEY_SET, check_typed, file_name
from watchword_adapters.config import load
from watchword_adapters.keys.public_files import read_keys
from watchword_adapters.settings_file import read_settings
from watchword_adapters.signers.file import read_private_key
from watchword_adapters.stores.journal import FileJournal

if TYPE_CHECKING:
    from watchword import VerificationKey
    from watchword.settings import Settings

_SETTINGS: Final = Path("watchword.toml")
_READER: Final = "reader.toml"
_FIRST: Final = "first.py"
_CLIENTS: Final = {"nats": "nats", "kafka": "aiokafka"}
_BROKERS: Final = {"nats": "nats_server", "kafka": "kafka_broker"}

_REALM: Final = """\
realm = {realm:<35} # names this cluster or account; the same for all agents
"""
_SIGNER: Final = """\
principal = {principal:<31} # who this process is

[signer]                                    # omit it in a process that only reads
key = {key:<37} # private: mode 0600, never in a repository
"""
_KEYS: Final = """
[[keys]]                                    # whom it trusts: the public keys of all agents
source = "files"
paths = [{keys}]

[replay]
state = ".watchword"                        # what this machine remembers across restarts; "" for nothing
"""
_BUS: Final = """
[{bus}]{pad}# how commands connect, such as watchword tail
servers = {servers}
"""


@dataclass
class _Report:
    """The files that were created, and those that existed."""

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    said: dict[str, Any] = field(default_factory=dict)
    first: Path | None = None

    def add(self, path: Path, *, is_new: bool) -> None:
        """Record whether a file was created."""
        (self.made if is_new else self.kept).append(str(path))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to create: an agent's settings, and an example for a bus, at ``servers`` or with its own broker."""

    config: Path | None
    realm: str | None
    principal: str | None
    bus: str | None = None
    servers: str | None = None


def run_init(wanted: Wanted, *, as_json: bool) -> str:
    """Create what is missing, and return what to print; ConfigurationError for a contradiction."""
    report = _Report()
    realm, principal = wanted.realm, wanted.principal
    path = wanted.config or _path_for(principal)
    servers = _addresses(wanted)
    if path.exists():
        settings = read_settings(path)
        for name, given, there in (("realm", realm, settings.realm), ("principal", principal, settings.principal)):
            if given not in {None, there}:
                raise ConfigurationError(f"{path}: {name} is {there!r}, not {given!r}: name another file by --config")
        report.add(path, is_new=False)
    elif realm is None or principal is None:
        raise ConfigurationError(f"{path} does not exist: add --realm and --principal to create it")
    else:
        _make_settings(path, realm, principal, _table(wanted.bus, servers), report)
        settings = read_settings(path)
    _make_journal(settings, path, report)
    if wanted.bus is not None:
        _make_first(wanted.bus, servers, path, settings, report)
    if as_json:
        return json.dumps({"config": str(path), "made": report.made, "kept": report.kept, **report.said}) + "\n"
    return _told(path, settings, report, wanted.bus)


def _addresses(wanted: Wanted) -> list[str]:
    """Return the given servers; none if the example starts its own broker, which must be installed then.

    ConfigurationError also if the example could not run because the client is not installed.
    """
    if wanted.servers is not None:
        if wanted.bus is None:
            raise ConfigurationError("--servers: of which bus? write --bus nats, or --bus kafka")
        servers = addresses(wanted.bus, wanted.servers)
    else:
        servers = []
        if wanted.bus is not None:
            brokers.installed(wanted.bus)
    if wanted.bus is not None and importlib.util.find_spec(_CLIENTS[wanted.bus]) is None:
        raise ConfigurationError(f"{_CLIENTS[wanted.bus]} is not installed: pip install 'watchword[{wanted.bus}]'")
    return servers


def _table(bus: str | None, servers: list[str]) -> str:
    return _BUS.format(bus=bus, pad=" " * (42 - len(bus or "")), servers=json.dumps(servers)) if servers else ""


def _path_for(principal: str | None) -> Path:
    """Return ``watchword.toml``, or a file named after this agent if that belongs to another one."""
    if principal is None or not _SETTINGS.exists() or read_settings(_SETTINGS).principal == principal:
        return _SETTINGS
    name = file_name(principal, _SETTINGS.parent)
    if not name:
        raise ConfigurationError(f"no file name in principal {principal[:128]!r}: name the settings file with --config")
    return Path(f"{name}.toml")


def _make_settings(path: Path, realm: str, principal: str, table: str, report: _Report) -> None:
    check_realm(realm)
    check_typed(principal)
    private = path.with_name(f"{file_name(principal, path.parent) or path.stem}.pem")
    public = path.with_name(KEY_SET)
    known = _known(public)
    if not private.exists():
        _check_new(public, known, principal)
    _publish(public, known, _key(private, report).verification_key(principal), report)
    text = (_REALM + _SIGNER + _KEYS).format(
        realm=_quoted(realm), principal=_quoted(principal), key=_quoted(private.name), keys=_quoted(public.name)
    )
    create(path, (text + table).encode(), 0o644)
    report.add(path, is_new=True)


def _make_first(bus: str, servers: list[str], path: Path, settings: Settings, report: _Report) -> None:
    """Create a reader's settings and a program, next to the agent's; existing files are not changed."""
    public, reader = (path.with_name(name) for name in (KEY_SET, _READER))
    if not reader.exists():
        if not public.exists():
            raise ConfigurationError(f"{public} does not exist, but holds the keys that the example's reader needs")
        text = (_REALM + _KEYS).format(realm=_quoted(settings.realm), keys=_quoted(public.name))
        create(reader, (text + _table(bus, servers)).encode(), 0o644)
        report.add(reader, is_new=True)
        _make_journal(read_settings(reader), reader, report)
    program = _program(bus, servers, path).encode()
    first = _place(bus, program, path, report)
    if not first.exists():
        create(first, program, 0o644)
        report.add(first, is_new=True)
    report.first = first


def _place(bus: str, program: bytes, path: Path, report: _Report) -> Path:
    """Return the path of the program: a name that no other program has."""
    names = (_FIRST, f"first_{bus}.py")
    for place in map(path.with_name, names):
        if not place.exists():
            return place
        report.add(place, is_new=False)
        if place.read_bytes() == program:
            return place
    raise ConfigurationError(f"{' and '.join(names)} exist, and are not this example: rename one")


def _program(bus: str, servers: list[str], path: Path) -> str:
    """Return the example for a bus, with the names of these settings and these servers."""
    text = files("watchword_adapters.first").joinpath(f"{bus}.py").read_text("utf-8")
    text = text.replace('"watchword.toml"', _quoted(path.name)).replace("of watchword.toml", f"of {path.name}")
    if servers:
        broker = _BROKERS[bus]
        head, _, _ = text.partition(f"    with {broker}()")
        text = head.replace(f"from watchword.brokers import {broker}\n", "")
        text += f"    asyncio.run(main({_quoted(servers[0])}))\n"
    return text


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
            f"{path}: has another key of {principal!r}: put its private key in place, or remove the old one"
        )


def _publish(path: Path, known: list[VerificationKey], own: VerificationKey, report: _Report) -> None:
    """Add the public key to the set, atomically; its other keys stay."""
    if own not in known:
        _check_new(path, known, own.principal)
        MemoryKeys([*known, own])
        replace_file(path, to_jwks([*known, own]))
    report.add(path, is_new=own not in known)


def _make_journal(settings: Settings, path: Path, report: _Report) -> None:
    def warn(event: str, **fields: object) -> None:
        if event == "replay.no_journal":
            raise ConfigurationError(f"{path}: state: {fields['detail']}")

    journal = load(path, warn=warn, telemetry=False).verifier.journal  # reports mistakes in the settings now
    report.said = {"journal": None, "store": settings.replay.store}
    if not isinstance(journal, FileJournal):
        return
    is_new = journal.initialise()
    journal.close()
    report.add(journal.path, is_new=is_new)
    report.said |= {"journal": str(journal.path), "initialised": is_new, "stopped_for": journal.settled}


def _told(path: Path, settings: Settings, report: _Report, bus: str | None) -> str:
    lines = [f"created: {name}" for name in report.made] + [f"kept as it is: {name}" for name in report.kept]
    who = settings.principal or "this configuration"
    if report.said["journal"] is None:
        lines.append('No journal: [replay] state is "".')
    elif not report.said["initialised"]:
        lines.append("The journal was made before." if report.made else "Nothing to do: the journal was made before.")
    elif not (bus == "kafka" and str(path) in report.made):
        lines.append(
            f"Start the core NATS readers of {who} on this machine now: they lose nothing. If one ran before, here or"
            f" elsewhere, stop it and wait {report.said['stopped_for']:g} s first."
        )
    if settings.replay.store != "memory":
        lines.append(
            f"Readers that share the {settings.replay.store} store have their births there: run `watchword store init"
            f" READER --config {path}` for each queue group and each durable with several workers, before its first"
            " start."
        )
    if report.first is not None:
        lines.append(f"Now run: python {report.first}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return a TOML string, whose escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False)
