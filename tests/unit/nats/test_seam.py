"""The seam to nats-py: what we use of its insides is listed once, and checked before anything rests on it."""

import ast
import asyncio
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext

from tests.unit.kafka.fakes import Keys, watchword
from tests.unit.nats.subscribed import Subscribed, tree
from watchword import ConfigurationError
from watchword_adapters.nats import WatchwordClient
from watchword_adapters.nats import _seam as seam
from watchword_adapters.nats._seam import PRIVATE, Base, BasePushSubscription, BaseSubscription, Name
from watchword_adapters.nats.jetstream_publish import StreamPublisher
from watchword_adapters.nats.subscription import VerifyingSubscription

FOLDER = Path(inspect.getfile(seam)).parent
NAMES = {f"{one.owner.__name__}.{one.name}": one for one in PRIVATE}
FUNCTIONS = {key: one for key, one in NAMES.items() if one.parameters is not None}
OVERRIDDEN = {key: one for key, one in NAMES.items() if one.why.endswith("overridden")}

each = pytest.mark.parametrize("key", NAMES)


def refusal(one: Name) -> Any:
    """Expect an error with client, version and name in it, and what to do."""
    return pytest.raises(
        ConfigurationError,
        match=rf"nats-py {version('nats-py')}: {one.owner.__name__}\.{one.name} .*Install a version of nats-py",
    )


@contextmanager
def without(one: Name) -> Iterator[None]:
    """Take a name away from its class and from whatever is made of it."""
    made = vars(one.owner)["__init__"]

    def lacking(self: Any, *arguments: Any, **options: Any) -> None:
        made(self, *arguments, **options)
        vars(self).pop(one.name, None)

    with pytest.MonkeyPatch.context() as patch:
        if one.name in vars(one.owner):
            patch.delattr(one.owner, one.name)
        patch.setattr(one.owner, "__init__", lacking)
        yield


@each
async def test_a_name_that_is_gone_stops_a_client_when_it_is_made(key: str) -> None:
    """A48: a client that lacks a name, or has another in its place, is refused in words, and reads nothing."""
    one, agent = NAMES[key], watchword(Keys())
    with without(one), refusal(one):
        WatchwordClient(watchword=agent)
    WatchwordClient(watchword=agent)


