"""Keys in a token, in an engine and of an SVID, all replaced at once under load: nothing honest is rejected."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.custody.openbao import OpenBao
from tests.custody.softhsm import SoftHsm
from tests.custody.traffic import Sending, make_topic, on_kafka, on_nats
from tests.support.fleet import clean_environment
from tests.support.identities import PLANNER, Identities, forget
from watchword.keys import thumbprint_id
from watchword_adapters.cli import main

TOKEN, ENGINE = "agent://acme/token", "agent://acme/engine"
POLICY = """
path "transit/sign/engine*" { capabilities = ["update"] }
path "transit/keys/engine*" { capabilities = ["read"] }
"""
BUSES = ["nats", pytest.param("kafka", marks=pytest.mark.needs_kafka("topic_ids"))]


class Held(Identities):
    """Identities, and two agents whose keys are held elsewhere; readers know these by a file."""

    async def hold(self, softhsm: SoftHsm, openbao: OpenBao, patch: pytest.MonkeyPatch) -> None:
        """Make their keys, of P-256 in the token and of Ed25519 in the engine, and publish them."""
        self.openbao, self.name_there = openbao, f"engine-{os.urandom(4).hex()}"
        openbao.make_key(self.name_there, "ed25519")
        patch.setenv("ENGINE_TOKEN", openbao.token_for(self.name_there, POLICY))
        patch.setenv("TOKEN_PIN", softhsm.pin)
        engine = f'address = "{openbao.address}"\nkey = "{self.name_there}"\nversion = 1\ntoken_env = "ENGINE_TOKEN"\n'
        self.write("engine", ENGINE, f'[signer]\nsource = "transit"\ntimeout = "30s"\n{engine}')
        self.label = f"one-{os.urandom(4).hex()}"
        token = f'module = "{softhsm.module}"\ntoken = "agents"\nkey = "{self.label}"\npin_env = "TOKEN_PIN"\n'
        self.write("token", TOKEN, f'[signer]\nsource = "pkcs11"\ntimeout = "30s"\n{token}')
        await self.types("key", "generate", "--algorithm", "esp256", "-o", self._at("token-1.jwk"), by="token")
        await self.types("key", "public", "-o", self._at("engine-1.jwk"), by="engine")
        await self._publish("token-1.jwk", "engine-1.jwk")
        self.key_files = [*self.key_files, "agents.jwks"]

    async def next_keys(self) -> None:
        """Make the next key of each, and publish it; the one in the token is of the other algorithm."""
        self.openbao.rotate(self.name_there)
        await self.types("key", "generate", "--with", f"key={self.label}-2", "-o", self._at("token-2.jwk"), by="token")
        await self.types("key", "public", "--with", "version=2", "-o", self._at("engine-2.jwk"), by="engine")
        await self._publish("agents.jwks", "token-2.jwk", "engine-2.jwk")

    def sign_by_them(self) -> None:
        """Have both agents sign by their next keys."""
        for name, old, new in (("token", self.label, f"{self.label}-2"), ("engine", "version = 1", "version = 2")):
            path = self.directory / f"{name}.toml"
            path.write_text(path.read_text().replace(old, new))

    def kid(self, name: str) -> str:
        """Return the id in a file of a public key."""
        return str(json.loads((self.directory / name).read_text())["kid"])

    def _at(self, name: str) -> str:
        return str(self.directory / name)

    async def _publish(self, *names: str) -> None:
        command = ["jwks", *map(self._at, names), "-o", self._at("agents.jwks")]
        assert await asyncio.to_thread(main, command) == 0


@pytest_asyncio.fixture(params=BUSES)
async def realm(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    softhsm: SoftHsm,
    openbao: OpenBao,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Held]:
    """Give the agents on each bus, and remove in the end what was made for them."""
    bus, name = request.param, f"together-{os.urandom(4).hex()}"
    address = request.getfixturevalue("nats_url" if bus == "nats" else "kafka_bootstrap")
    with clean_environment(tmp_path):
        async with Held.on(tmp_path, bus, address, name) as made:
            await made.hold(softhsm, openbao, monkeypatch)
            yield made
        await forget(bus, address, name)


async def test_a_token_an_engine_and_an_svid_verify_through_a_rotation_under_load(realm: Held) -> None:
    """Promise (A23): all three keys are replaced while their agents send, and each message is delivered, in order."""
    topic = f"{realm.name}.tasks"
    if realm.bus == "kafka":
        await make_topic(realm.address, topic)
    reader = await realm.reader("reader")
    agents = {name: await realm.agent(name) for name in ("token", "engine", "planner")}
    on = (on_nats if realm.bus == "nats" else on_kafka)(realm.address, topic, [*agents.values()], reader)
    async with on as (read, sends):
        sending = dict(zip((TOKEN, ENGINE, PLANNER), map(Sending, sends), strict=True))
        first = {TOKEN: realm.kid("token-1.jwk"), ENGINE: realm.kid("engine-1.jwk")}
        first[PLANNER] = agents["planner"].signer.key_id.decode()
        for who, kid in first.items():
            await read.until(who, kid)
        await realm.next_keys()
        reader.reload()  # what it would do by itself within seconds
        realm.sign_by_them()
        second = {TOKEN: realm.kid("token-2.jwk"), ENGINE: realm.kid("engine-2.jwk")}
        second[PLANNER] = thumbprint_id(realm.rotate().private.public_key()).decode()  # type: ignore[arg-type]  # P-256
        for who, kid in second.items():
            await read.until(who, kid)
        counts = {who: await one.end() for who, one in sending.items()}
        await read.all_of(counts)
    agents["planner"].signer.hold("the test is over")
    assert not read.refused
    for who, count in counts.items():
        assert read.numbers_of(who) == list(range(count))
        assert {kid for principal, kid in read.given if principal == who} == {first[who], second[who]}
    assert dict(reader.audit.counts) == {"delivered": sum(counts.values())}
