"""``docs/custody.md``, rehearsed: keys in a token and in an engine are rotated under load, and nothing is rejected."""

import asyncio
import contextlib
import json
import os
import re
import shlex
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.custody.openbao import OpenBao
from tests.custody.softhsm import SoftHsm
from tests.support.fleet import clean_environment
from tests.support.pages import shown_on
from watchword import VerifiedMessage, Watchword, load
from watchword.kafka import SigningProducer, VerifyingConsumer
from watchword.nats import connect
from watchword_adapters.cli import main

TRANSIT, TOKEN = "agent://acme/transit", "agent://acme/token"
PATIENCE = 90.0
COMMON = '[[keys]]\nsource = "files"\npaths = ["agents.jwks"]\n[policy]\nmax_skew = "30s"\n'
POLICY = """
path "transit/sign/planner" { capabilities = ["update"] }
path "transit/keys/planner" { capabilities = ["read"] }
"""


class Read:
    """What a reader was given, and what it was not."""

    def __init__(self, agent: Watchword) -> None:
        self.given: dict[tuple[str, str], list[int]] = {}
        self.refused: Counter[str] = Counter()
        agent.audit.refused = self._refused  # type: ignore[method-assign]  # the test's

    def _refused(self, message: object, verdict: object, *, observed: bool = False) -> None:
        del message, observed
        self.refused[str(verdict)] += 1

    def take(self, verified: VerifiedMessage) -> None:
        """Note a message, by its author and key."""
        number = int(verified.value or b"")
        self.given.setdefault((verified.principal, verified.key_id), []).append(number)

    async def until(self, who: str, kid: str) -> None:
        """Wait until messages come that this key signed."""
        end = time.monotonic() + PATIENCE
        while (who, kid) not in self.given:
            assert time.monotonic() < end, (who, kid, self.given.keys(), self.refused)
            await asyncio.sleep(0.02)

    async def all_of(self, counts: dict[str, int]) -> None:
        """Wait until as many messages of each have come as were sent, for as long as any may be on its way."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if all(len(self.numbers_of(who)) >= count for who, count in counts.items()):
                return
            await asyncio.sleep(0.02)

    def numbers_of(self, who: str) -> list[int]:
        """Return all that a principal said, in the order in which it came, whatever key signed it."""
        return [number for (principal, _), numbers in self.given.items() if principal == who for number in numbers]


class Sending:
    """Sends numbers in groups, one group after the other, until it is told to stop."""

    def __init__(self, send: Callable[[bytes], Awaitable[object]]) -> None:
        self._send = send
        self._stop = asyncio.Event()
        self.sent = 0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._stop.is_set():
            group = range(self.sent, self.sent + 5)
            await asyncio.gather(*(self._send(b"%d" % number) for number in group))
            self.sent += 5
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 0.05)

    async def end(self) -> int:
        """Stop; return how many were sent."""
        self._stop.set()
        await self._task
        return self.sent


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


@asynccontextmanager
async def _on_nats(url: str, subject: str, agents: list[Watchword], reader: Watchword) -> AsyncIterator[Any]:
    read = Read(reader)
    clients = [await connect(url, watchword=agent) for agent in (reader, *agents)]

    async def take(msg: Any) -> None:
        read.take(msg.verified)

    try:
        await clients[0].subscribe(subject, cb=take)
        await clients[0].flush()
        yield read, [lambda data, client=client: client.publish(subject, data) for client in clients[1:]]
    finally:
        for client in clients:
            await client.close()


@asynccontextmanager
async def _on_kafka(address: str, topic: str, agents: list[Watchword], reader: Watchword) -> AsyncIterator[Any]:
    read = Read(reader)
    producers = [SigningProducer(bootstrap_servers=address, watchword=agent) for agent in agents]
    consumer = VerifyingConsumer(
        topic, bootstrap_servers=address, group_id=topic, watchword=reader, auto_offset_reset="earliest"
    )

    async def take() -> None:
        async for record in consumer:
            read.take(record.verified)

    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(consumer)
        for producer in producers:
            await stack.enter_async_context(producer)
        taking = asyncio.create_task(take())
        try:
            yield read, [lambda data, one=one: one.send_and_wait(topic, data, partition=0) for one in producers]
        finally:
            taking.cancel()
            await asyncio.wait([taking])


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
        await _make_topic(address, place)
    reader, agents = load(at / "reader.toml"), [load(at / "transit.toml"), load(at / "token.toml")]
    first = {TRANSIT: _kid(at / "transit.jwk"), TOKEN: _kid(at / "token.jwk")}
    version, label = _latest(openbao) + 1, f"planner-{os.urandom(4).hex()}"
    names = {"version=2": f"version={version}", "key=planner-2": f"key={label}"}
    on = (_on_nats if bus == "nats" else _on_kafka)(address, place, agents, reader)
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


async def _make_topic(address: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1, topic_configs={"message.timestamp.type": "LogAppendTime"})])
    finally:
        await admin.close()


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
