"""Every back-end that signs keeps one contract: in memory, in an encrypted file, in a token, in Transit, in KMS."""

import base64
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from pkcs11 import exceptions as pkcs11_errors

from tests.custody.kms import REGION, Kms, ed25519_answer
from tests.custody.meddler import Answer, Asked, Forward, Meddle, Meddler, hang_up
from tests.custody.openbao import OpenBao, changed_signature, signature_in
from tests.custody.softhsm import SoftHsm
from watchword import Algorithm, Policy, SigningKey, VerificationKey
from watchword.algorithms import PublicKey
from watchword.jwk import to_jwks
from watchword.spi import Context, ShownBackend
from watchword_adapters.contract.signing_backend import HeldElsewhereContract, SigningBackendContract, Trouble
from watchword_adapters.signers import aws_kms, file, pkcs11, transit
from watchword_adapters.signers.held import HeldKey

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
PASSPHRASE = "pa55-s3cret"
TYPES = {Algorithm.ED25519: "ed25519", Algorithm.ESP256: "ecdsa-p256"}


def context(directory: Path) -> Context:
    """Return what a plug-in is given."""
    return Context(realm="contract", directory=directory, clock=time.time, policy=Policy(), warn=lambda *_, **__: None)


def publish(directory: Path, public: PublicKey) -> str:
    """Write a public key into a file, and return its name."""
    key = VerificationKey.from_public_key(public, principal="agent://contract/alice", key_id=b"published")
    (directory / "public.jwks").write_text(to_jwks([key]))
    return "public.jwks"


def high(signature: bytes) -> bytes:
    """Return the form of an ESP256 signature that does not verify."""
    s = int.from_bytes(signature[32:])
    return signature[:32] + max(s, P256_ORDER - s).to_bytes(32)


class TestSigningKey(SigningBackendContract):
    """A key in memory keeps the contract."""

    algorithms = tuple(Algorithm)

    async def make_backend(self, algorithm: Algorithm) -> ShownBackend:
        """Return a fresh key."""
        return SigningKey.generate(algorithm)


class TestEncryptedFile(SigningBackendContract):
    """A key in an encrypted PEM keeps the contract."""

    algorithms = tuple(Algorithm)
    secrets = (PASSPHRASE,)

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    async def make_backend(self, algorithm: Algorithm) -> ShownBackend:
        """Return the key of a file."""
        for name, content in (("key.pem", SigningKey.generate(algorithm).to_pem(PASSPHRASE.encode())), ("pass", b"")):
            (self.directory / name).touch(mode=0o600)
            (self.directory / name).write_bytes(content or PASSPHRASE.encode())
        options = {"key": "key.pem", "passphrase_file": "pass"}
        return file.from_options(options, context(self.directory))


class _Elsewhere(HeldElsewhereContract):
    """What is the same for all of ours: back-ends are made of options."""

    factory: Callable[[Mapping[str, Any], Context], HeldKey]
    options: dict[str, Any]
    directory: Path

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path
        self._options_of: dict[bytes, dict[str, Any]] = {}

    def made(self, **options: object) -> HeldKey:
        """Return a back-end of the test's options and these."""
        chosen = self.options | options
        backend = type(self).factory(chosen, context(self.directory))
        self._options_of[backend.key_id] = chosen
        return backend

    async def made_again(self, backend: ShownBackend, public: PublicKey) -> ShownBackend:
        """Make it of the same options, and a file with a public half."""
        return self.made(**self._options_of[backend.key_id], public=publish(self.directory, public))

    @asynccontextmanager
    async def trouble(self, backend: ShownBackend, trouble: Trouble) -> AsyncIterator[None]:
        """Let it be so; a back-end need not wait as long as an agent would."""
        assert isinstance(backend, HeldKey)
        patient, backend._timeout = backend._timeout, 0.3 if trouble is Trouble.SILENT else backend._timeout
        try:
            with self.troubled(backend, trouble):
                yield
        finally:
            backend._timeout = patient

    def troubled(self, backend: HeldKey, trouble: Trouble) -> AbstractContextManager[None]:
        """Let it be so."""
        raise NotImplementedError


