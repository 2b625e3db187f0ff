import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import nats_tokens
from tests.support.nats_tokens import Holder, creds
from watchword import ConfigurationError, MemoryKeys, Policy, Reason, Rejected, SigningKey, Unavailable, Watchword
from watchword.keys import thumbprint_id
from watchword.spi import Channel, Context, Message
from watchword_adapters.keys import public_files
from watchword_adapters.keys.files import FileKeys
from watchword_adapters.nkeys import source as module
from watchword_adapters.nkeys.encoding import Kind, encode_public
from watchword_adapters.nkeys.source import UserTokens, from_options

ALICE = "agent://acme/alice"


class Store:
    """An operator, an account and a user, and a directory as ``nsc`` keeps it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.operator, self.account, self.user = nats_tokens.operator(), nats_tokens.account(), nats_tokens.user()
        self.warnings: list[tuple[str, dict[str, Any]]] = []
        self.write("ACME/ACME.jwt", self.operator.operator_token())
        self.write("ACME/accounts/AGENTS/AGENTS.jwt", self.operator.says("account", self.account, "AGENTS"))
        self.write("ACME/accounts/AGENTS/users/planner.jwt", self.account.says("user", self.user, "planner"))

    def write(self, name: str, text: str) -> Path:
        """Write a file."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def warn(self, event: str, **fields: Any) -> None:
        """Note a warning."""
        self.warnings.append((event, fields))

    def make(self, **options: Any) -> FileKeys | MemoryKeys:
        """Return what the settings make."""
        chosen: dict[str, Any] = {"jwts": ["."], "operators": [self.operator.public], "check_every": 0} | options
        context = Context(realm="prod", directory=self.directory, clock=lambda: 0.0, policy=Policy(), warn=self.warn)
        return from_options({name: value for name, value in chosen.items() if value is not None}, context)

    def key_id(self, holder: Holder | None = None) -> bytes:
        """Return the id of a user's key."""
        return thumbprint_id((holder or self.user).private.public_key())

    def principal(self, account: Holder | None = None) -> str:
        """Return what the user is called where nobody calls it otherwise."""
        return f"nats://{(account or self.account).public}/{self.user.public}"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store."""
    return Store(tmp_path)


async def test_a_table_says_whose_keys_they_are(store: Store) -> None:
    """Without tokens the table is all there is, and its keys have no end."""
    source = store.make(users={store.user.public: ALICE}, jwts=None, operators=None)
    assert isinstance(source, MemoryKeys)
    key = await source.find(ALICE, store.key_id())
    assert key is not None
    assert (key.public_bytes, key.not_after) == (store.user.private.public_key().public_bytes_raw(), None)


async def test_a_store_of_nsc_is_read_however_deep(store: Store) -> None:
    """The user is called by its account's and its own public key; hidden files and others are passed over."""
    store.write(".hidden/x.jwt", "x")
    store.write("ACME/.x.jwt", "x")
    store.write("ACME/creds/planner.creds", creds("x", store.user.seed))
    key = await store.make().find(store.principal(), store.key_id())
    assert key is not None
    assert (key.principal, store.warnings) == (store.principal(), [])


async def test_the_table_goes_before_the_template(store: Store) -> None:
    """And a user in the table of whom no token says anything has no key."""
    other = nats_tokens.user()
    store.write("b.jwt", store.account.says("user", other, "b"))
    source = store.make(users={store.user.public: ALICE, nats_tokens.user().public: "agent://acme/nobody"})
    assert isinstance(source, FileKeys)
    assert {key.principal for key in source.keys} == {ALICE, f"nats://{store.account.public}/{other.public}"}


@pytest.mark.parametrize(
    ("template", "principal"),
    [
        ("agent://acme/{account_name}/{user_name}", "agent://acme/AGENTS/planner"),
        ("nats://{account}/{user_name}", "nats://ACCOUNT/planner"),
    ],
)
async def test_names_may_make_the_principal(store: Store, template: str, principal: str) -> None:
    """Those that the operator and the account gave."""
    source = store.make(principal=template)
    assert isinstance(source, FileKeys)
    assert [key.principal for key in source.keys] == [principal.replace("ACCOUNT", store.account.public)]


@pytest.mark.parametrize("name", ["a/b", "*", "**", "ä", "a b", " a", "../", ".", ".."])
async def test_a_name_that_could_be_somebody_elses_is_left_out(store: Store, name: str) -> None:
    """An account gives its users what names it likes: none of them reaches out of its part of the principal."""
    store.write("b.jwt", store.account.says("user", nats_tokens.user(), name))
    source = store.make(principal="agent://{account_name}/{user_name}")
    assert isinstance(source, FileKeys)
    assert [key.principal for key in source.keys] == ["agent://AGENTS/planner"]
    ((event, fields),) = store.warnings
    assert (event, fields["count"]) == ("keys.tokens_left_out", 1)
    assert "cannot be part of a principal" in fields["why"]


