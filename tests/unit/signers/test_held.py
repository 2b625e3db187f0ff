"""What every key that is held elsewhere has in common: how it shows itself, and what its errors say."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from watchword import Algorithm, ConfigurationError, SigningKey, Unavailable
from watchword.algorithms import PublicKey
from watchword.jwk import to_jwk, to_jwks
from watchword.spi import Channel, Context, Message, Signer
from watchword_adapters.signers.held import HELD, PROBE, HeldKey, HeldOptions

ALICE = "agent://acme/alice"


class Held:
    """Holds a key, and fails with ``failure`` if that is set."""

    def __init__(self, algorithm: Algorithm = Algorithm.ED25519) -> None:
        self.key = SigningKey.generate(algorithm)
        self.signed: list[bytes] = []
        self.asked = 0
        self.failure: Exception | None = None

    def public(self) -> PublicKey:
        """Return the public half."""
        self.asked += 1
        return self.key.public

    def sign(self, data: bytes, algorithm: Algorithm) -> bytes:
        """Sign, or fail."""
        assert algorithm is self.key.algorithm
        self.signed.append(data)
        if self.failure is not None:
            raise self.failure
        return self.key.sign_now(data)

    def __repr__(self) -> str:
        return "someone"


def held(custodian: Any, context: Context, **options: object) -> HeldKey:
    """Return the key, as a plug-in would."""
    return HeldKey.of(custodian, context.validate(HeldOptions, options), context)


async def test_what_is_signed_at_the_start_is_no_message(context: Context) -> None:
    """Promise (A11): the probe can be taken for nothing that is signed of a message, and is another one each time."""
    custodian = Held()
    key = held(custodian, context)
    held(custodian, context)
    probes, custodian.signed = custodian.signed, []
    assert len(set(probes)) == 2
    assert all(probe.startswith(PROBE) and len(probe) == len(PROBE) + 32 for probe in probes)
    signer = Signer(
        realm="prod", principal=ALICE, key=key, clock=lambda: 1.0, key_id=key.key_id, algorithm=key.algorithm
    )
    message = Message(channel=Channel("nats", "prod", "tasks"), value=PROBE)
    await signer.sign_many([message])
    await signer.sign_many([message] * 5)
    assert [data[0] for data in custodian.signed] == [0x84, 0x84]  # an array of four, RFC 9052 section 4.4
    assert PROBE[0] != 0x84


@pytest.mark.parametrize("algorithm", HELD)
def test_it_has_the_id_under_which_it_is_published(context: Context, tmp_path: Path, algorithm: Algorithm) -> None:
    """By default that of its thumbprint; else what the file of its public half says, and the settings before all."""
    custodian = Held(algorithm)
    assert held(custodian, context).key_id == custodian.key.key_id
    named = SigningKey.from_pem(custodian.key.to_pem(), key_id=b"in-the-file").verification_key(ALICE)
    (tmp_path / "alice.jwk").write_text(json.dumps(to_jwk(named)))
    custodian.asked = 0
    assert held(custodian, context, public="alice.jwk").key_id == b"in-the-file"
    assert held(custodian, context, public="alice.jwk", key_id="mine").key_id == b"mine"
    assert custodian.asked == 0


def test_a_public_half_that_is_none_is_one_line(context: Context, tmp_path: Path) -> None:
    """A file that is missing, or of several keys, says so."""
    several = [SigningKey.generate().verification_key(ALICE) for _ in range(2)]
    (tmp_path / "several.jwks").write_text(to_jwks(several))
    with pytest.raises(ConfigurationError, match=r"public: .*/none\.jwk: No such file"):
        held(Held(), context, public="none.jwk")
    with pytest.raises(ConfigurationError, match=r"public: .*several\.jwks: 2 keys in it; name a file with one"):
        held(Held(), context, public="several.jwks")


def test_a_public_half_of_another_principal_is_refused(context: Context, tmp_path: Path) -> None:
    """Readers would know the key under that name, and refuse what is signed under this one."""
    custodian = Held()
    (tmp_path / "alice.jwk").write_text(json.dumps(to_jwk(custodian.key.verification_key(ALICE))))
    assert held(custodian, replace(context, principal=ALICE), public="alice.jwk").key_id == custodian.key.key_id
    with pytest.raises(
        ConfigurationError, match=r"alice\.jwk: a key of 'agent://acme/alice', but this agent is 'agent://bob'"
    ):
        held(custodian, replace(context, principal="agent://bob"), public="alice.jwk")


@pytest.mark.parametrize(
    "public",
    [rsa.generate_private_key(65537, 2048).public_key(), ec.generate_private_key(ec.SECP384R1()).public_key()],
    ids=["RSA", "P-384"],
)
def test_a_key_of_another_kind_is_refused(context: Context, public: Any) -> None:
    """A user whose key cannot sign messages gets an error that names the kinds that can."""
    custodian = Held()
    custodian.public = lambda: public  # type: ignore[method-assign]  # a plug-in's mistake
    with pytest.raises(ConfigurationError, match=r"someone: .*: use an Ed25519 or P-256 key"):
        held(custodian, context)


@pytest.mark.parametrize("key_id", ["", "x" * 129])
def test_a_key_id_that_no_message_can_bear_is_refused(context: Context, key_id: str) -> None:
    """As for any other key."""
    with pytest.raises(ConfigurationError, match="key id of"):
        held(Held(), context, key_id=key_id)


@pytest.mark.parametrize("timeout", ["0s", "61s", "1h"])
def test_a_time_out_that_helps_nobody_is_refused(context: Context, timeout: str) -> None:
    """Neither none at all, nor one after which messages are stale."""
    with pytest.raises(ConfigurationError, match=r"timeout: write 0\.1 s to 60 s"):
        held(Held(), context, timeout=timeout)


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (OSError("token=s3cret"), "someone: OSError"),
        (Unavailable("keys", "sealed"), "someone: sealed"),
        (ConfigurationError("the key is disabled"), "someone: the key is disabled"),
    ],
)
async def test_what_fails_is_unavailable_and_shows_no_secret(context: Context, failure: Exception, told: str) -> None:
    """A library's error is reported by its type; no error in the chain shows its text, which may hold a token."""
    custodian = Held()
    key = held(custodian, context)
    custodian.failure = failure
    with pytest.raises(Unavailable) as caught:
        await key.sign(b"x")
    assert (caught.value.what, caught.value.detail) == ("signing", told)
    error: BaseException | None = caught.value
    while error is not None:
        assert "s3cret" not in f"{error!r}"
        error = error.__cause__ or error.__context__
    custodian.failure = None
    assert key.public == custodian.key.public
    assert len(await key.sign(b"x")) == 64


