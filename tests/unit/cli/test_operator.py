"""The commands of operators, over a control log in memory."""

import asyncio
import io
import json
import sys
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from tests.unit.cli.conftest import ONCALL, PLANNER, SEC, Run
from tests.unit.control.memory_log import CHANNEL, Entries, MemoryLog
from watchword import SigningKey, Watchword, presence
from watchword.control import Link, OperatorKey
from watchword.jwk import parse_jwks
from watchword.keys import thumbprint
from watchword.presence import Announcement
from watchword.spi import Channel, Message, Position
from watchword.statements import CONTENT_TYPE, Head, Statement
from watchword_adapters.cli import control as commands
from watchword_adapters.config import load
from watchword_adapters.control import desk as desks

PRESENCE = Channel("nats", "prod", "watchword.presence")


def kid(name: str) -> str:
    """Return the id of an agent's key."""
    return str(json.loads(Path(f"{name}.jwk").read_text())["kid"])


def key_id_of(key: SigningKey) -> str:
    """Return how a key is named in a list."""
    return key.key_id.decode()


def thumbprint_of(key: SigningKey) -> str:
    """Return how a key is named on the log."""
    return thumbprint(key.public)


@pytest.mark.usefixtures("entries")
def test_contained_and_released(run: Run) -> None:
    """Each command says what it did, and what still holds."""
    done = run("contain", PLANNER, "-c", "oncall.toml", "--why", "INC-7")
    assert (done.code, done.out, done.err) == (0, f"{PLANNER} is contained for good\n", "")
    begun = int(time.time())
    (row,) = run("contain", PLANNER, "-c", "oncall.toml", "--for", "1h", "--json").lines
    assert (row["who"], row["by"], row["position"], row["why"]) == (PLANNER, ONCALL, 1, None)
    assert isinstance(row["until"], int)
    assert begun <= row["until"] - 3600 <= time.time() + 1
    assert "agent://acme/** is contained until" in run(
        "contain", "agent://acme/**", "-c", "sec.toml", "--for", "1d", "--yes", "--why", "INC-8"
    ).out  # fmt: skip
    released = run("release", PLANNER, "-c", "oncall.toml")
    assert released.code == 1
    first, second = released.out.splitlines()
    assert first == f"{PLANNER} is released"
    assert second.startswith("still contained: agent://acme/** until ")
    assert second.endswith(f", by {SEC}: INC-8")
    again = run("release", PLANNER, "-c", "oncall.toml")
    assert (again.code, again.out) == (2, "")
    assert f"nothing contains exactly '{PLANNER}'; in force: 'agent://acme/**'" in again.err
    last = run("release", "agent://acme/**", "-c", "sec.toml", "--json")
    assert last.code == 1, "the settings contain one of them"
    (row,) = last.lines
    assert (row["still"], row["in_settings"]) == ([], ["agent://acme/old"])
    nothing = run("release", "agent://acme/old", "-c", "oncall.toml")
    assert "in force: none; and [policy] contained, in the settings: agent://acme/old" in nothing.err
    run("contain", "agent://acme/other", "-c", "oncall.toml")
    done = run("release", "agent://acme/other", "-c", "oncall.toml")
    assert (done.code, done.out) == (0, "agent://acme/other is released\n")


