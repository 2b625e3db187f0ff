"""Key sources as settings name them: variables, key servers, and several in order."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.key_server import Answer, KeyServer, serving
from watchword import ConfigurationError, SigningKey, Unavailable, VerificationKey, Watchword
from watchword.jwk import to_jwks
from watchword.spi import KeySource
from watchword_adapters.config import load
from watchword_adapters.contract.key_source import KeyFault, faulty_set

PLANNER, CONTROLLER, ELSEWHERE = "agent://acme/planner", "agent://acme/controller", "agent://elsewhere/planner"
HEAD = 'realm = "prod"\n[policy]\nmode = "observe"\n'
BY_VARIABLE = '[[keys]]\nsource = "env"\nvariable = "AGENT_KEYS"\n'
BY_FILE = '[[keys]]\nsource = "files"\npaths = ["agents.jwks"]\n'


def key_of(principal: str, key_id: bytes = b"one") -> VerificationKey:
    """Return a new key under an id."""
    return VerificationKey.from_public_key(SigningKey.generate().public, principal=principal, key_id=key_id)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("WATCHWORD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def server() -> Iterator[KeyServer]:
    """Return a key server on this machine, as plain HTTP."""
    with serving() as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where settings go."""
    return tmp_path / "watchword.toml"


def by_server(server: KeyServer, more: str = 'principals = ["agent://acme/**"]') -> str:
    """Return the table of a key server."""
    return f'[[keys]]\nsource = "jwks"\nurl = "{server.url(host="127.0.0.1")}"\nallow_private = true\n{more}\n'


def publish(server: KeyServer, *keys: VerificationKey) -> None:
    """Have a server say this set."""
    server.answers["/agents.jwks"] = Answer(to_jwks(keys).encode())


def write(path: Path, text: str) -> None:
    """Write settings."""
    path.write_text(HEAD + text)


def loaded(path: Path, text: str) -> Watchword:
    """Return an agent of these settings."""
    write(path, text)
    return load(path)


def source_of(path: Path, text: str) -> KeySource:
    """Return what finds keys for an agent of these settings."""
    found = loaded(path, text).verifier.keys.source
    assert found is not None
    return found


def refusal(path: Path, text: str) -> str:
    """Return the line with which settings are refused."""
    path.write_text(HEAD + text)
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    return str(caught.value)


async def test_keys_come_from_a_variable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container is given its keys like its other settings."""
    key = key_of(PLANNER)
    monkeypatch.setenv("AGENT_KEYS", to_jwks([key]))
    assert await source_of(path, BY_VARIABLE).find(PLANNER, b"one") == key


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "keys[0]: variable AGENT_KEYS: not set"),
        (" ", "keys[0]: variable AGENT_KEYS: not set"),
        ("{", "keys[0]: variable AGENT_KEYS: not JSON"),
        ('{"keys": [{"kty": "OKP", "d": "c2VjcmV0"}]}', "keys[0]: variable AGENT_KEYS: key 1: private key material"),
        ('{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "keys[0]: variable AGENT_KEYS: key 1: private key material"),
    ],
)
def test_a_wrong_variable_stops_the_start(
    path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, why: str
) -> None:
    """A variable that is unset, no key set, or a private key is named in the error, without its content (A32)."""
    if text is None:
        monkeypatch.delenv("AGENT_KEYS", raising=False)
    else:
        monkeypatch.setenv("AGENT_KEYS", text)
    told = refusal(path, BY_VARIABLE)
    assert why in told
    assert "c2VjcmV0" not in told


def test_what_is_no_name_of_a_variable_is_not_shown(path: Path) -> None:
    """A user who writes the keys, or a secret, where the name belongs does not find it in a log."""
    told = refusal(path, BY_VARIABLE.replace("AGENT_KEYS", "hunter2 {"))
    assert told.endswith('keys[0]: variable: write the name of an environment variable, such as "AGENT_KEYS"')


def test_a_login_in_the_address_of_a_key_server_is_not_shown(path: Path) -> None:
    """The error says to leave it out, and repeats none of it."""
    table = '[[keys]]\nsource = "jwks"\nurl = "https://bob:hunter2@keys.test/k?hunter2"\nprincipals = ["**"]\n'
    told = refusal(path, table)
    assert "url = 'https://keys.test/k': write the address without a login" in told
    assert "hunter2" not in told


@pytest.mark.parametrize("fault", [KeyFault.DUPLICATE_ID, KeyFault.WRONG_OWNER, KeyFault.OVERSIZE])
def test_a_variable_that_contradicts_itself_stops_the_start(
    path: Path, monkeypatch: pytest.MonkeyPatch, fault: KeyFault
) -> None:
    """One id twice, one key of two owners, and too many bytes are refused as in files (A32)."""
    monkeypatch.setenv("AGENT_KEYS", (faulty_set(fault, key_of(PLANNER)) or b"").decode())
    assert "keys[0]: variable AGENT_KEYS: " in refusal(path, BY_VARIABLE)


def test_one_key_of_two_owners_is_seen_between_files_and_variables(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there at the start is compared, wherever it comes from (A32)."""
    one = key_of(PLANNER)
    (path.parent / "agents.jwks").write_text(to_jwks([one]))
    monkeypatch.setenv(
        "AGENT_KEYS", to_jwks([VerificationKey.from_public_key(one.public, principal=CONTROLLER, key_id=b"two")])
    )
    assert "one public key for" in refusal(path, BY_FILE + BY_VARIABLE)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("", "write whom it may speak for: principals = "),
        ('principals = ["agent://acme/pla*"]', "keys[0]: principals[0]: "),
        ('principal = "agent:/acme"', "keys[0]: principal: "),
        ('principals = ["**"]\ntimeout = "1m"', "timeout: choose 0.1 to 30"),
        ('principals = ["**"]\nmax_size = "8MiB"', "max_size: choose 1 to 4.1943e+06"),
        ('principals = ["**"]\nredirects = 9', "redirects: choose 0 to 5"),
        ('principals = ["**"]\nkeep = "1m"', "keep of 60 s: choose 300 s to 604800 s"),
        ('principals = ["**"]\nca = "none.pem"', "ca = "),
        ('principals = ["**"]\nproxy = "proxy"', "proxy: write "),
        ('principals = ["**"]\nallow_private = "yes"', "keys[0]: allow_private: write true, or the names of hosts"),
        ('principals = ["**"]\nallow_privat = true', 'allow_privat: unknown; did you mean "allow_private"?'),
    ],
)
def test_a_wrong_key_server_stops_the_start_in_one_line(path: Path, server: KeyServer, more: str, why: str) -> None:
    """A person who wrote something wrong reads the place and the remedy."""
    table = by_server(server, more)
    assert why in refusal(path, table if "privat" not in more else table.replace("allow_private = true\n", "", 1))
    assert not server.asked