def test_a_start_that_fails_says_whether_a_person_must_mend_it(context: Context) -> None:
    """What may pass is Unavailable; what is set up wrongly is a ConfigurationError."""
    custodian = Held()
    custodian.failure = OSError("refused")
    with pytest.raises(Unavailable, match="someone: OSError"):
        held(custodian, context)
    custodian.failure = ConfigurationError("no such key")
    with pytest.raises(ConfigurationError, match="someone: no such key"):
        held(custodian, context)


async def test_one_that_does_not_answer_is_named(context: Context) -> None:
    """At the start and later; nobody waits longer than was said."""
    custodian, gate = Held(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(data: bytes, algorithm: Algorithm) -> bytes:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(60)
        return Held.sign(custodian, data, algorithm)

    key = held(custodian, context, timeout="0.1s")
    custodian.sign = hang  # type: ignore[method-assign]  # a device that hangs
    with pytest.raises(Unavailable, match=r"someone: no answer within 0\.1 s"):
        await key.sign(b"x")
    with pytest.raises(Unavailable, match=r"someone: no answer within 0\.1 s"):
        await asyncio.to_thread(held, custodian, context, timeout="0.1s")
    gate.set()


@pytest.mark.parametrize("algorithm", [Algorithm.ML_DSA_44, Algorithm.ML_DSA_65])
def test_a_kind_of_key_that_is_not_used_from_there_is_refused_by_name(
    context: Context, tmp_path: Path, algorithm: Algorithm
) -> None:
    """Promise: nothing is asked of the holder of an ML-DSA key, and the error says where such a key may be."""
    custodian = Held(algorithm)
    (tmp_path / "alice.jwk").write_text(json.dumps(to_jwk(custodian.key.verification_key(ALICE))))
    with pytest.raises(ConfigurationError, match=f"someone: {algorithm.label}: use an Ed25519 or P-256 key"):
        held(custodian, context, public="alice.jwk")
    with pytest.raises(
        ConfigurationError, match=r"someone: MLDSA\d\dPublicKey: use an Ed25519 or P-256 key; .* encrypted PEM"
    ):
        held(custodian, context)
    assert not custodian.signed
