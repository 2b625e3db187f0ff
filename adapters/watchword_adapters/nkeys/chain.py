"""Derives, from trusted operators or accounts, the users that they vouch for.

A user's JWT is signed by its account, or by one of the signing keys in the account's own JWT; an account's JWT is
signed by its operator in the same way. JWTs that do not lead to a configured key are skipped and logged, since an
account under someone else's control must not be able to disable everyone's keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from watchword_adapters.nkeys.tokens import Token


class User(NamedTuple):
    """A user of an account, with public NKeys and the names given by their issuers.

    It is valid from ``not_before`` to ``not_after`` (seconds or None), unless it is ``revoked``.
    """

    key: str
    account: str
    name: str
    account_name: str
    not_before: int | None
    not_after: int | None
    revoked: bool


class Left(NamedTuple):
    """A skipped JWT: its subject, and why it does not count."""

    subject: str
    why: str


@dataclass(frozen=True, slots=True)
class _Issuer:
    """The public NKeys that may sign, and the JWT that says so; None if only the settings do."""

    keys: frozenset[str]
    token: Token | None = None


class Roots:
    """The trusted keys: of ``operators`` for their accounts, and of ``accounts`` for their users.

    If both are given, an account needs both: its operator's signature, and to be listed.
    """

    def __init__(self, *, operators: Iterable[str] = (), accounts: Iterable[str] = ()) -> None:
        self._operators = frozenset(operators)
        self._accounts = frozenset(accounts)

    def users(self, tokens: Iterable[Token]) -> tuple[list[User], list[Left]]:
        """Return the users that JWTs vouch for, and the skipped JWTs; their order does not matter."""
        left: list[Left] = []
        by_kind: dict[str, dict[tuple[str, str], list[Token]]] = {"operator": {}, "account": {}, "user": {}}
        for token in tokens:
            by_kind[token.kind].setdefault((token.account, token.subject), []).append(token)
        operators = self._trusted_operators(by_kind["operator"])
        accounts = self._trusted_accounts(by_kind["account"], operators, left)
        users: list[User] = []
        for (account, _), issued in by_kind["user"].items():
            found = accounts.get(account)
            good = [token for token in issued if found is not None and token.issuer in found[-1].keys]
            if found is None or not good:
                why = "not a trusted account" if found is None else "not its account or a signing key of it"
                left.append(Left(issued[0].subject, f"signed by {issued[0].issuer}, {why}"))
                continue
            users.append(_user(good, found))
        return users, left

    def _trusted_operators(self, known: dict[tuple[str, str], list[Token]]) -> dict[str, _Issuer]:
        """Return the operator of each key that may sign accounts."""
        found = {key: _Issuer(frozenset({key})) for key in self._operators}
        for (_, subject), issued in known.items():
            own = [token for token in issued if token.issuer == subject]
            if subject in self._operators and own:
                issuer = _issuer(_newest(own))
                found.pop(subject)
                found |= dict.fromkeys(issuer.keys, issuer)
        return found

    def _trusted_accounts(
        self, known: dict[tuple[str, str], list[Token]], operators: dict[str, _Issuer], left: list[Left]
    ) -> dict[str, tuple[_Issuer, ...]]:
        """Return the issuers above each account, with the account itself last."""
        found: dict[str, tuple[_Issuer, ...]] = {}
        if not self._operators:
            found = {account: (_Issuer(frozenset({account})),) for account in self._accounts}
        for (_, subject), issued in known.items():
            named = not self._accounts or subject in self._accounts
            good = [token for token in issued if token.issuer in (operators if self._operators else {subject})]
            if not good or not named:
                why = "and not listed in accounts" if good else "not a trusted operator"
                left.append(Left(subject, f"signed by {issued[0].issuer}, {why}"))
                found.pop(subject, None)  # its revocations would not count
                continue
            token = _newest(good)
            above = (operators[token.issuer],) if self._operators else ()
            found[subject] = *above, _issuer(token)
        return found


def _newest(issued: Iterable[Token]) -> Token:
    return max(issued, key=lambda token: (token.issued_at, len(token.revocations)))


def _issuer(token: Token) -> _Issuer:
    own = frozenset[str]() if token.strict else frozenset({token.subject})
    return _Issuer(own | token.signing_keys, token)


def _user(issued: list[Token], above: tuple[_Issuer, ...]) -> User:
    """Return a user from its newest JWT that is not revoked, or else from its newest one."""
    account = above[-1].token
    revoked_up_to = None if account is None else account.revoked_up_to(issued[0].subject)
    in_force = [token for token in issued if revoked_up_to is None or token.issued_at > revoked_up_to]
    token = _newest(in_force or issued)
    chain = [token, *(one.token for one in above if one.token is not None)]
    begins = [one.not_before for one in chain if one.not_before is not None]
    ends = [one.expires_at for one in chain if one.expires_at is not None]
    return User(
        key=token.subject,
        account=token.account,
        name=token.name,
        account_name=token.account if account is None else account.name,
        not_before=max(begins, default=None),
        not_after=min(ends, default=None),
        revoked=not in_force,  # regardless of the time: a revocation applies to times of issue
    )