@pytest.mark.parametrize("key", FUNCTIONS)
@pytest.mark.parametrize("shape", ["other parameters", "no function"])
async def test_a_function_of_another_shape_is_one_that_is_gone(
    key: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A48: where a function takes something else now, or is not a function, nothing is guessed."""
    one = FUNCTIONS[key]

    def other(self: Any, something: Any, otherwise: Any) -> None:
        raise AssertionError(self, something, otherwise)

    monkeypatch.setattr(one.owner, one.name, other if shape == "other parameters" else 7)
    with refusal(one):
        WatchwordClient(watchword=watchword(Keys()))


@pytest.mark.parametrize("key", FUNCTIONS)
async def test_a_function_that_a_tool_has_wrapped_is_the_same(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A48: what takes whatever it is given takes what we give it; tracing puts such functions around a client's."""
    one = FUNCTIONS[key]
    inner = getattr(one.owner, one.name)

    def traced(self: Any, *arguments: Any, **options: Any) -> Any:
        return inner(self, *arguments, **options)

    monkeypatch.setattr(one.owner, one.name, traced)
    assert isinstance(WatchwordClient(watchword=watchword(Keys())), Client)


@pytest.mark.parametrize("key", OVERRIDDEN)
def test_what_is_overridden_is_the_clients_own(key: str) -> None:
    """Under another name ours would never be called: each stands in a class of ours, and in the base's."""
    one = OVERRIDDEN[key]
    ours = {Client: Base, JetStreamContext: StreamPublisher}[one.owner]
    assert one.name in vars(ours)
    assert one.name in vars(one.owner)


def test_every_private_name_that_is_overridden_is_listed() -> None:
    """A method of ours that hides one of the base's is checked to be there still."""
    for ours in (Base, BaseSubscription, BasePushSubscription):
        (theirs,) = ours.__bases__
        hidden = {name for name in vars(ours) if is_private(name) and hasattr(theirs, name)}
        assert hidden <= {one.name for one in PRIVATE if issubclass(theirs, one.owner)}


@pytest.mark.parametrize("name", ["_message_iterator", "_renamed_iterator"])
async def test_a48_no_other_name_leads_raw_messages_to_an_iteration(name: str) -> None:
    """A48: whatever the base calls its iterator of raw messages, ``messages`` gives those that verify."""
    there = Subscribed(watchword(Keys()))
    there.task.cancel()
    there.client._subs.clear()

    class Renamed(Subscription):
        @property
        def messages(self) -> Any:
            return getattr(self, name)

    sub = VerifyingSubscription(there.client, 1, "tasks", reader=there.reader, cb=None)
    sub.begin(None)
    setattr(sub, name, sub._message_iterator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Subscription, "messages", Renamed.messages)
        there.client._subs[1] = sub
        await there.arrive((b"", b"forged"), *await tree([b"real"]))
        shown = sub.messages
        assert (await asyncio.wait_for(anext(aiter(shown)), 20)).data == b"real"
    push = BasePushSubscription(JetStreamContext(there.client), sub, "", "")
    await there.arrive((b"", b"forged"), *await tree([b"again"]))
    assert (await asyncio.wait_for(anext(aiter(push.messages)), 20)).data == b"again"


# Nobody else

FILES = sorted(path for path in FOLDER.glob("*.py") if path.stem != "_seam")
STREAMS = {"jetstream", "jetstream_publish", "jetstream_rebuild", "redrive"}
"""Files whose classes inherit from JetStream's: they use names that are listed, and no others."""


def is_private(name: str) -> bool:
    """Return True for one leading underscore, or two without two behind."""
    return name.startswith("_") and not name.endswith("__")


def private_names(source: str) -> set[str]:
    """Return the private names that a class sets on its instances, or defines."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(textwrap.dedent(source))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            found.add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return {name for name in found if is_private(name)}


OURS = {name for path in FILES for name in private_names(path.read_text())} | {"_replace"}  # of a named tuple
THEIRS = {name for path in Path(inspect.getfile(nats)).parent.rglob("*.py") for name in private_names(path.read_text())}


def touched(path: Path) -> set[str]:
    """Return the private names of nats-py that a file of ours uses."""
    module = importlib.import_module(f"watchword_adapters.nats.{path.stem}")
    found: set[str] = set()
    for top in ast.parse(path.read_text()).body:
        inherited: set[str] = set()
        if isinstance(top, ast.ClassDef):
            for base in getattr(module, top.name).__mro__:
                if base.__module__.startswith("nats."):
                    inherited |= private_names(inspect.getsource(base))
        found |= {name for name in map(_reached, ast.walk(top)) if name and _is_theirs(name, inherited)}
    return {name.removeprefix("self.") for name in found}


def _reached(node: ast.AST) -> str | None:
    """Return the private name that an expression reaches for, written out or as text."""
    text: str | None = None
    match node:
        case ast.Attribute(value=ast.Name(id="self" | "cls") | ast.Call(func=ast.Name(id="super")), attr=name):
            return f"self.{name}" if is_private(name) else None
        case ast.Attribute(attr=name):
            text = name
        case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] == "nats":
            text = next((alias.name for alias in names if is_private(alias.name)), None)
        case ast.Call(func=ast.Name(id="getattr" | "setattr" | "delattr" | "hasattr"), args=[_, name, *_]):
            if not isinstance(name, ast.Constant):
                return ast.unparse(name)  # who knows
            text = str(name.value)
        case ast.Subscript(value=ast.Call(func=ast.Name(id="vars")), slice=ast.Constant(value=str(name))):
            text = name
    return text if text is not None and is_private(text) else None


def _is_theirs(name: str, inherited: set[str]) -> bool:
    if name.startswith("self."):
        return name.removeprefix("self.") in inherited
    return name in THEIRS - OURS or name not in OURS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nobody_else_touches_a_private_name_of_the_client(path: Path) -> None:
    """What we use of nats-py's insides stands in the seam, where it is checked; streams use what is listed there."""
    allowed = {one.name for one in PRIVATE} | {"_JSI"} if path.stem in STREAMS else set()
    assert touched(path) <= allowed


def test_the_syntax_tree_shows_every_way_to_touch_one() -> None:
    """The test above would notice: an attribute, one of a client's own class, text, an import, what is put together."""
    for line, name in {
        "client._subs.clear()": "_subs",
        "self._closed": "self._closed",
        "super()._start()": "self._start",
        "getattr(client, '_subs')": "_subs",
        "setattr(client, f'_{name}', 1)": "f'_{name}'",
        "vars(client)['_subs']": "_subs",
        "from nats.aio.client import _validate_subject": "_validate_subject",
        "client.subs": None,
    }.items():
        reached = {_reached(node) for node in ast.walk(ast.parse(line))} - {None}
        assert reached == ({name} if name else set())
    assert {"_subs", "_process_msg"} <= private_names(inspect.getsource(Client))
    assert _is_theirs("self._subs", {"_subs"})
    assert not _is_theirs("self._signing", {"_subs"})