async def test_two_accounts_of_one_name_are_left_out(store: Store) -> None:
    """Neither can speak for the other."""
    other = nats_tokens.account()
    store.write("other.jwt", store.operator.says("account", other, "AGENTS"))
    store.write("b.jwt", other.says("user", nats_tokens.user(), "planner"))
    source = store.make(principal="agent://{account_name}/{user_name}")
    assert isinstance(source, FileKeys)
    assert source.keys == ()
    assert "2 accounts have the name 'AGENTS'" in store.warnings[0][1]["why"]


async def test_a_weak_key_is_left_out(store: Store) -> None:
    """Under it anyone's signature verifies: an agent that names one stops no other."""
    weak = nats_tokens.user()
    weak.public = encode_public(Kind.USER, bytes(32))
    store.write("b.jwt", store.account.says("user", weak, "b"))
    source = store.make()
    assert isinstance(source, FileKeys)
    assert [key.principal for key in source.keys] == [store.principal()]
    assert "not a point of full order" in store.warnings[0][1]["why"]


async def test_an_account_cannot_take_another_ones_user(store: Store) -> None:
    """The agent known first keeps the key while the process runs; at the start that is unknown, and is logged."""
    source, other = store.make(), nats_tokens.account()
    store.write("other.jwt", store.operator.says("account", other, "OTHER"))
    path = store.write("b.jwt", other.says("user", store.user, "planner"))
    assert await source.find(store.principal(), store.key_id()) is not None
    assert await source.find(store.principal(other), store.key_id()) == await source.find(
        store.principal(), store.key_id()
    )
    assert "so it cannot be one of" in store.warnings[-1][1]["why"]
    told = len(store.warnings)
    assert await source.find(store.principal(), store.key_id()) is not None
    assert len(store.warnings) == told  # once, and not at each look
    with pytest.raises(ConfigurationError, match=rf"{store.user.public} is a user of both A\w+ and A\w+: give each"):
        store.make()
    path.unlink()
    assert isinstance(store.make(), FileKeys)


async def test_a_revocation_and_an_end_come_with_the_files(store: Store) -> None:
    """The account's new token revokes a user; a user's new one has another end."""
    source = store.make()
    name = "ACME/accounts/AGENTS/users/planner.jwt"
    store.write(name, store.account.says("user", store.user, "planner", iat=500, exp=900))
    key = await source.find(store.principal(), store.key_id())
    assert key is not None
    assert (key.not_after, key.revoked_at) == (900, None)
    revoking = store.operator.says("account", store.account, "AGENTS", revocations={store.user.public: 500})
    store.write("ACME/accounts/AGENTS/AGENTS.jwt", revoking)
    key = await source.find(store.principal(), store.key_id())
    assert key is not None
    assert (key.not_after, key.revoked_at) == (900, 0)


@pytest.mark.parametrize("whom", ["user", "*"])
@pytest.mark.parametrize("ahead", [0, 4, 365 * 86_400])
async def test_a_revoked_user_is_rejected_at_once(store: Store, whom: str, ahead: int) -> None:
    """As by a NATS server, which compares the revocation with the time of issue, not with the present (A23)."""
    now = int(time.time())
    name = store.user.public if whom == "user" else "*"
    revoking = store.operator.says("account", store.account, "AGENTS", revocations={name: now + ahead})
    store.write("ACME/accounts/AGENTS/AGENTS.jwt", revoking)
    key = SigningKey(store.user.private)
    sent = Message(channel=Channel.parse("nats://prod/tasks"), value=b"{}")
    signed = await Watchword(realm="prod", principal=store.principal(), key=key).signer.sign(sent)
    reader = Watchword(realm="prod", keys=store.make())
    (verdict,) = await reader.verifier.authenticate([replace(sent, headers=(signed.header,), appended_at=time.time())])
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.KEY_REVOKED
    assert "revoked; the sender needs another key" in str(verdict.detail)
    store.write("ACME/accounts/AGENTS/users/new.jwt", store.account.says("user", store.user, iat=now + ahead + 1))
    found = await store.make().find(store.principal(), key.key_id)
    assert found is not None
    assert found.revoked_at is None


async def test_a_decorated_token_is_read(store: Store) -> None:
    """As nsc prints it."""
    token = store.account.says("user", store.user, "planner", exp=77)
    text = f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n"
    store.write("ACME/accounts/AGENTS/users/planner.jwt", text)
    source = store.make()
    assert isinstance(source, FileKeys)
    assert [key.not_after for key in source.keys] == [77]


async def test_a_seed_among_tokens_is_refused(store: Store) -> None:
    """A seed among tokens raises an error that names the file, and shows nothing of the seed; known keys remain."""
    source = store.make()
    assert isinstance(source, FileKeys)
    (known,) = source.keys
    path = store.write("b.jwt", creds(store.account.says("user", store.user), store.user.seed))
    with pytest.raises(Unavailable, match=f"{path}: a seed among public tokens") as error:
        await source.find(ALICE, b"unknown")
    assert store.user.seed not in str(error.value)
    assert await source.find(known.principal, known.key_id) == known
    with pytest.raises(ConfigurationError, match="a seed among public tokens"):
        store.make()


