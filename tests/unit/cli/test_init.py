import importlib.util
import json
import stat
import tomllib
from pathlib import Path

import pytest

from tests.unit.cli.conftest import PLANNER, Run
from watchword import SigningKey
from watchword.jwk import to_jwks
from watchword_adapters.config import load
from watchword_adapters.keys.public_files import parse_public

CONTROLLER = "agent://acme/controller"


def tree(directory: Path) -> dict[str, bytes]:
    """Return the files of a directory, without the journals."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def test_a_newcomers_first_commands(run: Run, directory: Path) -> None:
    """Two agents are made in two commands, know each other, and start; each has its own key and settings."""
    first = run("init", "--realm", "prod", "--principal", PLANNER)
    second = run("init", "--realm", "prod", "--principal", CONTROLLER)
    assert (first.code, second.code) == (0, 0)
    assert set(tree(directory)) == {
        "watchword.toml", "planner.pem", "agents.jwks", "controller.toml", "controller.pem",
    }  # fmt: skip
    assert stat.S_IMODE((directory / "planner.pem").stat().st_mode) == 0o600
    known = [key.principal for key in parse_public((directory / "agents.jwks").read_bytes())]
    assert known == [PLANNER, CONTROLLER]
    for name, principal in (("watchword.toml", PLANNER), ("controller.toml", CONTROLLER)):
        watchword = load(name)
        assert (watchword.verifier.principal, watchword.signer is None) == (principal, False)
        assert watchword.verifier.journal is not None
        assert watchword.verifier.journal.recall(["reader"], birth=2**40)[0].floor < 2**33
        watchword.verifier.journal.close()
    assert "readers of agent://acme/planner on this machine now: they lose nothing." in first.out
    assert "If one ran before, here or elsewhere, stop it and wait 11 s first." in first.out


def test_twice_is_harmless(run: Run, directory: Path) -> None:
    """What is there stays as it is, and the command says so."""
    run("init", "-r", "prod", "-p", PLANNER)
    before = tree(directory)
    again = run("init", "-r", "prod", "-p", PLANNER)
    assert (again.code, tree(directory)) == (0, before)
    assert again.out.splitlines()[0] == "kept as it is: watchword.toml"
    assert again.out.splitlines()[-1] == "Nothing to do: the journal was made before."
    assert run("init").out == again.out


def test_what_is_there_is_used(run: Run, directory: Path) -> None:
    """A key and a key set that were made before are used, and no key of the set is lost."""
    run("keygen", "-p", PLANNER)
    pem = (directory / "planner.pem").read_bytes()
    other = SigningKey.generate().verification_key("agent://other")
    (directory / "agents.jwks").write_text(to_jwks([other]))
    ended = run("init", "-r", "prod", "-p", PLANNER, "--json")
    (told,) = ended.lines
    assert told["made"][:2] == ["agents.jwks", "watchword.toml"]  # type: ignore[index] # a list
    assert told["kept"] == ["planner.pem"]
    assert (told["store"], told["initialised"], told["stopped_for"]) == ("memory", True, 11.0)
    assert (directory / "planner.pem").read_bytes() == pem
    keys = parse_public((directory / "agents.jwks").read_bytes())
    assert keys == [other, SigningKey.from_pem(pem).verification_key(PLANNER)]
    (directory / "watchword.toml").unlink()
    assert "kept as it is: agents.jwks" in run("init", "-r", "prod", "-p", PLANNER).out


def test_another_key_of_the_same_principal(run: Run, directory: Path) -> None:
    """A principal that has a key gets no second one by mistake; nothing is written over, no settings are made."""
    (directory / "agents.jwks").write_text(to_jwks([SigningKey.generate().verification_key(PLANNER)]))
    before = (directory / "agents.jwks").read_bytes()
    ended = run("init", "-r", "prod", "-p", PLANNER)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert f"agents.jwks: has another key of '{PLANNER}'" in ended.err
    assert tree(directory) == {"agents.jwks": before}
    run("keygen", "-p", PLANNER)
    ended = run("init", "-r", "prod", "-p", PLANNER)
    assert (ended.code, (directory / "agents.jwks").read_bytes()) == (2, before)
    assert not (directory / "watchword.toml").exists()


def test_a_key_that_another_principal_has(run: Run, directory: Path) -> None:
    """One key for two agents is refused, as everywhere."""
    run("keygen", "-p", PLANNER)
    key = SigningKey.from_pem((directory / "planner.pem").read_bytes())
    (directory / "agents.jwks").write_text(to_jwks([key.verification_key("agent://other")]))
    ended = run("init", "-r", "prod", "-p", PLANNER)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "one public key for" in ended.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "watchword.toml does not exist: add --realm and --principal to create it"),
        (("-r", "prod"), "watchword.toml does not exist: add --realm and --principal"),
        (("-r", "PROD", "-p", PLANNER), "realm 'PROD'"),
        (("-r", "prod", "-p", "a\x1b[2J"), "principal: write 1 to 255 bytes of text without control characters"),
        (("-r", "prod", "-p", "agent:/acme/x"), "principal: 'agent:/acme/x' is not a URI: write a scheme"),
        (("-r", "prod", "-p", PLANNER, "-c", "none/a.toml"), "none/planner.pem: No such file or directory"),
    ],
)
def test_bad_input_is_one_line(run: Run, directory: Path, arguments: tuple[str, ...], told: str) -> None:
    """Input that cannot be used is reported in one line, and nothing is created."""
    ended = run("init", *arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert told in ended.err
    assert not list(directory.iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-c", "watchword.toml", "-p", CONTROLLER), f"principal is '{PLANNER}', not '{CONTROLLER}'"),
        (("-r", "test"), "realm is 'prod', not 'test': name another file by --config"),
        (("-r", "prod", "-p", "agent://acme/größe"), "name the settings file with --config"),
    ],
)
def test_settings_of_another_agent(run: Run, arguments: tuple[str, ...], told: str) -> None:
    """Settings that say something else are left alone."""
    run("init", "-r", "prod", "-p", PLANNER)
    before = Path("watchword.toml").read_bytes()
    ended = run("init", *arguments)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert told in ended.err
    assert Path("watchword.toml").read_bytes() == before


def test_a_name_that_is_no_file_name(run: Run, directory: Path) -> None:
    """With a file named, any principal will do; what it needs escaping for is escaped."""
    principal = 'agent://acme/"größe"'
    assert run("init", "-r", "prod", "-p", principal, "-c", "big.toml").code == 0
    assert tomllib.loads((directory / "big.toml").read_text())["principal"] == principal
    assert (directory / "big.pem").exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('[replay]\nstate = ""\n', 'No journal: [replay] state is ""'),
        ('[policy]\nmode = "observe"\n', "this machine now: they lose nothing."),
        ('[replay]\nstore = "sqlite"\npath = "ids.db"\n', "run `watchword store init READER --config a.toml`"),
    ],
)
def test_settings_that_were_made_before(run: Run, config: Path, more: str, told: str) -> None:
    """With settings, only the journal is made; and a shared store has births of its own."""
    Path("a.toml").write_text(config.read_text() + more)
    ended = run("init", "--config", "a.toml")
    assert ended.code == 0
    assert told in ended.out


@pytest.mark.parametrize("state", ['state = ".watchword"\n', ""])
def test_a_state_that_cannot_be_made(run: Run, config: Path, state: str) -> None:
    """A directory that cannot hold a journal is one line, whether it was named or is the default."""
    Path(".watchword").touch()
    config.write_text(config.read_text() + "[replay]\n" + state)
    ended = run("init")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "File exists" in ended.err


def test_json_of_what_was_there(run: Run, config: Path) -> None:
    """A program learns what was made and what was kept."""
    assert config.exists()
    (told,) = run("init", "--json").lines
    assert (told["config"], told["kept"]) == ("watchword.toml", ["watchword.toml"])
    assert json.dumps(told["made"]) == json.dumps([told["journal"]])


def test_a_first_example_is_made_beside_the_settings(run: Run, directory: Path) -> None:
    """With a bus there is a program to run, and the settings of a reader that has no private key."""
    ended = run("init", "-r", "prod", "-p", PLANNER, "--bus", "nats")
    assert ended.code == 0
    assert ended.out.splitlines()[-1] == "Now run: python first.py"
    assert set(tree(directory)) == {"watchword.toml", "planner.pem", "agents.jwks", "reader.toml", "first.py"}
    reader = tomllib.loads(Path("reader.toml").read_text())
    assert reader.keys() == {"realm", "keys", "replay"}
    assert "with nats_server() as servers:" in Path("first.py").read_text()
    before = tree(directory)
    again = run("init", "--bus", "nats", "--json")
    assert (again.code, tree(directory)) == (0, before)
    assert again.lines[0]["made"] == []


def test_another_example_gets_a_name_of_its_own(run: Run, directory: Path) -> None:
    """A program that is there is neither written over nor taken for what was asked for."""
    run("init", "-r", "prod", "-p", PLANNER, "--bus", "nats")
    before = tree(directory)
    ended = run("init", "--bus", "kafka")
    assert ended.code == 0
    assert ended.out.splitlines()[0] == "created: first_kafka.py"
    assert ended.out.splitlines()[-3:-1] == ["kept as it is: first.py", "The journal was made before."]
    assert ended.out.splitlines()[-1] == "Now run: python first_kafka.py"
    program = tree(directory).pop("first_kafka.py")
    assert tree(directory) == before | {"first_kafka.py": program}
    assert b"with kafka_broker() as servers:" in program
    assert run("init", "--bus", "kafka").out.splitlines()[-1] == "Now run: python first_kafka.py"
    assert run("init", "--bus", "nats").out.splitlines()[-1] == "Now run: python first.py"
    assert run("init", "--bus", "nats", "--servers", "nats://a:4222").out.splitlines()[0] == "created: first_nats.py"
    ended = run("init", "--bus", "nats", "--servers", "nats://b:4222")
    assert (ended.code, ended.out) == (2, "")
    assert "first.py and first_nats.py exist, and are not this example: rename one" in ended.err


@pytest.mark.parametrize(
    ("bus", "given", "servers"),
    [("nats", "nats://a:4222, nats://b:4222", ["nats://a:4222", "nats://b:4222"]), ("kafka", "a:9092", ["a:9092"])],
)
def test_a_broker_of_ones_own(run: Run, bus: str, given: str, servers: list[str]) -> None:
    """A server that is named is in the example and in the settings, and no broker is brought."""
    ended = run("init", "-r", "prod", "-p", PLANNER, "-c", "a.toml", "--bus", bus, "--servers", given)
    assert (ended.code, "they lose nothing" in ended.out) == (0, bus == "nats")
    program = Path("first.py").read_text()
    assert program.endswith(f'    asyncio.run(main("{servers[0]}"))\n')
    assert "watchword.brokers" not in program
    assert '"a.toml"' in program
    for name in ("a.toml", "reader.toml"):
        assert tomllib.loads(Path(name).read_text())[bus] == {"servers": servers}
    compile(program, "first.py", "exec")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--servers", "nats://a"), "--servers: of which bus? write --bus nats, or --bus kafka"),
        (("--bus", "nats", "--servers", "nats://u:p@a"), "--servers: write no login into an address"),
    ],
)
def test_an_example_that_cannot_be_made(run: Run, directory: Path, arguments: tuple[str, ...], told: str) -> None:
    """A --servers without its bus, or with a login in it, is reported before anything is created."""
    ended = run("init", "-r", "prod", "-p", PLANNER, *arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert told in ended.err
    assert not list(directory.iterdir())


def test_an_example_whose_broker_is_not_installed(run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is made either, and the error says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    ended = run("init", "-r", "prod", "-p", PLANNER, "--bus", "kafka")
    assert (ended.code, ended.out) == (2, "")
    assert "noida-db is not installed: pip install 'watchword[brokers]'" in ended.err
    assert not list(directory.iterdir())


@pytest.mark.parametrize("more", [(), ("--servers", "localhost:9092")])
def test_an_example_whose_client_is_not_installed(
    run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    """A program that could not run is not made, and the error says what to install."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "aiokafka" else find_spec(name))
    ended = run("init", "-r", "prod", "-p", PLANNER, "--bus", "kafka", *more)
    assert (ended.code, ended.out) == (2, "")
    assert "aiokafka is not installed: pip install 'watchword[kafka]'" in ended.err
    assert not list(directory.iterdir())


