import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import nats_tokens
from tests.support.nats_tokens import part_of
from watchword import ConfigurationError
from watchword_adapters.nkeys.chain import Left, Roots
from watchword_adapters.nkeys.tokens import MAX_TOKEN_BYTES, Token, parse_token

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("vectors.json").read_text())
KEYS = {name: pair[0] for name, pair in VECTORS["keys"].items()}
ACCOUNT, USER = nats_tokens.account(), nats_tokens.user()
TOKEN = ACCOUNT.says("user", USER, "planner", iat=1000)


@pytest.mark.parametrize("name", VECTORS["tokens"])
def test_what_the_reference_implementation_signs_is_read(name: str) -> None:
    """Each kind of token, of its subject, by its issuer, at its time."""
    token = parse_token(VECTORS["tokens"][name])
    assert token.kind == name.partition("_")[0]
    assert token.issued_at == VECTORS["issued_at"]
    assert token.subject in KEYS.values()
    assert token.issuer in KEYS.values()


def test_what_a_token_says_is_taken_over() -> None:
    """Bounds, names, the account behind a signing key, signing keys with a scope, revocations."""
    worker = parse_token(VECTORS["tokens"]["user_by_signing_key"])
    assert (worker.not_before, worker.expires_at, worker.name) == (1_700_000_000, 2_000_000_000, "worker")
    assert (worker.issuer, worker.account) == (KEYS["account_signing"], KEYS["account"])
    account = parse_token(VECTORS["tokens"]["account"])
    assert account.signing_keys == {KEYS["account_signing"], KEYS["account_scoped"]}
    revoking = parse_token(VECTORS["tokens"]["account_with_revocation"])
    assert revoking.revocations == {KEYS["user"]: VECTORS["issued_at"]}
    assert revoking.revoked_up_to(KEYS["user"]) == VECTORS["issued_at"]
    assert revoking.revoked_up_to(KEYS["user_scoped"]) is None
    user = parse_token(VECTORS["tokens"]["user"])
    assert (user.account, user.not_before, user.expires_at) == (KEYS["account"], None, None)


def spoiled(**claims: Any) -> str:
    """Return a token that its account has signed, with other claims."""
    says = {"jti": "x", "iat": 1, "iss": ACCOUNT.public, "name": "n", "sub": USER.public}
    return ACCOUNT.signs(says | {"nats": {"type": "user", "version": 2}} | claims)


