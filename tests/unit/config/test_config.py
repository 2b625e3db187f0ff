import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from watchword import Algorithm, ConfigurationError, MemoryKeys, Rejected, SigningKey, mistakes
from watchword.jwk import to_jwks
from watchword.quota import Bounds
from watchword.settings import Settings
from watchword.spi import Channel, MemoryReplayStore, Message
from watchword_adapters.config import load

PLANNER = "agent://acme/planner"
BASE = f"""
realm = "prod"
principal = "{PLANNER}"
[signer]
key = "planner.pem"
[[keys]]
source = "files"
paths = ["agents.jwks"]
"""

Write = Callable[..., Path]


@pytest.fixture
def key() -> SigningKey:
    """Return the planner's key."""
    return SigningKey.generate()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("WATCHWORD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path: Path, key: SigningKey) -> Write:
    """Return a function that writes a settings file beside a private key and a key set."""
    private = tmp_path / "planner.pem"
    private.write_bytes(key.to_pem())
    private.chmod(0o600)
    (tmp_path / "agents.jwks").write_text(to_jwks([key.verification_key(PLANNER)]))

    def write(text: str = BASE) -> Path:
        path = tmp_path / "watchword.toml"
        path.write_text(text)
        return path

    return write


def refusal(path: Path) -> str:
    """Return the one line with which a settings file is refused."""
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    line = str(caught.value)
    assert "\n" not in line
    assert "pydantic" not in line
    return line


async def test_what_is_loaded_signs_and_verifies(write: Write) -> None:
    """A settings file gives an agent whose own messages verify under its key file, once."""
    watchword = load(str(write()))
    message = Message(channel=Channel("nats", "prod", "a"), value=b"x")
    signed = await watchword.signer.sign(message)
    received = Message(channel=message.channel, value=b"x", headers=(signed.header,))
    delivered = await watchword.verifier.verify(received)
    assert delivered.principal == PLANNER
    with pytest.raises(Rejected, match="replayed"):
        await watchword.verifier.verify(received)


def test_relative_paths_start_from_the_settings_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory of the process does not change which keys are read."""
    path = write()
    monkeypatch.chdir("/")
    assert load(path).signer.principal == PLANNER


def test_the_environment_goes_over_the_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value may be set by a variable, which wins; what it does not name stays as written."""
    path = write(BASE + '[policy]\nmax_age = "1m"\nmax_skew = "1s"\n')
    monkeypatch.setenv("WATCHWORD_REALM", "lab")
    monkeypatch.setenv("WATCHWORD_POLICY__MAX_AGE", "2m")
    monkeypatch.setenv("WATCHWORD_POLICY__CONTAINED", '["agent://evil"]')
    monkeypatch.setenv("WATCHWORD_REPLAY__MAX_LAG", "60")
    monkeypatch.setenv("WATCHWORD_REPLAY__MEMORY", "64MB")
    watchword = load(path)
    policy, memory = watchword.verifier.policy, watchword.verifier.replay
    assert isinstance(memory, MemoryReplayStore)
    assert (policy.memory, memory._quota._bounds) == (64_000_000, Bounds.within(64_000_000))
    assert watchword.realm == "lab"
    assert (policy.max_age, policy.max_skew, policy.max_lag, policy.contained) == (
        120.0,
        1.0,
        60.0,
        frozenset({"agent://evil"}),
    )


def test_everything_may_come_from_the_environment(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty file and variables make a whole agent, in containers that have no other file."""
    path = write("")
    monkeypatch.setenv("WATCHWORD_REALM", "prod")
    monkeypatch.setenv("WATCHWORD_PRINCIPAL", PLANNER)
    monkeypatch.setenv("WATCHWORD_SIGNER__KEY", "planner.pem")
    monkeypatch.setenv("WATCHWORD_KEYS", '[{"source": "files", "paths": ["agents.jwks"]}]')
    assert load(path).signer.principal == PLANNER


def test_the_documented_file_is_understood(write: Write) -> None:
    """What the guide shows whole is a valid file."""
    guide = Path(__file__).parents[3] / "docs" / "configuration.md"
    shown = guide.read_text(encoding="utf-8").partition("```toml\n")[2].partition("```")[0]
    policy = load(write(shown)).verifier.policy
    assert (policy.max_age, len(policy.allow)) == (300, 1)


def test_a_pure_consumer_has_no_signer(write: Write) -> None:
    """Without [signer] the process verifies, and says so when asked to sign."""
    watchword = load(write('realm = "prod"\n[[keys]]\nsource = "files"\npaths = ["agents.jwks"]\n'))
    with pytest.raises(ConfigurationError, match="only verifies"):
        _ = watchword.signer


def test_a_pure_producer_needs_no_keys(write: Write) -> None:
    """A signer alone is a whole set-up; whatever it receives is unknown."""
    assert (
        load(write(f'realm = "prod"\nprincipal = "{PLANNER}"\n[signer]\nkey = "planner.pem"\n')).signer.principal
        == PLANNER
    )


async def test_several_sources_are_asked_in_order(write: Write, tmp_path: Path) -> None:
    """A key that the first source does not know is found in the second."""
    other = SigningKey.generate(Algorithm.ESP256)
    (tmp_path / "more.jwks").write_text(to_jwks([other.verification_key("agent://b")]))
    watchword = load(write(BASE + '[[keys]]\nsource = "files"\npaths = ["more.jwks"]\n'))
    found = await watchword.verifier.keys.find("agent://b", other.key_id)
    assert found is not None


def test_a_store_may_be_given_in_place_of_the_configured_one(write: Write) -> None:
    """Programs that bring their own replay store use it whatever the file names."""
    store = MemoryReplayStore(horizon=None)
    assert load(write(BASE + '[replay]\nstore = "redis"\n'), replay=store).verifier.replay is store


def test_the_signers_key_id_may_be_named(write: Write) -> None:
    """A key published under an id of its own is used under that id."""
    path = write(BASE.replace('key = "planner.pem"', 'key = "planner.pem"\nkey_id = "2026-01"'))
    assert load(path).signer.key_id == b"2026-01"


def test_how_many_messages_share_a_signature_may_be_chosen(write: Write) -> None:
    """The number is the signer's; 64 if nobody says otherwise."""
    path = write(BASE.replace('key = "planner.pem"', 'key = "planner.pem"\nbatch = 7'))
    assert (load(path).signer.batch, load(write(BASE)).signer.batch) == (7, 64)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (BASE.replace("[signer]", "[signer]\nbatch = 0"), "batch of 0 messages: choose 1 to 4096"),
        (BASE.replace("[signer]", "[signer]\nbatch = 4097"), "batch of 4097 messages: choose 1 to 4096"),
        (BASE.replace("[signer]", '[signer]\nbatch = "all"'), "signer.batch: write a whole number"),
        ("", "realm: missing: add it"),
        ("realm", "not TOML: Expected '='"),
        ('relm = "prod"', 'relm: unknown; did you mean "realm"?'),
        (BASE + "zzz = 1", "keys[0]: zzz: unknown; use paths, check_every, max_staleness"),
        (BASE + '[policy]\nmax_agee = "5m"', 'policy.max_agee: unknown; did you mean "max_age"?'),
        (BASE + "[policy]\nqqqq = 1", "policy.qqqq: unknown; use mode, max_age"),
        (
            BASE + '[[policy.allow]]\nprincipal = "a"\nchanels = []',
            'policy.allow[0].chanels: unknown; did you mean "cha',
        ),
        ("realm = 5", 'realm: write text in quotes, "..."'),
        ('realm = "Prod"', "realm: realm 'Prod': use 1 to 63 of a-z"),
        ('realm = "p"\npolicy = 5', "policy: write [policy], in single brackets and once, above its settings"),
        ('realm = "p"\nkeys = 5', "keys: write [[keys]], in double brackets, above the settings of each"),
        ('realm = "p"\nkeys = ["agents.jwks"]', "keys[0]: write [[keys]], in double brackets, above the"),
        (BASE + "[policy]\ncontained = 5", "policy.contained: write a list, [...]"),
        ('realm = "p"\n[policy]\nmode = "off"', "policy.mode: write one of 'enforce' or 'observe'"),
        ('realm = "p"\n[policy]\nmax_age = true', 'policy.max_age: write a duration as "30s"'),
        ('realm = "p"\n[policy]\nmax_age = "2d"', "max_age of 172800 s: choose 1 s to 86400 s"),
        ('realm = "p"\n[replay]\nmax_lag = "365d"', "max_lag of 3.1536e+07 s: choose"),
        ('realm = "p"\n[replay]\nmemory = "1 gig"', 'replay.memory: write a size as "256MiB"'),
        ('realm = "p"\n[replay]\nmemory = "1KB"', "memory of 1000 bytes: choose 1000000 to 68719476736"),
        (BASE + "[quarantine]", 'quarantine: write kafka = "<topic>" or nats = "<subject>"'),
        (BASE + '[quarantine]\nkafka = "a b"', "quarantine.kafka: write a Kafka topic, as agents.quarantine"),
        (BASE + '[quarantine]\nnats = "q.>"', "quarantine.nats: write a NATS subject without wildcard"),
        (BASE + '[quarantine]\nnats = "q"\nrate = "1/d"', "quarantine.rate: rate '1/d': write a number"),
        (BASE + '[quarantine]\nnats = "q"\nrate = "20000/s"', "quarantine rate of 20000: at most 10000"),
        (BASE + '[quarantine]\nnats = "q"\nmax_size = 9', "quarantine max_size of 9: choose 1024 to 8388608"),
        (
            BASE + '[quarantine]\nnats = "q"\nheader_style = "jms"',
            "quarantine.header_style: write one of 'watchword', 'spring'",
        ),
        ('realm = "p"', 'keys: none; add [[keys]] with source = "files"'),
        ('realm = "p"\n[signer]\nkey = "planner.pem"', 'principal: missing; a signer needs principal = "agent://..."'),
        (BASE + '[replay]\nstore = "etcd"', 'replay.store = "etcd" is not available: write "memory"'),
        (BASE + '[replay]\nstore = "memory"\npath = "x"', "replay: path: unknown: remove it"),
        (
            BASE.replace('"files"', '"file"'),
            'keys[0].source = "file" is not available: write "env", "files", "jwks", "nkeys", "spiffe", or install',
        ),
        (
            BASE.replace("[signer]", '[signer]\nsource = "vault"'),
            'signer.source = "vault" is not available: write "aws_kms", "file", "nkey", "pkcs11", "spiffe", "transit"',
        ),
        (BASE.replace("source =", "sorce ="), "keys[0].source: missing: add it"),
        (BASE.replace("paths", "path"), 'keys[0]: path: unknown; did you mean "paths"?'),
        (BASE.replace('["agents.jwks"]', '"agents.jwks"'), "keys[0]: paths: write a list"),
        (BASE.replace('["agents.jwks"]', "[]"), "keys[0]: key files: name at least one path"),
        (BASE.replace("agents.jwks", "none.jwks"), "none.jwks: No such file or directory; make one with 'watchword"),
        (BASE.replace('"agents.jwks"', '"planner.pem"'), "planner.pem: a private key among public ones"),
        (BASE + 'check_every = "2h"', "keys[0]: check_every of 7200 s: choose 0 s to 3600 s"),
        (BASE + 'max_staleness = "30d"', "keys[0]: max_staleness of 2.592e+06 s: choose 5 s to 604800 s"),
        (
            BASE.replace("planner.pem", "none.pem"),
            "none.pem: No such file or directory; make one with 'watchword keygen'",
        ),
        (BASE.replace('key = "planner.pem"', ""), "signer: key: missing: add it"),
        (BASE.replace("planner.pem", "agents.jwks"), "agents.jwks: not a PKCS#8 private key in PEM"),
        (BASE.replace('"planner.pem"', '"planner.pem"\nkey_id = ""'), "signer: key id of 0 bytes: use 1 to 128"),
        (BASE.replace("planner.pem", "a\\u0000b"), "is not a path; make one with"),
        (BASE.replace("agents.jwks", "a\\u0000b"), "is not a path; make one with"),
        (BASE.replace('"planner.pem"', '"."'), "is a directory; make one with"),
    ],
)
def test_every_mistake_in_the_file_is_one_line_that_says_what_to_write(write: Write, text: str, complaint: str) -> None:
    """A person who wrote something wrong reads the file's name, the place and the remedy."""
    path = write(text)
    line = refusal(path)
    assert complaint in line
    assert line.startswith(str(path))


