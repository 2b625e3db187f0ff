"""The seam to aiokafka: what we use of its insides is listed once, and checked before anything rests on it."""

import ast
import asyncio
import importlib
import inspect
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiokafka
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState

from tests.support.kept import Kept
from tests.unit.kafka.conftest import Read
from tests.unit.kafka.fakes import P0, alone, record
from watchword import ConfigurationError
from watchword_adapters.kafka import KafkaQuarantine, VerifyingConsumer, wrap
from watchword_adapters.kafka import _seam as seam
from watchword_adapters.kafka._seam import PRIVATE, USED, Name

FOLDER = Path(inspect.getfile(seam)).parent
NAMES = {f"{one.owner.__name__}.{one.name}": one for one in (*PRIVATE, *USED)}
FUNCTIONS = {key: one for key, one in NAMES.items() if one.parameters is not None}
WRITTEN = {key: one for key, one in NAMES.items() if one.why.endswith("written")}

each = pytest.mark.parametrize("key", NAMES)


@asynccontextmanager
async def started() -> AsyncIterator[AIOKafkaConsumer]:
    """Give aiokafka's own consumer, as if it had started: with a fetcher and a coordinator, but no broker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fetcher, "_fetch_requests_routine", _idle)
        patch.setattr(GroupCoordinator, "_coordination_routine", _idle)
        consumer = AIOKafkaConsumer(group_id="group")
        fetcher = Fetcher(consumer._client, consumer._subscription)
        coordinator = GroupCoordinator(consumer._client, consumer._subscription, group_id="group")
    consumer._fetcher, consumer._coordinator = fetcher, coordinator
    close = consumer._client.close
    try:
        yield consumer
    finally:
        consumer._closed = True
        for end in (Fetcher.close(fetcher), GroupCoordinator.close(coordinator), close()):
            await end


async def _idle(_: Any) -> None:
    """Do nothing in the place of a routine that needs a broker."""


def part(consumer: AIOKafkaConsumer, owner: type) -> Any:
    """Return what a name is looked for on: the part of a consumer that it belongs to, or the class."""
    parts = {
        AIOKafkaConsumer: lambda: consumer,
        AIOKafkaClient: lambda: consumer._client,
        SubscriptionState: lambda: consumer._subscription,
        Fetcher: lambda: consumer._fetcher,
        GroupCoordinator: lambda: consumer._coordinator,
    }
    return parts[owner]() if owner in parts else owner


@contextmanager
def without(one: Name, instance: Any) -> Iterator[None]:
    """Take a name away from an instance and its class."""
    with pytest.MonkeyPatch.context() as patch:
        if one.name in vars(instance):
            patch.delattr(instance, one.name)
        if hasattr(one.owner, one.name):
            patch.delattr(one.owner, one.name)
        yield


def refusal(one: Name) -> Any:
    """Expect an error with client, version and name in it, and what to do."""
    return pytest.raises(
        ConfigurationError,
        match=rf"aiokafka {aiokafka.__version__}: {one.owner.__name__}\.{one.name} .*Install a version of aiokafka",
    )


@each
async def test_a_name_that_is_gone_stops_a_wrapping(key: str) -> None:
    """A48: wrap() refuses a client that lacks a name, says which, and leaves the client as it was."""
    one, agent = NAMES[key], alone()
    async with started() as consumer:
        instance = part(consumer, one.owner)
        before = {name: vars(part(consumer, owner)).copy() for name, owner in _OWNERS.items()}
        with without(one, instance):
            missing = vars(instance).copy()
            with refusal(one):
                wrap(consumer, watchword=agent)
            assert vars(instance) == missing, "something was written"
        assert type(consumer) is AIOKafkaConsumer
        assert before == {name: vars(part(consumer, owner)) for name, owner in _OWNERS.items()}


_OWNERS = {
    "consumer": AIOKafkaConsumer,
    "client": AIOKafkaClient,
    "subscription": SubscriptionState,
    "fetcher": Fetcher,
    "coordinator": GroupCoordinator,
}


@each
async def test_a_name_that_is_gone_stops_a_start(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A48: so do a consumer that is made, and one that starts, where the client makes the part that lacks the name."""
    one, agent = NAMES[key], alone()
    made = vars(one.owner)["__init__"]

    def lacking(self: Any, *arguments: Any, **options: Any) -> None:
        made(self, *arguments, **options)
        vars(self).pop(seam.HELD if one.name == "_fetcher" else one.name, None)

    async with started() as plain:
        parts = plain._fetcher, plain._coordinator

        async def start(consumer: Any) -> None:
            consumer._fetcher, consumer._coordinator = parts

        monkeypatch.setattr(AIOKafkaConsumer, "start", start)
        if one.owner in {Fetcher, GroupCoordinator}:
            consumer = VerifyingConsumer(group_id="group", watchword=agent)
            with without(one, part(plain, one.owner)), refusal(one):
                await consumer.start()
            consumer._coordinator = None
            with suppress(AttributeError):
                await consumer.stop()
        else:
            monkeypatch.setattr(one.owner, "__init__", lacking)
            with pytest.MonkeyPatch.context() as patch:
                if hasattr(one.owner, one.name):
                    patch.delattr(one.owner, one.name)
                patch.delattr(AIOKafkaConsumer, "__del__")  # it asks for a name too
                with refusal(one):
                    VerifyingConsumer(group_id="group", watchword=agent)


