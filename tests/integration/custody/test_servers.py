"""Keys at a real OpenBao, and at moto's KMS: what rights they need, and what becomes of them."""

import json
import os
import re
import time
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from tests.custody.kms import REGION, Kms
from tests.custody.openbao import OpenBao
from watchword import Algorithm, ConfigurationError, Policy, SigningKey, Unavailable
from watchword.jwk import to_jwk
from watchword.keys import public_half
from watchword.spi import Context
from watchword_adapters.signers import aws_kms, transit
from watchword_adapters.signers.held import HELD, HeldKey

PAGE = Path(__file__).parents[3] / "docs" / "custody-transit.md"
TYPES = {Algorithm.ED25519: "ed25519", Algorithm.ESP256: "ecdsa-p256"}


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """Give what a plug-in is given."""
    return Context(realm="prod", directory=tmp_path, clock=time.time, policy=Policy(), warn=lambda *_, **__: None)


def at(
    server: OpenBao, name: str, context: Context, monkeypatch: pytest.MonkeyPatch, token: str = "", **more: str
) -> HeldKey:
    """Return a key in the engine."""
    monkeypatch.setenv("BAO_TOKEN", token or server.token)
    options = {"address": server.address, "key": name, "version": 1, "token_env": "BAO_TOKEN", "timeout": "30s"}
    return transit.from_options(options | more, context)


async def signs(key: HeldKey) -> bool:
    """Return True if what the key signs verifies."""
    return public_half(key, "agent://a").verifies(await key.sign(b"x"), b"x")


@pytest.mark.parametrize("algorithm", HELD)
async def test_the_policy_of_the_page_is_enough_and_no_more(
    openbao: OpenBao, context: Context, monkeypatch: pytest.MonkeyPatch, algorithm: Algorithm
) -> None:
    """An agent with the rights that the page names signs by its own key, and can neither use nor rotate another."""
    name, other = os.urandom(8).hex(), os.urandom(8).hex()
    for one in (name, other):
        openbao.make_key(one, TYPES[algorithm])
    (policy,) = re.findall(r"```hcl\n(.*?)```", PAGE.read_text(), re.DOTALL)
    token = openbao.token_for(name, policy.replace("/planner", f"/{name}"))
    key = at(openbao, name, context, monkeypatch, token)
    assert key.algorithm is algorithm
    assert await signs(key)
    with pytest.raises(ConfigurationError, match=r"the token is refused: .*\(403 for GET keys/"):
        at(openbao, other, context, monkeypatch, token)
    openbao.token, root = token, openbao.token
    try:
        with pytest.raises(urllib.error.HTTPError, match="403"):
            openbao.rotate(name)
    finally:
        openbao.token = root


async def test_a_rotation_at_the_server_alone_changes_nothing(
    openbao: OpenBao, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers do not know the new version yet, so it does not sign; nor after a restart."""
    openbao.make_key(name := os.urandom(8).hex(), "ed25519")
    key = at(openbao, name, context, monkeypatch)
    openbao.rotate(name)
    assert await signs(key)
    assert at(openbao, name, context, monkeypatch).key_id == key.key_id


async def test_what_a_version_may_not_do_is_told(
    openbao: OpenBao, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A derived key has no public half, and a version below the least that signs is named: both need a person."""
    openbao.ask("POST", f"transit/keys/{(derived := os.urandom(8).hex())}", type="ed25519", derived=True)
    with pytest.raises(ConfigurationError, match="the key is derived, so it has no public half"):
        at(openbao, derived, context, monkeypatch)
    (context.directory / "a.jwk").write_text(json.dumps(to_jwk(SigningKey.generate().verification_key("agent://a"))))
    with pytest.raises(Unavailable, match="500: it has failed, or this version may not sign: check min_encryption"):
        at(openbao, derived, context, monkeypatch, public="a.jwk")
    openbao.make_key(name := os.urandom(8).hex(), "ed25519")
    key = at(openbao, name, context, monkeypatch)
    openbao.rotate(name)
    openbao.ask("POST", f"transit/keys/{name}/config", min_encryption_version=2)
    with pytest.raises(Unavailable, match="500: it has failed, or this version may not sign: check min_encryption"):
        await key.sign(b"x")
    with pytest.raises(ConfigurationError, match="version 1 may not sign: min_encryption_version of the key is 2"):
        at(openbao, name, context, monkeypatch)


async def test_rights_that_are_taken_back_end_it_at_once(
    openbao: OpenBao, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thief with this process in hand signs no longer than the token lives."""
    openbao.make_key(name := os.urandom(8).hex(), "ed25519")
    token = openbao.token_for(name, 'path "transit/*" { capabilities = ["read", "update"] }')
    key = at(openbao, name, context, monkeypatch, token)
    openbao.ask("POST", "auth/token/revoke", token=token)
    with pytest.raises(Unavailable, match="the token is refused") as caught:
        await key.sign(b"x")
    assert token not in str(caught.value)


async def test_a_sealed_server_is_an_outage(tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is one that has ended."""
    (tmp_path / "bao").mkdir()
    server = OpenBao(tmp_path / "bao")
    try:
        server.make_key("planner", "ed25519")
        key = at(server, "planner", context, monkeypatch)
        server.ask("PUT", "sys/seal")
        with pytest.raises(Unavailable, match="the server answers 503"):
            await key.sign(b"x")
    finally:
        server.stop()
    with pytest.raises(Unavailable, match="no connection: Connection refused"):
        await key.sign(b"x")


async def test_an_alias_that_is_moved_changes_nothing_under_way(kms: Kms, context: Context) -> None:
    """An agent signs with the key that the alias named at its start; an alias that does not exist raises an error."""
    first, second = kms.make_key(), kms.make_key()
    alias = f"alias/{os.urandom(4).hex()}"
    options: dict[str, Any] = {"key": alias, "region": REGION, "endpoint": kms.address, "timeout": "30s"}
    with pytest.raises(ConfigurationError, match=r"there is no such key in this region and account \(NotFound"):
        aws_kms.from_options(options, context)
    kms.ask("CreateAlias", AliasName=alias, TargetKeyId=first.rpartition("/")[2])
    key = aws_kms.from_options(options, context)
    kms.ask("UpdateAlias", AliasName=alias, TargetKeyId=second.rpartition("/")[2])
    assert await signs(key)
    assert key.key_id == aws_kms.from_options(options | {"key": first}, context).key_id
    assert key.key_id != aws_kms.from_options(options, context).key_id