class TestPkcs11(_Elsewhere):
    """A key in a SoftHSM token keeps the contract; what a token cannot be made to do is done to the key it returns."""

    factory = staticmethod(pkcs11.from_options)

    @pytest.fixture(autouse=True)
    def _token(self, softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CONTRACT_PIN", softhsm.pin)
        self.secrets = (softhsm.pin,)
        self.options = {"module": softhsm.module, "token": "agents", "pin_env": "CONTRACT_PIN", "timeout": "30s"}

    async def make_backend(self, algorithm: Algorithm) -> ShownBackend:
        """Return a key that is made in the token."""
        label = os.urandom(8).hex()
        pkcs11.generate(self.options | {"key": label}, context(self.directory), algorithm)
        return self.made(key=label)

    @contextmanager
    def troubled(self, backend: HeldKey, trouble: Trouble) -> Iterator[None]:
        """Put a key into its place that fails, hangs or lies."""
        custodian: Any = backend._custodian
        over, look = threading.Event(), custodian._look
        custodian._found, custodian._look = None, lambda kind: _BadKey(look(kind), backend.algorithm, trouble, over)
        try:
            yield
        finally:
            over.set()
            custodian._found, custodian._look = None, look


class _BadKey:
    """A key in a token with which something is wrong."""

    def __init__(self, real: Any, algorithm: Algorithm, trouble: Trouble, over: threading.Event) -> None:
        self._real = real
        self._other = SigningKey.generate(algorithm)
        self._trouble = trouble
        self._over = over
        self.key_type = real.key_type

    def sign(self, data: bytes, mechanism: object) -> bytes:
        """Sign, or misbehave in the way that the test asked for."""
        signature: bytes = self._real.sign(data, mechanism=mechanism)
        if self._trouble is Trouble.DOWN:
            raise pkcs11_errors.DeviceRemoved
        if self._trouble is Trouble.SILENT:
            self._over.wait(30)
        if self._trouble is Trouble.OTHER_KEY:
            return self._other.sign_now(data)
        if self._trouble is Trouble.HIGH_S and self._other.algorithm is Algorithm.ESP256:
            return high(signature)
        return b"garbage" if self._trouble is Trouble.GARBAGE else signature


class _Behind(_Elsewhere):
    """What is the same for servers of HTTP: a proxy before them meddles."""

    before: Meddler

    @contextmanager
    def troubled(self, backend: HeldKey, trouble: Trouble) -> Iterator[None]:
        """Let the proxy be down, silent, or change what is said."""
        if trouble is Trouble.SILENT:
            with self.before.silent():
                yield
            return
        garbage = SigningKey.generate(Algorithm.ED25519).sign_now(b"")
        ways: dict[Trouble, Meddle] = {
            Trouble.DOWN: hang_up,
            Trouble.GARBAGE: lambda asked, forward: self.answer(forward(asked), garbage[:40], backend.algorithm),
            Trouble.OTHER_KEY: lambda asked, forward: forward(self.misled(asked, backend.algorithm)),
            Trouble.HIGH_S: lambda asked, forward: self.with_high_s(forward(asked), backend.algorithm),
        }
        with self.before.meddling(ways[trouble]):
            yield

    def with_high_s(self, answer: Answer, algorithm: Algorithm) -> Answer:
        """Return an answer whose signature has high s."""
        if algorithm is Algorithm.ED25519:
            return answer
        return self.answer(answer, high(self.signature_in(answer)), algorithm)

    def answer(self, answer: Answer, signature: bytes, algorithm: Algorithm) -> Answer:
        """Return an answer with another signature, 64 bytes or nonsense."""
        raise NotImplementedError

    def signature_in(self, answer: Answer) -> bytes:
        """Return the 64 bytes of an ESP256 signature."""
        raise NotImplementedError

    def misled(self, asked: Asked, algorithm: Algorithm) -> Asked:
        """Return what asks for the signature of another key."""
        raise NotImplementedError


class TestTransit(_Behind):
    """A key in OpenBao's Transit engine keeps the contract."""

    factory = staticmethod(transit.from_options)

    @pytest.fixture(autouse=True)
    def _server(self, openbao: OpenBao, before_openbao: Meddler, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CONTRACT_TOKEN", openbao.token)
        self.secrets, self.openbao, self.before = (openbao.token,), openbao, before_openbao
        self.options = {
            "address": before_openbao.address, "version": 1, "token_env": "CONTRACT_TOKEN", "timeout": "30s"
        }  # fmt: skip

    async def make_backend(self, algorithm: Algorithm) -> ShownBackend:
        """Return a new key."""
        self.openbao.make_key(name := os.urandom(8).hex(), TYPES[algorithm])
        return self.made(key=name)

    def answer(self, answer: Answer, signature: bytes, algorithm: Algorithm) -> Answer:
        """See the base."""
        jws = algorithm is Algorithm.ESP256
        return Answer(answer.status, changed_signature(answer.body, signature, jws=jws))

    def signature_in(self, answer: Answer) -> bytes:
        """See the base."""
        return signature_in(answer.body)

    def misled(self, asked: Asked, algorithm: Algorithm) -> Asked:
        """See the base."""
        self.openbao.make_key(other := os.urandom(8).hex(), TYPES[algorithm])
        parts = asked.path.split("/")
        parts[4] = other
        return asked._replace(path="/".join(parts))


class TestKms(_Behind):
    """A key in KMS keeps the contract: P-256 as moto has it, Ed25519 as a few lines of ours do."""

    factory = staticmethod(aws_kms.from_options)

    @pytest.fixture(autouse=True)
    def _server(self, kms: Kms, before_kms: Meddler) -> None:
        self.secrets, self.kms, self.before = ("aws-s3cret",), kms, before_kms
        self.options = {"region": REGION, "endpoint": before_kms.address, "timeout": "30s"}
        mine, others = SigningKey.generate(), SigningKey.generate()

        def answer(asked: Asked, forward: Forward) -> Answer:
            key = others if b"others-ed25519" in asked.body else mine
            return ed25519_answer(asked, key) if b"ed25519" in asked.body else forward(asked)

        before_kms._forward = partial(answer, forward=before_kms._forward)  # type: ignore[method-assign] # Ed25519, too

    async def make_backend(self, algorithm: Algorithm) -> ShownBackend:
        """Return a new key, or the one Ed25519 key."""
        return self.made(key=self.kms.make_key() if algorithm is Algorithm.ESP256 else "alias/ed25519")

    def answer(self, answer: Answer, signature: bytes, algorithm: Algorithm) -> Answer:
        """See the base."""
        if algorithm is Algorithm.ESP256 and len(signature) == 64:
            signature = encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
        told = json.loads(answer.body) | {"Signature": base64.b64encode(signature).decode()}
        return Answer(answer.status, json.dumps(told).encode())

    def signature_in(self, answer: Answer) -> bytes:
        """See the base."""
        r, s = decode_dss_signature(base64.b64decode(json.loads(answer.body)["Signature"]))
        return r.to_bytes(32) + s.to_bytes(32)

    def misled(self, asked: Asked, algorithm: Algorithm) -> Asked:
        """See the base."""
        other = "others-ed25519" if algorithm is Algorithm.ED25519 else self.kms.make_key()
        body = json.dumps(json.loads(asked.body) | {"KeyId": other}).encode()
        return asked._replace(body=body, headers=asked.headers | {"content-length": str(len(body))})