def test_a_directory_without_tokens_is_no_source(store: Store, tmp_path: Path) -> None:
    """More likely a mount that went away than an operator without users."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match=r"no \.jwt in it: write the path of what 'nsc' writes"):
        store.make(jwts=["empty"])
    with pytest.raises(ConfigurationError, match=r"No such file or directory; write the path of what 'nsc' writes"):
        store.make(jwts=["none.jwt"])


def test_a_directory_that_cannot_be_read_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of a store that is passed over in silence would be users who are gone."""

    def walk(directory: Path, onerror: Any) -> Any:
        onerror(PermissionError(13, "Permission denied", str(directory / "ACME")))
        yield from ()

    monkeypatch.setattr("os.walk", walk)
    with pytest.raises(ConfigurationError, match="ACME: Permission denied"):
        store.make()


def test_files_are_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any is read."""
    monkeypatch.setattr(module, "MAX_FILES", 2)
    with pytest.raises(ConfigurationError, match="more than 2 files"):
        store.make()


def test_tokens_are_ascii(store: Store) -> None:
    """Anything else is refused."""
    store.write("b.jwt", "ß")
    with pytest.raises(ConfigurationError, match=r"b\.jwt: not a NATS JWT: not ASCII"):
        store.make()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"jwts": None, "operators": None}, 'write [keys.users] with U... = "agent://...", or jwts'),
        ({"jwts": None, "users": {"X": ALICE}}, "'X' is not an NKey"),
        ({"jwts": None, "users": {nats_tokens.account().public: ALICE}}, "is the public key of an account"),
        ({"users": {nats_tokens.user().public: "agent://acme/*"}}, "is a pattern"),
        ({"users": {nats_tokens.user().public: "agent:/acme"}}, "is not a URI"),
        ({"jwts": None, "users": {nats_tokens.user().public: ALICE}}, "only with jwts"),
        ({"operators": None}, 'whose users? write operators = ["O..."] or accounts'),
        ({"operators": [nats_tokens.account().public]}, "write the operator's public key"),
        ({"accounts": [nats_tokens.user().public]}, "write the account's public key"),
        ({"accounts": [nats_tokens.account().seed]}, "a private NKey instead of the account's"),
        ({"principal": "nats://{account}/{user"}, 'write "nats://{account}/{user}", or with other fields: {account}'),
        ({"principal": "nats://{account}"}, 'write "nats://{account}/{user}"'),
        ({"principal": "nats://{account}/{user}/{other}"}, 'write "nats://{account}/{user}"'),
        ({"principal": "nats://{account}/{user.__class__}"}, 'write "nats://{account}/{user}"'),
        ({"principal": "nats://{account}/{user!r}"}, 'write "nats://{account}/{user}"'),
        ({"principal": "nats://{account}/{user:>9}"}, 'write "nats://{account}/{user}"'),
        ({"principal": "nats://{account}/{}{user}"}, 'write "nats://{account}/{user}"'),
        ({"principal": "agent://acme/{user_name}"}, "users of two accounts would be one agent"),
        ({"check_every": -1}, "check_every"),
        ({"paths": ["x"]}, "paths"),
    ],
)
def test_a_mistake_in_the_table_is_told(store: Store, options: dict[str, Any], complaint: str) -> None:
    """With what to write instead."""
    with pytest.raises(ConfigurationError) as error:
        store.make(**options)
    assert complaint in str(error.value)


def test_one_account_needs_no_place_in_the_principal(store: Store) -> None:
    """Where it is the only one that is named."""
    source = store.make(accounts=[store.account.public], principal="agent://acme/{user_name}")
    assert isinstance(source, FileKeys)
    assert [key.principal for key in source.keys] == ["agent://acme/planner"]


def test_the_table_has_a_bound(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a key set has."""
    monkeypatch.setattr(module, "MAX_SET_KEYS", 1)
    with pytest.raises(ConfigurationError, match="users: more than 1"):
        store.make(users={nats_tokens.user().public: ALICE, store.user.public: ALICE})


def test_more_tokens_than_a_set_has_keys_are_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before they are checked in vain."""
    monkeypatch.setattr(public_files, "MAX_SET_KEYS", 2)
    with pytest.raises(ConfigurationError, match="more than 2 keys in all"):
        store.make()


def test_a_source_may_be_silent(store: Store) -> None:
    """Who gives it nobody to warn hears nothing."""
    store.write("b.jwt", nats_tokens.account().says("user", nats_tokens.user()))
    keys, _ = (kind := UserTokens(operators=[store.operator.public])).read_keys(kind.list_files([store.directory]))
    assert len(keys) == 1
