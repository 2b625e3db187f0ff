"""``docs/custody.md``, rehearsed: keys in a token and in an engine are rotated under load, and nothing is rejected."""

import asyncio
import json
import os
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.custody.openbao import OpenBao
from tests.custody.softhsm import SoftHsm
from tests.custody.traffic import Sending, make_topic, on_kafka, on_nats
from tests.support.fleet import clean_environment
from tests.support.pages import shown_on
from watchword import load
from watchword_adapters.cli import main

TRANSIT, TOKEN = "agent://acme/transit", "agent://acme/token"
COMMON = '[[keys]]\nsource = "files"\npaths = ["agents.jwks"]\n[policy]\nmax_skew = "30s"\n'
POLICY = """
path "transit/sign/planner" { capabilities = ["update"] }
path "transit/keys/planner" { capabilities = ["read"] }
"""


@pytest.fixture
def at(tmp_path: Path, softhsm: SoftHsm, openbao: OpenBao) -> Iterator[Path]:
    """Give a directory with the settings of both agents and of a reader, and the keys that they name."""
    with clean_environment(tmp_path), pytest.MonkeyPatch.context() as patch:
        if "planner" in _keys(openbao):
            openbao.rotate("planner")
        else:
            openbao.make_key("planner", "ed25519")
        patch.setenv("TRANSIT_TOKEN", openbao.token_for("planner", POLICY))
        patch.setenv("TOKEN_PIN", softhsm.pin)
        transit = f'address = "{openbao.address}"\nkey = "planner"\ntoken_env = "TRANSIT_TOKEN"\n'
        _write("transit", TRANSIT, f'source = "transit"\nversion = {_latest(openbao)}\n{transit}')
        token = f'module = "{softhsm.module}"\ntoken = "agents"\npin_env = "TOKEN_PIN"\n'
        _write("token", TOKEN, f'source = "pkcs11"\nkey = "planner-{os.urandom(4).hex()}"\n{token}')
        (tmp_path / "reader.toml").write_text(f'realm = "prod"\nprincipal = "agent://acme/reader"\n{COMMON}')
        for name, command in (("transit", "public"), ("token", "generate")):
            assert main(["key", command, "-c", f"{name}.toml", "-o", f"{name}.jwk"]) == 0
        assert main(["jwks", "transit.jwk", "token.jwk", "-o", "agents.jwks"]) == 0
        assert main(["init", "-c", "reader.toml"]) == 0
        yield tmp_path


def _write(name: str, principal: str, signer: str) -> None:
    state = '[replay]\nstate = ""\n[signer]\ntimeout = "30s"\n'
    Path(f"{name}.toml").write_text(f'realm = "prod"\nprincipal = "{principal}"\n{state}{signer}')


def _keys(openbao: OpenBao) -> list[str]:
    try:
        return list(openbao.ask("LIST", "transit/keys")["data"]["keys"])
    except OSError:  # there is none yet
        return []


def _latest(openbao: OpenBao) -> int:
    return int(openbao.ask("GET", "transit/keys/planner")["data"]["latest_version"])


def _kid(path: Path) -> str:
    return str(json.loads(path.read_text())["kid"])


def _commands() -> list[str]:
    """Return what the page types to rotate, without the server's own command."""
    known, rotate, *rest = [one.text for one in shown_on("custody.md")]
    assert known == "watchword key public --config transit.toml --output transit.jwk"
    assert rotate == "bao write -f transit/keys/planner/rotate"
    assert [text.split()[:3] for text in rest] == [
        ["watchword", "key", "public"],
        ["watchword", "jwks", "agents.jwks"],
        ["watchword", "key", "generate"],
        ["watchword", "jwks", "agents.jwks"],
    ]
    return rest


@pytest.mark.parametrize("bus", ["nats", "kafka"])
async def test_held_keys_are_rotated_under_load(
    bus: str, at: Path, request: pytest.FixtureRequest, openbao: OpenBao, capsys: pytest.CaptureFixture[str]
) -> None:
    """Promise (A23): both agents go on through a rotation; each of their messages is delivered, once and in order."""
    address = request.getfixturevalue("nats_url" if bus == "nats" else "kafka_bootstrap")
    place = f"custody-{os.urandom(4).hex()}"
    if bus == "kafka":
        await make_topic(address, place)
    reader, agents = load(at / "reader.toml"), [load(at / "transit.toml"), load(at / "token.toml")]
    first = {TRANSIT: _kid(at / "transit.jwk"), TOKEN: _kid(at / "token.jwk")}
    version, label = _latest(openbao) + 1, f"planner-{os.urandom(4).hex()}"
    names = {"version=2": f"version={version}", "key=planner-2": f"key={label}"}
    on = (on_nats if bus == "nats" else on_kafka)(address, place, agents, reader)
    async with on as (read, sends):
        sending = [Sending(send) for send in sends]
        for who, kid in first.items():
            await read.until(who, kid)
        openbao.rotate("planner")
        for text in _commands():
            words = [names.get(word, word) for word in shlex.split(text)]
            assert await asyncio.to_thread(main, words[1:]) == 0, text
        reader.reload()  # what it would do by itself within seconds
        _edit(at / "transit.toml", r"^version = \d+$", f"version = {version}")
        _edit(at / "token.toml", r'^key = ".*"$', f'key = "{label}"')
        second = {TRANSIT: _kid(at / "transit-2.jwk"), TOKEN: _kid(at / "token-2.jwk")}
        for who, kid in second.items():
            await read.until(who, kid)
        _end(at / "agents.jwks", set(first.values()))
        reader.reload()
        counts = {who: await one.end() for who, one in zip((TRANSIT, TOKEN), sending, strict=True)}
        await read.all_of(counts)
    assert not read.refused
    for who, count in counts.items():
        assert read.numbers_of(who) == list(range(count))
        assert {kid for principal, kid in read.given if principal == who} == {first[who], second[who]}
    shown = capsys.readouterr()
    assert os.environ["TOKEN_PIN"] not in shown.out + shown.err


def _edit(path: Path, pattern: str, text: str) -> None:
    changed, count = re.subn(pattern, text, path.read_text(), flags=re.MULTILINE)
    assert count == 1
    path.write_text(changed)


def _end(path: Path, kids: set[str]) -> None:
    """Give keys in a set their end, in a moment: what they signed just now is on its way."""
    held = json.loads(path.read_text())
    for key in held["keys"]:
        if key["kid"] in kids:
            key["exp"] = int(time.time()) + 60
    path.with_suffix(".new").write_text(json.dumps(held))
    path.with_suffix(".new").replace(path)
