"""Key source ``nkeys``: users of NATS accounts, from a table in the settings or from their JWTs."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping  # noqa: TC003 - pydantic reads it
from typing import TYPE_CHECKING, Annotated, Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import AfterValidator

from watchword import ConfigurationError, MemoryKeys, VerificationKey
from watchword.jwk import MAX_SET_KEYS
from watchword.keys import thumbprint_id
from watchword.principals import is_wild
from watchword.settings import Duration, Listed, Principal, Section
from watchword_adapters.keys.files import FileKeys
from watchword_adapters.keys.public_files import MAX_FILES, read_all
from watchword_adapters.nkeys.chain import Left, Roots
from watchword_adapters.nkeys.encoding import Kind, decode_public
from watchword_adapters.nkeys.tokens import parse_token
from watchword_adapters.regular_file import without_mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from watchword.spi import Context, Warn
    from watchword_adapters.keys.public_files import State
    from watchword_adapters.nkeys.chain import User
    from watchword_adapters.nkeys.tokens import Token

TEMPLATE: Final = "nats://{account}/{user}"
"""The principal of a user that is not in the table: the public keys of the account and the user."""

SUFFIX: Final = ".jwt"
_FIELDS: Final = frozenset({"account", "user", "account_name", "user_name"})
_FIELD: Final = re.compile(r"\{([^{}]*)\}")
_NAME: Final = re.compile(r"(?!\.+$)[A-Za-z0-9._@+-]+")
_DECORATED: Final = re.compile(r"-{3,}BEGIN NATS [A-Z]+ JWT-{3,}\s+([\w.-]+)\s+-{3,}END NATS [A-Z]+ JWT-{3,}", re.ASCII)
_TOLD: Final = 3


def _is_no_pattern(principal: str) -> str:
    if is_wild(principal):
        raise ValueError(f"{principal!r} is a pattern: write the principal of this key")
    return principal


class Options(Section):
    """``[[keys]]`` with ``source = "nkeys"``; paths are relative to the settings file.

    ``users`` maps public NKeys to principals. If ``jwts`` is given, only those count for which a JWT there says that
    they are users of an account that ``operators`` and ``accounts`` vouch for; users that are not in ``users`` get the
    name built from ``principal``.
    """

    users: Mapping[str, Annotated[Principal, AfterValidator(_is_no_pattern)]] = {}
    jwts: Annotated[tuple[str, ...], Listed] = ()
    operators: Annotated[tuple[str, ...], Listed] = ()
    accounts: Annotated[tuple[str, ...], Listed] = ()
    principal: str = TEMPLATE
    check_every: Duration = 5.0
    max_staleness: Duration = 3600.0


def from_options(options: Mapping[str, Any], context: Context) -> FileKeys | MemoryKeys:
    """Return the source described by the table."""
    chosen = context.validate(Options, options)
    if len(chosen.users) > MAX_SET_KEYS:
        raise ConfigurationError(f"users: more than {MAX_SET_KEYS}")
    for key in chosen.users:
        _key_of(key, "agent://nobody")
    if not chosen.jwts:
        if not chosen.users:
            raise ConfigurationError('nkeys: write [keys.users] with U... = "agent://...", or jwts = ["jwt"]')
        if chosen.operators or chosen.accounts or chosen.principal != TEMPLATE:
            raise ConfigurationError('nkeys: write operators, accounts and principal only with jwts = ["jwt"]')
        return MemoryKeys(_key_of(key, principal) for key, principal in chosen.users.items())
    tokens = UserTokens(
        operators=chosen.operators,
        accounts=chosen.accounts,
        users=chosen.users,
        principal=chosen.principal,
        warn=context.warn,
    )
    return FileKeys(
        [context.directory / path for path in chosen.jwts],
        check_every=chosen.check_every,
        max_staleness=chosen.max_staleness,
        warn=context.warn,
        kind=tokens,
    )


class UserTokens:
    """Files with JWTs of users, accounts and operators, as ``nsc`` stores them; see ``KeyFiles``.

    A directory means its ``*.jwt``, at any depth. A file that is not a JWT, or that contains a seed, causes the whole
    set to be refused. A JWT that no trusted key has signed is skipped, and logged.
    """

    REMEDY: Final = "write the path of what 'nsc' writes: its store directory, or files with JWTs"

    def __init__(
        self,
        *,
        operators: Sequence[str] = (),
        accounts: Sequence[str] = (),
        users: Mapping[str, str] | None = None,
        principal: str = TEMPLATE,
        warn: Warn | None = None,
    ) -> None:
        if not operators and not accounts:
            raise ConfigurationError('nkeys: whose users? write operators = ["O..."] or accounts = ["A..."]')
        for key in operators:
            decode_public(key, Kind.OPERATOR)
        for key in accounts:
            decode_public(key, Kind.ACCOUNT)
        _check_template(principal, one_account=len(accounts) == 1)
        self._roots = Roots(operators=operators, accounts=accounts)
        self._users = dict(users or {})
        self._template = principal
        self._warn = warn
        self._accounts: dict[str, str] = {}
        self._left: list[Left] = []

    def list_files(self, paths: Iterable[Path]) -> list[Path]:
        """See ``KeyFiles``."""
        files: list[Path] = []
        for path in paths:
            found = sorted(_below(path)) if path.is_dir() else [path]
            if not found:
                raise ConfigurationError(f"{path}: no {SUFFIX} in it: {self.REMEDY}")
            files += found
            if len(files) > MAX_FILES:
                raise ConfigurationError(f"{path}: more than {MAX_FILES} files")
        return files

    def read_keys(self, files: Sequence[Path]) -> tuple[list[VerificationKey], State]:
        """See ``KeyFiles``."""
        tokens, state = read_all(files, _tokens_of)
        users, left = self._roots.users(tokens)
        keys = self._keys_of(self._each_in_one(users, left), left)
        self._tell(left)
        return keys, state

    def _each_in_one(self, users: Iterable[User], left: list[Left]) -> list[User]:
        """Skip users that belong to another account: an account can claim any public key as its user's.

        The account known first keeps the key; ConfigurationError if both are new.
        """
        found: dict[str, User] = {}
        for user in sorted(users):
            account = self._accounts.get(user.key, user.account)
            if account != user.account:
                left.append(Left(user.key, f"a user of {account}, so it cannot be one of {user.account}"))
                continue
            other = found.setdefault(user.key, user)
            if other is not user:
                raise ConfigurationError(
                    f"{user.key} is a user of both {other.account} and {user.account}: give each its own key"
                )
        self._accounts = {user.key: user.account for user in found.values()}
        return [*found.values()]

    def _keys_of(self, users: Iterable[User], left: list[Left]) -> list[VerificationKey]:
        accounts = defaultdict[str, set[str]](set)
        for user in users:
            accounts[user.account_name].add(user.account)
        keys: list[VerificationKey] = []
        for user in users:
            try:
                keys.append(_key_of(user.key, self._principal_of(user, accounts[user.account_name]), user))
            except ConfigurationError as error:
                left.append(Left(user.key, str(error)))
        return keys

    def _principal_of(self, user: User, accounts: set[str]) -> str:
        named = self._users.get(user.key)
        if named is not None:
            return named
        used = set(_FIELD.findall(self._template))
        for field, name in (("account_name", user.account_name), ("user_name", user.name)):
            if field in used and not _NAME.fullmatch(name):
                raise ConfigurationError(f"the name {name[:64]!r} cannot be part of a principal")
        if "account_name" in used and len(accounts) > 1:
            raise ConfigurationError(f"{len(accounts)} accounts have the name {user.account_name!r}")
        values = {
            "account": user.account,
            "user": user.key,
            "account_name": user.account_name,
            "user_name": user.name,
        }
        return _FIELD.sub(lambda match: values[match[1]], self._template)

    def _tell(self, left: list[Left]) -> None:
        if left and left != self._left and self._warn is not None:
            told = "; ".join(f"{one.subject}: {one.why}" for one in left[:_TOLD])
            self._warn("keys.tokens_left_out", count=len(left), why=told, remedy="these do not count; others do")
        self._left = left


def _check_template(template: str, *, one_account: bool) -> None:
    used = set(_FIELD.findall(template))
    if not used <= _FIELDS or not used & {"user", "user_name"} or set("{}") & set(_FIELD.sub("", template)):
        names = ", ".join(f"{{{name}}}" for name in sorted(_FIELDS))
        raise ConfigurationError(f'principal = {template!r}: write "{TEMPLATE}", or with other fields: {names}')
    if not used & {"account", "account_name"} and not one_account:
        raise ConfigurationError(
            f"principal = {template!r}: users of two accounts would be one agent: add {{account}} to it, or write one"
            " account in accounts"
        )


def _key_of(text: str, principal: str, user: User | None = None) -> VerificationKey:
    public = Ed25519PublicKey.from_public_bytes(decode_public(text, Kind.USER))
    return VerificationKey.from_public_key(
        public,
        principal=principal,
        key_id=thumbprint_id(public),
        not_before=None if user is None else user.not_before,
        not_after=None if user is None else user.not_after,
        revoked_at=0 if user is not None and user.revoked else None,
    )


def _below(directory: Path) -> Iterator[Path]:
    """Yield the JWT files of a directory at any depth, except hidden ones."""

    def fail(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(directory, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (directory / folder / name for name in files if name.endswith(SUFFIX) and not name.startswith("."))


def _tokens_of(data: bytes) -> list[Token]:
    """Parse the JWTs of one file."""
    try:
        text = without_mark(data).decode("ascii").strip()
    except UnicodeDecodeError:
        raise ConfigurationError("not a NATS JWT: not ASCII") from None
    if "NKEY SEED" in text:
        raise ConfigurationError("a seed among public tokens: remove the .creds, and replace the user's key")
    return [parse_token(token) for token in _DECORATED.findall(text) or [text]]
