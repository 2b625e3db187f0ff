import builtins
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main

from tests.unit.cli.conftest import Run
from watchword_adapters.cli import main
from watchword_adapters.cli.app import app
from watchword_adapters.cli.terminal import MAX_LINE, escaped, one_line

MESSAGE = b'{"channel": "nats://prod/a", "value": ""}\n'
COMMAND = [sys.executable, "-m", "watchword_adapters.cli"]


def test_help_tells_the_exit_codes(run: Run) -> None:
    """The author of a script finds the exit codes where the commands are."""
    ended = run("--help")
    assert ended.code == 0
    told = " ".join(ended.out.split())
    for words in ("0 success", "1 something was rejected", "2 wrong arguments", "3 something could not be judged"):
        assert words in told


@pytest.mark.parametrize("command", ["init", "keygen", "jwks", "sign", "verify", "tail", "inspect"])
def test_every_command_has_help(run: Run, command: str) -> None:
    """Every command explains itself."""
    ended = run(command, "--help")
    assert ended.code == 0
    assert command in ended.out


def test_alone_it_shows_its_help(run: Run) -> None:
    """A user who types the command alone sees what there is."""
    ended = run()
    assert (ended.code, ended.err) == (2, "")
    for command in ("init", "tail", "quarantine", "--install-completion"):
        assert command in ended.out


def test_options_look_like_options_and_arguments_like_things() -> None:
    """Every option has a name that begins with two hyphens; an argument is a thing, as a file or channel."""
    commands: list[Any] = [typer.main.get_command(app)]
    arguments = set()
    for command in commands:
        commands += getattr(command, "commands", {}).values()
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                arguments.add(f"{command.name} {parameter.name}")
            else:
                assert any(name.startswith("--") for name in parameter.opts), f"{command.name}: {parameter.opts}"
    assert arguments == {
        "jwks files", "tail channel", "inspect envelope", "show identity", "redrive identities", "init reader",
        "check principal", "check channel", "contain who", "release who", "adopt operator", "publish files",
        "import-card card", "list principal", "revoke key", "rotate agent",
    }  # fmt: skip


