"""Settings that are followed: a file that is edited while a process runs."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import PATIENCE
from tests.support.workload_api import Authority
from watchword import Algorithm, ConfigurationError, Mode, Rejected, SigningKey, Unavailable, VerifiedMessage, Watchword
from watchword.algorithms import PublicKey
from watchword.jwk import to_jwks
from watchword.spi import Channel, Context, KeySwitch, Message, ObservedMessage
from watchword_adapters import config, plugins, settings_file, settings_watch
from watchword_adapters.config import load
from watchword_adapters.settings_watch import CHECK_EVERY
from watchword_adapters.signers.held import HeldKey, HeldOptions
from watchword_adapters.spiffe.source import SpiffeKeys
from watchword_adapters.testing import Clock

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
TASKS = Channel("nats", "prod", "tasks")


class Warned:
    """What an agent logs about its set-up."""

    def __init__(self, agent: Watchword) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []
        agent.audit.warn = self._hear  # type: ignore[method-assign] # the test's
        agent.audit.note = self._hear  # type: ignore[method-assign] # as above

    def _hear(self, event: str, **fields: object) -> None:
        self.events.append((event, fields))

    def of(self, event: str) -> list[dict[str, object]]:
        """Return the fields of each such event."""
        return [fields for name, fields in self.events if name == event]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("WATCHWORD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a settings file beside a private key and a key set."""
    write_key(tmp_path, SigningKey.generate())
    file = tmp_path / "watchword.toml"
    file.write_text(BASE)
    return file


def write_key(directory: Path, key: SigningKey) -> None:
    """Put a private key in place, and publish it."""
    private = directory / "planner.pem"
    private.touch(mode=0o600)
    private.write_bytes(key.to_pem())
    (directory / "agents.jwks").write_text(to_jwks([key.verification_key(PLANNER)]))


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[Watchword], None]:
    """Return what lets the time pass after which settings are looked at again; it stands still otherwise."""
    clock = Clock(0.0)
    monkeypatch.setattr(config, "SettingsWatch", partial(settings_watch.SettingsWatch, clock=clock))

    def pass_time(agent: Watchword) -> None:
        assert not agent.is_due()
        clock.advance(CHECK_EVERY)
        assert agent.is_due()

    return pass_time


def edit(path: Path, text: str | None) -> None:
    """Write a file, or take it away."""
    path.unlink() if text is None else path.write_text(text)


async def say(agent: Watchword, *, signed: bool = True) -> object:
    """Let the agent judge a message of its own; return what it comes to."""
    message = Message(channel=TASKS, value=b"x")
    headers = ((await agent.signer.sign(message)).header,) if signed else ()
    try:
        return await agent.admit(Message(channel=TASKS, value=b"x", headers=headers))
    except Rejected as verdict:
        return str(verdict.reason)


async def test_an_edited_file_holds_within_the_time_between_two_looks(
    path: Path, later: Callable[[Watchword], None]
) -> None:
    """Mode, rules and containment change without a restart; before a look is due nothing is read."""
    agent = load(path)
    heard = Warned(agent)
    edit(path, BASE + f'[policy]\ncontained = ["{PLANNER}"]\n')
    assert isinstance(await say(agent), VerifiedMessage)
    later(agent)
    assert await say(agent) == "contained"
    edit(path, BASE + '[policy]\nmode = "observe"\n')
    later(agent)
    assert isinstance(await say(agent, signed=False), ObservedMessage)
    edit(path, BASE + '[policy]\nmode = "observe"\n[[policy.channels]]\nmatch = "nats://prod/>"\nmode = "enforce"\n')
    later(agent)
    assert await say(agent, signed=False) == "unsigned"
    assert [fields["mode"] for fields in heard.of("settings.changed")] == ["enforce", "observe", "observe"]