async def test_private_hosts_may_be_named(path: Path, server: KeyServer) -> None:
    """A list names the hosts at which one's own network may be asked."""
    key = key_of(PLANNER)
    publish(server, key)
    table = by_server(server).replace("allow_private = true", 'allow_private = ["127.0.0.1"]')
    assert await source_of(path, table).find(PLANNER, b"one") == key
    other = by_server(server).replace("allow_private = true", 'allow_private = ["localhost"]')
    assert "127.0.0.1 is a private address: if that is intended, name its host in allow_private" in refusal(path, other)


async def test_a_source_that_is_down_does_not_silence_the_next(path: Path, server: KeyServer) -> None:
    """What the next one knows is found; what none knows is not called unknown while one cannot tell (A21)."""
    key, other = key_of(PLANNER), key_of(ELSEWHERE)
    (path.parent / "agents.jwks").write_text(to_jwks([key, other]))
    server.refuses = True
    source = source_of(path, by_server(server) + BY_FILE)
    assert await source.find(PLANNER, b"one") == key
    with pytest.raises(Unavailable, match=r"agents\.jwks: "):
        await source.find(PLANNER, b"two")
    assert await source.find(ELSEWHERE, b"one") == other
    assert await source.find(ELSEWHERE, b"two") is None  # the server that is down could not speak for them anyway


async def test_the_first_source_that_knows_a_key_answers(path: Path, server: KeyServer) -> None:
    """A key that stands in two sources is the first one's, with its end and its revocation; the rest is not asked."""
    first = key_of(PLANNER)
    second = VerificationKey.from_public_key(first.public, principal=PLANNER, key_id=b"one", revoked_at=5)
    (path.parent / "agents.jwks").write_text(to_jwks([first]))
    publish(server, second)
    assert await source_of(path, BY_FILE + by_server(server)).find(PLANNER, b"one") == first
    assert not server.asked
    assert await source_of(path, by_server(server) + BY_FILE).find(PLANNER, b"one") == second


async def test_a_key_of_another_in_the_first_source_does_not_end_the_search(path: Path, server: KeyServer) -> None:
    """An id that the first source has for another agent is looked up in the next; if none has it, that key is found."""
    ours, theirs = key_of(PLANNER), key_of(CONTROLLER)
    (path.parent / "agents.jwks").write_text(to_jwks([theirs]))
    publish(server, ours)
    source = source_of(path, BY_FILE + by_server(server))
    assert await source.find(PLANNER, b"one") == ours
    assert await source.find("agent://acme/third", b"one") == theirs
    server.refuses = True
    down = source_of(path, BY_FILE + by_server(server))
    with pytest.raises(Unavailable):  # the one that is down might know it as the planner's
        await down.find(PLANNER, b"one")


async def test_a_reload_during_an_outage_forgets_no_key(path: Path, server: KeyServer) -> None:
    """What a key server said is held while settings change around it."""
    key = key_of(PLANNER)
    publish(server, key)
    agent = loaded(path, by_server(server))
    first = agent.verifier.keys.source
    assert first is not None
    assert await first.find(PLANNER, b"one") == key
    server.refuses = True
    agent.reload()
    (path.parent / "agents.jwks").write_text(to_jwks([key_of(CONTROLLER)]))
    write(path, BY_FILE + by_server(server))
    agent.reload()
    source = agent.verifier.keys.source
    assert source is not None
    assert source is not first
    assert await source.find(PLANNER, b"one") == key
    assert await source.find(CONTROLLER, b"one") is not None