def test_a_shell_completes_commands() -> None:
    """Completion is the library's own: what bash asks for while a person types is answered."""
    asked = {"_WATCHWORD_COMPLETE": "complete_bash", "COMP_WORDS": "watchword ta", "COMP_CWORD": "1"}
    ended = subprocess.run(  # noqa: S603 - our own command
        COMMAND, env={**os.environ, **asked}, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.stdout.split() == ["tail"]


@pytest.mark.parametrize("end", [[], ["| head -1"]])
def test_a_shells_completion_is_shown(end: list[str]) -> None:
    """It is printed whole, and that is a success for every reader."""
    line = " ".join(
        ["set -o pipefail;", *COMMAND, "--show-completion", *end, "; exit $?"]
    )  # one shell more, or it is execed
    ended = subprocess.run(  # noqa: S603 - our own command
        ["/bin/bash", "-c", line], capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("_watchword_completion() {\n")


def test_the_version_is_told(run: Run) -> None:
    """The version that is installed can be asked for."""
    assert run("--version").out.startswith("watchword 0.")


@pytest.mark.parametrize(
    "arguments", [(), ("nonsense",), ("verify",), ("keygen",), ("keygen", "-p", "a", "--kind", "x")]
)
def test_wrong_arguments_are_exit_code_2(run: Run, arguments: tuple[str, ...]) -> None:
    """A script sees by the exit code that it called wrongly."""
    assert run(*arguments).code == 2


def test_without_its_extra_the_command_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line of a bare installation is one line, not a stack trace; another missing module is not hidden."""
    really = builtins.__import__

    def missing(name: str) -> None:
        def refuse(wanted: str, *rest: object) -> ModuleType:
            if wanted == "watchword_adapters.cli.app":
                raise ModuleNotFoundError(name=name)
            return really(wanted, *rest)  # type: ignore[arg-type]  # passed on as it came

        monkeypatch.setattr(builtins, "__import__", refuse)

    missing("typer")
    assert main([]) == 2
    assert capsys.readouterr().err == "watchword: the command line needs an extra: pip install 'watchword[cli]'\n"
    missing("numpy")
    with pytest.raises(ModuleNotFoundError):
        main([])


def test_a_verdict_comes_as_soon_as_its_message(config: Path) -> None:
    """A user who writes a line and waits for its verdict gets it before the next line."""
    with subprocess.Popen(  # noqa: S603 - our own command
        [*COMMAND, "verify", "--config", str(config)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            process.stdin.write(MESSAGE)
            process.stdin.flush()
            assert process.stdout.readline() == b'{"verdict": "rejected", "reason": "unsigned"}\n'
        process.stdin.close()
        assert process.wait(30) == 1


def test_a_reader_that_has_gone_ends_the_run_quietly(config: Path) -> None:
    """As in 'watchword verify | head -1': no stack trace, and no verdict of ours as the exit code."""
    with subprocess.Popen(  # noqa: S603 - our own command
        [*COMMAND, "verify", "--config", str(config)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate(MESSAGE * 10, timeout=30)
    assert (process.returncode, errors) == (141, b"")


def test_an_interrupt_ends_the_run_quietly(config: Path) -> None:
    """Control-C is no error."""
    with subprocess.Popen(  # noqa: S603 - our own command
        [*COMMAND, "verify", "--config", str(config)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=_hear_interrupts,  # noqa: PLW1509 - this run has no threads; in the background a shell ignores them
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(MESSAGE)
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)  # though its input is still open
        _, errors = process.communicate()
    assert (process.returncode, errors) == (130, b"")


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_names_of_other_writing_systems_do_not_stop_an_ascii_terminal(directory: Path) -> None:
    """Output that the terminal cannot show is escaped."""
    files = ["--private", str(directory / "a"), "--public", str(directory / "b")]
    ended = subprocess.run(  # noqa: S603 - our own command
        [*COMMAND, "keygen", "-p", "agent://größe", *files],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert rb"gr\xf6\xdfe" in ended.stdout


def test_text_of_others_is_escaped_and_cut() -> None:
    """An error line stays one line of bounded length."""
    assert escaped("a\x1b\n\u202e\ud800é") == "a\\x1b\\n\\u202e\\ud800é"
    assert len(one_line("x" * 10_000)) == MAX_LINE + 3


def _shell(command: str, config: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a command with its streams redirected as a shell does."""
    line = f"{' '.join(COMMAND)} {command.replace('CONFIG', str(config))}"
    return subprocess.run(line, shell=True, capture_output=True, timeout=60, check=False)  # noqa: S602 - our own command


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("nonsense", b"No such command 'nonsense'; see 'watchword --help'"),
        ("verify --nonsense", b"No such option: --nonsense; see 'watchword verify --help'"),
        ("keygen -p a --algorithm rsa", b"'ml-dsa-65'; see 'watchword keygen --help'"),
        ("verify -c CONFIG < /dev/null >&-", b"standard output is closed: redirect it, for instance to /dev/null"),
        ("verify -c CONFIG <&-", b"standard input is closed: redirect it, such as < FILE"),
        ("inspect <&-", b"standard input is closed: redirect it, such as < FILE"),
        ("jwks agents.jwks > /dev/full", b"standard input or output: No space left on device"),
        ("jwks agents.jwks -o /dev/full", b"/dev/full: not a regular file: write another path, or omit --output"),
        ("jwks /proc/self/mem", b"/proc/self/mem: Input/output error"),
    ],
)
def test_what_cannot_be_done_is_one_line(config: Path, command: str, advice: bytes) -> None:
    """Wrong arguments, closed streams, a full disk and a device for a file are one line of ours, and exit code 2."""
    ended = _shell(command, config)
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert ended.stderr.startswith(b"watchword: ")
    assert ended.stderr.count(b"\n") == 1
    assert advice in ended.stderr


@pytest.mark.parametrize("command", ["--help", "--version", "jwks agents.jwks"])
def test_a_reader_that_has_gone_is_no_verdict(config: Path, command: str) -> None:
    """As in 'watchword --help | true': the exit code is the shell's own for it, whatever prints."""
    read, write = os.pipe()
    os.close(read)
    with subprocess.Popen(  # noqa: S603 - our own command
        [*COMMAND, *command.split()], cwd=config.parent, stdout=write, stderr=subprocess.PIPE
    ) as process:
        os.close(write)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (141, b"")
