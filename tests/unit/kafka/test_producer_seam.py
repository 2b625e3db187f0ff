"""A client that changed stops the start: no producer is made that might send something unsigned."""

import ast
import importlib.util
import inspect
import re
import sys
import textwrap
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, __version__
from aiokafka.producer.message_accumulator import MessageAccumulator, MessageBatch
from aiokafka.producer.sender import Sender

from tests.unit.kafka.fakes import P0, Keys, watchword
from watchword import ConfigurationError
from watchword_adapters.kafka import (
    SigningProducer,
    _producer_seam,
    accumulator,
    batch,
    entries,
    producer,
    wrap,
)


def message(name: str) -> str:
    """Return what the error has to say, as a pattern."""
    return rf"aiokafka {__version__} has a different .*{name}.*: install a version that watchword\[kafka\] allows"


def something_else(self: object, *, surprise: object) -> None:
    """Stand in for a method that takes other parameters."""


@pytest.fixture
async def plain() -> AsyncIterator[AIOKafkaProducer]:
    """Give a client that someone else made, and that never connects."""
    made = AIOKafkaProducer()
    yield made
    await made.stop()


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, name, *_ in _producer_seam.METHODS])
@pytest.mark.parametrize("change", ["gone", "no method", "other parameters"])
async def test_a_method_that_changed_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, plain: AIOKafkaProducer, owner: type, name: str, change: str
) -> None:
    """A method that we override, stand in for or call has to be there and to take what it took."""
    if change == "gone":
        monkeypatch.delattr(owner, name)
    else:
        monkeypatch.setattr(owner, name, None if change == "no method" else something_else)
    with pytest.raises(ConfigurationError, match=message(f"{owner.__name__}.{name}")):
        SigningProducer(watchword=watchword(Keys()))
    with pytest.raises(ConfigurationError, match=message(f"{owner.__name__}.{name}")):
        wrap(plain, watchword=watchword(Keys()))
    monkeypatch.undo()
    with pytest.raises(ConfigurationError, match="would not be signed"):
        await plain.send("topic", b"unsigned")


@pytest.mark.parametrize(
    ("owner", "name", "other"),
    [
        ("producer", "_message_accumulator", object()),
        ("producer", "_sender", object()),
        ("producer", "_max_request_size", None),
        ("producer", "_request_timeout_ms", None),
        ("accumulator", "_batch_size", None),
        ("accumulator", "_batches", []),
        ("accumulator", "_txn_manager", object()),
    ],
)
@pytest.mark.parametrize("gone", [False, True])
async def test_an_attribute_that_changed_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, plain: AIOKafkaProducer, owner: str, name: str, other: object, *, gone: bool
) -> None:
    """An attribute that we read has to be there and of its kind, or nothing of the client is touched."""
    thing: Any = {"producer": plain, "accumulator": plain._message_accumulator}[owner]
    accumulator, kind = plain._message_accumulator, type(thing).__name__
    if gone:
        monkeypatch.delattr(thing, name)
    else:
        monkeypatch.setattr(thing, name, other)
    with pytest.raises(
        ConfigurationError, match=message(rf"(Signing|AIOKafka)?{kind.removeprefix('AIOKafka')}.{name}")
    ):
        SigningProducer._adopt(plain, watchword(Keys()), None)  # type: ignore[arg-type]  # as wrap() does
    assert type(accumulator) is MessageAccumulator
    monkeypatch.undo()


async def test_parts_that_are_made_later_are_looked_at_too(
    monkeypatch: pytest.MonkeyPatch, plain: AIOKafkaProducer
) -> None:
    """What builders, batches and the sender hold is checked before it is used."""
    agent = watchword(Keys())
    with monkeypatch.context() as changed:
        changed.delattr(Sender, "sender_task")
        with pytest.raises(ConfigurationError, match=message("Sender.sender_task")):
            SigningProducer._adopt(plain, agent, None)  # type: ignore[arg-type]
    accumulator: Any = plain._message_accumulator
    with monkeypatch.context() as changed:
        changed.setattr(accumulator, "create_builder", object)
        with pytest.raises(ConfigurationError, match=message("object._builder")):
            SigningProducer._adopt(plain, agent, None)  # type: ignore[arg-type]
    batch = accumulator._append_batch(accumulator.create_builder(), P0)
    with monkeypatch.context() as changed:
        changed.delattr(batch, "_builder")
        with pytest.raises(ConfigurationError, match=message(f"{MessageBatch.__name__}._builder")):
            SigningProducer._adopt(plain, agent, None)  # type: ignore[arg-type]
    accumulator._batches.clear()
    assert type(accumulator) is MessageAccumulator


@pytest.mark.parametrize("change", [None, lambda *_: None, lambda *_: 0])
async def test_what_is_written_in_c_is_tried(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """What counts bytes may have no signature to look at, so it has to give an answer that makes sense."""
    monkeypatch.setattr(_producer_seam, "size_in_batch", change)
    with pytest.raises(ConfigurationError, match=message("estimate_size_in_bytes")):
        SigningProducer(watchword=watchword(Keys()))


async def test_a_part_of_somebody_elses_is_not_replaced(plain: AIOKafkaProducer) -> None:
    """An accumulator that another library put there is not silently taken for aiokafka's own."""

    class Theirs(MessageAccumulator):
        pass

    plain._message_accumulator.__class__ = Theirs
    with pytest.raises(ConfigurationError, match="wait in a Theirs, put there by other code"):
        SigningProducer._adopt(plain, watchword(Keys()), None)  # type: ignore[arg-type]
    assert type(plain._message_accumulator) is Theirs


def private_names(source: str, *, of: str) -> set[str]:
    """Return the private names that a piece of code uses of what is called so, or of anything else than ``self``."""
    found = set()
    for node in ast.walk(ast.parse(textwrap.dedent(source))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and re.match(r"_[^_]", node.attr):
            ours = node.value.id in {"self", "adopted"}
            if ours == (of == "self"):
                found.add(node.attr)
    return found


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(producer.SigningProducer, AIOKafkaProducer), (accumulator.SigningAccumulator, MessageAccumulator)],
)
def test_no_other_file_uses_a_private_name(ours: type, theirs: type) -> None:
    """Private names of the client stand in the seam only, and none of ours is one of the client's."""
    used = private_names(inspect.getsource(ours), of="self")
    names = private_names(inspect.getsource(theirs), of="self") | {name for name in vars(theirs) if name[0] == "_"}
    assert used
    assert not used & names
    for module in (producer, accumulator, batch, entries):
        assert not private_names(inspect.getsource(module), of="others")


@pytest.mark.parametrize(
    ("module", "other", "name"),
    [
        ("aiokafka.producer.transaction_manager", None, "aiokafka.producer.transaction_manager"),
        (
            "aiokafka.record.default_records",
            SimpleNamespace(DefaultRecordBatchBuilder=1),
            "DefaultRecordMetadata",
        ),
        (
            "aiokafka.record.default_records",
            SimpleNamespace(DefaultRecordBatchBuilder=1, DefaultRecordMetadata=1),
            "estimate_size_in_bytes",
        ),
    ],
)
def test_a_module_that_changed_stops_the_import(
    monkeypatch: pytest.MonkeyPatch, module: str, other: Any, name: str
) -> None:
    """Where a module of the client, or a part of it, is gone, the error names it, and what to install."""
    monkeypatch.setitem(sys.modules, module, other)
    spec = importlib.util.spec_from_file_location("again", _producer_seam.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ConfigurationError, match=message(name)):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
