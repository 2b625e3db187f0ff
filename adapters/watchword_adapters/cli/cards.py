"""``watchword key import-card``: imports the keys that signed an A2A agent card as keys of an agent on the bus."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from watchword import ConfigurationError, Unavailable
from watchword.jwk import MAX_SET_BYTES, parse_shared_jwks, to_jwks
from watchword.keys import thumbprint_id
from watchword_adapters.cli import OK, REJECTED
from watchword_adapters.cli.jwks import replace_file
from watchword_adapters.cli.names import check_typed
from watchword_adapters.cli.terminal import one_line
from watchword_adapters.keys.agent_card import WELL_KNOWN, read_card, signers
from watchword_adapters.keys.https import Https, NotFetchedError, shown
from watchword_adapters.regular_file import open_regular, without_mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchword import VerificationKey
    from watchword_adapters.keys.agent_card import Card, Signature


class Import(NamedTuple):
    """The arguments: the card, its agent, the trusted key sets, and the output file."""

    card: str
    principal: str
    jku: tuple[str, ...]
    keys: tuple[Path, ...]
    output: Path | None
    allow_private: bool
    ca: Path | None


def run_import(wanted: Import) -> int:
    """Write the keys that have signed a card; return the exit code."""
    check_typed(wanted.principal)
    if not wanted.jku and not wanted.keys:
        raise ConfigurationError(
            "which key set says who signed the card? write --jku URL if the card points to it, or --keys FILE;"
            " otherwise anyone could have signed it"
        )
    fetch = Https(allow_private=wanted.allow_private, ca=wanted.ca)
    card = read_card(_text(wanted.card, fetch))
    trusted = _Trusted(wanted, fetch)
    found: dict[bytes, VerificationKey] = {}
    why = [*card.passed_over]
    for key in signers(card, trusted.keys_of, time.time(), why):
        found[key.public_bytes] = replace(key, key_id=thumbprint_id(key.public))
    if not found:
        sys.stderr.write(f"watchword: no key of these sets has signed the card{_listed([*why, *trusted.notes])}\n")
        return REJECTED
    text = to_jwks(found.values())
    if wanted.output is None:
        sys.stdout.write(text)
    else:
        replace_file(wanted.output, text)
        for key in found.values():
            sys.stdout.write(f"key {key.key_id.decode()} of {key.principal} signed {_named(card)}\n")
    return OK


class _Trusted:
    """The trusted key sets, fetched if a card points to them; ``notes`` say what was left out, and why."""

    def __init__(self, wanted: Import, fetch: Https) -> None:
        self._wanted = wanted
        self._fetch = fetch
        self.notes = list[str]()
        self._own = [key for path in wanted.keys for key in self._keys(_read(path), str(path))]
        self._fetched: dict[str, Sequence[VerificationKey]] = {}

    def keys_of(self, signature: Signature) -> Sequence[VerificationKey]:
        """Return the keys that may have made a signature."""
        jku = signature.jku
        if jku is None:
            if self._wanted.jku:
                self.notes.append("a signature names no key set (jku): name the set's file by --keys")
            return self._own
        if jku not in self._wanted.jku:
            self.notes.append(f"its keys are at {shown(jku)!r}, which no --jku allows")
            return self._own
        if jku not in self._fetched:
            self._fetched[jku] = self._keys(_fetched(jku, self._fetch), shown(jku))
        return [*self._own, *self._fetched[jku]]

    def _keys(self, data: bytes, where: str) -> Sequence[VerificationKey]:
        """Return the keys of a set, without those assigned to another principal."""
        ours = self._wanted.principal
        try:
            read = parse_shared_jwks(data, owner=ours, speaks_for=lambda name: name == ours)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from None
        if read.foreign:
            self.notes.append(f"{where}: {len(read.foreign)} of other principals, as {min(read.foreign)[:128]!r}")
        if read.passed_over:
            self.notes.append(f"{where}: {read.passed_over} of another kind or use")
        return read.keys


def _text(card: str, fetch: Https) -> bytes:
    if "://" not in card:
        return without_mark(_read(Path(card)))
    return _fetched(card.rstrip("/") + WELL_KNOWN if urlsplit(card).path in {"", "/"} else card, fetch)


def _fetched(url: str, fetch: Https) -> bytes:
    try:
        return fetch.get(url).body or b""
    except NotFetchedError as error:
        raise Unavailable("keys", str(error)) from None


def _read(path: Path) -> bytes:
    try:
        with open_regular(path) as (file, _):
            return file.read(MAX_SET_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None


def _named(card: Card) -> str:
    """Return the card's name for its agent, which its signer chose."""
    name = card.members.get("name")
    return f'the card of "{one_line(name)}"' if isinstance(name, str) else "a card without a name"


def _listed(why: Sequence[str]) -> str:
    return f": {one_line('; '.join(dict.fromkeys(why)))}" if why else ""
