"""Secrets: from where they are, never shown, and refused where they are not safe."""

import os
from pathlib import Path

import pytest

from watchword import ConfigurationError, SigningKey
from watchword.spi import Context
from watchword_adapters.signers import file
from watchword_adapters.signers.secret import MAX_BYTES, Secret


def _secret(context: Context, *, variable: str | None = None, name: str | None = None) -> Secret:
    return Secret.required("pin", variable=variable, file=name, context=context)


def test_a_secret_is_read_anew_each_time(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who replaces a PIN or token need not restart; the end of its line is not part of it."""
    path = tmp_path / "pin"
    path.touch(mode=0o600)
    in_file, in_variable = _secret(context, name="pin"), _secret(context, variable="THE_PIN")
    for text in ("first", "second one"):
        path.write_text(f"\ufeff{text}\r\n")
        monkeypatch.setenv("THE_PIN", text)
        assert in_file.read() == in_variable.read() == text
        assert text not in f"{in_file!r} {in_variable!r}"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "pin_file: .*/pin: No such file"),
        (b"", "pin_file: .*/pin: it is empty"),
        (b"\n", "it is empty"),
        (b"\xff", "not UTF-8"),
        (b"x" * (MAX_BYTES + 1), f"over {MAX_BYTES} bytes"),
    ],
)
def test_what_holds_no_secret_is_one_line(context: Context, tmp_path: Path, content: bytes | None, told: str) -> None:
    """A file that is missing, empty or no text says so, and what the setting is called."""
    if content is not None:
        (tmp_path / "pin").touch(mode=0o600)
        (tmp_path / "pin").write_bytes(content)
    with pytest.raises(ConfigurationError, match=told):
        _secret(context, name="pin").read()


def test_a_secret_is_named_once(context: Context) -> None:
    """Nowhere, twice, or in a variable that is not there is a mistake that says what to write."""
    with pytest.raises(ConfigurationError, match='pin: missing; write pin_env = "VARIABLE" or pin_file = "PATH"'):
        _secret(context)
    with pytest.raises(ConfigurationError, match="pin_env and pin_file: write only one of them"):
        _secret(context, variable="A", name="b")
    with pytest.raises(ConfigurationError, match="pin_env: there is no variable of this name, or it is empty"):
        _secret(context, variable="NO_SUCH_PIN").read()


def test_rights_of_a_secrets_file_are_looked_at(context: Context, tmp_path: Path, warned: list[str]) -> None:
    """One that others may write is refused; one that others may read is warned of, as a mounted secret is."""
    path = tmp_path / "pin"
    path.write_text("1234")
    path.chmod(0o644)
    assert _secret(context, name="pin").read() == "1234"
    assert warned == ["signer.key_readable_by_others"]
    path.chmod(0o622)
    with pytest.raises(ConfigurationError, match=r"pin_file: .*/pin: others may write it"):
        _secret(context, name="pin").read()


@pytest.mark.parametrize("text", ["hunter2", "hunter2 s3cret!", "271828", "hvs.CAESIJ"])
@pytest.mark.parametrize("name", ["pin", "token", "passphrase"])
def test_a_secret_in_place_of_a_variables_name_is_not_shown(context: Context, name: str, text: str) -> None:
    """Promise: what the settings say is not repeated, for it may be the secret itself, and look like a name."""
    secret = Secret.required(name, variable=text, file=None, context=context)
    with pytest.raises(ConfigurationError, match=f"{name}_env: there is no variable of this name") as caught:
        secret.read()
    assert text not in f"{caught.value} {secret!r}"


def test_a_file_of_another_user_is_warned_of(
    context: Context, tmp_path: Path, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner may write it whatever its mode says; a mounted secret often is so, and root's own is no news."""
    path = tmp_path / "pin"
    path.touch(mode=0o600)
    path.write_text("1234")
    assert _secret(context, name="pin").read() == "1234"
    assert not warned
    if os.geteuid() == 0:
        os.chown(path, 4711, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert _secret(context, name="pin").read() == "1234"
    assert warned == ["signer.key_of_another_user"]


def _encrypted(directory: Path) -> SigningKey:
    key = SigningKey.generate()
    (directory / "planner.pem").touch(mode=0o600)
    (directory / "planner.pem").write_bytes(key.to_pem(b"pa55"))
    return key


def test_an_encrypted_key_is_opened(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a passphrase in the environment or in a file; its id may be named as that of any other."""
    key = _encrypted(tmp_path)
    monkeypatch.setenv("PASS", "pa55")
    (tmp_path / "pass").touch(mode=0o600)
    (tmp_path / "pass").write_text("pa55\n")
    for named in ({"passphrase_env": "PASS"}, {"passphrase_file": "pass"}):
        assert file.from_options({"key": "planner.pem", **named}, context).key_id == key.key_id
    assert file.from_options({"key": "planner.pem", "key_id": "k", **named}, context).key_id == b"k"


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ({}, "is encrypted: set passphrase_env or passphrase_file"),
        ({"passphrase_env": "WRONG"}, "the passphrase is wrong"),
        ({"passphrase_env": "NO_SUCH_PASS"}, "passphrase_env: there is no variable of this name"),
        ({"passphrase_file": "none"}, "passphrase_file: .*No such file"),
    ],
)
def test_a_passphrase_that_does_not_fit_is_one_line(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: dict[str, str], told: str
) -> None:
    """Wrong or missing, it says which, and shows nothing."""
    _encrypted(tmp_path)
    monkeypatch.setenv("WRONG", "s3cret")
    with pytest.raises(ConfigurationError, match=told) as caught:
        file.from_options({"key": "planner.pem", **named}, context)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rights_of_an_encrypted_key_are_looked_at_too(context: Context, tmp_path: Path) -> None:
    """Anyone who may write the file could put a key of theirs there, encrypted or not."""
    _encrypted(tmp_path)
    (tmp_path / "planner.pem").chmod(0o620)
    (tmp_path / "pass").touch(mode=0o600)
    (tmp_path / "pass").write_text("pa55")
    assert os.name == "posix"
    with pytest.raises(ConfigurationError, match="others may write it"):
        file.from_options({"key": "planner.pem", "passphrase_file": "pass"}, context)