@pytest.mark.usefixtures("entries")
def test_what_remains_is_told_in_words(run: Run) -> None:
    """Also what stands in the settings."""
    run("contain", "agent://acme/*", "-c", "oncall.toml")
    told = run("release", "agent://acme/*", "-c", "oncall.toml")
    assert f"still contained: agent://acme/old, in [policy] contained of {ONCALL}'s settings" in told.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("contain", ""), "is not a principal: write one"),
        (("contain", "agent://**/x"), "is not a principal: write one"),
        (("contain", "agent://acme/mal*"), "may replace a whole part"),
        (("release", "agent://**/x"), "is not a principal: write one"),
        (("contain", PLANNER, "--for", "soon"), "--for: write a duration"),
        (("contain", PLANNER, "--for", "0.5s"), "--for: write 1s to 3650d"),
        (("contain", PLANNER, "--why", "x" * 201), "--why: at most 200"),
        (("contain", PLANNER, "--why", "a\nb"), "--why: at most 200"),
        (("contain", "agent://acme/**"), "There is no terminal to ask on: add --yes"),
        (("contain", "agent://other/x"), "not under this operator"),
        (("contain", PLANNER, "-c", "planner.toml"), "not an operator"),
        (("contain", ONCALL, "-c", "missing.toml"), "missing.toml"),
        (("control", "adopt", ONCALL, "--yes"), "only another one can adopt"),
        (("control", "adopt", SEC, "--yes"), f"no statement of '{SEC}' is in force"),
        (("control", "attend", "--every", "0s"), "--every: at least 1s"),
        (("key", "publish", "missing.jwk"), "missing.jwk: No such file"),
        (("key", "revoke", "nobody"), "is not a key: name one by kid"),
        (("key", "revoke", "agents.jwks", "--yes"), "contains 3 keys"),
        (("key", "revoke", "sec.jwk", "--yes"), "an operator: revoke it in the source"),
        (("key", "rotate", "planner.toml", "--overlap", "1s"), "--overlap: at least 30s"),
        (("key", "rotate", "planner.toml", "--life", "5m"), "--life: longer than --overlap"),
        (("key", "rotate", "sec.toml"), "is an operator: rotate operators' keys in the source"),
        (("key", "rotate", "planner.toml"), "name a channel in [control] presence, or add --wait 0"),
    ],
)
@pytest.mark.usefixtures("entries")
def test_what_cannot_be_is_told_in_a_line(run: Run, arguments: tuple[str, ...], told: str) -> None:
    """Nothing is said on the log, and the line says what to write."""
    chosen = () if "-c" in arguments else ("-c", "oncall.toml")
    ended = run(*arguments, *chosen)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
    assert ended.err.count("\n") == 1


