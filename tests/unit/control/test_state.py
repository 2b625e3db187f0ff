"""The state file of the control log: only we may write to it, and nothing in its place holds a start up (A52)."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from watchword import ConfigurationError
from watchword_adapters.control.state import Known, Place, StateFile

CHANNEL = "nats://prod/watchword.control"
PLACE = Place("log", 7)


@pytest.fixture
def state(tmp_path: Path) -> StateFile:
    """Give a file that was written, in a directory of its own."""
    state = StateFile(tmp_path / "state", CHANNEL)
    state.write((), PLACE, {})
    assert state.load() == Known(PLACE, [], {})
    return state


def another_users(path: Path, patch: pytest.MonkeyPatch) -> None:
    """Give it to another user."""
    if os.geteuid() == 0:
        os.chown(path, 4711, -1)
    else:
        patch.setattr(os, "geteuid", lambda: 4711)


OPEN: list[tuple[Callable[[Path, pytest.MonkeyPatch], None], str]] = [
    (lambda path, _: path.chmod(0o702), "chmod go-w"),
    (lambda path, _: path.chmod(0o720), "chmod go-w"),
    (another_users, r"chown \d+"),
]


@pytest.mark.parametrize(("way", "remedy"), OPEN)
@pytest.mark.parametrize("which", ["file", "directory"])
def test_what_others_may_write_to_is_refused(
    state: StateFile, monkeypatch: pytest.MonkeyPatch, which: str, way: Callable[..., None], remedy: str
) -> None:
    """Promise (A52): anyone who could take a containment out of it must not be believed; it says what to type."""
    path = state.path if which == "file" else state.path.parent
    way(path, monkeypatch)
    told = "" if which == "file" else ", or write the path of a directory in it"
    with pytest.raises(ConfigurationError, match=rf"others may write to \S+: type {remedy} \S+{told}$") as refusal:
        state.load()
    assert str(refusal.value).startswith("state: ")
    if os.geteuid() == 0:
        assert f" {path}" in str(refusal.value)


def test_a_directory_that_others_may_write_to_is_refused_while_it_is_empty(tmp_path: Path) -> None:
    """Promise (A52): what is not there yet could be put there by others."""
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigurationError, match="chmod go-w"):
        StateFile(tmp_path, CHANNEL).load()


def test_what_to_type_can_be_typed(tmp_path: Path) -> None:
    """A name with a blank is quoted."""
    directory = tmp_path / "my state"
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(ConfigurationError, match=re.escape(f"type chmod go-w '{directory}', or")):
        StateFile(directory, CHANNEL).load()


def test_roots_own_is_believed(state: StateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root can write anywhere."""
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    if uid == 0:
        assert state.load().place == PLACE
    else:
        with pytest.raises(ConfigurationError, match="others may write"):
            state.load()


def test_windows_has_no_such_modes(state: StateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system is not POSIX, modes say nothing."""
    state.path.chmod(0o666)
    with monkeypatch.context() as patch:
        patch.setattr("watchword_adapters.regular_file.HAS_MODES", False)
        assert state.load().place == PLACE


def test_a_pipe_in_its_place_is_refused_at_once(state: StateFile) -> None:
    """Promise (A52): a start does not wait for a later writer."""
    state.path.unlink()
    os.mkfifo(state.path)
    with pytest.raises(ConfigurationError, match=r"control-\w+\.jsonl: is not a regular file$"):
        state.load()


def test_a_line_that_is_nested_too_deep_is_left_out(state: StateFile) -> None:
    """Promise (A52): it is not a valid line, like any that a crash left."""
    with state.path.open("ab") as file:
        file.write(b"[" * 200_000 + b"\n")
    assert state.load().place == PLACE


def test_a_statement_that_is_no_message_is_told(state: StateFile) -> None:
    """Promise (A52): a file that someone has changed is refused as not one of ours, in our words."""
    with state.path.open("ab") as file:
        file.write(b'{"statement":{"channel":"none"}}\n')
    with pytest.raises(ConfigurationError, match="move it away to start again"):
        state.load()
