import itertools
import math
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support import nats_tokens
from tests.support.nats_tokens import creds, write_secret
from watchword import ConfigurationError, Policy, SigningError, SigningKey
from watchword.spi import Channel, Context, Message
from watchword_adapters.config import load
from watchword_adapters.nkeys.signer import MAX_CREDS_BYTES, from_options

ACCOUNT, USER = nats_tokens.account(), nats_tokens.user()
PRINCIPAL = f"nats://{ACCOUNT.public}/{USER.public}"
CREDS = creds(ACCOUNT.says("user", USER, "planner", exp=2000), USER.seed)


class Warnings(list[str]):
    """What was warned of."""

    def __call__(self, event: str, **_: str | float | None) -> None:
        """Note it."""
        self.append(event)


def made(
    path: Path, *, principal: str | None = PRINCIPAL, now: float = 1000.0, warn: Any = None, **options: Any
) -> SigningKey:
    """Return the key that the settings name."""
    context = Context(
        realm="prod",
        directory=path.parent,
        clock=lambda: now,
        policy=Policy(),
        warn=Warnings() if warn is None else warn,
        principal=principal,
    )
    return from_options({"key": path.name} | options, context)


@pytest.mark.parametrize(
    "text",
    [
        CREDS,
        USER.seed,
        f"{USER.seed}\n",
        f"\ufeff{CREDS}",
        creds("x", USER.seed)[creds("x", USER.seed).index("\n\n") :],
    ],
    ids=["creds", "seed", "seed and line's end", "mark", "seed alone, as in a creds"],
)
async def test_a_users_seed_signs(tmp_path: Path, text: str) -> None:
    """From a ``.creds``, or from a file that has nothing else."""
    key = made(write_secret(tmp_path / "planner.creds", text))
    USER.private.public_key().verify(await key.sign(b"data"), b"data")
    assert made(tmp_path / "planner.creds", key_id="planner").key_id == b"planner"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "this is not an NKey"),
        (nats_tokens.account().seed, "this is the seed of an account, which cannot sign messages"),
        (nats_tokens.operator().seed, "this is the seed of an operator"),
        (USER.public, "this is the public key of a user: write the user's seed"),
        ("ß", "neither a .creds nor a seed: not ASCII"),
        (creds("x", nats_tokens.account().seed), "this is the seed of an account"),
        (creds("x.y.z", USER.seed), "not a NATS JWT"),
        (creds(ACCOUNT.says("user", nats_tokens.user()), USER.seed), "its JWT is for U"),
        (creds(ACCOUNT.says("account", ACCOUNT), USER.seed), "its JWT is for A"),
        (CREDS + CREDS, "more than one user in it"),
        (CREDS + "x" * MAX_CREDS_BYTES, "over 65536 bytes"),
    ],
    ids=itertools.count(),  # the texts are others in each process that runs tests
)
def test_what_is_no_users_file_is_told(tmp_path: Path, text: str, complaint: str) -> None:
    """Nothing of any seed is shown."""
    path = write_secret(tmp_path / "planner.creds", text)
    with pytest.raises(ConfigurationError) as error:
        made(path)
    assert complaint in str(error.value)
    assert str(path) in str(error.value)
    assert USER.seed[4:] not in str(error.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """With what to name."""
    with pytest.raises(ConfigurationError, match=r"No such file or directory; write the path of this user"):
        made(tmp_path / "none.creds")


def test_what_has_ended_signs_nothing(tmp_path: Path) -> None:
    """Readers would reject it: the agent says so at its start."""
    path = write_secret(tmp_path / "planner.creds", CREDS)
    assert made(path, now=1992.0).key_id
    for now in (1993.0, 2000.0):  # a message may be appended seconds after it was signed
        with pytest.raises(ConfigurationError, match="its JWT has expired"):
            made(path, now=now)
    begins = creds(ACCOUNT.says("user", USER, "planner", nbf=1500), USER.seed)
    with pytest.raises(ConfigurationError, match="its JWT is not valid for another 500 s"):
        made(write_secret(path, begins), now=1000.0)
    assert made(path, now=1500.0).not_after == math.inf


async def test_a_key_that_ends_while_it_runs_signs_no_more(tmp_path: Path) -> None:
    """Readers would reject it as key_not_valid; a new JWT of the same user lets it sign again, without a restart."""

    def issued(end: int) -> str:
        return creds(ACCOUNT.says("user", USER, exp=end), USER.seed)

    now = 1000.0
    path = write_secret(tmp_path / "planner.creds", issued(2000))
    (tmp_path / "watchword.toml").write_text(
        'realm = "prod"\nprincipal = "agent://acme/planner"\n[replay]\nstate = ""\n'
        '[signer]\nsource = "nkey"\nkey = "planner.creds"\n'
    )
    agent = load(tmp_path / "watchword.toml", telemetry=False, clock=lambda: now)
    message = Message(channel=Channel.parse("nats://prod/tasks"), value=b"{}")
    assert await agent.signer.sign(message)
    now = 1993.0
    with pytest.raises(SigningError, match="this agent's key has ended"):
        await agent.signer.sign(message)
    with pytest.raises(SigningError, match="this agent's key has ended"):
        await agent.signer.sign_many([message, message])
    write_secret(path, issued(3000))
    agent.reload()
    assert await agent.signer.sign_many([message, message])


def test_the_principal_is_what_readers_call_this_user(tmp_path: Path) -> None:
    """A missing or mistyped principal raises an error that says what to write; another scheme's name is accepted."""
    path = write_secret(tmp_path / "planner.creds", CREDS)
    for wrong in (None, f"nats://{ACCOUNT.public}/planner", f"nats://AGENTS/{USER.public}"):
        with pytest.raises(ConfigurationError, match=f'write principal = "{PRINCIPAL}"'):
            made(path, principal=wrong)
    assert made(path, principal="agent://acme/planner").key_id
    assert made(write_secret(tmp_path / "planner.nk", USER.seed), principal=None).key_id


def test_the_rights_of_the_file_are_those_of_any_key(tmp_path: Path) -> None:
    """That others may write it is refused, that they may read it is warned of."""
    path = write_secret(tmp_path / "planner.creds", CREDS)
    path.chmod(0o644)
    warnings = Warnings()
    assert made(path, warn=warnings).key_id
    assert warnings == ["signer.key_readable_by_others"]
    for mode in (0o620, 0o602):
        path.chmod(mode)
        with pytest.raises(ConfigurationError, match="others may write it; run chmod 600"):
            made(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="is not a regular file"):
        made(tmp_path / "pipe")


@pytest.mark.parametrize("key_id", ["", "x" * 129])
def test_an_id_has_a_length(tmp_path: Path, key_id: str) -> None:
    """That of any key id."""
    with pytest.raises(ConfigurationError, match="key id of"):
        made(write_secret(tmp_path / "planner.creds", CREDS), key_id=key_id)


async def test_a_new_file_takes_the_old_ones_place_while_it_runs(tmp_path: Path) -> None:
    """As with a PEM: the agent signs by the new user's seed, without a restart."""
    other = nats_tokens.user()
    path = write_secret(tmp_path / "planner.creds", USER.seed)
    (tmp_path / "watchword.toml").write_text(
        'realm = "prod"\nprincipal = "agent://acme/planner"\n[signer]\nsource = "nkey"\nkey = "planner.creds"\n'
        '[replay]\nstate = ""\n'
        f'[[keys]]\nsource = "nkeys"\n[keys.users]\n{USER.public} = "agent://acme/planner"\n'
        f'{other.public} = "agent://acme/planner"\n'
    )
    agent = load(tmp_path / "watchword.toml", telemetry=False)
    before = agent.signer.key_id
    write_secret(path, other.seed)
    agent.reload()
    assert agent.signer.key_id != before
    assert {key.key_id for key in agent.verifier.known_keys} == {before, agent.signer.key_id}


def test_one_public_key_of_two_principals_is_refused_between_sources(tmp_path: Path) -> None:
    """The table gives another agent the key with which this one signs."""
    write_secret(tmp_path / "planner.nk", USER.seed)
    (tmp_path / "watchword.toml").write_text(
        'realm = "prod"\nprincipal = "agent://acme/planner"\n[signer]\nsource = "nkey"\nkey = "planner.nk"\n'
        f'[replay]\nstate = ""\n[[keys]]\nsource = "nkeys"\n[keys.users]\n{USER.public} = "agent://acme/other"\n'
    )
    with pytest.raises(ConfigurationError, match="one public key for"):
        load(tmp_path / "watchword.toml", telemetry=False)
