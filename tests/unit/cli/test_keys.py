import errno
import json
import os
import stat
from pathlib import Path

import pytest

from tests.unit.cli.conftest import PLANNER, Run
from watchword import Algorithm, SigningKey
from watchword.jwk import to_jwks
from watchword_adapters.keys.public_files import parse_public


@pytest.mark.parametrize("algorithm", Algorithm)
def test_keygen_makes_a_pair_that_fits(run: Run, directory: Path, algorithm: Algorithm) -> None:
    """The private PEM and the public JWK are two halves of one key of the wanted kind, owned by the principal."""
    ended = run("keygen", "--principal", PLANNER, "--algorithm", algorithm.label)
    assert ended.code == 0
    private = SigningKey.from_pem((directory / "planner.pem").read_bytes())
    assert parse_public((directory / "planner.jwk").read_bytes()) == [private.verification_key(PLANNER)]
    assert private.algorithm is algorithm
    assert "PRIVATE" not in ended.out + ended.err


def test_keygen_keeps_the_private_key_to_its_owner(run: Run, directory: Path) -> None:
    """Nobody else can read the private key, not even for a moment, whatever the umask; the public one all can."""
    run("keygen", "-p", PLANNER)
    assert stat.S_IMODE((directory / "planner.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((directory / "planner.jwk").stat().st_mode) & 0o077


@pytest.mark.parametrize("existing", ["planner.pem", "planner.jwk"])
def test_keygen_never_overwrites(run: Run, directory: Path, existing: str) -> None:
    """A key that is in use is not lost to a second call, and no half of a pair is left behind."""
    (directory / existing).write_text("precious")
    ended = run("keygen", "-p", PLANNER)
    assert (ended.code, ended.err) == (2, f"watchword: {existing} exists: name another file, or remove it\n")
    assert [path.name for path in directory.iterdir()] == [existing]
    assert (directory / existing).read_text() == "precious"


def test_keygen_follows_no_link(run: Run, directory: Path) -> None:
    """A link laid in the private key's place does not carry the key elsewhere."""
    (directory / "planner.pem").symlink_to(directory / "elsewhere")
    assert run("keygen", "-p", PLANNER).code == 2
    assert not (directory / "elsewhere").exists()


def test_keygen_leaves_no_private_key_without_its_public_half(run: Run, directory: Path) -> None:
    """Where the public file cannot be written there is no private one either."""
    ended = run("keygen", "-p", PLANNER, "--public", "none/planner.jwk")
    assert (ended.code, ended.err) == (2, "watchword: none/planner.jwk: No such file or directory\n")
    assert not list(directory.iterdir())


def test_keygen_takes_names_and_speaks_json(run: Run, directory: Path) -> None:
    """Files may be named, and a program learns them and the key id."""
    ended = run("keygen", "-p", "agent://acme/größe", "--private", "a.pem", "--public", "b.jwk", "--json")
    (key,) = parse_public((directory / "b.jwk").read_bytes())
    made = {"principal": "agent://acme/größe", "kid": key.key_id.decode(), "private": "a.pem", "public": "b.jwk"}
    assert ended.lines == [made]


@pytest.mark.parametrize("room", [0, 1])
def test_keygen_on_a_full_disk_leaves_no_file(
    run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Where either file cannot be written whole, there is no half a pair afterwards."""
    left = [None] * room

    def full(_: int) -> None:
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        left.pop()

    monkeypatch.setattr(os, "fsync", full)
    ended = run("keygen", "-p", PLANNER)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"watchword: planner.{'jwk' if room else 'pem'}: No space left on device\n"
    assert not list(directory.iterdir())


@pytest.mark.parametrize("principal", ["agent://acme/größe", "agent://acme/..", "-p"])
def test_keygen_guesses_no_file_name(run: Run, directory: Path, principal: str) -> None:
    """A principal that gives no plain file name needs one; no path is made of it."""
    ended = run("keygen", f"--principal={principal}")
    assert ended.code == 2
    assert "name files with --private and --public" in ended.err
    assert not list(directory.iterdir())


def test_keygen_refuses_what_is_no_principal(run: Run, directory: Path) -> None:
    """A control character in a name is refused, and shown as such."""
    ended = run("keygen", "-p", "a\x1b[2J", "--private", "a", "--public", "b")
    assert ended.code == 2
    assert "\x1b" not in ended.err
    assert not list(directory.iterdir())


def test_jwks_collects_sets_keys_and_pems_once_each(run: Run, directory: Path) -> None:
    """What is collected from files and directories is one set that a key source reads, without repeats."""
    for name in ("a", "b"):
        run("keygen", "-p", f"agent://{name}", "--private", f"/{directory}/{name}.key")
    first = run("jwks", "a.jwk", "b.jwk")
    (directory / "all.jwks").write_text(first.out)
    again = run("jwks", "all.jwks", ".")
    assert again.out == first.out
    assert [key.principal for key in parse_public(again.out.encode())] == ["agent://a", "agent://b"]


def test_jwks_replaces_its_output_in_one_step(run: Run, directory: Path) -> None:
    """The set that agents read is replaced whole and is readable by them; nothing is left beside it."""
    run("keygen", "-p", PLANNER)
    (directory / "agents.jwks").write_text("old")
    old = (directory / "agents.jwks").open()
    assert run("jwks", "planner.jwk", "--output", "agents.jwks").out == ""
    assert old.read() == "old"
    old.close()
    assert stat.S_IMODE((directory / "agents.jwks").stat().st_mode) == 0o644
    assert len(json.loads((directory / "agents.jwks").read_text())["keys"]) == 1
    assert {path.name for path in directory.iterdir()} == {"agents.jwks", "planner.jwk", "planner.pem"}


@pytest.mark.parametrize("output", ["none/agents.jwks", "taken"])
def test_jwks_says_where_it_cannot_write(run: Run, directory: Path, output: str) -> None:
    """An output that cannot be written is one line, and nothing is left beside it."""
    run("keygen", "-p", PLANNER)
    (directory / "taken").mkdir()
    ended = run("jwks", "planner.jwk", "-o", output)
    assert ended.code == 2
    assert ended.err.startswith(f"watchword: {output}: ")
    assert len(list(directory.iterdir())) == 3


def test_jwks_on_a_full_disk_leaves_the_old_set(run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set that cannot be written whole replaces nothing, and leaves nothing beside the old one."""
    run("keygen", "-p", PLANNER)
    (directory / "agents.jwks").write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    ended = run("jwks", "planner.jwk", "-o", "agents.jwks")
    assert (ended.code, ended.err) == (2, "watchword: agents.jwks: No space left on device\n")
    assert (directory / "agents.jwks").read_text() == "old"
    assert len(list(directory.iterdir())) == 3


def test_jwks_refuses_private_keys(run: Run, directory: Path) -> None:
    """A private key does not get into a set by mistake, as PEM or as JWK."""
    run("keygen", "-p", PLANNER)
    assert "planner.pem: a private key among public ones" in run("jwks", "planner.pem").err
    assert "a private key among public ones" in run("jwks", ".").err
    jwk = json.loads((directory / "planner.jwk").read_text())
    (directory / "secret.jwk").write_text(json.dumps({**jwk, "d": "AA"}))
    ended = run("jwks", "secret.jwk")
    assert (ended.code, ended.out) == (2, "")
    assert "private key material in a public set" in ended.err


def test_jwks_refuses_one_key_of_two_owners(run: Run, directory: Path) -> None:
    """A set that no key source would take is not made."""
    key = SigningKey.generate()
    for name in ("a", "b"):
        (directory / f"{name}.jwks").write_text(to_jwks([key.verification_key(name)]))
    ended = run("jwks", "a.jwks", "b.jwks")
    assert ended.code == 2
    assert "one public key for 'a' and 'b'" in ended.err


def test_jwks_names_a_missing_file(run: Run) -> None:
    """A file that is not there is named."""
    ended = run("jwks", "none.jwk")
    assert (ended.code, ended.err) == (2, "watchword: none.jwk: No such file or directory\n")


def test_two_teams_have_a_planner_each(run: Run, directory: Path) -> None:
    """The second one's files are named after its team too; neither is refused or written over."""
    made = {}
    for principal in ("agent://a/planner", "agent://b/planner", "agent://c/b/planner", "user://b/planner"):
        ended = run("keygen", "-p", principal, "--json")
        assert ended.code == 0
        made[principal] = ended.lines[0]["private"]
    assert list(made.values())[:3] == ["planner.pem", "b-planner.pem", "c-b-planner.pem"]
    assert len(set(made.values())) == 4
    found = parse_public(run("jwks", *map(str, directory.glob("*.jwk"))).out.encode())
    assert {key.principal for key in found} == set(made)
    again = run("keygen", "-p", "agent://b/planner")
    assert (again.code, again.err) == (2, "watchword: b-planner.jwk exists: name another file, or remove it\n")
    assert len(list(directory.iterdir())) == 8


def test_a_principal_with_a_slip_in_it_gets_no_key(run: Run, directory: Path) -> None:
    """A name that settings would refuse is reported before a key is created for it."""
    ended = run("keygen", "-p", "agent:/acme/planner")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "principal: 'agent:/acme/planner' is not a URI" in ended.err
    assert not list(directory.iterdir())