def test_no_log_is_made_by_chance(run: Run, entries: Entries, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings without [control], a log that is unfit, a broker that is away."""
    assert run("control", "init", "-c", "oncall.toml").out == f"{CHANNEL.uri} exists, and is fit\n"
    assert run("control", "init", "-c", "oncall.toml", "--json").lines == [{"channel": CHANNEL.uri, "made": False}]
    settings = directory / "bare.toml"
    settings.write_text('realm = "prod"\n[[keys]]\nsource = "files"\npaths = ["agents.jwks"]\n')
    ended = run("contain", PLANNER, "-c", "bare.toml")
    assert (ended.code, "control: no channel" in ended.err) == (2, True)
    entries.unfit = "stream X: max_age: write 0"
    ended = run("contain", PLANNER, "-c", "oncall.toml")
    assert (ended.code, "max_age: write 0" in ended.err) == (2, True)
    entries.unfit, entries.down = None, True
    monkeypatch.setattr(desks, "TIMEOUT", 0.1)
    ended = run("contain", PLANNER, "-c", "oncall.toml")
    assert (ended.code, "the broker is down" in ended.err) == (3, True)


class Terminal(io.StringIO):
    """Standard input with someone before it."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.mark.usefixtures("entries")
def test_who_can_be_asked_is_asked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Yes does it, anything else does not."""
    from watchword_adapters.cli import main  # noqa: PLC0415 - beside its only use without ``run``

    monkeypatch.setattr(sys, "stdin", Terminal("\n"))
    assert main(["contain", "agent://acme/**", "-c", "oncall.toml"]) == 2
    assert "Contain every principal that matches agent://acme/**? [y/N] " in (told := capsys.readouterr()).err
    assert "nothing was done" in told.err
    monkeypatch.setattr(sys, "stdin", Terminal("Y\n"))
    assert main(["contain", "agent://acme/**", "-c", "oncall.toml"]) == 0
    monkeypatch.setattr(sys, "stdin", Terminal("no\n"))
    assert main(["control", "adopt", ONCALL, "-c", "sec.toml"]) == 2
    (first, second) = capsys.readouterr().err.split("[y/N] ")[1].splitlines()
    assert first.startswith("0  ")
    assert first.endswith(" UTC  contain agent://acme/** for good")
    assert second.startswith("Repeat these 1 statements")


def test_the_log_shows_what_counts_and_what_does_not(run: Run, entries: Entries) -> None:
    """Forgeries, what is no statement and what its operator may not say stand beside what holds."""
    run("contain", PLANNER, "-c", "oncall.toml", "--why", "INC-7")
    run("release", PLANNER, "-c", "oncall.toml")
    run("key", "publish", "planner.jwk", "-c", "sec.toml")
    run("key", "revoke", kid("planner"), "-c", "sec.toml", "--yes")

    async def says(agent: Watchword, value: bytes) -> None:
        await MemoryLog(entries, agent).publish(value, {"content-type": CONTENT_TYPE})

    sec = load("sec.toml")
    asyncio.run(says(sec, Statement(3, "A" * 43, 0, Head()).to_json()))
    unknown = json.dumps({"s": 4, "prev": "A" * 43, "n": 1, "dance": {}}).encode()
    asyncio.run(says(sec, unknown))
    whole = run("control", "log", "-c", "oncall.toml")
    assert whole.code == 0
    assert [line.split("UTC")[1].split("  ", 3)[3] for line in whole.out.splitlines()[:3]] == [
        f"contain {PLANNER} for good: INC-7", f"release {PLANNER}", f"key {kid('planner')} of {PLANNER}",
    ]  # fmt: skip
    assert " head " in whole.out
    assert "dance (of a later version)" in whole.out
    asyncio.run(says(sec, b"{}"))
    asyncio.run(says(load("planner.toml"), Statement(1, "", 0, Head()).to_json()))
    entries.append(Message(channel=CHANNEL, value=b"junk"))
    ended = run("control", "log", "-c", "oncall.toml", "--json")
    assert ended.code == 1
    assert [row["counts"] for row in ended.lines] == [True] * 6 + [False] * 3
    assert ended.lines[6]["operator"] == SEC
    assert "not a statement" in str(ended.lines[6]["why_not"])
    assert "key" in str(ended.lines[7]["why_not"])
    assert str(ended.lines[8]["why_not"]).startswith("unsigned: no Watchword header")
    assert "DOES NOT COUNT: unsigned" in run("control", "log", "-c", "oncall.toml").out


def interrupt_when(condition: Callable[[], object]) -> Any:
    """Return a coroutine like asyncio.sleep that ends everything once a condition holds."""
    pause = asyncio.sleep

    async def sleep(delay: float, result: object = None) -> object:
        if delay >= 1 and condition():
            raise KeyboardInterrupt
        await pause(min(delay, 0.01))
        return result

    return sleep


def test_heads_are_said_until_somebody_ends_it(run: Run, entries: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that goes away is reported once, and tried again."""
    pauses = [0]

    def over() -> bool:
        pauses[0] += 1
        entries.down = pauses[0] in {2, 3}
        monkeypatch.setattr(desks, "TIMEOUT", 0.1 if entries.down else 60.0)
        return pauses[0] > 3 and len(entries.kept) > 2

    monkeypatch.setattr(commands, "wait", interrupt_when(over))
    ended = run("control", "attend", "-c", "oncall.toml")
    assert (ended.code, ended.out) == (130, f"{ONCALL} publishes a head every 10 s\n")
    assert ended.err.count("retrying") == 1


def test_what_a_revoked_key_said_is_shown(run: Run, entries: Entries, directory: Path) -> None:
    """Promise: who looks for what a thief did sees what was said, by whom, and that it does not count."""
    assert entries is not None
    run("contain", PLANNER, "-c", "oncall.toml", "--why", "routine")
    keys = json.loads((directory / "agents.jwks").read_text())
    for key in keys["keys"]:
        if key["principal"] == ONCALL:
            key["revoked"] = int(time.time()) - 5
    (directory / "agents.jwks").write_text(json.dumps(keys))
    shown = run("control", "log", "-c", "sec.toml", "--json")
    assert shown.code == 1
    (row,) = shown.lines
    assert (row["operator"], row["verb"], row["about"]) == (ONCALL, "contain", f"{PLANNER} for good: routine")
    assert not row["counts"]
    assert str(row["why_not"]).startswith("key_revoked: ")


def test_a_broker_that_does_not_answer_ends_the_making(
    run: Run, entries: Entries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: it ends with code 3 and says what to look at."""

    async def never(_: object) -> bool:
        await asyncio.Event().wait()
        return False

    assert entries is not None
    monkeypatch.setattr(MemoryLog, "make", never)
    monkeypatch.setattr(commands, "TIMEOUT", 0.05)
    made = run("control", "init", "-c", "oncall.toml")
    assert (made.code, made.out) == (3, "")
    assert "the broker did not answer within" in made.err


def test_following_the_log_goes_on(run: Run, entries: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends when someone ends it."""
    run("contain", PLANNER, "-c", "oncall.toml")

    def ended() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "for_ever", ended)
    told = run("control", "log", "--follow", "-c", "oncall.toml")
    assert (told.code, told.out.count("\n"), len(entries.kept)) == (130, 1, 1)


@pytest.mark.usefixtures("entries")
def test_another_operators_words_are_adopted(run: Run) -> None:
    """What stands, and not what has been taken back since."""
    run("contain", PLANNER, "-c", "oncall.toml", "--why", "INC-7")
    run("contain", "agent://acme/a", "-c", "oncall.toml")
    run("release", "agent://acme/a", "-c", "sec.toml")
    run("key", "publish", "planner.jwk", "-c", "oncall.toml")
    run("key", "revoke", "planner.jwk", "-c", "oncall.toml", "--yes")
    adopted = run("control", "adopt", ONCALL, "-c", "sec.toml", "--yes", "--json")
    assert [(row["verb"], row["by"]) for row in adopted.lines] == [("contain", SEC), ("key", SEC), ("revoke", SEC)]
    assert run("control", "adopt", ONCALL, "-c", "sec.toml", "--yes").code == 0, "a revocation is anyone's"


@pytest.mark.usefixtures("entries")
def test_what_a_thief_said_is_left_out(run: Run) -> None:
    """By its position in the log: what was adopted of a thief's would outlast the key that he stole."""
    run("contain", PLANNER, "-c", "oncall.toml", "--why", "INC-7")
    run("key", "publish", "planner.jwk", "-c", "oncall.toml")
    run("key", "revoke", "planner.jwk", "-c", "oncall.toml", "--yes")
    adopt = ("control", "adopt", ONCALL, "-c", "sec.toml", "--yes", "--json")
    wrong = run(*adopt, "--without", "1", "--without", "7")
    assert (wrong.code, wrong.out) == (2, ""), "nothing was said"
    assert f"--without 7: no statement of {ONCALL} in force is there; positions are 0, 1, 2" in wrong.err
    nothing = run(*adopt, "--without", "0", "--without", "1", "--without", "2")
    assert (nothing.code, nothing.out) == (2, "")
    assert "is left to adopt" in nothing.err
    adopted = run(*adopt, "--without", "2", "--without", "1")
    assert [(row["verb"], row["of"], row["position"]) for row in adopted.lines] == [("contain", 0, 3)]


@pytest.mark.usefixtures("entries")
def test_what_the_adopter_may_not_say_is_told_before_anything_is_said(run: Run, directory: Path) -> None:
    """Half of it adopted, and an error, would be found out when the stolen key is revoked."""
    for path in directory.glob("*.toml"):
        path.write_text(path.read_text().replace('over = ["**"]', f'over = ["{PLANNER}"]'))
    run("contain", PLANNER, "-c", "oncall.toml")
    run("contain", "agent://acme/a", "-c", "oncall.toml")
    run("contain", "agent://acme/b", "-c", "oncall.toml")
    refused = run("control", "adopt", ONCALL, "-c", "sec.toml", "--yes")
    assert (refused.code, refused.out) == (2, "")
    assert f"{SEC} may not repeat what is at 1 (not under this operator), 2 (not under" in refused.err
    assert "nothing was adopted: omit these with --without 1 --without 2" in refused.err
    adopted = run("control", "adopt", ONCALL, "-c", "sec.toml", "--yes", "--without", "1", "--without", "2")
    assert (adopted.code, adopted.out) == (0, f"adopted: contain {PLANNER} for good\n")


@pytest.mark.usefixtures("entries")
def test_keys_are_given_and_listed(run: Run, directory: Path) -> None:
    """The list has keys from every source, and the exit code shows whether one of them ends soon."""
    key = SigningKey.generate()
    soon = {**parse(key, "agent://acme/new"), "exp": int(time.time()) + 3600}
    (directory / "new.jwk").write_text(json.dumps(soon))
    given = run("key", "publish", "new.jwk", "planner.jwk", "-c", "oncall.toml")
    assert (
        given.out
        == f"key {key.key_id.decode()} of agent://acme/new is given\nkey {kid('planner')} of {PLANNER} is given\n"
    )
    again = run("key", "publish", "new.jwk", "-c", "oncall.toml", "--json")
    assert [(row["known"], row["position"]) for row in again.lines] == [(True, None)]
    ended = run("key", "list", "-c", "oncall.toml", "--json")
    assert ended.code == 1
    assert {(row["principal"], row["source"], row["ends_soon"]) for row in ended.lines} == {
        ("agent://acme/new", "control", True), (PLANNER, "control", False), (PLANNER, "settings", False),
        (ONCALL, "settings", False), (SEC, "settings", False),
    }  # fmt: skip
    assert run("key", "list", "-c", "oncall.toml", "--ending", "1m").code == 0
    assert run("key", "list", PLANNER, "-c", "oncall.toml").code == 0
    assert "SOON" in run("key", "list", "agent://acme/new", "-c", "oncall.toml").out
    later = SigningKey.generate()
    (directory / "later.jwk").write_text(
        json.dumps(parse(later, "agent://acme/new") | {"nbf": int(time.time()) + 3600})
    )
    run("key", "publish", "later.jwk", "-c", "oncall.toml")
    listed = run("key", "list", "agent://acme/new", "-c", "oncall.toml", "--json")
    assert (listed.code, [row["state"] for row in listed.lines]) == (0, ["valid", "not yet valid"])
    run("key", "revoke", kid("planner"), "-c", "oncall.toml", "--yes")
    states = run("key", "list", PLANNER, "-c", "oncall.toml", "--json").lines
    assert [row["state"] for row in states] == ["revoked", "revoked"]
    ended_key = parse(SigningKey.generate(), "agent://acme/gone") | {"exp": 5}
    (directory / "gone.jwk").write_text(json.dumps(ended_key))
    run("key", "publish", "gone.jwk", "-c", "oncall.toml")
    gone = run("key", "list", "agent://acme/gone", "-c", "oncall.toml", "--json").lines
    assert [row["state"] for row in gone] == ["ended"]


def parse(key: SigningKey, principal: str) -> dict[str, object]:
    """Return a public key as a JWK."""
    from watchword.jwk import to_jwk  # noqa: PLC0415 - beside its only use

    return to_jwk(key.verification_key(principal))


@pytest.mark.parametrize(
    ("member", "told"), [({"kid": "mine"}, "the start of the thumbprint"), ({"revoked": 5}, "key revoke")]
)
@pytest.mark.usefixtures("entries")
def test_what_no_statement_can_say_of_a_key_is_told(run: Run, directory: Path, member: Any, told: str) -> None:
    """Before anything is said."""
    (directory / "odd.jwk").write_text(json.dumps(parse(SigningKey.generate(), PLANNER) | member))
    ended = run("key", "publish", "odd.jwk", "-c", "oncall.toml")
    assert (ended.code, told in ended.err) == (2, True)


def test_a_key_is_revoked_by_any_name(run: Run, entries: Entries, directory: Path) -> None:
    """By kid, thumbprint or file, known or not; it cannot be undone, so it asks."""
    asked = run("key", "revoke", "planner.jwk", "-c", "oncall.toml")
    assert (asked.code, "It cannot be undone. There is no terminal to ask on" in asked.err) == (2, True)
    (planner,) = parse_jwks(b'{"keys":[' + (directory / "planner.jwk").read_bytes() + b"]}")
    done = run("key", "revoke", thumbprint(planner.public), "-c", "oncall.toml", "--yes", "--json")
    assert (done.code, done.err) == (0, "")
    (row,) = done.lines
    assert (row["thumbprint"], row["principals"]) == (thumbprint(planner.public), [PLANNER])
    (directory / "unknown.jwk").write_text(json.dumps(parse(SigningKey.generate(), PLANNER)))
    assert "of an unknown principal is revoked" in run("key", "revoke", "unknown.jwk", "-c", "oncall.toml", "--yes").out
    assert len(entries.kept) == 2


@pytest.mark.usefixtures("entries")
@pytest.mark.parametrize("names", [key_id_of, thumbprint_of], ids=["kid", "thumbprint"])
@pytest.mark.parametrize("before", [(), ("--",)], ids=["plain", "dashes"])
def test_a_key_whose_name_looks_like_an_option_is_revoked(
    run: Run, directory: Path, names: Callable[[SigningKey], str], before: tuple[str, ...]
) -> None:
    """One of 64 begins with a hyphen; a user who revokes one in a hurry need not know how shells quote that."""
    key = next(key for key in iter(SigningKey.generate, None) if thumbprint(key.public).startswith("-"))
    (directory / "new.jwk").write_text(json.dumps(parse(key, PLANNER)))
    run("key", "publish", "new.jwk", "-c", "oncall.toml")
    done = run("key", "revoke", "--yes", "-c", "oncall.toml", "--json", *before, names(key))
    assert (done.code, done.err) == (0, "")
    assert [row["thumbprint"] for row in done.lines] == [thumbprint(key.public)]


@pytest.mark.usefixtures("entries")
def test_no_command_claims_what_is_not_so(run: Run, directory: Path) -> None:
    """A key that was revoked for good is not given by publishing it; nobody revokes keys of those he is not over."""
    run("key", "revoke", "planner.jwk", "-c", "oncall.toml", "--yes")
    given = run("key", "publish", "planner.jwk", "-c", "oncall.toml")
    assert (given.code, given.out) == (1, f"key {kid('planner')} of {PLANNER} is given, and revoked for good\n")
    key = SigningKey.generate()
    (directory / "far.jwk").write_text(json.dumps(parse(key, "agent://far/x")))
    run("key", "publish", "far.jwk", "-c", "sec.toml")
    refused = run("key", "revoke", "far.jwk", "-c", "oncall.toml", "--yes")
    assert (refused.code, f"a key of agent://far/x, and {ONCALL} is not an operator over it" in refused.err) == (
        2,
        True,
    )


def test_what_readers_know_from_a_lost_log_can_be_released(run: Run, entries: Entries) -> None:
    """The log that was recreated knows of nothing, so it has to be said that it is meant."""
    run("contain", PLANNER, "-c", "oncall.toml")
    entries.kept, entries.identity = [], "log 2"
    refused = run("release", PLANNER, "-c", "oncall.toml")
    assert (refused.code, "add --anyway" in refused.err) == (2, True)
    done = run("release", PLANNER, "-c", "oncall.toml", "--anyway")
    assert (done.code, done.out) == (0, f"{PLANNER} is released\n")


def test_ids_that_two_keys_have_name_none(run: Run, entries: Entries, directory: Path) -> None:
    """The thumbprint does."""
    kept = json.loads((directory / "agents.jwks").read_text())
    twins = [parse(SigningKey.generate(), name) | {"kid": "twin"} for name in ("agent://acme/a", "agent://acme/b")]
    (directory / "a.jwk").write_text(json.dumps(twins[0]))
    (directory / "b.jwk").write_text(json.dumps(twins[1]))
    settings = directory / "oncall.toml"
    more = '[[keys]]\nsource = "files"\npaths = ["a.jwk"]\n[[keys]]\nsource = "files"\npaths = ["b.jwk"]\n[policy]'
    settings.write_text(settings.read_text().replace("[policy]", more))
    ended = run("key", "revoke", "twin", "-c", "oncall.toml", "--yes")
    assert "twin is the id of 2 keys" in ended.err
    assert (kept["keys"], entries.kept) == (kept["keys"], [])


@pytest.mark.usefixtures("entries")
def test_a_rotation_gives_switches_and_ends(run: Run, directory: Path) -> None:
    """The new key is known before it is used, the old one ends, in files too."""
    before = (directory / "planner.pem").read_bytes()
    old = kid("planner")
    done = run("key", "rotate", "planner.toml", "-c", "oncall.toml", "--wait", "0", "--life", "90d")
    assert done.code == 0
    given, switched, ending = done.out.splitlines()
    assert (given.endswith(f"of {PLANNER} is given"), switched) == (True, "planner.pem has the new key")
    assert ending.startswith(f"key {old} ends ")
    assert (directory / "planner.pem").stat().st_mode & 0o777 == 0o600
    assert (directory / "planner.pem").read_bytes() != before
    rows = {
        (row["kid"], row["source"]): row for row in run("key", "list", PLANNER, "-c", "oncall.toml", "--json").lines
    }
    new = given.split()[1]
    assert set(rows) == {(old, "control"), (old, "settings"), (new, "control")}
    assert rows[old, "control"]["exp"] == rows[old, "settings"]["exp"]
    end = rows[old, "control"]["exp"]
    again = run("key", "rotate", "planner.toml", "-c", "oncall.toml", "--wait", "0", "--json")
    assert [row["step"] for row in again.lines] == ["published", "switched", "ending"]
    assert again.lines[0]["old"] == new
    rows = {
        (row["kid"], row["source"]): row for row in run("key", "list", PLANNER, "-c", "oncall.toml", "--json").lines
    }
    assert (len(rows), rows[old, "control"]["exp"]) == (4, end)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('key = "planner.pem"', 'key = "planner.pem"\nkey_id = "mine"'), "signer.key_id: leave it out"),
        (('[signer]\nkey = "planner.pem"', ""), "no principal, or no [signer]"),
        (
            ('[signer]\nkey = "planner.pem"', '[signer]\nsource = "transit"'),
            "the key is not in a file: create a new one",
        ),
    ],
)
@pytest.mark.usefixtures("entries")
def test_a_key_that_cannot_be_switched_is_told(run: Run, directory: Path, change: tuple[str, str], told: str) -> None:
    """Before anything is said."""
    settings = directory / "planner.toml"
    settings.write_text(settings.read_text().replace(*change))
    ended = run("key", "rotate", "planner.toml", "-c", "oncall.toml", "--wait", "0")
    assert (ended.code, told in ended.err) == (2, True)


