"""A53: many small things in few bytes; each test counts the work that an input causes, not the time it takes."""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from tests.unit.core.world import NOW, World, bear, cbor, claims_of, direct, endings, kafka, rejected, signed
from tests.vectors import faults
from watchword import Reason, Rejected, Unavailable
from watchword.cbor import read_head
from watchword.message import MAX_HEADERS
from watchword.quarantine_copy import MAX_COPY_HEADERS, HeaderStyle, make_copy, message_digest, read_copy
from watchword.spi import Message

MANY = 340_000
"""Empty headers of a record of 1 MB, which a gzip batch of 1,062 bytes holds."""

NO_MORE_THAN = 4 * MAX_COPY_HEADERS
"""Touches of headers that one message may cause, whatever it holds."""


class Touches:
    """Counts how often a header, or a place in the list of them, was looked at."""

    def __init__(self) -> None:
        self.count = 0


class Item(tuple[Any, ...]):  # noqa: SLOT001 - a tuple takes no slots
    """One header that counts each look at it."""

    touches: Touches

    def __iter__(self) -> Iterator[Any]:
        self.touches.count += 1
        return super().__iter__()

    def __getitem__(self, at: Any) -> Any:
        self.touches.count += 1
        return super().__getitem__(at)

    def __eq__(self, other: object) -> bool:
        self.touches.count += 1
        return super().__eq__(other)

    def __hash__(self) -> int:
        self.touches.count += 1
        return super().__hash__()


class Items(tuple[Any, ...]):  # noqa: SLOT001 - a tuple takes no slots
    """Headers that count each step from one to the next."""

    touches: Touches

    def __iter__(self) -> Iterator[Any]:
        for one in super().__iter__():
            self.touches.count += 1
            yield one

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        self.touches.count += len(found) if isinstance(at, slice) else 1
        return found


def counted(message: Message, header: tuple[str, bytes | None], count: int) -> tuple[Message, Touches]:
    """Return the message with ``count`` more headers in front of its own, all of which count."""
    touches = Touches()
    items = [Item(one) for one in message.headers]
    more = Item(header)
    headers = Items((*(more,) * count, *items))
    headers.touches = more.touches = touches
    for one in items:
        one.touches = touches
    return replace(message, headers=headers), touches


@pytest.mark.parametrize("header", [("", b""), ("", None), ("watchword", b""), ("traceparent", b"x")])
@pytest.mark.parametrize("envelope", [True, False])
def test_a53_more_headers_than_allowed_are_refused_by_count(
    header: tuple[str, bytes | None], *, envelope: bool
) -> None:
    """Promise: over 1,024 headers are malformed, signed or not, before a single one of them is looked at."""
    message, touches = counted(signed(kafka()) if envelope else kafka(), header, MANY)
    for bulk in ([message], [message] * 3):
        world = World()
        assert endings(world, bulk) == ["malformed"] * len(bulk)
        assert (world.keys.asked, world.store.claims, touches.count) == (0, [], 0)


def test_a53_the_limit_counts_the_envelope() -> None:
    """Promise: 1,024 headers verify, the envelope among them; one more is malformed."""
    message = signed(kafka(headers=()))
    for more, reason in ((MAX_HEADERS - 1, None), (MAX_HEADERS, Reason.MALFORMED)):
        full = replace(message, headers=(*((f"{at}", b"") for at in range(more)), *message.headers))
        assert len(full.headers) == more + 1
        if reason is None:
            assert World().verify(full).value == message.value
        else:
            assert rejected(full).reason is reason


def test_a53_what_cannot_be_judged_is_passed_over_as_cheaply() -> None:
    """Promise: neither a rebuild nor giving up looks at the headers of such a message."""
    message, touches = counted(signed(kafka(exclusive=True)), ("", b""), MANY)
    world = World()
    world.verifier.remember_unjudged(message)
    assert endings(world, [message]) == ["malformed"]
    assert touches.count == 0


@pytest.mark.parametrize("style", list(HeaderStyle))
@pytest.mark.parametrize("verdict", [Rejected(Reason.MALFORMED, "headers"), Unavailable("keys")])
def test_a53_its_copy_is_a_pointer(verdict: Rejected | Unavailable, style: HeaderStyle) -> None:
    """Promise: a quarantine keeps the place of such a message and how many headers it had, at a bounded cost."""
    message, touches = counted(signed(kafka()), ("", b""), MANY)
    copy = make_copy(message, verdict, now=NOW, style=style)
    assert (copy.is_pointer, copy.pointer() is copy, copy.size < 4096, copy.nats_headers() != {}) == (True,) * 4
    kept = read_copy(copy.value, copy.key, copy.headers)
    assert (kept.complete, kept.position, kept.digest) == (False, message.position, message_digest(message))
    assert (kept.message.headers, kept.message.value) == ((), None)
    assert touches.count <= NO_MORE_THAN


def test_a53_a_digest_covers_the_number_of_headers_left_out() -> None:
    """Promise: what is left out of a digest is still counted in it, and a message at the limit is digested whole."""
    one, other = (kafka(headers=(("", b""),) * (MAX_HEADERS + more)) for more in (1, 2))
    full = kafka(headers=(("", b""),) * (MAX_HEADERS - 1) + (("", b"x"),))
    assert len({message_digest(each) for each in (one, other, full, kafka())}) == 4
    assert message_digest(full) != message_digest(replace(full, headers=(("", b""),) * MAX_HEADERS))


def test_a53_no_copy_has_more_headers_than_a_message_may_have() -> None:
    """Promise: a copy that someone made up is refused by count, as headers and as a list in one header."""
    message, touches = counted(kafka(), ("", b""), MANY)
    with pytest.raises(ValueError, match="headers"):
        read_copy(b"", None, message.headers)
    assert touches.count == 0
    own = [("watchword-reason", b"stale"), ("watchword-channel", b"kafka://prod/tasks")]
    for count in (MAX_HEADERS, MAX_HEADERS + 1):
        listed = ("watchword-headers", b"[" + b",".join([b'["",""]'] * count) + b"]")
        if count == MAX_HEADERS:
            assert len(read_copy(b"", None, [*own, listed]).message.headers) == count
        else:
            with pytest.raises(ValueError, match="headers"):
                read_copy(b"", None, [*own, listed])


@pytest.mark.parametrize("names", [[""] * 3700, faults.NAMES[: MAX_HEADERS + 1]], ids=["empty", "sorted"])
def test_a53_more_covered_names_than_headers_are_refused_by_count(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: an envelope that names more headers than a message may have is malformed before a name is read."""
    raw = direct(cbor(claims_of(kafka(), h=names)))
    assert len(raw) <= 4096
    read = Touches()

    def counting(data: bytes, at: int, major: int) -> tuple[int, int]:
        read.count += 1
        return read_head(data, at, major)

    monkeypatch.setattr("watchword.envelope.read_head", counting)
    assert rejected(bear(kafka(headers=()), raw)).reason is Reason.MALFORMED
    assert read.count < 20


def test_a53_no_path_is_climbed_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: an inclusion proof costs at most twelve hashes, however many nodes it claims to have."""
    hashed = Touches()

    def counting(data: bytes) -> Any:
        hashed.count += 1
        return sha256(data)

    monkeypatch.setattr("watchword.merkle.sha256", counting)
    for nodes in (13, 100, 116):
        path = [bytes(32)] * nodes
        assert rejected(bear(kafka(headers=()), faults._inclusion(4096, 0, path))).reason is Reason.MALFORMED
    assert hashed.count == 0