async def test_the_log_says_what_has_changed_and_no_secret(path: Path, later: Callable[[Watchword], None]) -> None:
    """A reader of the log learns which settings changed, those of the policy by value, and nothing more."""
    agent = load(path)
    heard = Warned(agent)
    store = '[replay]\nstore = "memory"\n'
    kafka = '[kafka]\nmechanism = "PLAIN"\nuser = "u"\npassword = "{}"\n'
    contained = f'mode = "observe"\nmax_age = "1m"\ncontained = ["{PLANNER}"]\n'
    write_key(path.parent, SigningKey.generate())
    for text in (
        BASE + store + "[policy]\n" + contained + kafka.format("hunter1"),
        BASE + store + "[policy]\n" + contained + kafka.format("hunter2"),
        BASE.replace('"planner.pem"', '"planner.pem"\nkey_id = "other"') + store,
        BASE.replace('"agents.jwks"', '"./agents.jwks"') + "# and a remark\n",
        BASE.replace('"agents.jwks"', '"./agents.jwks"'),
    ):
        edit(path, text)
        later(agent)
        await say(agent)
    told = [str(fields["changed"]).split(", ") for fields in heard.of("settings.changed")]
    assert told == [
        [
            "policy.mode enforce -> observe", "policy.max_age 300 s -> 60 s", "policy.contained 0 -> 1 entries",
            "kafka", "signer's key",
        ],
        ["kafka.password"],
        [
            "signer.key_id", "policy.mode observe -> enforce", "policy.max_age 60 s -> 300 s",
            "policy.contained 1 -> 0 entries", "kafka",
        ],
        ["signer.key_id", "keys"],
        ["nothing"],
    ]  # fmt: skip


async def test_a_mistake_changes_nothing_and_is_told_once(path: Path, later: Callable[[Watchword], None]) -> None:
    """What held continues to hold, however often the file is looked at, until the mistake is mended."""
    edit(path, BASE + f'[policy]\ncontained = ["{PLANNER}"]\n')
    agent = load(path)
    heard = Warned(agent)
    for text in (
        BASE + "[policy]\ncontaned = []\n",
        BASE + '[[policy.allow]]\nprincipal = "a"\nchannels = ["x"]\n',
        "?",
    ):
        edit(path, text)
        for _ in range(3):
            later(agent)
            assert await say(agent) == "contained"
    edit(path, None)
    later(agent)
    assert await say(agent) == "contained"
    told = [str(fields["detail"]) for fields in heard.of("settings.not_changed")]
    assert len(told) == 4
    assert all(str(path) in line and "\n" not in line for line in told)
    assert 'did you mean "contained"?' in told[0]
    edit(path, BASE)
    later(agent)
    assert isinstance(await say(agent), VerifiedMessage)


async def test_reload_is_at_once_and_says_what_is_wrong(path: Path) -> None:
    """It needs no waiting; a mistake is its error each time, and what held holds on."""
    agent = load(path)
    edit(path, BASE + f'[policy]\ncontained = ["{PLANNER}"]\n')
    agent.reload()
    assert await say(agent) == "contained"
    edit(path, "realm = 5")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"watchword\.toml: .*realm: write text in quotes"):
            agent.reload()
    assert await say(agent) == "contained"


async def test_what_is_read_once_is_named(path: Path, later: Callable[[Watchword], None]) -> None:
    """Realm, principal, memory and the greatest age stay as they were; the log names what waits for a restart."""
    agent = load(path)
    heard = Warned(agent)
    edit(path, BASE.replace("prod", "test") + '[policy]\nmax_age = "1h"\n[replay]\nmax_lag = "1d"\n')
    later(agent)
    assert isinstance(await say(agent), VerifiedMessage)
    (fields,) = heard.of("settings.need_restart")
    assert fields["names"] == "realm, replay, max_age, max_lag"
    assert (agent.realm, agent.verifier.policy.max_age) == ("prod", 300.0)


