import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support import nats_tokens
from tests.support.nats_tokens import Holder
from watchword import Algorithm, MemoryKeys, SigningKey, VerificationKey
from watchword.jwk import MAX_SET_BYTES, to_jwk, to_jwks
from watchword.spi import KeyChain, KeySource
from watchword_adapters.contract.key_source import (
    ChangingKeySourceContract,
    FailingKeySourceContract,
    KeyFault,
    KeySourceContract,
)
from watchword_adapters.keys.files import FileKeys
from watchword_adapters.nkeys.encoding import Kind, encode_public
from watchword_adapters.nkeys.source import UserTokens


class TestMemoryKeys(KeySourceContract):
    """The source in memory keeps the contract."""

    async def make_source(self, keys: Sequence[VerificationKey]) -> KeySource:
        """Return a source in memory."""
        return MemoryKeys(keys)


class TestKeyChain(KeySourceContract):
    """A chain whose sources share the keys out among them keeps the contract."""

    async def make_source(self, keys: Sequence[VerificationKey]) -> KeySource:
        """Return a chain of two sources and an empty one."""
        return KeyChain([MemoryKeys(), MemoryKeys(keys[:1]), MemoryKeys(keys[1:])])


class TestFileKeys(FailingKeySourceContract):
    """A key set file keeps the contract, also when it changes, is gone or spoiled."""

    path: Path

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.path = tmp_path / "agents.jwks"

    async def make_source(self, keys: Sequence[VerificationKey]) -> KeySource:
        """Return a source over one file that is looked at each time."""
        self.path.write_text(to_jwks(keys))
        return FileKeys([self.path], check_every=0)

    async def set_keys(self, source: KeySource, keys: Sequence[VerificationKey]) -> None:
        """Write the file anew."""
        assert source is not None
        self.path.write_text(to_jwks(keys))

    async def spoil(self, source: KeySource, fault: KeyFault, known: VerificationKey) -> None:
        """Spoil the file, or remove it."""
        assert source is not None
        other = to_jwk(known) | {"principal": self.bob}
        twice = to_jwk(known) | to_jwk(SigningKey.generate().verification_key(self.alice)) | {"kid": "known"}
        wrong: dict[KeyFault, object] = {
            KeyFault.GARBAGE: [],
            KeyFault.OVERSIZE: {"keys": [to_jwk(known)], "x": "x" * MAX_SET_BYTES},
            KeyFault.WRONG_OWNER: {"keys": [to_jwk(known), other]},
            KeyFault.DUPLICATE_ID: {"keys": [to_jwk(known), twice]},
        }
        if fault is KeyFault.OUTAGE:
            self.path.unlink()
        else:
            self.path.write_text(json.dumps(wrong[fault]))


class TestPemDirectory(ChangingKeySourceContract):
    """A directory of PEM files, beside a set for what PEM cannot say, keeps the contract."""

    path: Path

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.path = tmp_path

    async def make_source(self, keys: Sequence[VerificationKey]) -> KeySource:
        """Return a source over a directory that is looked at each time."""
        await self.set_keys(MemoryKeys(), keys)
        return FileKeys([self.path], check_every=0)

    async def set_keys(self, source: KeySource, keys: Sequence[VerificationKey]) -> None:
        """Put a file for each key, and remove those of the keys before."""
        assert source is not None
        for old in self.path.iterdir():
            old.unlink()
        bounded = [key for key in keys if key.not_before is not None]
        (self.path / "bounded.jwks").write_text(to_jwks(bounded))
        for number, key in enumerate(key for key in keys if key not in bounded):
            pem = key.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
            text = f"Principal: {key.principal}\nKey-Id: {key.key_id.decode()}\n{pem}"
            (self.path / f"{number}.pem").write_text(text)


class TestUserTokens(FailingKeySourceContract):
    """A directory with the tokens of NATS users keeps the contract."""

    alice = "agent://contract/alice"
    bob = "agent://contract/bob"
    chooses_ids = False
    path: Path

    @pytest.fixture(autouse=True)
    def _account(self, tmp_path: Path) -> None:
        self.path = tmp_path
        self.account = nats_tokens.account()

    def own(
        self,
        principal: str,
        key_id: bytes,
        algorithm: Algorithm = Algorithm.ED25519,  # noqa: ARG002 - NKeys are of one kind
        **validity: int,
    ) -> tuple[SigningKey, VerificationKey]:
        """Return a key as a token can say it."""
        assert key_id
        key = SigningKey.generate()
        found = VerificationKey.from_public_key(key.public, principal=principal, key_id=key.key_id, **validity)
        return key, found

    async def make_source(self, keys: Sequence[VerificationKey]) -> KeySource:
        """Return a source over a directory that is looked at each time."""
        self._write(self.account, keys)
        kind = UserTokens(accounts=[self.account.public], principal="agent://contract/{user_name}")
        return FileKeys([self.path], check_every=0, kind=kind)

    async def set_keys(self, source: KeySource, keys: Sequence[VerificationKey]) -> None:
        """Write each user's token, and that of the account, which revokes."""
        assert source is not None
        self._write(self.account, keys)

    def _write(self, account: Holder, keys: Sequence[VerificationKey]) -> None:
        for old in self.path.iterdir():
            old.unlink()
        revoked = {public_of(key): key.revoked_at for key in keys if key.revoked_at is not None}
        (self.path / "account.jwt").write_text(account.says("account", account, revocations=revoked))
        for number, key in enumerate(keys):
            (self.path / f"{number}.jwt").write_text(user_token(account, key))

    async def spoil(self, source: KeySource, fault: KeyFault, known: VerificationKey) -> None:
        """Spoil the directory, or what the account says of a user."""
        assert source is not None
        beside = self.path / "beside.jwt"
        if fault is KeyFault.OUTAGE:
            for old in self.path.iterdir():
                old.unlink()
        elif fault is KeyFault.GARBAGE:
            beside.write_text(user_token(self.account, known)[:-2])
        elif fault is KeyFault.OVERSIZE:
            beside.write_text("x" * (MAX_SET_BYTES + 1))
        elif fault is KeyFault.WRONG_OWNER:
            beside.write_text(user_token(nats_tokens.account(), known))
        else:
            beside.write_text(user_token(self.account, known, issued_at=0))

    passes_over = frozenset({KeyFault.WRONG_OWNER, KeyFault.DUPLICATE_ID})
    """What another account says counts for nothing; a second token of one user is an older one."""


def public_of(key: VerificationKey) -> str:
    """Return a key as an NKey."""
    return encode_public(Kind.USER, key.public_bytes)


def user_token(account: Holder, key: VerificationKey, issued_at: int = 1) -> str:
    """Return what an account says of a user, who has the last part of the principal for a name."""
    holder = nats_tokens.user()
    holder.public = public_of(key)
    bounds: dict[str, Any] = {"nbf": key.not_before, "exp": key.not_after}
    bounds = {name: value for name, value in bounds.items() if value is not None}
    return account.says("user", holder, key.principal.rpartition("/")[2], iat=issued_at, **bounds)
