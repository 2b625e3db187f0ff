"""Help texts: all that is written in them is shown, brackets too."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
import typer.main

from tests.unit.cli.conftest import Run
from watchword_adapters.cli import app as cli
from watchword_adapters.cli.app import app

BRACKETS = re.compile(r"\[[^\]]*\]+")


def commands(group: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Give each command with the words that call it, the groups themselves among them."""
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, *path, name)


COMMANDS = list(commands(typer.main.get_command(app)))


def squeezed(text: str) -> str:
    """Return text without the breaks and frames that a terminal needs."""
    return re.sub(r"[\s│]+", " ", text)


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=lambda one: " ".join(one) if isinstance(one, tuple) else "")
def test_nothing_in_a_help_text_is_eaten(run: Run, monkeypatch: pytest.MonkeyPatch, path: Any, command: Any) -> None:
    """Promise: a name of settings, as [control], is shown as it is written, and is no markup of the terminal's."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    ended = run(*path, "--help")
    assert ended.code == 0
    shown = squeezed(ended.out)
    below = [one.help or "" for one in getattr(command, "commands", {}).values()]
    texts = [command.help or "", command.epilog or "", *(getattr(one, "help", None) or "" for one in command.params)]
    for text in [*texts, *(one.partition("\n")[0] for one in below)]:
        for part in BRACKETS.findall(text):
            assert part in shown, text
    assert "\\[" not in shown


def test_brackets_are_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text in which they were eaten once."""
    monkeypatch.setenv("COLUMNS", "200")
    for words in (("control",), ("control", "init")):
        assert "Create the control log that [control] names, or" in squeezed(run(*words, "--help").out)


def test_brackets_are_shown_wherever_they_are(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: in the help of a command, in its line among others, in that of an option, and at the end."""
    monkeypatch.setenv("COLUMNS", "200")
    made = typer.Typer(help="Has [help].", epilog="Has [epilog].")

    @made.command(short_help="Has [short].")
    def one(option: str = typer.Option("", help="Has [option] and [1].")) -> None:
        """Has [text] and [[policy.allow]]."""

    made.callback()(lambda: None)
    monkeypatch.setattr(cli, "app", made)
    shown = run("--help").out + run("one", "--help").out
    for part in ("[help]", "[epilog]", "[short]", "[option] and [1].", "[text] and [[policy.allow]]."):
        assert f"Has {part}" in shown
