"""Draws the pictures that show data: an envelope's bytes, rates, and the layers of the code.

They come from a test vector, the page of figures, and import-linter's contract.

``python -m website.draw``, in the checkout's directory, writes them; a test says that they are what it would write.
Pictures have no colours of their own: ``docs/assets/site.css`` names them, and what is seen without the site falls back
to the browser's light or dark.
"""

from __future__ import annotations

import base64
import json
import re
import tomllib
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
PICTURES: Final = ROOT / "docs" / "pictures"
_COLUMNS: Final = 24
_CELL: Final = 38
_ROW: Final = 50
_CLAIMS: Final = {
    1: ("iss", "the sender", "good"), 6: ("iat", "issued at", "good"), 7: ("cti", "id", "good"),
    "c": ("c", "channel", "mark"), "h": ("h", "names of covered headers", "mark"), "p": ("p", "partition", "mark"),
    "m": ("m", "SHA-256 of key and covered headers", "mark"), "v": ("v", "SHA-256 of the value", "mark"),
}  # fmt: skip

_BOXES: Final = {
    "spi": "what adapters and plug-ins import",
    "agent": "an agent, its readers and its log",
    "signer": "signing, verifying, and what operators say",
    "wire_json": "the nine checks of one message",
    "journal": "memory, and what happens after a verdict",
    "keys": "ports and rules",
    "envelope": "the wire format",
    "message": "what all others use",
}
"""The boxes of the core, by their first module: each reaches down to the next one."""


class Span(NamedTuple):
    """Bytes from ``begin`` to ``end``, what they are, and how they are coloured."""

    begin: int
    end: int
    label: str
    kind: str


def main() -> None:
    """Write the pictures."""
    for name, text in drawn().items():
        (PICTURES / name).write_text(text, "utf-8")


def drawn() -> dict[str, str]:
    """Return the pictures by their file names."""
    vectors = json.loads((ROOT / "tests/vectors/v1/accepted.json").read_text("utf-8"))
    (message,) = next(vector for vector in vectors if vector["name"] == "kafka")["messages"]
    armored = base64.b64decode(dict(message["headers"])["watchword"]).decode()
    data = base64.urlsafe_b64decode(armored + "=" * (-len(armored) % 4))
    rates = _rates((ROOT / "docs/performance.md").read_text("utf-8"))
    return {"envelope.svg": _envelope(data, len(armored)), "rates.svg": _bars(rates), "layers.svg": _layers()}


def spans(data: bytes) -> list[Span]:
    """Return the parts of a direct envelope, in order."""
    version, claims = 1, _head(data, 2)[1]
    found = [Span(0, claims, f"version {data[version]}", "card")]
    at = claims + 1
    for _ in range(data[claims] & 0x1F):
        begin, (name, at) = at, _item(data, at)
        _, at = _item(data, at)
        key, meaning, kind = _CLAIMS[name]
        found.append(Span(begin, at, f"{key}: {meaning}", kind))
    found[1] = found[1]._replace(begin=claims)
    proof = at
    _, at = _item(data, at + 1)
    found.append(Span(proof, at, "protected: alg, kid", "card"))
    found.append(Span(at, at + 2, "direct", "card"))
    found.append(
        Span(at + 2, len(data), "signature over protected, \u201cwatchword/1\u201d, tree size and claims", "good")
    )
    return found


def _head(data: bytes, at: int) -> tuple[int, int]:
    """Return the number in the head of an item of CBOR, and where its content begins."""
    low = data[at] & 0x1F
    size = 0 if low < 24 else 1 << (low - 24)  # noqa: PLR2004 - RFC 8949 section 3
    return (int.from_bytes(data[at + 1 : at + 1 + size]) if size else low), at + 1 + size


def _item(data: bytes, at: int) -> tuple[object, int]:
    """Return an item of CBOR (arrays as None) and where it ends."""
    number, content = _head(data, at)
    match data[at] >> 5:
        case 0:
            return number, content
        case 2 | 3 as kind:
            text = data[content : content + number]
            return (text.decode() if kind == 3 else text), content + number  # noqa: PLR2004 - text
        case _:
            for _ in range(number):
                _, content = _item(data, content)
            return None, content