@pytest.mark.parametrize("key", FUNCTIONS)
@pytest.mark.parametrize("shape", ["other parameters", "no function"])
async def test_a_function_of_another_shape_is_one_that_is_gone(
    key: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A48: where a function takes something else now, or is not a function, nothing is guessed."""
    one = FUNCTIONS[key]

    def other(self: Any, something: Any, otherwise: Any) -> None:
        raise AssertionError(self, something, otherwise)

    async with started() as consumer:
        end = getattr(one.owner, one.name)
        monkeypatch.setattr(one.owner, one.name, other if shape == "other parameters" else 7)
        with refusal(one):
            wrap(consumer, watchword=alone())
        monkeypatch.setattr(one.owner, one.name, end)


@pytest.mark.parametrize("key", FUNCTIONS)
async def test_a_function_that_a_tool_has_wrapped_is_the_same(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A48: what takes whatever it is given takes what we give it; tracing puts such functions around a client's."""
    one = FUNCTIONS[key]
    inner = getattr(one.owner, one.name)

    def traced(self: Any, *arguments: Any, **options: Any) -> Any:
        return inner(self, *arguments, **options)

    async with started() as consumer:
        monkeypatch.setattr(one.owner, one.name, traced)
        assert isinstance(wrap(consumer, watchword=alone()), VerifyingConsumer)


@pytest.mark.parametrize("key", WRITTEN)
async def test_what_is_written_is_one_that_the_client_reads(key: str) -> None:
    """Written blindly an attribute would do nothing: each is changed by wrapping, so it is checked for a reason."""
    one = WRITTEN[key]
    async with started() as consumer:
        fetcher, written = consumer._fetcher, part(consumer, one.owner)
        if one.name.endswith("_deserializer"):  # these are refused once it has started
            setattr(consumer, one.name, bytes)
            consumer._fetcher = None
        before = getattr(written, one.name)
        wrapped = wrap(consumer, watchword=alone())
        if one.name == "_closed":
            seam.abandon(wrapped)
        assert getattr(written, one.name) != before
        wrapped.__dict__["_fetched_by"] = fetcher


async def test_a_consumer_that_could_not_be_made_warns_of_nothing() -> None:
    """Nobody has it, to stop it: an error is enough."""
    quarantine: Any = KafkaQuarantine("quarantine", watchword=alone())

    def refuse(_: Any) -> None:
        raise ConfigurationError

    quarantine.attach = refuse
    with pytest.raises(ConfigurationError):
        VerifyingConsumer(watchword=alone(), quarantine=quarantine)


# Wrapping


async def test_wrapping_is_refused_while_a_task_waits() -> None:
    """A48: a task that waits in the client would get a record that nobody has judged."""
    async with started() as consumer:
        with consumer._subscription.fetch_context(), pytest.raises(ConfigurationError, match="a task waits"):
            wrap(consumer, watchword=alone())
        assert type(consumer) is AIOKafkaConsumer
        assert isinstance(wrap(consumer, watchword=alone()), VerifyingConsumer)


async def test_what_was_fetched_before_wrapping_is_dropped() -> None:
    """A48: bytes that were fetched, or are being fetched, before wrapping went past our checks: they come again."""
    async with started() as consumer:
        consumer.assign([P0])
        consumer.seek(P0, 3)
        fetched: Any = consumer._fetcher
        fetched._records[P0] = await record(P0, 3, b"unchecked")
        send, ended = consumer._client.send, []

        async def fetch() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append(True)

        under_way = asyncio.create_task(fetch())
        await asyncio.sleep(0)
        fetched._pending_tasks.add(under_way)
        wrapped: Any = wrap(consumer, watchword=alone())
        assert P0 not in fetched._records
        assert await wrapped.position(P0) == 3
        await asyncio.wait([under_way], timeout=60)
        assert ended == [True]
        assert wrapped._client.send != send
        await wrapped._verified.finish()


async def test_wrapping_says_what_cannot_be_wrapped(read: Read) -> None:
    """A subclass, a started client with deserializers, and options of the other kind are refused in words."""
    consumer = read(alone(), P0).consumer
    with pytest.raises(ConfigurationError, match="inherit from SigningProducer or VerifyingConsumer"):
        wrap(consumer, watchword=alone())
    async with started() as plain:
        with pytest.raises(ConfigurationError, match="a consumer sends nothing"):
            wrap(plain, watchword=alone(), recipient=lambda *_: None)  # type: ignore[call-overload]
        producer = AIOKafkaProducer()
        with pytest.raises(ConfigurationError, match="a producer rejects nothing"):
            wrap(producer, watchword=alone(), quarantine=Kept())  # type: ignore[call-overload]
        await producer.stop()
        plain._value_deserializer = bytes
        with pytest.raises(ConfigurationError, match=r"wrap\(\) it before start\(\)"):
            wrap(plain, watchword=alone())


# Nobody else

FILES = sorted(path for path in FOLDER.glob("*.py") if not path.stem.endswith("_seam"))


def private_names(source: str) -> set[str]:
    """Return the private names that a class sets on its instances, or defines."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(textwrap.dedent(source))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            found.add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return {name for name in found if is_private(name)}


def is_private(name: str) -> bool:
    """Return True for one leading underscore, or two without two behind."""
    return name.startswith("_") and not name.endswith("__")


OURS = {name for path in FILES for name in private_names(path.read_text())}
THEIRS = {
    name for path in Path(inspect.getfile(aiokafka)).parent.rglob("*.py") for name in private_names(path.read_text())
}


def touched(path: Path) -> set[str]:
    """Return the private names of aiokafka that a file of ours uses."""
    module = importlib.import_module(f"watchword_adapters.kafka.{path.stem}")
    found: set[str] = set()
    for top in ast.parse(path.read_text()).body:
        inherited: set[str] = set()
        if isinstance(top, ast.ClassDef):
            bases = getattr(module, top.name).__mro__
            inherited = {
                name for base in bases if base.__module__.startswith("aiokafka")
                for name in private_names(inspect.getsource(base))
            }  # fmt: skip
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
        case ast.Call(func=ast.Name(id="getattr" | "setattr" | "delattr" | "hasattr"), args=[_, name, *_]):
            if not isinstance(name, ast.Constant):
                return ast.unparse(name)  # who knows
            text = str(name.value)
        case ast.Subscript(value=ast.Call(func=ast.Name(id="vars")), slice=ast.Constant(value=str(name))):
            text = name
    return text if text is not None and is_private(text) else None


def _is_theirs(name: str, inherited: set[str]) -> bool:
    if name.startswith("self."):
        return name.removeprefix("self.") in inherited - {"_fetcher"}  # the property of a consumer of ours
    return name in THEIRS or name not in OURS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nobody_else_touches_a_private_name_of_the_client(path: Path) -> None:
    """What we use of aiokafka's insides stands in a seam, where it is checked: no other file names any of it."""
    assert touched(path) == set()


def test_the_syntax_tree_shows_every_way_to_touch_one() -> None:
    """The test above would notice: an attribute, one of a client's own class, text, and what is put together."""
    for line, name in {
        "client._conns.clear()": "_conns",
        "self._closed": "self._closed",
        "super()._build()": "self._build",
        "getattr(client, '_conns')": "_conns",
        "setattr(client, f'_{name}', 1)": "f'_{name}'",
        "vars(client)['_conns']": "_conns",
        "client.conns": None,
        "getattr(time, 'CLOCK_BOOTTIME', None)": None,
    }.items():
        reached = {_reached(node) for node in ast.walk(ast.parse(line))} - {None}
        assert reached == ({name} if name else set())
    assert {"_closed", "_fetcher", "_subscription"} <= private_names(inspect.getsource(AIOKafkaConsumer))
    assert _is_theirs("self._closed", {"_closed"})
    assert not _is_theirs("self._fetcher", {"_fetcher"})
    assert not _is_theirs("_adopt", set())
