import asyncio
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support import nats_tokens
from tests.support.board import Board
from tests.support.key_server import Answer, KeyServer, authority, serving
from tests.support.nats_tokens import Holder
from tests.support.pages import files_on
from tests.support.patience import PATIENCE
from tests.support.workload_api import Authority, Svid, p256
from tests.unit.control.test_following import World
from watchword import Algorithm, MemoryKeys, Policy, SigningKey, Unavailable, VerificationKey, Watchword
from watchword.jwk import MAX_SET_BYTES, parse_jwks, to_jwks
from watchword.spi import KeyChain, KeySource
from watchword.statements import GiveKey
from watchword_adapters.contract.key_source import (
    ChangingKeySourceContract,
    FailingKeySourceContract,
    KeyFault,
    KeySourceContract,
    LimitedKeySourceContract,
    faulty_set,
)
from watchword_adapters.control.keys import ControlKeys
from watchword_adapters.keys.environment import keys_in
from watchword_adapters.keys.files import FileKeys
from watchword_adapters.keys.https import Https
from watchword_adapters.keys.jwks import JwksKeys
from watchword_adapters.nkeys.encoding import Kind, encode_public
from watchword_adapters.nkeys.source import UserTokens
from watchword_adapters.spiffe.announcing import HEADERS, MAX_VALUE_BYTES, to_value
from watchword_adapters.spiffe.bundles import FileBundles
from watchword_adapters.spiffe.certificates import verified_key
from watchword_adapters.spiffe.source import FRESH, SpiffeKeys

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
        """Rewrite the file."""
        del source
        self.path.write_text(to_jwks(keys))

    async def spoil(self, source: KeySource, fault: KeyFault, known: VerificationKey) -> None:
        """Overwrite the file, or remove it."""
        del source
        faulty = faulty_set(fault, known)
        if faulty is None:
            self.path.unlink()
        else:
            self.path.write_bytes(faulty)
        self.clock.now += 1

    async def wait_in_vain(self, source: KeySource) -> None:
        """Move the clock."""
        del source
        self.clock.now += KEPT + 1


class TestPemDirectory(FailingKeySourceContract):
    """A directory of PEM files, beside a set for what PEM cannot say, keeps the contract, also when it is spoiled."""

    path: Path
    clock: Clock

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.path, self.clock = tmp_path, Clock()

    async def make_source(self, keys: Sequence[VerificationKey]) -> KeySource:
        """Return a source over a directory that is looked at each time."""
        await self.set_keys(MemoryKeys(), keys)
        return FileKeys([self.path], check_every=0, max_staleness=KEPT, clock=self.clock)

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

    async def spoil(self, source: KeySource, fault: KeyFault, known: VerificationKey) -> None:
        """Put what is wrong beside the key's own file, or remove all files."""
        assert source is not None
        faulty = faulty_set(fault, known)
        for old in self.path.iterdir() if faulty is None else ():
            old.unlink()
        if faulty is not None:
            (self.path / "beside.jwks").write_bytes(faulty)
        self.clock.now += 1

    async def wait_in_vain(self, source: KeySource) -> None:
        """Move the clock."""
        assert source is not None
        self.clock.now += KEPT + 1


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

    async def spoil(self, source: KeySource, fault: KeyFault, known: VerificationKey) -> None:
        """Publish what is wrong, or let the server hang up on everybody."""
        del source
        faulty = faulty_set(fault, known)
        self.server.refuses = faulty is None
        self.server.answers["/agents.jwks"] = Answer(faulty or b"")
        self.clock.now += 300

    async def wait_in_vain(self, source: KeySource) -> None:
        """Move the clock."""
        del source
        self.clock.now += KEPT + 1


class TestUserTokens(FailingKeySourceContract):
    """A directory with the tokens of NATS users keeps the contract."""

    alice = "agent://contract/alice"
    bob = "agent://contract/bob"
    passes_over = frozenset({KeyFault.WRONG_OWNER, KeyFault.DUPLICATE_ID})
    """What another account says counts for nothing; a second token of one user is an older one."""
    path: Path
    clock: Clock

    @pytest.fixture(autouse=True)
    def _account(self, tmp_path: Path) -> None:
        self.path, self.clock = tmp_path, Clock()
        self.account = nats_tokens.account()

    def own(
        self,
        principal: str,
        key_id: bytes,
        algorithm: Algorithm = Algorithm.ED25519,  # noqa: ARG002 - NKeys are of one kind
        **validity: int,
    ) -> tuple[SigningKey, VerificationKey]:
        """Return a key as a token can say it: a revocation holds whatever the time is."""
        assert key_id
        if "revoked_at" in validity:
            validity["revoked_at"] = 0
        key = SigningKey.generate()
        found = VerificationKey.from_public_key(key.public, principal=principal, key_id=key.key_id, **validity)
        return key, found

    async def make_source(self, keys: Sequence[VerificationKey]) -> KeySource:
        """Return a source over a directory that is looked at each time."""
        self._write(self.account, keys)
        kind = UserTokens(accounts=[self.account.public], principal="agent://contract/{user_name}")
        return FileKeys([self.path], check_every=0, max_staleness=KEPT, clock=self.clock, kind=kind)

    async def set_keys(self, source: KeySource, keys: Sequence[VerificationKey]) -> None:
        """Write each user's token, and that of the account, which revokes."""
        assert source is not None
        self._write(self.account, keys)

    def _write(self, account: Holder, keys: Sequence[VerificationKey]) -> None:
        for old in self.path.iterdir():
            old.unlink()
        revoked = {public_of(key): 1 << 32 for key in keys if key.revoked_at is not None}
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
        self.clock.now += 1

    async def wait_in_vain(self, source: KeySource) -> None:
        """Move the clock."""
        assert source is not None
        self.clock.now += KEPT + 1


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