@pytest.mark.parametrize(
    ("token", "complaint"),
    [
        ("", "not a NATS JWT: it has three parts"),
        ("a.b", "three parts"),
        ("a.b.c.d", "three parts"),
        (f"{TOKEN}.", "three parts"),
        (TOKEN.replace(".", ".=", 1), "three parts"),
        (f"{TOKEN}\n", "three parts"),
        ("x" * (MAX_TOKEN_BYTES + 1), "three parts"),
        (".".join((part_of(b"{"), *TOKEN.split(".")[1:])), "not a JSON object, or has a duplicate name"),
        (".".join((part_of(b"[]"), *TOKEN.split(".")[1:])), "not a JSON object"),
        (".".join((part_of(b'{"alg":1,"alg":2}'), *TOKEN.split(".")[1:])), "has a duplicate name"),
        (".".join((part_of(b"[" * 100_000), *TOKEN.split(".")[1:])), "not a JSON object"),
        (f"{TOKEN.rpartition('.')[0]}.A", "not base64url"),
        (f"{TOKEN.rpartition('.')[0]}.AB", "not base64url"),
        (f"{TOKEN.rpartition('.')[0]}.AAAA", "the signature is not that of its issuer A"),
        (
            USER.signs({"iss": ACCOUNT.public, "sub": USER.public, "nats": {"type": "user", "version": 2}}),
            "not that of",
        ),
        (ACCOUNT.signs({}, {"typ": "JWT", "alg": "ed25519"}), "version 1: let nsc reissue it"),
        (ACCOUNT.signs({}, {"typ": "JWT", "alg": "none"}), '"alg" is not "ed25519-nkey"'),
        (ACCOUNT.signs({}, {"typ": "JWT", "alg": "HS256"}), '"alg" is not "ed25519-nkey"'),
        (ACCOUNT.signs({}, {"typ": "x", "alg": "ed25519-nkey"}), '"alg" is not'),
        (spoiled(nats=None), "a JWT of type 'None': use those of users, accounts and operators"),
        (spoiled(nats={"type": "activation", "version": 2}), "a JWT of type 'activation'"),
        (spoiled(nats={"type": ["user"], "version": 2}), "a JWT of type"),
        (spoiled(nats={"type": "user", "version": 1}), "a version other than 2"),
        (spoiled(nats={"type": "account", "version": 2}), "write the account's public key"),
        (spoiled(nats={"type": "operator", "version": 2}), "write the operator's public key"),
        (spoiled(sub=ACCOUNT.public), "write the user's public key"),
        (spoiled(iss=USER.public), "write the account's public key"),
        (spoiled(iss=nats_tokens.operator().public), "write the account's public key"),
        (spoiled(iss=5), 'without "iss"'),
        (spoiled(sub=None), 'without "sub"'),
        (spoiled(name="n" * 256), 'without "name", or with an invalid one'),
        (spoiled(exp=-1), '"exp" is not a time'),
        (spoiled(exp=1 << 33), '"exp" is not a time'),
        (spoiled(exp=1.5), '"exp" is not a time'),
        (spoiled(nbf=True), '"nbf" is not a time'),
        (spoiled(iat="1"), '"iat" is not a time'),
        (spoiled(nats={"type": "user", "version": 2, "issuer_account": 1}), 'without "issuer_account"'),
        (ACCOUNT.says("account", ACCOUNT, signing_keys=5), '"signing_keys" are not a list'),
        (ACCOUNT.says("account", ACCOUNT, signing_keys=[{}]), '"signing_keys" are not a list'),
        (ACCOUNT.says("account", ACCOUNT, signing_keys=[USER.public]), "write the account's public key"),
        (ACCOUNT.says("account", ACCOUNT, revocations=[1]), '"revocations" are not an object'),
        (ACCOUNT.says("account", ACCOUNT, revocations={"*": "x"}), "is not a time"),
    ],
)
def test_what_is_wrong_with_a_token_is_said(token: str, complaint: str) -> None:
    """A token that nobody signed, that is of another kind, or that says what it should not."""
    with pytest.raises(ConfigurationError) as error:
        parse_token(token)
    assert complaint in str(error.value)


def test_each_byte_of_a_token_counts() -> None:
    """A token of which any character is another one is refused."""
    for at in range(0, len(TOKEN), 7):
        other = "A" if TOKEN[at] != "A" else "B"
        with pytest.raises(ConfigurationError):
            parse_token(TOKEN[:at] + other + TOKEN[at + 1 :])


class World:
    """An operator, its accounts and users, and who is trusted."""

    def __init__(self) -> None:
        self.operator, self.its_signing_key = nats_tokens.operator(), nats_tokens.operator()
        self.account, self.its_other_key, self.user = (
            nats_tokens.account(),
            nats_tokens.account(),
            nats_tokens.user(),
        )

    def tokens(self, **changed: str | None) -> list[Token]:
        """Return the tokens of the chain; those that are given take another's place, or nobody's."""
        texts: dict[str, str | None] = {
            "operator": self.operator.operator_token(signing_keys=[self.its_signing_key.public]),
            "account": self.its_signing_key.says(
                "account", self.account, "AGENTS", signing_keys=[self.its_other_key.public]
            ),
            "user": self.its_other_key.says("user", self.user, "planner", issuer_account=self.account.public),
        }
        return [parse_token(text) for text in (texts | changed).values() if text is not None]

    def found(self, tokens: list[Token], **roots: list[str]) -> tuple[list[Any], list[Left]]:
        """Return the users, in whatever order the tokens come."""
        chosen = Roots(**(roots or {"operators": [self.operator.public]}))
        users, left = chosen.users(tokens)
        again, left_again = chosen.users(tokens[::-1])
        assert sorted(users) == sorted(again)
        assert sorted(one.subject for one in left) == sorted(one.subject for one in left_again)
        return users, left