def tables(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the tables of the settings by their names, each with whether there may be several."""
    for name, field in model.model_fields.items():
        if inner := mistakes._model_in(field.annotation):
            yield f"{above}{name}", "list[" in str(field.annotation)
            yield from tables(inner, f"{above}{name}.")


@pytest.mark.parametrize(("table", "several"), list(tables(Settings)))
def test_a_table_in_the_wrong_brackets(write: Write, table: str, *, several: bool) -> None:
    """A user who writes one pair of brackets for two, or two for one, reads what to write, for every table there is."""
    written, right = (f"[{table}]", f"[[{table}]]") if several else (f"[[{table}]]", f"[{table}]")
    line = refusal(write(f'realm = "p"\n{written}\n'))
    assert f"watchword.toml: {table}: write {right}, in {'double' if several else 'single'} brackets" in line


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("WATCHWORD_REALM", "", "realm (from WATCHWORD_REALM): realm ''"),
        ("WATCHWORD_POLICY__MAX_AGE", "soon", "policy.max_age (from WATCHWORD_POLICY__MAX_AGE): write a duration"),
        ("WATCHWORD_POLICY__CONTAINED", "agent://a", """in the environment as JSON: '["a", "b"]'"""),
        ("WATCHWORD_KEYS", "[" * 50_000, "keys (from WATCHWORD_KEYS): write a list"),
        ("WATCHWORD_KEYS", "{}", "keys (from WATCHWORD_KEYS): write a list"),
        ("WATCHWORD_POLICY__MAX_AGE__X", "5m", "policy.max_age (from"),
        ("WATCHWORD_POLICY__MAX_AG", "5m", 'did you mean "max_age"?'),
        ("WATCHWORD_POLCY__MAX_AGE", "5m", "WATCHWORD_POLCY__MAX_AGE: no such table; use WATCHWORD_POLICY__..."),
        ("WATCHWORD_POLICY", "{}", "WATCHWORD_POLICY: no such table"),
        ("WATCHWORD_REALMS", "prod", "WATCHWORD_REALMS: unknown; did you mean WATCHWORD_REALM?"),
        ("WATCHWORD_KEYS__0__PATHS", "x", "write all key sources as one JSON list in WATCHWORD_KEYS"),
    ],
)
def test_every_mistake_in_the_environment_is_one_line_that_names_the_variable(
    write: Write, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, complaint: str
) -> None:
    """A variable that would be passed over or misread stops the start: what it should have set may be a protection."""
    monkeypatch.setenv(variable, value)
    assert complaint in refusal(write())


def test_variables_that_only_begin_alike_are_left_alone(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """An orchestrator's own variables for a service named watchword do not stop the start."""
    monkeypatch.setenv("WATCHWORD_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("WATCHWORD_PORT", "tcp://10.0.0.1:80")
    assert load(write()).realm == "prod"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\xff", "not UTF-8"),
        (b"#" * 8_388_609, "larger than 8388608 bytes"),
        (b"a = " + b"[" * 50_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_settings_file_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    """Bytes that are no text, too many, or built to exhaust the reader give one line."""
    path = tmp_path / "watchword.toml"
    path.write_bytes(content)
    assert complaint in refusal(path)


def test_a_missing_settings_file_is_named(tmp_path: Path) -> None:
    """Nothing starts on defaults because a path was wrong."""
    assert (
        refusal(tmp_path / "none.toml")
        == f"settings file {tmp_path}/none.toml: No such file or directory; create one with 'watchword init'"
    )


def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path: Path) -> None:
    """A named pipe that nobody writes to is refused at once."""
    os.mkfifo(tmp_path / "watchword.toml")
    assert "is not a regular file" in refusal(tmp_path / "watchword.toml")


def test_a_private_key_that_others_may_write_is_refused(write: Write, tmp_path: Path) -> None:
    """Anyone who may replace the key may speak as this agent, so it does not start."""
    path = write()
    (tmp_path / "planner.pem").chmod(0o622)
    assert "others may write it; run chmod 600" in refusal(path)


def test_a_private_key_that_others_may_read_is_warned_of(write: Write, tmp_path: Path) -> None:
    """Mounted secrets are often readable; the operator hears of it and how to change it."""
    warnings: list[tuple[str, dict[str, object]]] = []

    def warn(event: str, **fields: str | float | None) -> None:
        warnings.append((event, dict(fields)))

    path = write()
    private = tmp_path / "planner.pem"
    load(path, warn=warn)
    assert not warnings
    private.chmod(0o644)
    load(path, warn=warn)
    assert warnings == [("signer.key_readable_by_others", {"path": str(private), "advice": "chmod 600"})]


def test_an_oversized_private_key_is_refused(write: Write, tmp_path: Path) -> None:
    """A file that can be no key is not read whole."""
    path = write()
    (tmp_path / "planner.pem").write_bytes(b"x" * 20_000)
    assert "over 16384 bytes" in refusal(path)


def test_the_signers_own_key_under_another_principal_is_refused(write: Write, tmp_path: Path, key: SigningKey) -> None:
    """A key set that gives this agent's key to someone else is found at the start, not by lost messages."""
    (tmp_path / "agents.jwks").write_text(to_jwks([key.verification_key("agent://acme/other")]))
    assert "one public key for 'agent://acme/planner' and 'agent://acme/other'" in refusal(write())


def test_one_public_key_in_two_sources_under_two_principals_is_refused(
    write: Write, tmp_path: Path, key: SigningKey
) -> None:
    """Splitting a key set over two sources does not hide that two agents share a key."""
    (tmp_path / "more.jwks").write_text(to_jwks([key.verification_key("agent://acme/other")]))
    text = 'realm = "prod"\n' + "".join(
        f'[[keys]]\nsource = "files"\npaths = ["{name}"]\n' for name in ("agents.jwks", "more.jwks")
    )
    assert "one public key for" in refusal(write(text))


def test_memory_keys_of_a_plug_in_are_not_asked_for_owners() -> None:
    """Only sources that can list their keys are compared; others are asked key by key."""
    from watchword_adapters.config import _check_owners  # noqa: PLC0415 - the one look inside

    _check_owners(None, [MemoryKeys()], None)


@pytest.mark.parametrize(
    ("table", "written"),
    [
        ("contained", '[policy]\ncontained = ["agent://acme/planer", "agent://acme/planner", "x"]\n'),
        (
            "allow",
            "".join(
                f'[[policy.allow]]\nprincipal = "{name}"\nchannels = ["nats://prod/a"]\n'
                for name in ("agent://acme/planer", "agent://acme/planner", "x")
            ),
        ),
    ],
)
def test_a_principal_without_a_key_is_warned_of(write: Write, table: str, written: str) -> None:
    """A name without a key contains and allows nobody: a warning lists it, with the name that may have been meant."""
    warnings: list[tuple[str, dict[str, object]]] = []
    load(write(BASE + written), warn=lambda event, **fields: warnings.append((event, fields)))
    ((event, fields),) = warnings
    assert (event, fields["setting"]) == ("policy.unknown_principals", f"policy.{table}")
    assert fields["principals"] == "'agent://acme/planer' (did you mean 'agent://acme/planner'?), 'x'"
    assert "acme/planner" in refusal(write(BASE + written.replace('"x"', '"acme/planner"')))


def test_a_pattern_that_matches_no_key_is_warned_of(write: Write) -> None:
    """As for a name, a warning lists a pattern if it matches no principal with a key; otherwise it does not."""
    warnings: list[tuple[str, dict[str, object]]] = []
    policy = '[policy]\ncontained = ["agent://acme/*", "**", "agent://acme/planner/*/**", "agent://amce/*"]\n'
    load(write(BASE + policy), warn=lambda event, **fields: warnings.append((event, fields)))
    assert [fields["principals"] for _, fields in warnings] == [
        "'agent://acme/planner/*/**' (did you mean 'agent://acme/planner'?), 'agent://amce/*'"
    ]


def test_thousands_of_rules_without_keys_are_told_in_a_line(write: Write) -> None:
    """However many names are unknown, the start takes seconds at most, and the warning is of a length to be read."""
    warnings: list[tuple[str, dict[str, object]]] = []
    rules = "".join(
        f'[[policy.allow]]\nprincipal = "agent://{at}/worker"\nchannels = ["nats://prod/a"]\n' for at in range(2000)
    )
    load(write(BASE + rules), warn=lambda event, **fields: warnings.append((event, fields)))
    (told,) = [str(fields["principals"]) for _, fields in warnings]
    assert told.startswith("'agent://0/worker', 'agent://1/worker'")
    assert told.endswith("'agent://9/worker' and 1990 more")


def test_ten_thousand_rules_fit_in_a_file(write: Write) -> None:
    """A policy of ten thousand agents, each with its rule, is read from one file."""
    rules = "".join(
        f'[[policy.allow]]\nprincipal = "agent://acme/worker-{at:05}"\nchannels = ["nats://prod/tasks.{at:05}"]\n'
        'rate = "200/s"\n'
        for at in range(10_000)
    )
    policy = load(write(BASE + rules), warn=lambda *_, **__: None).verifier.policy
    assert policy.rules_matching("agent://acme/worker-09999", Channel.parse("nats://prod/tasks.09999")) == [9999]


def test_whom_a_plug_in_knows_is_not_guessed_at(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where keys come from elsewhere, or from nowhere, no principal is called unknown."""
    warnings: list[str] = []
    policy = '[policy]\nmode = "observe"\ncontained = ["x"]\n'
    load(write(f'realm = "prod"\n{policy}'), warn=lambda event, **_: warnings.append(event))
    monkeypatch.setattr("watchword_adapters.plugins.find", lambda *_, **__: lambda *_: MemoryKeys([]))
    text = f'realm = "prod"\n[[keys]]\nsource = "vault"\n{policy}'
    load(write(text), warn=lambda event, **_: warnings.append(event), replay=MemoryReplayStore(horizon=None))
    assert not warnings
