"""Envelopes taken apart into CBOR items, changed in one of them, and put together again, signed again or not.

It reads and writes what no encoder would: heads that are longer than need be, counts that are wrong, items of another
kind, text that is no UTF-8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.unit.core.world import signature_of, structure
from watchword import Rejected
from watchword.envelope import Envelope, read_into
from watchword.merkle import leaf_of, root_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from watchword import SigningKey

_STRINGS, _CONTAINERS = {2, 3}, {4, 5}
_NUMBERS = (0, 1, 2, 12, 13, 23, 24, 32, 128, 129, 255, 256, 1024, 4096, 4097, 1 << 16, 1 << 31, 1 << 33, (1 << 64) - 1)
_TEXTS = (
    b"", b"\x00", b" ", b"\x7f", b"\xff", b"\xc3\xa9", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"watchword",
    b"WatchWord", b"content-type", b"traceparent", b"a", b"agent://acme/planner", b"kafka://prod/tasks",
    b"x" * 32, b"x" * 128, b"x" * 129, b"x" * 255, b"x" * 256, b"x" * 1024, b"alice-1", b"\x01", b"\x81\x61a",
)  # fmt: skip
_BEGINS = b"\x83\x02", b"\x83\x18\x01", b"\x84\x01", b"\xa3\x01", b"\xd2\x83\x01", b""
_SIGNATURES: tuple[Callable[[bytes], bytes], ...] = (
    lambda _: bytes(64),
    lambda _: bytes(129),
    lambda _: b"",
    lambda signature: signature[:63],
    lambda signature: signature + b"\x00",
    lambda signature: signature[::-1],
    lambda signature: signature[:32] + bytes(32),
)


@dataclass
class Item:
    """One item: its major type, argument, and content; ``width`` is what its head takes beside its first byte."""

    major: int
    argument: int
    width: int
    content: bytes | list[Item]

    def write(self) -> bytes:
        """Return its bytes."""
        short = self.argument if not self.width else 23 + self.width.bit_length()
        head = bytes([self.major << 5 | short & 31]) + (self.argument % (1 << 8 * self.width)).to_bytes(self.width)
        content = self.content if isinstance(self.content, bytes) else b"".join(one.write() for one in self.content)
        return head + content

    def all(self) -> list[Item]:
        """Return it and all that are in it."""
        inner = [] if isinstance(self.content, bytes) else [found for one in self.content for found in one.all()]
        return [self, *inner]


def item_of(argument: int, major: int = 0, content: bytes | list[Item] = b"") -> Item:
    """Return an item with the shortest head."""
    width = 0 if argument < 24 else next(width for width in (1, 2, 4, 8) if argument < 1 << 8 * width)
    return Item(major, argument, width, content)


def read(raw: bytes, at: int = 0) -> tuple[Item, int]:
    """Read an item; ValueError or IndexError for what is none of those that an envelope may have."""
    major, short = raw[at] >> 5, raw[at] & 31
    if short > 27:
        raise ValueError("another kind of item")
    width = 1 << short - 24 if short >= 24 else 0
    at += 1 + width
    argument = int.from_bytes(raw[at - width : at]) if width else short
    item = Item(major, argument, width, b"")
    if major in _STRINGS:
        item.content = raw[at : at + argument]
        if len(item.content) < argument:
            raise ValueError("it ends too early")
        at += argument
    elif major in _CONTAINERS:
        item.content = []
        for _ in range(argument * (major - 3)):
            one, at = read(raw, at)
            item.content.append(one)
    return item, at


def changed(random: Random, raw: bytes, keys: Sequence[SigningKey]) -> bytes:
    """Return an envelope with one or two items otherwise, in most cases signed again by the key that it names."""
    try:
        parts = [*_parts(raw)]
    except (ValueError, IndexError):
        return raw
    at = random.choice([0, 0, 0, 1, 2, 2, 3, 4] if parts[2] else [0, 0, 0, 1, 3, 4])
    for _ in range(random.choice([1, 1, 1, 2])):
        try:
            if at == 3:
                parts[at] = random.choice(_SIGNATURES)(parts[at])
            elif at == 4:
                parts[at] = random.choice(_BEGINS)
            else:
                parts[at] = _changed(random, parts[at])
        except (ValueError, IndexError):
            break  # what was changed before is no CBOR any more
    whole = _whole(*parts)
    return _signed_anew(whole, parts, keys) if at != 3 and random.random() < 0.8 else whole


def _changed(random: Random, part: bytes) -> bytes:
    item, end = read(part)
    _change(random, item)
    return item.write() + part[end:] + b"\x00" * (random.random() < 0.02)


def _parts(raw: bytes) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    """Return claims, protected header, inclusion proof (empty if signed directly), signature, and how it begins."""
    outer, _ = read(raw)
    _, claims, proof = _items(outer)
    protected, unprotected, _, signature = _items(proof)
    inclusion = b""
    if unprotected.argument:
        inclusion = _text(_items(_items(_items(unprotected)[1])[1])[0])
    return _text(claims), _text(protected), inclusion, _text(signature), b"\x83\x01"


def _items(item: Item) -> list[Item]:
    if isinstance(item.content, bytes):
        raise ValueError("no container")  # noqa: TRY004 - of what was read, not of an argument
    return item.content


def _text(item: Item) -> bytes:
    if not isinstance(item.content, bytes):
        raise ValueError("no string")  # noqa: TRY004 - as above
    return item.content


def _whole(claims: bytes, protected: bytes, inclusion: bytes, signature: bytes, begin: bytes) -> bytes:
    def string(data: bytes) -> bytes:
        return item_of(len(data), 2, data).write()

    unprotected = b"\xa1\x19\x01\x8c\xa1\x20\x81" + string(inclusion) if inclusion else b"\xa0"
    return begin + string(claims) + b"\x84" + string(protected) + unprotected + b"\xf6" + string(signature)


def _signed_anew(raw: bytes, parts: Sequence[bytes], keys: Sequence[SigningKey]) -> bytes:
    """Return it with a signature that holds for what it says; as it was where nobody can say what that is."""
    claims, protected, inclusion, _, begin = parts
    key = next((key for key in keys if key.key_id in protected), keys[0])
    size, root = 0, claims
    if inclusion:
        envelope = Envelope()
        try:
            read_into(envelope, raw)
        except Rejected:
            return raw
        size, root = envelope.size, root_of(leaf_of(claims), envelope.index, envelope.size, envelope.path) or b""
    return _whole(claims, protected, inclusion, signature_of(key, structure(protected, size, root)), begin)


def _change(random: Random, whole: Item) -> None:
    """Change one item of a tree of them."""
    items = whole.all()
    item = random.choice(items)
    many = [one for one in items if isinstance(one.content, list) and one.content]
    match random.choice(["width", "number", "kind", "text", "text", "drop", "twice", "swap", "other", "more"]):
        case "width":
            item.width = random.choice([width for width in (1, 2, 4, 8) if item.argument < 1 << 8 * width])
        case "number":
            number = random.choice([min(item.argument + 1, 2**64 - 1), max(0, item.argument - 1), *_NUMBERS])
            item.argument, item.width = number, item_of(number).width
        case "kind":
            item.major = random.choice([item.major ^ 1, random.randrange(8)])
        case "text":
            strings = [one for one in items if isinstance(one.content, bytes) and one.major in _STRINGS]
            if strings:
                item, content = random.choice(strings), random.choice(_TEXTS)
                new = item_of(len(content), item.major, content)
                item.argument, item.width, item.content = new.argument, new.width, content
        case "drop" if many:
            box = random.choice(many)
            _items(box).pop(random.randrange(len(_items(box))))
            _recount(random, box)
        case "twice" if many:
            box = random.choice(many)
            at = random.randrange(len(_items(box)))
            _items(box).insert(at, _items(box)[at])
            _recount(random, box)
        case "swap" if many:
            inner = _items(random.choice(many))
            one, other = random.randrange(len(inner)), random.randrange(len(inner))
            inner[one], inner[other] = inner[other], inner[one]
        case "more" if many:
            box, label = random.choice(many), random.choice([b"a", b"c", b"h", b"m", b"p", b"q", b"r", b"v", b"z"])
            digest = random.choice([bytes(32), bytes(16), b"x"])
            more = [
                random.choice([item_of(1, 3, label), item_of(random.randrange(10))]),
                random.choice([item_of(len(digest), 2, digest), item_of(1, 3, b"x"), item_of(random.choice(_NUMBERS))]),
            ]
            at = random.randrange(0, len(_items(box)) + 1)
            _items(box)[at:at] = more
            _recount(random, box)
        case _:
            new = random.choice([item_of(random.choice(_NUMBERS)), item_of(22, 7), item_of(0, 4, []), item_of(0, 1)])
            item.major, item.argument, item.width, item.content = new.major, new.argument, new.width, new.content


def _recount(random: Random, box: Item) -> None:
    """Let a container say how many it has, most of the time."""
    if random.random() < 0.9:
        count = len(_items(box)) // (box.major - 3) if box.major in _CONTAINERS else box.argument
        box.argument, box.width = count, item_of(count).width
