"""Which engine is at work, and what becomes of one that has a fault."""

import gc
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.beside import native_or_stand_in
from tests.unit.core.world import REALM, World, at_once, endings, kafka, nats, press, press_many, signer
from watchword import ConfigurationError, SigningError, VerifiedMessage, engine
from watchword.envelope import parse
from watchword.signer import Signed
from watchword.spi import Channel, Message, Position

FITTING = SimpleNamespace(INTERFACE=engine.INTERFACE, __version__="0.1.0")


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let each call of ``chosen`` choose again, with this variable and this module."""

    def choose(variable: str | None, module: object) -> str:
        engine.native.cache_clear()
        monkeypatch.setitem(sys.modules, "watchword_native", module)
        if variable is None:
            monkeypatch.delenv(engine.VARIABLE, raising=False)
        else:
            monkeypatch.setenv(engine.VARIABLE, variable)
        return engine.name()

    yield choose
    engine.native.cache_clear()


@pytest.mark.parametrize(
    ("variable", "module", "name"),
    [
        (None, FITTING, "native 0.1.0"),
        (None, None, "python"),
        ("", None, "python"),
        ("python", FITTING, "python"),
        ("native", FITTING, "native 0.1.0"),
    ],
)
def test_the_native_one_is_used_where_it_is(chosen: Any, variable: str | None, module: object, name: str) -> None:
    """Promise: nothing has to be set, and a variable decides otherwise."""
    assert chosen(variable, module) == name


@pytest.mark.parametrize(
    ("variable", "module", "told"),
    [
        ("rust", FITTING, "write python or native"),
        ("native", None, "pip install watchword-native"),
        (None, SimpleNamespace(INTERFACE=0), "install the same version of both"),
    ],
)
def test_one_that_is_no_use_is_refused(chosen: Any, variable: str | None, module: object, told: str) -> None:
    """Promise: one line says what to do."""
    with pytest.raises(ConfigurationError, match=told):
        chosen(variable, module)


class PanicException(BaseException):
    """What a panic is in Python."""


@pytest.mark.parametrize("error", [PanicException, KeyboardInterrupt])
def test_one_that_panics_is_not_used_again(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    """Promise: after a panic the Python engine judges what was under way and all later messages, with one warning."""
    asked = []

    def run(messages: list[Message], *_: object) -> None:
        asked.append(len(messages))
        raise error

    monkeypatch.setattr(engine, "native", lambda: SimpleNamespace(Run=run))
    world = World()
    monkeypatch.setattr(engine, "native", lambda: None)
    messages = press_many([kafka(position=Position("tasks/0", at)) for at in range(3)])
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            endings(world, messages)
        return
    assert endings(world, messages) == ["first"] * 3
    assert endings(world, messages) == ["again"] * 3
    assert asked == [3]
    assert [event for event, _ in world.verifier.warnings] == ["engine.panicked"]


@pytest.mark.parametrize("native", [native_or_stand_in(), None], ids=["native", "python"])
@pytest.mark.parametrize("part", ["value", "key"])
@pytest.mark.parametrize("given", ["text", 5, bytearray(b"v"), memoryview(b"v")])
def test_what_is_no_bytes_is_refused(monkeypatch: pytest.MonkeyPatch, native: Any, part: str, given: object) -> None:
    """Promise: a value or key that is not bytes is refused by both engines when prepared, also after a good one."""
    monkeypatch.setattr(engine, "native", lambda: native)
    by, good, bad = signer(), kafka(), kafka(**{part: given})
    by.prepare(good)
    told = f"{part} of type {type(given).__name__}: give bytes, or None"
    with pytest.raises(SigningError, match=told):
        by.prepare(bad)
    with pytest.raises(SigningError, match=told):
        at_once(by.sign_many([good, bad]))


@pytest.mark.parametrize("native", [native_or_stand_in(), None], ids=["native", "python"])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"channel": Channel("nats", REALM, "tasks.other")},
        {"reply_to": "reply.here"},
        {"headers": (("Content-Type", b"text/plain"),)},
        {"headers": ()},
        {"headers": [("Content-Type", b"application/json")]},
        {"value": b""},
    ],
)
def test_each_is_signed_as_it_is(monkeypatch: pytest.MonkeyPatch, native: Any, change: dict[str, Any]) -> None:
    """Promise: what is signed of one message is not taken for another that is unlike it in anything."""
    monkeypatch.setattr(engine, "native", lambda: native)
    by, unlike = signer(), nats(**change)

    def said(signed: Signed) -> tuple[object, ...]:
        one = parse(signed.header[1] or b"")
        return replace(one.common, protected=b""), one.metadata_digest, one.value_digest

    alike, other = said(at_once(by.sign(nats()))), said(at_once(by.sign(unlike)))
    signed = at_once(by.sign_many([nats(), nats(), unlike, nats()]))
    assert [*map(said, signed)] == [alike, alike, other, alike]
    assert (alike == other) == (not change or isinstance(change.get("headers"), list))


@pytest.mark.parametrize("native", [native_or_stand_in(), None], ids=["native", "python"])
def test_what_is_kept_holds_nothing_else(monkeypatch: pytest.MonkeyPatch, native: Any) -> None:
    """Promise: a reference to one message keeps none of those that were judged with it, nor the run that they were."""
    monkeypatch.setattr(engine, "native", lambda: native)
    world, values = World(), [b"value %d" % at for at in range(64)]
    counts = [sys.getrefcount(value) for value in values]
    messages = press_many([kafka(position=Position("tasks/0", at), value=value) for at, value in enumerate(values)])
    kept = at_once(world.verifier.verify_many(messages))[9]
    assert isinstance(kept, VerifiedMessage)
    del messages
    gc.collect()
    counts[9] += 1
    assert [sys.getrefcount(value) for value in values] == counts
    assert kept.value is values[9]


@pytest.mark.parametrize("error", [PanicException, KeyboardInterrupt])
def test_one_that_panics_over_a_lone_message(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    """Promise: the same goes for a message that comes alone."""
    monkeypatch.setattr("watchword.verifier.SEVERAL", 2)
    asked = []

    def read_envelope(header: bytes) -> None:
        asked.append(header)
        raise error

    monkeypatch.setattr(engine, "native", lambda: SimpleNamespace(read_envelope=read_envelope))
    world, message = World(), press(kafka())
    monkeypatch.setattr(engine, "native", lambda: None)
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            world.verify(message)
        return
    assert [world.verify(message).redelivered for _ in range(2)] == [False, True]
    assert len(asked) == 1
    assert [event for event, _ in world.verifier.warnings] == ["engine.panicked"]