class TestSpiffeKeys(FailingKeySourceContract):
    """A presence channel and a bundle in a file keep the contract; each key has an authority of its own."""

    alice = "spiffe://contract.example/alice"
    bob = "spiffe://contract.example/bob"
    passes_over = frozenset({KeyFault.GARBAGE, KeyFault.OVERSIZE, KeyFault.WRONG_OWNER, KeyFault.DUPLICATE_ID})
    """Anyone may write there what he likes; only its being out of reach, and the bundle's, leaves something untold."""

    @pytest.fixture(autouse=True)
    def _board(self, tmp_path: Path) -> Iterator[None]:
        self.path = tmp_path / "bundle.pem"
        self.board = Board()
        self.clock = Clock()
        self.issued: dict[bytes, tuple[Authority, Svid]] = {}
        self.sources: list[SpiffeKeys] = []
        yield
        for source in self.sources:
            source.close()

    def own(
        self,
        principal: str,
        key_id: bytes,
        algorithm: Algorithm = Algorithm.ED25519,
        **validity: int,  # noqa: ARG002 - a certificate has bounds of its own, and is not revoked
    ) -> tuple[SigningKey, VerificationKey]:
        """Return a key as a certificate can say it."""
        assert key_id
        private = p256() if algorithm is Algorithm.ESP256 else Ed25519PrivateKey.generate()
        root = Authority("contract.example", name=f"root {len(self.issued)}")
        svid = root.issue(principal.removeprefix("spiffe://contract.example"), private=private)
        key = SigningKey(private)
        self.issued[key.key_id] = root, svid
        found = verified_key(svid.der, {"contract.example": [root.certificate]}, now=time.time())
        return key, found

    async def make_source(self, keys: Sequence[VerificationKey]) -> KeySource:
        """Return a source over a board on which each has shown its certificate."""
        await self._show(keys)
        bundles = FileBundles({"contract.example": self.path}, max_staleness=KEPT, warn=_ignore, clock=self.clock)
        source = SpiffeKeys(
            realm="prod",
            bundles=bundles,
            open_presence=self.board.open,
            policy=Policy(),
            warn=_ignore,
            check_every=0.05,
            clock=self.clock,
        )
        self.sources.append(source)
        return source

    async def _show(self, keys: Sequence[VerificationKey]) -> None:
        roots = [self.issued[key.key_id][0].pem for key in keys]
        beside = self.path.with_suffix(".new")
        beside.write_bytes(b"".join(roots) or Authority("contract.example", name="of nobody").pem)
        beside.replace(self.path)
        for key in keys:
            await self._announce(key.principal, self.issued[key.key_id][1])

    async def _announce(self, principal: str, svid: Svid) -> None:
        agent = Watchword(realm="prod", principal=principal, key=SigningKey(svid.private))
        async with self.board.open(agent) as channel:
            await channel.announce(to_value(svid.der), HEADERS)

    async def set_keys(self, source: KeySource, keys: Sequence[VerificationKey]) -> None:
        """Put their authorities, and no others, into the bundle; wait until the source has looked at it."""
        assert isinstance(source, SpiffeKeys)
        self.board.down = False
        await self._show(keys)
        async with asyncio.timeout(PATIENCE):
            while {key.key_id for key in source.keys} != {key.key_id for key in keys}:  # noqa: ASYNC110 - a thread looks
                await asyncio.sleep(0.01)

    async def spoil(self, source: KeySource, fault: KeyFault, known: VerificationKey) -> None:
        """Write to the channel, or make it fail; and have it read."""
        assert isinstance(source, SpiffeKeys)
        root, svid = self.issued[known.key_id]
        headers = tuple((name, text.encode()) for name, text in HEADERS.items())
        if fault is KeyFault.OUTAGE:
            self.board.down = True
            self.path.unlink()
            async with asyncio.timeout(PATIENCE):
                while source._reading is None or source._reading.failure is None:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.01)
        elif fault is KeyFault.GARBAGE:
            self.board.put(b"{", headers)
        elif fault is KeyFault.OVERSIZE:
            self.board.put(to_value([b"x" * MAX_VALUE_BYTES]), headers)
        elif fault is KeyFault.WRONG_OWNER:
            await self._announce(self.bob, root.issue("/bob", private=svid.private))
        else:
            begin = svid.chain[0].not_valid_before_utc
            await self._announce(self.alice, root.issue("/alice", private=svid.private, begin=begin))
        self.clock.now += FRESH

    async def wait_in_vain(self, source: KeySource) -> None:
        """Move the clock, and let the bundle be looked at where there is one."""
        assert isinstance(source, SpiffeKeys)
        self.clock.now += KEPT + 1
        async with asyncio.timeout(PATIENCE):
            while source._bundles.is_stale and self.path.exists():  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)


