"""What is asked of KMS, and what becomes of its answers; moto is asked in tests/contract and tests/integration."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.custody.kms import ACCESS, ARN, REGION, ed25519_answer
from tests.custody.meddler import Answer, Asked, Forward, Meddler
from watchword import ConfigurationError, SigningKey, Unavailable
from watchword.spi import Context
from watchword_adapters.signers import aws_kms
from watchword_adapters.signers.held import HeldKey


class Kms:
    """Answers as KMS with one Ed25519 key would; the ``faults`` first."""

    def __init__(self) -> None:
        self.key = SigningKey.generate()
        self.faults: list[Answer] = []
        self.named: list[str] = []

    def __call__(self, asked: Asked, forward: Forward) -> Answer:
        """Answer."""
        del forward
        self.named.append(json.loads(asked.body)["KeyId"])
        return self.faults.pop(0) if self.faults else ed25519_answer(asked, self.key)


@pytest.fixture
def kms(server: Meddler, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kms]:
    """Give a KMS at the server, and a login."""
    for name, value in ACCESS.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    made = Kms()
    with server.meddling(made):
        yield made


@pytest.fixture
def options(server: Meddler) -> dict[str, Any]:
    """Give the settings of a key."""
    return {"key": "alias/planner", "region": REGION, "endpoint": server.address}


def made(options: dict[str, Any], context: Context, **more: object) -> HeldKey:
    """Return the key of these settings."""
    return aws_kms.from_options(options | more, context)


async def test_an_alias_is_looked_up_once(kms: Kms, options: dict[str, Any], context: Context) -> None:
    """Naming another key changes no signature under way: readers do not know that key yet."""
    key = made(options, context)
    assert key.key_id == kms.key.key_id
    signature = await key.sign(b"data")
    assert kms.key.verification_key("a").verifies(signature, b"data")
    assert kms.named == ["alias/planner", ARN + "ed25519", ARN + "ed25519"]
    assert "alias/planner" in repr(key)
    assert "aws-s3cret" not in repr(key)


def _error(code: str, status: int = 400) -> Answer:
    return Answer(status, json.dumps({"__type": code, "message": "s3cret"}).encode())


@pytest.mark.parametrize("code", sorted(aws_kms.REMEDIES))
async def test_what_only_a_person_can_mend_is_told(
    kms: Kms, options: dict[str, Any], context: Context, code: str
) -> None:
    """At the start it stops the process; later messages fail with the same words, and none of the answer's."""
    kms.faults = [_error(code)]
    with pytest.raises(ConfigurationError, match=rf"\({code}\)$") as caught:
        made(options, context)
    assert "s3cret" not in str(caught.value)
    key = made(options, context)
    kms.faults = [_error(code)]
    with pytest.raises(Unavailable, match=rf"\({code}\)$"):
        await key.sign(b"x")


@pytest.mark.parametrize("code", ["KMSInternalException", "DependencyTimeoutException", "SomethingNew"])
async def test_what_may_pass_is_an_outage(kms: Kms, options: dict[str, Any], context: Context, code: str) -> None:
    """KMS that is at fault itself, or says what nobody knows yet."""
    key = made(options, context)
    kms.faults = [_error(code)] * 2
    with pytest.raises(Unavailable, match=f"KMS answers {code}") as caught:
        await key.sign(b"x")
    assert "s3cret" not in str(caught.value)


async def test_load_that_is_shed_costs_no_message(kms: Kms, options: dict[str, Any], context: Context) -> None:
    """A call that KMS throttles is tried once more."""
    key = made(options, context, timeout="30s")
    kms.faults = [_error("ThrottlingException")]
    assert len(await key.sign(b"x")) == 64


@pytest.mark.parametrize("body", [b"{}", b'{"Signature": 5}', b'{"Signature": "AAAA"}', b"<html>", b""])
async def test_what_is_no_signature_is_an_outage(
    kms: Kms, options: dict[str, Any], context: Context, body: bytes
) -> None:
    """Whatever answers in the place of KMS, nothing that it made up reaches a message."""
    key = made(options, context)
    kms.faults = [Answer(200, body)] * 2
    with pytest.raises(Unavailable):
        await key.sign(b"x")


@pytest.mark.parametrize("body", [b"{}", b'{"PublicKey": "AAAA"}', b'{"PublicKey": 5}'])
def test_what_is_no_public_key_is_an_outage(kms: Kms, options: dict[str, Any], context: Context, body: bytes) -> None:
    """Nothing begins by the word of what is no KMS."""
    kms.faults = [Answer(200, body)] * 2
    with pytest.raises(Unavailable):
        made(options, context)


@pytest.mark.usefixtures("kms")
def test_what_the_sdk_lacks_is_one_line(
    options: dict[str, Any], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No region, no credentials, a malformed endpoint: each says what to write."""
    without = {name: value for name, value in options.items() if name != "region"}
    with pytest.raises(ConfigurationError, match='region: missing; write region = "eu-central-1"'):
        made(without, context)
    with pytest.raises(ConfigurationError, match="AWS SDK: "):
        made(options, context, endpoint="nowhere")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(ConfigurationError, match="the AWS SDK finds no credentials here"):
        made(options, context)