@pytest.mark.usefixtures("entries")
def test_a_rotation_keeps_a_file_encrypted(run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new key is encrypted by the passphrase of the old one, which is read from where the agent reads it."""
    monkeypatch.setenv("PLANNER_PASSPHRASE", "s3cret")
    private, settings = directory / "planner.pem", directory / "planner.toml"
    old = SigningKey.from_pem(private.read_bytes())
    private.write_bytes(old.to_pem(b"s3cret"))
    named = 'key = "planner.pem"\npassphrase_env = "PLANNER_PASSPHRASE"'
    settings.write_text(settings.read_text().replace('key = "planner.pem"', named))
    done = run("key", "rotate", "planner.toml", "-c", "oncall.toml", "--wait", "0")
    assert (done.code, "s3cret" in done.out + done.err) == (0, False)
    assert SigningKey.from_pem(private.read_bytes(), passphrase=b"s3cret").key_id != old.key_id
    monkeypatch.delenv("PLANNER_PASSPHRASE")
    refused = run("key", "rotate", "planner.toml", "-c", "oncall.toml", "--wait", "0")
    assert (refused.code, "passphrase_env: there is no variable of this name" in refused.err) == (2, True)


@pytest.mark.usefixtures("entries")
def test_a_key_file_that_cannot_be_written_leaves_the_old_one(
    run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new key is known and unused; the old one has no end."""
    before = (directory / "planner.pem").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "planner.pem")

    monkeypatch.setattr("watchword_adapters.cli.keys.os.fsync", full)
    ended = run("key", "rotate", "planner.toml", "-c", "oncall.toml", "--wait", "0")
    assert (ended.code, "No space left" in ended.err) == (2, True)
    assert (directory / "planner.pem").read_bytes() == before
    assert [path.name for path in directory.glob(".planner*")] == []
    rows = run("key", "list", PLANNER, "-c", "oncall.toml", "--json").lines
    assert not any("exp" in row for row in rows)


