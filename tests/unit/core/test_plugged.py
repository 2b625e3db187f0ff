"""A plug-in whose own work is cancelled has failed; a task that is cancelled ends, whatever plug-in it waits for."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Never

import pytest

from tests.unit.core.test_quarantine import Shelf
from tests.unit.core.world import ALICE, ALICE_KEY, BOB, NOW, REALM, World, kafka, known_keys, press, public
from watchword import Policy, Unavailable
from watchword.errors import Shed
from watchword.key_budget import FAILURES, KeyBudget
from watchword.keys import KeyChain, MemoryKeys
from watchword.plugged import AbandonedError, answer
from watchword.spi import Signer, Verifier


async def cancelled(*_: object, **__: object) -> Never:
    """Wait for shared work that someone cancels."""
    work = asyncio.get_running_loop().create_future()
    work.cancel()
    await work
    raise AssertionError


async def hanging(*_: object, **__: object) -> Never:
    """Wait forever."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError


class Plug:
    """Every port at once, each of whose methods ends in the same way."""

    def __init__(self, way: Callable[..., Any]) -> None:
        self.find = self.claim = self.sign = self.start = way


def verifier(**parts: Any) -> Verifier:
    """Return a verifier with these parts."""
    return Verifier(**{"realm": REALM, "principal": BOB, "policy": Policy(), "clock": lambda: NOW, **parts})


async def verify(way: Callable[..., Any], part: str) -> object:
    """Judge an honest message with one part that ends in this way."""
    plug = Plug(way)
    parts = {"keys": MemoryKeys(known_keys()), "replay": World().memory}
    if part == "chain":
        parts["keys"] = KeyChain([plug, MemoryKeys([])])
    else:
        parts[part] = plug
    return await verifier(**parts).verify(press(kafka()))


async def sign(way: Callable[..., Any], _: str) -> object:
    """Sign with a back-end that ends in this way."""
    plug = Plug(way)
    signer = Signer(
        realm=REALM,
        principal=ALICE,
        key=plug,
        key_id=ALICE_KEY.key_id,
        algorithm=ALICE_KEY.algorithm,
        clock=lambda: NOW,
    )
    return await signer.sign(kafka())


PORTS = [(verify, "keys"), (verify, "chain"), (verify, "replay"), (sign, "signing")]


@pytest.mark.parametrize(("use", "part"), PORTS)
async def test_what_a_plug_in_cancels_is_its_failure(use: Callable[..., Any], part: str) -> None:
    """Promise: the message is Unavailable, as after any exception, and reading and signing continue."""
    with pytest.raises(Unavailable) as raised:
        await use(cancelled, part)
    assert raised.value.what == {"chain": "keys"}.get(part, part)
    assert "Abandoned" in str(raised.value)


@pytest.mark.parametrize(("use", "part"), PORTS)
async def test_a_task_that_is_cancelled_ends(use: Callable[..., Any], part: str) -> None:
    """Promise: cancelling the task that waits for a plug-in is no failure of the plug-in's."""
    task = asyncio.ensure_future(use(hanging, part))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_next_message_is_judged() -> None:
    """Promise: one cancelled look-up costs one verdict."""
    source = MemoryKeys([public(ALICE_KEY, ALICE)])
    plug = Plug(cancelled)
    judge = verifier(keys=plug, replay=World().memory)
    with pytest.raises(Unavailable):
        await judge.verify(press(kafka()))
    plug.find = source.find
    assert (await judge.verify(press(kafka()))).principal == ALICE


async def test_a_store_that_cannot_open_is_unavailable() -> None:
    """Promise: what cancels a store's start is the store's outage, and the reader tries again."""
    with pytest.raises(Unavailable, match="replay unavailable: AbandonedError"):
        await verifier(keys=MemoryKeys(known_keys()), replay=Plug(cancelled)).start()


async def test_a_quarantine_whose_work_is_cancelled_is_unavailable() -> None:
    """Promise: the copy was not stored, and the reader of the message continues."""
    shelf = Shelf()
    shelf.write = cancelled  # type: ignore[method-assign]  # as a custom one may do
    with pytest.raises(Unavailable, match="quarantine unavailable: AbandonedError"):
        await shelf.put(kafka(), Unavailable("keys", "down"))


async def test_cancelled_look_ups_are_paid_for_as_failed_ones() -> None:
    """Promise: a source whose work is cancelled time after time has used up the budget for unknown keys."""
    budget = KeyBudget(Plug(cancelled), clock=lambda: NOW, warnings=deque())
    for _ in range(FAILURES):
        with pytest.raises(AbandonedError):
            await budget.find(ALICE, b"x")
    with pytest.raises(Shed):
        await budget.find(ALICE, b"x")


async def test_answers_and_failures_pass() -> None:
    """Promise: an answer is returned, an exception raised, and work that was cancelled is an AbandonedError."""
    assert await answer(asyncio.sleep(0, 5)) == 5
    with pytest.raises(ZeroDivisionError):
        await answer(asyncio.to_thread(lambda: 1 // 0))
    with pytest.raises(AbandonedError):
        await answer(cancelled())
