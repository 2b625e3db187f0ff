from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from watchword import MemoryKeys, VerificationKey
from watchword.jwk import to_jwks
from watchword.spi import KeyChain, KeySource
from watchword_adapters.contract.key_source import ChangingKeySourceContract, KeySourceContract
from watchword_adapters.keys.files import FileKeys


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


class TestFileKeys(ChangingKeySourceContract):
    """A key set file keeps the contract, also when it changes."""

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