@pytest.fixture
def world() -> World:
    """Return a world."""
    return World()


def test_a_user_hangs_on_its_operator(world: World) -> None:
    """By signing keys of the account and of the operator: the user counts, by its own and its account's names."""
    users, left = world.found(world.tokens())
    (found,) = users
    assert (found.key, found.account, found.name) == (world.user.public, world.account.public, "planner")
    assert (found.account_name, found.not_before, found.not_after, found.revoked) == ("AGENTS", None, None, False)
    assert left == []


def test_the_reference_implementations_own_chain_holds() -> None:
    """What nsc would write: three users, of whom one is revoked once the newer token of the account is there."""
    tokens = {name: parse_token(text) for name, text in VECTORS["tokens"].items()}
    revoking = tokens.pop("account_with_revocation")
    roots = Roots(operators=[KEYS["operator"]])
    users, left = roots.users(tokens.values())
    assert {user.name: user.revoked for user in users} == {"planner": False, "worker": False, "scoped": False}
    assert left == []
    users, left = roots.users([*tokens.values(), revoking])
    assert {user.name: user.revoked for user in users} == {"planner": True, "worker": False}
    assert [one.subject for one in left] == [KEYS["user_scoped"]]  # its signing key is gone


def test_nobody_counts_whom_no_root_vouches_for(world: World) -> None:
    """Another operator, another account, a signing key that nobody names, a user that names the account itself."""
    mallory, account, user = nats_tokens.operator(), nats_tokens.account(), nats_tokens.user()
    forged = [
        mallory.operator_token(signing_keys=[world.its_signing_key.public]),
        mallory.says("account", account),
        mallory.says("account", world.account, signing_keys=[account.public], iat=1 << 32),
        account.says("account", account),
        account.says("user", user),
        account.says("user", user, issuer_account=world.account.public),
        account.says("user", world.user, issuer_account=world.account.public, iat=1 << 32),
    ]
    users, left = world.found([*world.tokens(), *map(parse_token, forged)])
    assert [user.key for user in users] == [world.user.public]
    assert {one.subject for one in left} == {account.public, user.public}
    assert all("trusted" in one.why or "signing key" in one.why for one in left)


def test_without_its_own_token_an_operator_has_no_signing_keys(world: World) -> None:
    """What the signing key signed counts for nothing, until someone says that it is one."""
    users, left = world.found(world.tokens(operator=None))
    assert users == []
    assert {one.subject for one in left} == {world.account.public, world.user.public}
    direct = world.operator.says("account", world.account, signing_keys=[world.its_other_key.public])
    assert len(world.found(world.tokens(operator=None, account=direct))[0]) == 1
    assert len(world.found(world.tokens(operator=None), operators=[world.its_signing_key.public])[0]) == 1


def test_a_strict_operator_signs_by_its_signing_keys_only(world: World) -> None:
    """What its own key signed counts no more, but for what it says of itself."""
    strict = world.operator.operator_token(signing_keys=[world.its_signing_key.public], strict_signing_key_usage=True)
    assert len(world.found(world.tokens(operator=strict))[0]) == 1
    direct = world.operator.says("account", world.account, signing_keys=[world.its_other_key.public])
    assert world.found(world.tokens(operator=strict, account=direct))[0] == []


def test_an_account_may_be_the_root(world: World) -> None:
    """Then it vouches for its users itself; a token of its own adds signing keys and revocations."""
    own = world.account.says("user", world.user)
    users, _ = world.found(world.tokens(operator=None, account=None, user=own), accounts=[world.account.public])
    assert [user.account_name for user in users] == [world.account.public]
    of_itself = world.account.says("account", world.account, "X", signing_keys=[world.its_other_key.public])
    users, _ = world.found(world.tokens(operator=None, account=of_itself), accounts=[world.account.public])
    assert [user.account_name for user in users] == ["X"]