async def test_key_sources_change_with_the_file(path: Path, later: Callable[[Watchword], None]) -> None:
    """A source that is taken out knows nobody any more; one that stays is the same one, with what it has read."""
    agent = load(path)
    before = agent.verifier.keys.source
    edit(path, BASE + "[policy]\n")
    later(agent)
    assert isinstance(await say(agent), VerifiedMessage)
    assert agent.verifier.keys.source is before
    edit(path.parent / "none.jwks", '{"keys": []}')
    edit(path, BASE.replace("agents.jwks", "none.jwks"))
    later(agent)
    assert await say(agent) == "unknown_key"


async def test_the_signers_key_is_followed(path: Path, later: Callable[[Watchword], None]) -> None:
    """A private key that is replaced signs from then on, though the settings are the same."""
    agent = load(path)
    assert isinstance(await say(agent), VerifiedMessage)
    key = SigningKey.generate()
    write_key(path.parent, key)
    later(agent)
    await say(agent)
    agent.reload()  # the key set is read by the source in its own time
    verified = await say(agent)
    assert isinstance(verified, VerifiedMessage)
    assert verified.key_id == key.key_id.decode()


async def test_a_disk_that_does_not_answer_stops_nobody(
    path: Path, later: Callable[[Watchword], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a bounded time messages are judged by what held; the answer that comes late is taken then."""
    agent = load(path)
    heard, answer = Warned(agent), threading.Event()

    def hang(file: Path) -> bytes:
        answer.wait()
        return settings_file.read_text(file)

    monkeypatch.setattr(config, "read_text", hang)
    monkeypatch.setattr(settings_watch, "READ_LIMIT", 0.01)
    edit(path, BASE + f'[policy]\ncontained = ["{PLANNER}"]\n')
    later(agent)
    assert isinstance(await say(agent), VerifiedMessage)
    monkeypatch.setattr(settings_watch, "READ_LIMIT", 3600.0)
    later(agent)
    async with asyncio.timeout(PATIENCE):  # what was late once is waited for no more
        assert isinstance(await say(agent), VerifiedMessage)
    assert len(heard.of("settings.not_changed")) == 1
    answer.set()
    async with asyncio.timeout(PATIENCE):
        while await say(agent) != "contained":
            later(agent)


async def test_a_file_that_stays_is_not_read_into_settings_again(
    path: Path, later: Callable[[Watchword], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look costs a comparison, and no more for thousands of rules."""
    agent = load(path)
    monkeypatch.delattr(config, "settings_of")
    later(agent)
    assert isinstance(await say(agent), VerifiedMessage)


async def test_many_that_wait_for_one_look_take_it_once(path: Path, later: Callable[[Watchword], None]) -> None:
    """Messages that come together are judged by the same settings, which are read once."""
    agent = load(path)
    heard = Warned(agent)
    edit(path, BASE + f'[policy]\ncontained = ["{PLANNER}"]\n')
    later(agent)
    assert await asyncio.gather(*(say(agent) for _ in range(5))) == ["contained"] * 5
    assert len(heard.of("settings.changed")) == 1
    assert agent.verifier.policy.mode is Mode.ENFORCE


def test_our_own_keys_end_is_told_once_a_day(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From two weeks before on; another agent's, and one that is far away, are not."""
    now, told = [1_700_000_000.0], list[dict[str, object]]()
    key, other = SigningKey.generate(), SigningKey.generate()
    write_key(path.parent, key)
    ours, theirs = key.verification_key(PLANNER), other.verification_key("agent://acme/other")
    end = int(now[0]) + 15 * 86_400
    keys = [replace(ours, not_after=end), replace(theirs, not_after=end)]
    (path.parent / "agents.jwks").write_text(to_jwks(keys))

    def warn(event: str, **fields: object) -> None:
        if event == "keys.end_soon":
            told.append(fields)

    monkeypatch.setattr("watchword.spi.Audit.warn", lambda _, event, **fields: warn(event, **fields))
    agent = load(path, clock=lambda: now[0])
    agent.reload()
    assert told == []
    now[0] += 2 * 86_400
    agent.reload()
    now[0] += 3600
    agent.reload()
    (fields,) = told
    assert (fields["key_id"], fields["seconds"]) == (key.key_id.decode(), 13 * 86_400)
    now[0] += 86_400
    load(path, clock=lambda: now[0], warn=warn)
    agent.reload()
    assert len(told) == 3


async def test_a_source_whose_place_is_taken_is_closed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has open ends when another one holds, and not when the same continues."""
    closed: list[object] = []

    def close(source: SpiffeKeys) -> None:
        closed.append(source)

    monkeypatch.setattr(SpiffeKeys, "close", close)
    (path.parent / "bundle.pem").write_bytes(Authority().pem)
    text = (
        BASE + '[[keys]]\nsource = "spiffe"\n[keys.bundles]\n"acme.example" = "bundle.pem"\n'
        '[control]\nchannel = "nats://prod/c"\npresence = "nats://prod/p"\n'
        '[[control.operators]]\nprincipal = "agent://acme/oncall"\nmay = ["contain"]\nover = ["**"]\n'
    )
    edit(path, text)
    agent = load(path)
    edit(path, text + f'[policy]\ncontained = ["{PLANNER}"]\n')
    agent.reload()
    (first,) = closed
    assert isinstance(first, SpiffeKeys)
    edit(path, BASE)
    agent.reload()
    assert len(closed) == 2
    assert closed[1] is not first


class Elsewhere:
    """Keys that are held elsewhere, by name; registered as a plug-in of someone's."""

    def __init__(self) -> None:
        self.keys: dict[str, SigningKey] = {}
        self.away = False

    def __call__(self, options: dict[str, str], context: object) -> HeldKey:
        """Return the key that the options name."""
        if self.away:
            raise Unavailable("signing", "away")
        key = self.keys.setdefault(options["key"], SigningKey.generate())

        class Held:
            def public(self) -> PublicKey:
                return key.public

            def sign(self, data: bytes, algorithm: Algorithm) -> bytes:
                del algorithm
                return key.sign_now(data)

        assert isinstance(context, Context)
        chosen = HeldOptions(key_id=options.get("key_id"))
        return HeldKey.of(Held(), chosen, context)


@pytest.fixture
def elsewhere(path: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """Give who holds the keys that the settings name; the readers know two of them."""
    made = Elsewhere()
    find = plugins.find

    def found(group: str, name: str, *, where: str) -> Any:
        return made if name == "elsewhere" else find(group, name, where=where)

    monkeypatch.setattr(plugins, "find", found)
    made.keys = {name: SigningKey.generate() for name in ("one", "two")}
    (path.parent / "agents.jwks").write_text(to_jwks([key.verification_key(PLANNER) for key in made.keys.values()]))
    return made


HELD = BASE.replace('key = "planner.pem"', 'source = "elsewhere"\nkey = "{}"')


async def test_a_held_key_is_followed(path: Path, later: Callable[[Watchword], None], elsewhere: Elsewhere) -> None:
    """What the settings say of a key that is held elsewhere holds without a restart, once the key has shown itself."""
    edit(path, HELD.format("one"))
    agent = load(path)
    heard = Warned(agent)
    for name in ("one", "two", "one"):
        edit(path, HELD.format(name))
        later(agent)
        await say(agent)  # this one was signed before the look
        verified = await say(agent)
        assert isinstance(verified, VerifiedMessage)
        assert verified.key_id == elsewhere.keys[name].key_id.decode()
    assert heard.of("settings.need_restart") == []
    assert [fields["changed"] for fields in heard.of("settings.changed")] == ["signer.key"] * 2


@pytest.mark.parametrize(
    ("text", "away", "told"),
    [
        (HELD.format("two"), True, "signer: signing unavailable: away"),
        (HELD.format('two"\nkey_id = "other'), False, "id has another length"),
    ],
)
async def test_a_held_key_that_cannot_be_had_changes_nothing(
    path: Path, later: Callable[[Watchword], None], elsewhere: Elsewhere, text: str, told: str, *, away: bool
) -> None:
    """The agent keeps its key and says why, once; when the other one is available, it switches to it."""
    edit(path, HELD.format("one"))
    agent = load(path)
    heard = Warned(agent)
    edit(path, text + f'[policy]\ncontained = ["{PLANNER}"]\n')
    elsewhere.away = away
    for _ in range(2):
        later(agent)
        assert isinstance(await say(agent), VerifiedMessage)
    (fields,) = heard.of("settings.not_changed")
    assert told in str(fields["detail"])
    elsewhere.away = False
    edit(path, HELD.format("two"))
    later(agent)
    await say(agent)
    verified = await say(agent)
    assert isinstance(verified, VerifiedMessage)
    assert verified.key_id == elsewhere.keys["two"].key_id.decode()


async def test_a_key_that_is_held_by_somebody_else_waits_for_a_restart(
    path: Path, later: Callable[[Watchword], None], elsewhere: Elsewhere
) -> None:
    """What signs in memory and what waits for others is wired differently; so it is named, and nothing breaks."""
    agent = load(path)
    heard = Warned(agent)
    before = agent.signer.key_id
    edit(path, HELD.format("one"))
    later(agent)
    await say(agent)
    assert agent.signer.key_id == before
    assert [fields["names"] for fields in heard.of("settings.need_restart")] == ["signer"]
    assert elsewhere.keys["one"].key_id != before


async def test_a_key_that_rotates_by_itself_is_not_followed(
    path: Path, later: Callable[[Watchword], None], elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What rotates by itself has keys of its own to switch to: another one of that kind waits for a restart."""

    class Rotating:
        def __init__(self, key: HeldKey) -> None:
            self.key_id, self.algorithm, self.sign = key.key_id, key.algorithm, key.sign

        def serve(self, signer: KeySwitch) -> None:
            signer.hold(None, by="test")

    def made(options: dict[str, str], context: object) -> Rotating:
        return Rotating(elsewhere(options, context))

    find = plugins.find

    def found(group: str, name: str, *, where: str) -> Any:
        return made if name == "elsewhere" else find(group, name, where=where)

    monkeypatch.setattr(plugins, "find", found)
    edit(path, HELD.format("one"))
    agent = load(path)
    heard = Warned(agent)
    edit(path, HELD.format("two"))
    later(agent)
    await say(agent)
    verified = await say(agent)
    assert isinstance(verified, VerifiedMessage)
    assert verified.key_id == elsewhere.keys["one"].key_id.decode()
    assert [fields["names"] for fields in heard.of("settings.need_restart")] == ["signer"]


async def test_a_key_file_that_stays_is_not_opened_again(
    path: Path, later: Callable[[Watchword], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To open an encrypted key is made to take long: it is done when its file shows a change, not each time."""
    private = path.parent / "planner.pem"
    old = time.time() - 3600
    os.utime(private, (old, old))
    monkeypatch.setattr(config, "SETTLING", -3600.0)  # the time of the change of mode, which nobody can set
    agent, opened = load(path), list[object]()
    real = config.signing_key

    def counting(*given: Any) -> Any:
        opened.append(given)
        return real(*given)

    monkeypatch.setattr(config, "signing_key", counting)
    for _ in range(3):
        later(agent)
        assert isinstance(await say(agent), VerifiedMessage)
    assert len(opened) == 1
    key = SigningKey.generate()
    write_key(path.parent, key)
    later(agent)
    await say(agent)
    assert agent.signer.key_id == key.key_id
    private.unlink()
    later(agent)
    await say(agent)
    assert agent.signer.key_id == key.key_id


def test_anothers_key_that_is_held_elsewhere_is_found_at_the_start(path: Path, elsewhere: Elsewhere) -> None:
    """A key set that gives this agent's key to another principal is refused at the start, wherever the key is held."""
    edit(path, HELD.format("one"))
    theirs = elsewhere.keys["one"].verification_key("agent://acme/mallory")
    (path.parent / "agents.jwks").write_text(to_jwks([theirs]))
    with pytest.raises(ConfigurationError, match=r"one public key for .*planner.* and .*mallory"):
        load(path)
