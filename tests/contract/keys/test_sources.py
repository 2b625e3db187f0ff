import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.key_server import Answer, KeyServer, authority, serving
from watchword import MemoryKeys, VerificationKey
from watchword.jwk import to_jwks
from watchword.spi import KeyChain, KeySource
from watchword_adapters.contract.key_source import (
    ChangingKeySourceContract,
    FailingKeySourceContract,
    KeyFault,
    KeySourceContract,
    LimitedKeySourceContract,
    faulty_set,
)
from watchword_adapters.keys.environment import keys_in
from watchword_adapters.keys.files import FileKeys
from watchword_adapters.keys.https import Https
from watchword_adapters.keys.jwks import JwksKeys

ROOT = Path(__file__).parents[3]
KEPT = 600.0


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


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
    """A key set file keeps the contract, also when it changes, is missing, or is wrong."""

    path: Path
    clock: Clock

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.path, self.clock = tmp_path / "agents.jwks", Clock()

    async def make_source(self, keys: Sequence[VerificationKey]) -> KeySource:
        """Return a source over one file that is looked at each time."""
        self.path.write_text(to_jwks(keys))
        return FileKeys([self.path], check_every=0, max_staleness=KEPT, clock=self.clock)

    async def set_keys(self, source: KeySource, keys: Sequence[VerificationKey]) -> None:
        """Write the file anew."""
        del source
        self.path.write_text(to_jwks(keys))

    async def break_source(self, source: KeySource, fault: KeyFault, keys: Sequence[VerificationKey]) -> None:
        """Overwrite the file, or remove it."""
        del source
        faulty = faulty_set(fault, keys)
        if faulty is None:
            self.path.unlink()
        else:
            self.path.write_bytes(faulty)
        self.clock.now += 1

    async def wait_in_vain(self, source: KeySource) -> None:
        """Move the clock."""
        del source
        self.clock.now += KEPT + 1


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


class TestJwksKeys(LimitedKeySourceContract):
    """A key set that is fetched by HTTPS keeps the contract; its server may speak for one organisation."""

    server: KeyServer
    fetch: Https
    clock: Clock

    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        self.clock = Clock()
        with authority() as ca, serving(ca.server_side("127.0.0.1")) as self.server:
            self.fetch = Https(ca=ca.path, allow_private=True)
            yield

    async def make_source(self, keys: Sequence[VerificationKey]) -> KeySource:
        """Return a source whose server has these keys."""
        url = self.server.url(host="127.0.0.1")
        source = JwksKeys(url, principals=["agent://contract/**"], keep=KEPT, https=self.fetch, clock=self.clock)
        await self.set_keys(source, keys)
        return source

    async def set_keys(self, source: KeySource, keys: Sequence[VerificationKey]) -> None:
        """Publish another set, and wait until it is time for it."""
        del source
        self.server.refuses = False
        self.server.answers["/agents.jwks"] = Answer(to_jwks(keys).encode())
        self.clock.now += 300

    async def break_source(self, source: KeySource, fault: KeyFault, keys: Sequence[VerificationKey]) -> None:
        """Publish what is wrong, or let the server hang up on everybody."""
        del source
        faulty = faulty_set(fault, keys)
        self.server.refuses = faulty is None
        self.server.answers["/agents.jwks"] = Answer(faulty or b"")
        self.clock.now += 300

    async def wait_in_vain(self, source: KeySource) -> None:
        """Move the clock."""
        del source
        self.clock.now += KEPT + 1


class TestTableKeys(ChangingKeySourceContract):
    """The source of one's own that the documentation shows keeps the contract."""

    example: ModuleType
    path: Path

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        spec = spec_from_file_location("own_key_source", ROOT / "examples" / "own_key_source.py")
        assert spec is not None
        assert spec.loader is not None
        self.example, self.path = module_from_spec(spec), tmp_path / "agents.db"
        spec.loader.exec_module(self.example)

    async def make_source(self, keys: Sequence[VerificationKey]) -> KeySource:
        """Return a source over a table."""
        with closing(sqlite3.connect(self.path)) as table:
            table.execute(self.example.LAYOUT)
        source: KeySource = self.example.TableKeys(self.path)
        await self.set_keys(source, keys)
        return source

    async def set_keys(self, source: KeySource, keys: Sequence[VerificationKey]) -> None:
        """Empty the table, and fill it."""
        del source
        with closing(sqlite3.connect(self.path)) as table, table:
            table.execute("DELETE FROM keys")
        for key in keys:
            self.example.put(self.path, key)


def test_the_documentation_shows_that_source_in_fifteen_lines() -> None:
    """The page has the example's own text, and it is as short as it says."""
    _, begin, rest = (ROOT / "examples" / "own_key_source.py").read_text().partition("class TableKeys:\n")
    shown = begin + rest.partition("\n\n\n")[0]
    assert f"```python\n{shown}\n```" in (ROOT / "docs" / "keys" / "own.md").read_text()
    lines = [line for line in shown.splitlines() if line.strip() and not line.strip().startswith('"""')]
    assert len(lines) <= 15


class TestEnvironment(KeySourceContract):
    """A key set in a variable keeps the contract."""

    @pytest.fixture(autouse=True)
    def _environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    async def make_source(self, keys: Sequence[VerificationKey]) -> KeySource:
        """Return a source over a variable."""
        self.monkeypatch.setenv("AGENT_KEYS", to_jwks(keys))
        return keys_in("AGENT_KEYS")
