"""``watchword key public`` and ``key generate``: an agent's own key, wherever it is held."""

import json
import os
from pathlib import Path

import pytest

from tests.custody.meddler import Meddler, hang_up
from tests.custody.softhsm import SoftHsm
from tests.support import nats_tokens
from tests.support.nats_tokens import creds, write_secret
from tests.unit.cli.conftest import PLANNER, Run
from watchword import Algorithm, SigningKey
from watchword_adapters import plugins
from watchword_adapters.keys.public_files import parse_public


@pytest.fixture
def token(directory: Path, softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the settings of a planner whose key is to be made in a token."""
    monkeypatch.setenv("PLANNER_PIN", softhsm.pin)
    path = directory / "watchword.toml"
    path.write_text(
        f'realm = "prod"\nprincipal = "{PLANNER}"\n[signer]\nsource = "pkcs11"\nmodule = "{softhsm.module}"\n'
        f'token = "agents"\nkey = "cli-{os.urandom(4).hex()}"\npin_env = "PLANNER_PIN"\ntimeout = "30s"\n'
    )
    return path


def test_a_keys_public_half_is_printed_with_its_owner(run: Run, config: Path, directory: Path) -> None:
    """What is printed can be published as it is, and is that of the key which signs."""
    key = SigningKey.from_pem((directory / "planner.pem").read_bytes())
    ended = run("key", "public")
    assert (ended.code, ended.err) == (0, "")
    assert parse_public(ended.out.encode()) == [key.verification_key(PLANNER)]
    ended = run("key", "public", "-c", str(config), "-o", "again.jwk")
    assert ended.out == f"key {key.key_id.decode()} of {PLANNER}\npublic: again.jwk\n"
    assert parse_public((directory / "again.jwk").read_bytes()) == [key.verification_key(PLANNER)]
    assert (
        run("key", "public", "-o", "again.jwk").err == "watchword: again.jwk exists: name another file, or remove it\n"
    )


def test_a_nats_users_key_is_shown_like_any_other(run: Run, config: Path, directory: Path) -> None:
    """Under the principal of the settings, which the signer compares with the user's."""
    account, user = nats_tokens.account(), nats_tokens.user()
    write_secret(directory / "planner.creds", creds(account.says("user", user), user.seed))
    named = 'source = "nkey"\nkey = "planner.creds"'
    config.write_text(config.read_text().replace('key = "planner.pem"', named))
    ended = run("key", "public")
    assert (ended.code, ended.err) == (0, "")
    (key,) = parse_public(ended.out.encode())
    assert (key.principal, key.public_bytes) == (PLANNER, user.private.public_key().public_bytes_raw())


def test_a_workloads_key_is_not_handed_out(run: Run, config: Path) -> None:
    """It changes by the hour, and readers have it from its certificate."""
    config.write_text(config.read_text().replace('key = "planner.pem"', 'source = "spiffe"'))
    ended = run("key", "public")
    assert (ended.code, "from the certificate that this agent announces" in ended.err) == (2, True)


def test_other_settings_may_be_tried(run: Run, config: Path, directory: Path) -> None:
    """A key that the agent is to sign by later is shown before its settings are touched."""
    assert run("keygen", "-p", PLANNER, "--private", "next.pem", "--public", "next.jwk").code == 0
    before = config.read_text()
    ended = run("key", "public", "--with", "key=next.pem", "--with", "key_id=mine")
    assert json.loads(ended.out)["kid"] == "mine"
    assert json.loads(ended.out)["x"] == json.loads((directory / "next.jwk").read_text())["x"]
    assert config.read_text() == before
    assert "write NAME=VALUE" in run("key", "public", "--with", "next.pem").err


@pytest.mark.parametrize("algorithm", ["ed25519", "esp256"])
def test_a_key_is_made_in_a_token(run: Run, token: Path, directory: Path, algorithm: str) -> None:
    """Its public half is printed, or written; nothing is made where that would be lost."""
    ended = run("key", "generate", "-c", str(token), "--algorithm", algorithm)
    assert (ended.code, ended.err) == (0, "")
    (key,) = parse_public(ended.out.encode())
    assert (key.principal, key.algorithm) == (PLANNER, Algorithm[algorithm.upper()])
    assert run("key", "public").out == ended.out
    assert "there is already a private key" in run("key", "generate").err
    (directory / "taken.jwk").touch()
    another = f"key=cli-{os.urandom(4).hex()}"
    assert "taken.jwk exists" in run("key", "generate", "--with", another, "-o", "taken.jwk").err
    assert "no private key labelled" in run("key", "public", "--with", another).err


@pytest.mark.parametrize(
    ("signer", "told"),
    [
        ('key = "planner.pem"', "watchword keygen"),
        ('source = "transit"', "vault write -f transit/keys/NAME type=ed25519"),
        ('source = "aws_kms"', "aws kms create-key"),
        ('source = "nkey"', "nsc add user"),
        ('source = "spiffe"', "SPIRE"),
        ('source = "acme"', "the tool that its plug-in documents"),
    ],
)
def test_a_key_that_is_made_otherwise_says_how(run: Run, config: Path, signer: str, told: str) -> None:
    """Only tokens are asked to make one; for others an agent needs no such right."""
    config.write_text(config.read_text().replace('key = "planner.pem"', signer))
    ended = run("key", "generate")
    assert (ended.code, told in ended.err) == (2, True)


def test_one_who_signs_nothing_has_no_key(run: Run, config: Path) -> None:
    """A reader's settings say so."""
    config.write_text(config.read_text().replace('[signer]\nkey = "planner.pem"\n', ""))
    for command in ("public", "generate"):
        assert "no principal, or no [signer], so this agent has no key" in run("key", command).err


def test_a_plug_in_that_shows_no_public_key_is_named(run: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It signs all the same; its public half comes from where it was made."""

    class Named:
        key_id, algorithm = b"k", Algorithm.ED25519

        async def sign(self, data: bytes) -> bytes:
            return data

    monkeypatch.setattr(plugins, "find", lambda *_, **__: lambda *_: Named())
    config.write_text(config.read_text().replace('key = "planner.pem"', 'source = "acme"'))
    assert 'signer.source = "acme": its plug-in does not expose a public key' in run("key", "public").err


def test_whoever_holds_the_key_may_be_away(run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is another exit code than a mistake: it can be tried again."""
    monkeypatch.setenv("BAO_TOKEN", "s.s3cret")
    server = Meddler("127.0.0.1:9")
    (directory / "watchword.toml").write_text(
        f'realm = "prod"\nprincipal = "{PLANNER}"\n[signer]\nsource = "transit"\naddress = "{server.address}"\n'
        'key = "planner"\nversion = 1\ntoken_env = "BAO_TOKEN"\n'
    )
    try:
        with server.meddling(hang_up):
            ended = run("key", "public")
    finally:
        server.stop()
    assert ended.code == 3
    assert ended.err.startswith("watchword: signing unavailable: transit http://127.0.0.1:")
    assert "s3cret" not in ended.err


def test_keygen_encrypts_by_what_a_variable_or_a_file_holds(
    run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The passphrase is never typed on the command line, where others of the machine could read it."""
    monkeypatch.setenv("PASS", "s3cret")
    (directory / "pass").touch(mode=0o600)
    (directory / "pass").write_text("s3cret\n")
    for number, named in enumerate((("--passphrase-env", "PASS"), ("--passphrase-file", "pass"))):
        ended = run("keygen", "-p", PLANNER, "--private", f"{number}.pem", "--public", f"{number}.jwk", *named)
        assert (ended.code, "mode 0600, encrypted" in ended.out, "s3cret" in ended.out) == (0, True, False)
        key = SigningKey.from_pem((directory / f"{number}.pem").read_bytes(), passphrase=b"s3cret")
        assert parse_public((directory / f"{number}.jwk").read_bytes()) == [key.verification_key(PLANNER)]
    refused = run("keygen", "-p", PLANNER, "--passphrase-env", "NO_SUCH_PASS")
    assert (refused.code, "passphrase_env: there is no variable of this name" in refused.err) == (2, True)
    assert not (directory / "planner.pem").exists()
