"""What a rejection says beside its reason: what was found and what to do about it, for every reason and everywhere."""

import ast
from pathlib import Path
from typing import Any

import pytest

import watchword
import watchword_adapters
from tests.unit.core.world import (
    ALICE,
    ALICE_KEY,
    BOB,
    MALLORY,
    NOW,
    World,
    at_once,
    bear,
    cbor,
    claims_of,
    direct,
    kafka,
    nats,
    press,
    public,
)
from watchword import Rejected
from watchword.message import Expected, Request
from watchword.spi import Channel, Message

HERE = Channel("nats", "prod", "tasks.scale")
TERMINAL = "\x9b2J\u202e"


def _rejected(message: Message, expected: Expected | None = None, **options: Any) -> Rejected:
    with pytest.raises(Rejected) as caught:
        at_once(World(**options).verifier.verify(message, expected or Expected()))
    return caught.value


def test_no_rejection_is_made_without_a_detail() -> None:
    """Promise: the author of a rejection says what helps; the product's own code makes none by its reason alone."""
    for package in (watchword, watchword_adapters):
        for path in Path(package.__path__[0]).rglob("*.py"):
            if "contract" in path.parts:
                continue
            for call in ast.walk(ast.parse(path.read_text())):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Rejected":
                    given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "detail")]
                    assert len(given) > 1 or isinstance(given[0], ast.Starred), f"{path.name}:{call.lineno}"


@pytest.mark.parametrize(
    ("rejected", "detail"),
    [
        (lambda: _rejected(press(nats(), c3=BOB), principal=None), "this process has no principal in its settings"),
        (lambda: _rejected(press(nats(), q=b"1" * 16)), "answers no open request"),
        (lambda: _rejected(press(kafka(partition=None))), "signed for no partition"),
        (
            lambda: _rejected(press(nats(delivered_by=("TASKS", "other"))), Expected(consumer=("TASKS", "mine"))),
            "delivered by 'other' of 'TASKS', a consumer that was not bound here",
        ),
        (
            lambda: _rejected(
                press(nats(), q=b"1" * 16),
                Expected(requests={b"1" * 16: Request(id=b"1" * 16, channel=HERE, recipient=MALLORY)}),
            ),
            "addressed to another principal",
        ),
        (
            lambda: _rejected(press(nats()), keys=[public(ALICE_KEY, ALICE, not_before=NOW + 60)]),
            "used 59 s before it begins (nbf); the sender needs another key",
        ),
    ],
)
def test_what_was_found_is_told(rejected: Any, detail: str) -> None:
    """Promise: of the cases that one reason has, the detail names the one that it is."""
    assert detail in rejected().detail


@pytest.mark.parametrize(
    "forged",
    [
        press(nats(), c3=f"agent://{TERMINAL}"),
        press(nats(), c=f"nats://prod/{TERMINAL}"),
        bear(nats(), direct(cbor(claims_of(nats())), c4=TERMINAL.encode())),
    ],
)
def test_what_a_message_claims_of_itself_is_escaped(forged: Message) -> None:
    """Promise (A31): principal, channel and key id of a forgery do not steer the terminal that shows the detail."""
    detail = _rejected(forged).detail
    assert detail.isprintable()
    assert r"\x9b2J\u202e" in detail