def test_an_example_needs_the_key_set(run: Run, config: Path) -> None:
    """Settings with keys elsewhere get no example that would not work."""
    Path("agents.jwks").rename("others.jwks")
    config.write_text(config.read_text().replace("agents.jwks", "others.jwks"))
    ended = run("init", "--bus", "nats")
    assert (ended.code, Path("first.py").exists()) == (2, False)
    assert "agents.jwks does not exist, but holds the keys that the example's reader needs" in ended.err


@pytest.mark.parametrize("third", [("init", "-r", "prod"), ("keygen",)])
def test_two_teams_have_a_planner_each(run: Run, directory: Path, third: tuple[str, ...]) -> None:
    """Agents with one last name live in one directory, each with its own key and settings, however they were made."""
    for principal in ("agent://a/planner", "agent://b/planner", "agent://b/planner"):
        assert run("init", "-r", "prod", "-p", principal).code == 0
    assert set(tree(directory)) == {
        "watchword.toml", "planner.pem", "agents.jwks", "b-planner.toml", "b-planner.pem",
    }  # fmt: skip
    assert run(*third, "-p", "agent://c/planner").code == 0
    assert (directory / "c-planner.pem").exists()
    for name, principal in (("watchword.toml", "agent://a/planner"), ("b-planner.toml", "agent://b/planner")):
        agent = load(name)
        assert (agent.signer.principal, agent.verifier.has_keys) == (principal, True)