class Announced:
    """A channel of announcements in memory."""

    def __init__(self) -> None:
        self.kept: list[Message] = []
        self.reads = 0

    async def say(self, agent: Watchword, **members: Any) -> None:
        """Let an agent announce itself."""
        always: dict[str, Any] = {"number": 1, "version": "1", "buses": ("nats",), "started": 1, "known": True}
        said, headers = Announcement(**always | members), (("content-type", presence.CONTENT_TYPE.encode()),)
        message = Message(channel=PRESENCE, value=said.to_json(), headers=headers)
        header = (await agent.signer.sign(message)).header
        position = Position("presence", len(self.kept))
        self.kept.append(
            replace(message, headers=(*message.headers, header), position=position, appended_at=agent.clock())
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """See PresenceChannel."""

    async def read(self, *, since: float, listen: float) -> AsyncGenerator[Message]:
        """See PresenceChannel."""
        del since, listen
        self.reads += 1
        for message in self.kept:
            yield message


@pytest.fixture
def announced(entries: Entries, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Announced:
    """Return the channel on which two processes announce themselves."""
    del entries
    settings = directory / "oncall.toml"
    named = f'[control]\npresence = "{PRESENCE.uri}"\n'
    settings.write_text(settings.read_text().replace("[control]\n", named))
    channel = Announced()
    monkeypatch.setattr("watchword_adapters.cli.who.open_presence", lambda *_, **__: channel)
    monkeypatch.setattr("watchword_adapters.cli.keys.LOOK_EVERY", 0.01)
    monkeypatch.setattr(
        "watchword_adapters.cli.keys.SEEN_WITHIN", 3600.0
    )  # they announce themselves once, however long it is
    return channel


def heard_by(name: str, whole: int) -> dict[OperatorKey, Link]:
    """Return what a process says that knows an operator's words up to a number."""
    (key,) = parse_jwks(b'{"keys":[' + Path(f"{name}.jwk").read_bytes() + b"]}")
    return {(f"agent://acme/{name}", thumbprint(key.public)): Link(whole, "A" * 43, whole)}


def test_a_rotation_waits_for_all_that_are_there(
    run: Run, announced: Announced, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that knows the new key says so; until all do, nothing is switched, and those missing are named."""
    before = (directory / "planner.pem").read_bytes()
    quick, slow = {"instance": "1" * 16}, {"instance": "2" * 16}
    sec = load("sec.toml")
    asyncio.run(announced.say(sec, **quick, heard=heard_by("oncall", 9)))
    asyncio.run(announced.say(sec, **slow, heard=heard_by("oncall", 0)))
    ended = run("key", "rotate", "planner.toml", "-c", "oncall.toml", "--wait", "0.1s")
    assert ended.code == 2
    assert f"after 0.1 s the new key is not known to {SEC} (2222222222222222); nothing was switched" in ended.err
    assert (directory / "planner.pem").read_bytes() == before
    read, pause = announced.reads, asyncio.sleep

    async def sleep(delay: float, result: object = None) -> object:
        await pause(delay)
        if announced.reads > read + 2 and len(announced.kept) == 2:
            await announced.say(sec, **slow, number=2, heard=heard_by("oncall", 9))
        return result

    monkeypatch.setattr(asyncio, "sleep", sleep)
    done = run("key", "rotate", "planner.toml", "-c", "oncall.toml")
    assert (done.code, done.out.count("\n"), announced.reads > read + 2) == (0, 3, True)
    assert (directory / "planner.pem").read_bytes() != before


@pytest.mark.parametrize("way", ["contained", "left out"])
def test_an_agent_that_lies_holds_up_no_rotation(run: Run, announced: Announced, way: str) -> None:
    """A24: it can announce processes that never hear anything."""
    asyncio.run(announced.say(load("sec.toml"), instance="1" * 16))
    if way == "contained":
        run("contain", SEC, "-c", "sec.toml")
    options = ("--without", SEC) if way == "left out" else ()
    assert run("key", "rotate", "planner.toml", "-c", "oncall.toml", "--wait", "0.1s", *options).code == 0


@pytest.mark.usefixtures("announced")
def test_where_nobody_is_there_nobody_is_waited_for(run: Run) -> None:
    """At once."""
    assert run("key", "rotate", "planner.toml", "-c", "oncall.toml").code == 0