def test_an_account_whose_token_cannot_be_checked_is_not_trusted(world: World) -> None:
    """It may have revoked users there: so its operator has to be named, too."""
    own = world.account.says("user", world.user)
    revoking = world.operator.says("account", world.account, revocations={"*": 1 << 32})
    tokens = world.tokens(operator=None, account=revoking, user=own)
    users, left = world.found(tokens, accounts=[world.account.public])
    assert users == []
    assert {one.subject for one in left} == {world.account.public, world.user.public}
    users, _ = world.found(tokens, operators=[world.operator.public], accounts=[world.account.public])
    assert [user.revoked for user in users] == [True]


def test_where_both_are_named_an_account_needs_both(world: World) -> None:
    """An operator's other accounts do not count, nor an account that the operator did not sign."""
    operators, other = [world.operator.public], nats_tokens.account()
    users, left = world.found(world.tokens(), operators=operators, accounts=[other.public])
    assert users == []
    assert any("not listed in accounts" in one.why for one in left)
    assert len(world.found(world.tokens(), operators=operators, accounts=[world.account.public])[0]) == 1
    of_itself = world.account.says("account", world.account, signing_keys=[world.its_other_key.public])
    tokens = world.tokens(account=of_itself)
    assert world.found(tokens, operators=operators, accounts=[world.account.public])[0] == []


def test_the_bounds_of_all_above_a_user_hold_for_it(world: World) -> None:
    """It begins with the last of them to begin, and ends with the first to end."""
    tokens = world.tokens(
        operator=world.operator.operator_token(signing_keys=[world.its_signing_key.public], exp=900, nbf=20),
        account=world.its_signing_key.says(
            "account", world.account, signing_keys=[world.its_other_key.public], exp=800, nbf=30
        ),
        user=world.its_other_key.says("user", world.user, issuer_account=world.account.public, exp=1000, nbf=10),
    )
    ((found,), _) = world.found(tokens)
    assert (found.not_before, found.not_after) == (30, 800)


@pytest.mark.parametrize("whom", ["user", "*"])
def test_what_was_issued_before_a_revocation_is_revoked(world: World, whom: str) -> None:
    """By name or for all; a token that was issued later is one more chance, whichever file comes first."""
    name = world.user.public if whom == "user" else "*"
    account = world.its_signing_key.says(
        "account", world.account, signing_keys=[world.its_other_key.public], revocations={name: 500}
    )

    def said(iat: int) -> str:
        return world.its_other_key.says("user", world.user, f"at {iat}", issuer_account=world.account.public, iat=iat)

    ((found,), _) = world.found(world.tokens(account=account, user=said(500)))
    assert found.revoked
    ((found,), _) = world.found(world.tokens(account=account, user=said(501)))
    assert not found.revoked
    tokens = world.tokens(account=account, user=said(400))
    ((found,), _) = world.found([*tokens, parse_token(said(600)), parse_token(said(450))])
    assert (found.name, found.revoked) == ("at 600", False)
    ((found,), _) = world.found([*tokens, parse_token(said(450))])
    assert (found.name, found.revoked) == ("at 450", True)


def test_the_newest_token_of_an_account_holds(world: World) -> None:
    """A signing key that it names no more signs no user, and what it revokes no more is forgiven."""
    old = world.its_signing_key.says(
        "account", world.account, signing_keys=[world.its_other_key.public], revocations={"*": 1 << 32}, iat=10
    )
    new = world.its_signing_key.says("account", world.account, signing_keys=[], iat=20)
    own = parse_token(world.account.says("user", world.user))
    users, _ = world.found([*world.tokens(account=old, user=None), parse_token(new), own])
    assert [user.revoked for user in users] == [False]
    users, left = world.found([*world.tokens(account=old), parse_token(new)])
    assert users == []
    assert "not its account or a signing key of it" in left[0].why