def _envelope(data: bytes, characters: int) -> str:
    rows = -(-len(data) // _COLUMNS)
    parts = []
    for span in spans(data):
        labelled = False
        for row in range(span.begin // _COLUMNS, (span.end - 1) // _COLUMNS + 1):
            first, last = max(span.begin, row * _COLUMNS), min(span.end, (row + 1) * _COLUMNS)
            x, y, width = 24 + first % _COLUMNS * _CELL, 62 + row * _ROW, (last - first) * _CELL
            parts.append(f'<rect x="{x}" y="{y}" width="{width - 2}" height="24" rx="3" class="{span.kind}"/>')
            parts += [
                _text(24 + at % _COLUMNS * _CELL + _CELL // 2 - 1, y + 16, f"{data[at]:02x}", "mono mid")
                for at in range(first, last)
            ]
            if not labelled and (row > span.begin // _COLUMNS or width >= 6 * len(span.label) or last == span.end):
                parts.append(_text(x + 1, y - 5, span.label, "soft"))
                labelled = True
    title = f"An envelope: {len(data)} bytes, {characters} characters of base64url in the header watchword"
    return _svg(960, 62 + rows * _ROW, title, parts)


def _rates(page: str) -> list[tuple[str, float, float]]:
    """Return name, signing and verifying rate of each row of the page's table of peers."""
    table = page.partition("<!-- figures: peers -->")[2].partition("<!-- end of peers -->")[0]
    rows = re.findall(r"^\| (.+?) \| ([\d,]*) \| ([\d,]*) \|$", table, re.MULTILINE)
    return [(name, *(float(rate.replace(",", "") or 0) for rate in both)) for name, *both in rows if all(both)]


def _bars(rates: list[tuple[str, float, float]]) -> str:
    longest = max(max(row[1:]) for row in rates)
    parts = [_bar(330, 40, 14, "good"), _text(350, 51, "sign", "soft"), _bar(400, 40, 14, "mark")]
    parts.append(_text(420, 51, "verify", "soft"))
    for at, (name, *both) in enumerate(rates):
        y = 66 + at * 46
        shown = re.sub(r" \(.*", "", name.replace("*", ""))
        parts.append(_text(320, y + 21, shown, "end head" if "**" in name else "end"))
        for rate, kind, down in zip(both, ("good", "mark"), (0, 17), strict=True):
            width = round(520 * rate / longest, 1)
            parts += [_bar(330, y + down, width, kind), _text(336 + width, y + down + 12, f"{rate:,.0f}", "soft")]
    return _svg(960, 72 + len(rates) * 46, "Messages a second on one core", parts)


def _layers() -> str:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    doors, *core = next(one["layers"] for one in contracts if one["type"] == "layers")
    boxes: list[tuple[str, list[str]]] = []
    for layer in core:
        modules = layer.split(" | ")
        if modules[0] in _BOXES:
            boxes.append((_BOXES[modules[0]], []))
        boxes[-1][1].extend(modules)
    y = 40
    parts: list[str] = []

    def box(title: str, text: str, kind: str, x: int = 24, width: int = 912) -> None:
        nonlocal y
        lines = wrap(text, (width - 20) // 7)
        height = 26 + 18 * len(lines)
        parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" class="{kind}"/>')
        parts.append(_text(x + 10, y + 18, title, "head"))
        parts.extend(_text(x + 10, y + 37 + 18 * at, line, "mono") for at, line in enumerate(lines))
        y += height + 8

    box("Front doors: what your program imports", " ".join(doors.split(" | ")), "good")
    box("Adapters", "one folder for each client, key source, store and signer; none imports another", "card")
    top = y
    y += 32
    for title, names in boxes:
        box(title[0].upper() + title[1:], " ".join(names), "mark" if names[0] == "spi" else "card", x=44, width=872)
    core_box = f'<rect x="24" y="{top}" width="912" height="{y - top}" rx="6" class="line"/>'
    parts += [core_box, _text(34, top + 20, "src/watchword: no I/O, no clock of its own, no client", "head")]
    y += 8
    box("Native engine (optional)", "native/, in Rust: reads, hashes, checks and signs runs of messages", "card")
    return _svg(960, y + 8, "Each box imports only what is below it", parts)


def _bar(x: int, y: int, width: float, kind: str) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="14" class="{kind}"/>'


def _text(x: float, y: int, text: str, kind: str) -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(text)}</text>'


def _svg(width: int, height: int, title: str, parts: list[str]) -> str:
    """Return a picture in the style of those that were drawn by hand."""
    style = (PICTURES / "way.svg").read_text("utf-8").partition("<style>")[2].partition("</style>")[0]
    size = f'viewBox="0 0 {width} {height}" class="ww"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">'
    return "\n".join([head, f"<style>{style}</style>", _text(10, 24, title, "head"), *parts, "</svg>\n"])


if __name__ == "__main__":
    main()