def _ignore(event: str, **_: object) -> None:
    assert event.startswith("keys.")


class TestTableKeys(ChangingKeySourceContract):
    """The custom source that the documentation shows keeps the contract."""

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


class TestCachedKeys(FailingKeySourceContract):
    """The cache that the documentation shows keeps the contract of sources that can fail."""

    clock: Clock
    served: bytes | None
    fetches: int
    page: dict[str, Any]

    @pytest.fixture(autouse=True)
    def _page(self) -> None:
        (file,) = (file for file in files_on("keys/own.md") if file.name == "cached_keys.py")
        self.clock, self.served, self.fetches, self.page = Clock(), None, 0, {"__name__": "cached_keys"}
        exec(compile(file.text, file.name, "exec"), self.page)  # noqa: S102 - our own documentation

    async def _fetch(self) -> list[VerificationKey]:
        self.fetches += 1
        if self.served is None:
            raise OSError
        return parse_jwks(self.served)

    async def make_source(self, keys: Sequence[VerificationKey]) -> KeySource:
        """Return a cache of a set with these keys."""
        self.served = to_jwks(keys).encode()
        source: KeySource = self.page["CachedKeys"](self._fetch, clock=self.clock)
        return source

    async def set_keys(self, source: KeySource, keys: Sequence[VerificationKey]) -> None:
        """Serve other keys, for longer than the old set is used."""
        del source
        self.served = to_jwks(keys).encode()
        self.clock.now += self.page["CHECK_EVERY"] + 1

    async def spoil(self, source: KeySource, fault: KeyFault, known: VerificationKey) -> None:
        """Serve a faulty set, until it must have been asked for."""
        self.served = faulty_set(fault, known)
        self.clock.now += self.page["CHECK_EVERY"] + 1
        await source.find(known.principal, known.key_id)

    async def wait_in_vain(self, source: KeySource) -> None:
        """Move the clock."""
        del source
        self.clock.now += self.page["KEEP"] + 1

    async def test_a_flood_of_unknown_ids_is_one_fetch(self) -> None:
        """Many look-ups at once share a fetch, and those soon after it cause none."""
        source = await self.make_source([])
        for _ in range(2):
            found = await asyncio.gather(*(source.find(self.alice, b"%d" % number) for number in range(50)))
            assert found == [None] * 50
        assert self.fetches == 1

    async def test_a_server_that_does_not_answer_is_given_up(self) -> None:
        """A fetch that hangs ends at the time limit, and the look-up raises."""
        self.page["TIMEOUT"] = 0
        hanging: KeySource = self.page["CachedKeys"](asyncio.Event().wait, clock=self.clock)
        with pytest.raises(Unavailable):
            await hanging.find(self.alice, b"one")


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


class TestControlKeys(KeySourceContract):
    """The control log keeps the contract; it gives keys under their default ids, and revokes them by itself."""

    alice = "agent://acme/alice"
    bob = "agent://acme/bob"

    @pytest.fixture(autouse=True)
    def _log(self, tmp_path: Path) -> None:
        self.world = World(tmp_path)

    def own(
        self, principal: str, key_id: bytes, algorithm: Algorithm = Algorithm.ED25519, **validity: int
    ) -> tuple[SigningKey, VerificationKey]:
        """Return a key as an operator may give it."""
        assert key_id
        validity.pop("revoked_at", None)
        key = SigningKey.generate(algorithm)
        found = VerificationKey.from_public_key(key.public, principal=principal, key_id=key.key_id, **validity)
        return key, found

    async def make_source(self, keys: Sequence[VerificationKey]) -> KeySource:
        """Return what an operator has given."""
        return ControlKeys(await self.world.say(*map(GiveKey, keys)), [])
