"""Public keys in files: JWK Sets, single JWKs, and PEM with the owner's name above it.

A PEM file holds one ``PUBLIC KEY`` block and, before it (RFC 7468 section 2 lets text stand there), one line
``Principal: agent://acme/planner`` and at most one ``Key-Id: ...``. Of a directory, the ``*.jwks``, ``*.jwk``,
``*.json`` and ``*.pem`` files are read, without hidden files and subdirectories.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from watchword import ConfigurationError, VerificationKey
from watchword.algorithms import what_is_missing
from watchword.jwk import MAX_SET_BYTES, MAX_SET_KEYS, parse_jwks
from watchword.keys import thumbprint_id
from watchword_adapters.regular_file import open_regular, without_mark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

T = TypeVar("T")

REMEDY: Final = "make one with 'watchword keygen' and 'watchword jwks'"
SUFFIXES: Final = frozenset({".jwks", ".jwk", ".json", ".pem"})
MAX_FILES: Final = MAX_SET_KEYS
MAX_TOTAL_BYTES: Final = 4 * MAX_SET_BYTES

_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_FIELD: Final = re.compile(r"(Principal|Key-Id):[ \t]*(.*?)[ \t]*")

State: TypeAlias = tuple[tuple[str, int, int, int, int, int], ...]
"""Path, device, inode, size and the two times of every file: equal states mean unchanged files."""


def list_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files in ``paths``, which may be directories; ConfigurationError for a directory without any."""
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(entry for entry in path.iterdir() if _is_key_file(entry))
        if not found:  # more likely a mount that is gone than an agent that trusts no key
            raise ConfigurationError(
                f'{path}: no key file in it; to trust no key at all, put a file with {{"keys": []}} there'
            )
        files += found
        if len(files) > MAX_FILES:
            raise ConfigurationError(f"{path}: more than {MAX_FILES} key files")
    return files


def state_of(files: Iterable[Path]) -> State:
    """Return a state that differs if a file changed; OSError for a missing one."""
    return tuple(_state(path, path.stat()) for path in files)


def read_keys(files: Sequence[Path]) -> tuple[list[VerificationKey], State]:
    """Read all keys of all files, and the state that was read.

    OSError for a missing or changing file; ConfigurationError, which begins with the path, for invalid contents.
    """
    return read_all(files, parse_public)


def read_all(files: Sequence[Path], parse: Callable[[bytes], list[T]]) -> tuple[list[T], State]:
    """Return what ``parse`` finds in all files, and the state that was read; errors as for ``read_keys``."""
    found: list[T] = []
    states: list[tuple[str, int, int, int, int, int]] = []
    budget = MAX_TOTAL_BYTES
    for path in files:
        with open_regular(path) as (file, status):
            data = file.read(min(MAX_SET_BYTES, budget) + 1)
            if _state(path, os.fstat(file.fileno())) != _state(path, status):
                raise BlockingIOError(None, "changed while being read", str(path))
        budget -= len(data)
        if budget < 0:
            raise ConfigurationError(f"{path}: more than {MAX_TOTAL_BYTES} bytes of keys in all")
        try:
            found += parse(data)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from None
        if len(found) > MAX_SET_KEYS:
            raise ConfigurationError(f"{path}: more than {MAX_SET_KEYS} keys in all")
        states.append(_state(path, status))
    return found, tuple(states)


def parse_public(data: bytes) -> list[VerificationKey]:
    """Read the text of one key file; ConfigurationError says what is wrong with it."""
    data = without_mark(data)
    blocks = [] if data.lstrip().startswith(b"{") else _BLOCK.findall(data)
    if not blocks:
        return parse_jwks(_as_set(data))
    if any(b"PRIVATE" in block for block in blocks):
        raise ConfigurationError("a private key among public ones: publish the public half (.jwk), and replace the key")
    if blocks != [b"PUBLIC KEY"]:
        raise ConfigurationError("write exactly one PUBLIC KEY block per file, and no certificate")
    return [_from_pem(data)]


def _from_pem(data: bytes) -> VerificationKey:
    try:
        preamble = data[: data.index(b"-----BEGIN ")].decode()
        public = load_pem_public_key(data)
    except UnicodeDecodeError:
        raise ConfigurationError("the text above the key is not UTF-8") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(what_is_missing(error) or "not a public key in PEM") from None
    fields = [(match[1], match[2]) for line in preamble.splitlines() if (match := _FIELD.fullmatch(line))]
    named = dict(fields)
    if len(named) != len(fields) or "Principal" not in named:
        raise ConfigurationError('write one line "Principal: agent://..." above the key to name its owner')
    # VerificationKey refuses other kinds of key before it checks the id.
    key_id = named["Key-Id"].encode() if "Key-Id" in named else b"-"
    key = VerificationKey.from_public_key(public, principal=named["Principal"], key_id=key_id)
    if "Key-Id" in named:
        return key
    return VerificationKey.from_public_key(public, principal=key.principal, key_id=thumbprint_id(key.public))


def _as_set(data: bytes) -> bytes:
    """Return a set with a single JWK; return all other data unchanged, for ``parse_jwks`` to judge."""
    if len(data) <= MAX_SET_BYTES:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            return data
        if isinstance(document, dict) and "kty" in document and "keys" not in document:
            return b'{"keys": [%s]}' % data.strip()
    return data


def _is_key_file(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix in SUFFIXES


def _state(path: Path, status: os.stat_result) -> tuple[str, int, int, int, int, int]:
    return str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
