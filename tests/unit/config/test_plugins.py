import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

from watchword import ConfigurationError, MemoryKeys, SigningKey
from watchword.replay import ReaderBirth, SharedReplayStore
from watchword.spi import Admission, Claim
from watchword_adapters import plugins
from watchword_adapters.config import load


class _Strict(BaseModel):
    depth: int


def _keys(_options: object, _context: object) -> MemoryKeys:
    return MemoryKeys()


def _signer(_options: object, _context: object) -> SigningKey:
    return SigningKey.generate()


def _nameless(_options: object, _context: object) -> object:
    return object()


class _Shared:
    """A store that several processes share, by its type."""

    async def claim(self, claim: Claim) -> Admission:
        """See ``ReplayStore``."""
        del claim
        return Admission.FIRST

    async def birth(self, reader: str) -> ReaderBirth | None:
        """See ``SharedReplayStore``."""
        return ReaderBirth(floor=float(len(reader)))

    async def admit_reader(self, reader: str, birth: ReaderBirth, *, replace: bool = False) -> ReaderBirth:
        """See ``SharedReplayStore``."""
        del reader, replace
        return birth


def _store(_options: object, _context: object) -> SharedReplayStore:
    return _Shared()


def _pydantic(options: dict[str, object], _context: object) -> None:
    _Strict.model_validate(options)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Register someone else's plug-ins, and return a settings file that names them."""
    module = ModuleType("somebodys_plugins")
    vars(module).update(keys=_keys, signer=_signer, nameless=_nameless, store=_store, pydantic=_pydantic)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    registered = [
        (plugins.KEY_SOURCES, "vault", "keys"),
        (plugins.KEY_SOURCES, "pydantic", "pydantic"),
        (plugins.KEY_SOURCES, "broken", "missing"),
        (plugins.KEY_SOURCES, "twice", "keys"),
        (plugins.KEY_SOURCES, "twice", "signer"),
        (plugins.SIGNERS, "vault", "signer"),
        (plugins.SIGNERS, "nameless", "nameless"),
        (plugins.REPLAY_STORES, "redis", "store"),
    ]
    points = EntryPoints(EntryPoint(name, f"somebodys_plugins:{target}", group) for group, name, target in registered)
    monkeypatch.setattr(plugins, "entry_points", lambda group: points.select(group=group))
    path = tmp_path / "watchword.toml"
    path.write_text(
        """realm = "prod"
principal = "agent://a"
[signer]
source = "vault"
[[keys]]
source = "vault"
[replay]
store = "redis"
"""
    )
    return path


def test_a_third_partys_plug_ins_are_used_by_name(settings: Path) -> None:
    """A plug-in with an entry point is named in the file like one of ours, and a store is shared by its type."""
    watchword = load(settings)
    assert watchword.signer.principal == "agent://a"
    assert watchword.verifier.shared_replay


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('[[keys]]\nsource = "vault"', '[[keys]]\nsource = "pydantic"', "keys[0]: depth: missing: add it"),
        (
            '[[keys]]\nsource = "vault"',
            '[[keys]]\nsource = "pydantic"\ndepth = "x"',
            "keys[0]: depth: write a whole number",
        ),
        ('[[keys]]\nsource = "vault"', '[[keys]]\nsource = "broken"', "somebodys_plugins:missing cannot be loaded"),
        (
            '[[keys]]\nsource = "vault"',
            '[[keys]]\nsource = "twice"',
            "registered by somebodys_plugins:keys and somebodys_plugins:signer: uninstall one",
        ),
        ('[signer]\nsource = "vault"', '[signer]\nsource = "nameless"', "the plug-in's key has no key_id or algorithm"),
    ],
)
def test_a_plug_in_at_fault_is_named_in_one_line(settings: Path, old: str, new: str, complaint: str) -> None:
    """Wrong options, a plug-in that does not load, or two of one name stop the start with one line."""
    settings.write_text(settings.read_text().replace(old, new))
    with pytest.raises(ConfigurationError) as caught:
        load(settings)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
