"""The report in Markdown, as the documentation shows it: what has not been measured is left out.

``python -m benchmarks.page``, in the checkout's directory, puts the tables of the last report into performance.md and
post-quantum.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .algorithms import BATCHES, WHATS
from .core import BATCH, SIZE, SIZES, Case
from .primitives import NAME as PRIMITIVES
from .stages import PYTHON, rates_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

Report = dict[str, Any]
DOCUMENTS: Final = ("performance.md", "post-quantum.md")
"""Where the tables stand."""

_ON_A_BUS: Final = (
    ("kafka", "produce", "tuned", "Kafka, `send`"),
    ("kafka", "produce", "defaults", "Kafka, `send`, aiokafka's defaults"),
    ("kafka", "consume", "tuned", "Kafka, `getmany`"),
    ("kafka", "iterate", "tuned", "Kafka, `async for`"),
    ("nats", "publish to callback", "", "core NATS, `publish` to callback"),
    ("jetstream", "publish", "", "JetStream, `publish`, many in flight"),
    ("jetstream", "pull", "", "JetStream, `fetch` and acks"),
)
_SIDES: Final = (("sign", 1), ("sign", BATCH), ("verify", 1), ("verify", BATCH))
_COLUMNS: Final = {"native": "native engine", PYTHON: "Python engine"}
_ROWS: Final = {
    f"sign_batch{BATCH}": f"sign, batch of {BATCH}",
    f"verify_batch{BATCH}": f"verify, batch of {BATCH}",
    "sign_one": "sign, each by itself",
    "verify_one": "verify, each with a signature of its own",
    "verify_lone": "verify, each with a signature of its own, a lone one at a time",
    "rebuild": f"recall in a rebuild, batch of {BATCH}",
}
_END_TO_END: Final = (("nats", "core NATS"), ("kafka", "Kafka"))


def page(report: Report) -> str:
    """Return the tables."""
    return "\n\n".join(blocks(report).values()) + "\n"


def blocks(report: Report) -> dict[str, str]:
    """Return the tables by name."""
    made = {name: "\n".join(make(report)) for name, (needs, make) in _BLOCKS.items() if needs <= report.keys()}
    return {name: block for name, block in made.items() if block}


def filled(text: str, report: Report) -> str:
    """Return a document with the tables in their places; what the report has nothing for stays as it is."""
    for name, block in blocks(report).items():
        begin, end = (f"<!-- {mark} {name} -->" for mark in ("figures:", "end of"))
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if found and closed:
            text = f"{before}{begin}\n\n{block}\n\n{end}{after}"
    return text


def _head(*names: str) -> Iterator[str]:
    yield _row(names)
    yield _row(("---", *("---:" for _ in names[1:])))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _machine(report: Report) -> Iterator[str]:
    machine, versions, brokers = report["machine"], report["versions"], report.get("brokers", {})
    days = sorted({part["when"].partition(" ")[0] for part in report["parts"].values()})
    shown = [machine["python"], *(f"{name} {versions[name]}" for name in ("cryptography", "aiokafka", "nats-py"))]
    on = ", ".join([*shown, *brokers.values(), f"engine {report['engine']}"])
    yield f"Medians, measured {' and '.join(days)} on {machine['cores']} cores ({machine['cpu']}) with {on}."
    yield f"Values of {SIZE} bytes where nothing else is said, a key and a header; all nine checks; ids in memory."


def _peers(report: Report) -> Iterator[str]:
    rows = report["peers"]["figures"]
    rates = {(row["name"], row["side"]): f"{row['per_second']:,.0f}" for row in rows}
    yield from _head("one core, messages a second", "sign", "verify")
    for name, how in {row["name"]: row["how"] for row in rows}.items():
        told = f"**{name}**" if name.startswith("Watchword") else f"{name} ({how})"
        yield _row((told, rates.get((name, "sign"), ""), rates[name, "verify"]))


def _engines(report: Report) -> Iterator[str]:
    """Show the engines side by side; the tree before them, where it was measured, has two rows."""
    engines, columns = report["engines"], _COLUMNS | {"before": f"tree {report['core']['before']}"}
    names = {name: label for name, label in columns.items() if name in engines}
    yield from _head("one core, us a message", *names.values())
    for what, label in _ROWS.items():
        found = (engines[name].get(what) for name in names)
        yield _row((label, *("" if one is None else f"{one['us']:.1f}" for one in found)))


def _algorithms(report: Report) -> Iterator[str]:
    """Show what each algorithm does by batch size, with each engine."""
    figures = report["algorithms"]["figures"]
    rates = {(engine, *_case(row)): f"{row['per_second']:,.0f}" for engine in figures for row in figures[engine]}
    names = [f"{what}, {_COLUMNS[engine]}" for engine in figures for what in WHATS]
    yield from _head("one core, messages a second of processor time", *names)
    for batch in BATCHES:
        for algorithm in dict.fromkeys(row["algorithm"] for row in next(iter(figures.values()))):
            cells = (rates[engine, algorithm, what, batch] for engine in figures for what in WHATS)
            yield _row((f"{algorithm}, " + ("one by one" if batch == 1 else f"batch of {batch}"), *cells))


def _case(row: Report) -> tuple[str, str, int]:
    return row["algorithm"], row["what"], row["batch"]


def _characters(report: Report) -> Iterator[str]:
    """Show how long an envelope is, and what is left of it in a compressed batch."""
    yield from _head("envelope, characters", "alone", "batch of 64", "batch of 256", "of 64, zstd", "of 256, zstd")
    for algorithm, sizes in report["algorithms"]["characters"].items():
        names = ("batch1", "batch64", "batch256", "batch64_zstd", "batch256_zstd")
        yield _row((algorithm, *(f"{sizes[name]:,}" for name in names)))


def _core(report: Report) -> Iterator[str]:
    core = report["core"]
    took = _by_case(core["figures"])
    sizes = [size for size in SIZES if Case("sha256", size=size) in took]
    yield from _head("one core, us a message", *(f"{size:,} B" for size in sizes))
    for what, batch in _SIDES:
        yield _row((_label(what, batch), *(f"{took[Case(what, batch, size)]:.1f}" for size in sizes)))
    if not report["engines"]["in_use"].startswith(PYTHON):
        took |= _by_case(core["figures_python"])
        for what, batch in _SIDES:
            label = f"{_label(what, batch)}, Python engine"
            yield _row((label, *(f"{took[Case(what, batch, size)]:.1f}" for size in sizes)))
    yield _row(("one SHA-256", *(f"{took[Case('sha256', size=size)]:.1f}" for size in sizes)))


def _by_case(rows: Iterable[Report]) -> dict[Case, float]:
    return {Case(row["what"], row["batch"], row["size"]): row["us"] for row in rows}


def _label(what: str, batch: int) -> str:
    return f"{what}, " + ("one by one" if batch == 1 else f"batch of {batch}")


def _buses(report: Report) -> Iterator[str]:
    names = (
        "plain",
        "header as long",
        "Watchword",
        "share of plain",
        "of header as long",
        "Python engine",
        "share of plain",
    )
    yield from _head("on a bus, messages a second", *names)
    for bus, what, options, label in _ON_A_BUS:
        if found := rates_on(report, bus).get((what, options)):
            plain, equal, ours, python = found
            rates = (f"{rate:,.0f}" for rate in (plain, equal, ours))
            shares = (f"{ours / plain:.0%}", f"{ours / equal:.0%}", f"{python:,.0f}", f"{python / plain:.0%}")
            yield _row((label, *rates, *shares))


def _latency(report: Report) -> Iterator[str]:
    names = (
        "plain p50",
        "p99",
        "added p50",
        "p99",
        "over header as long p50",
        "Python engine: added p50",
        "Ed25519 alone",
    )
    yield from _head("end to end, us", *names)
    for bus, label in _END_TO_END:
        for pace, found in report["latency_us"].get(bus, {}).items():
            added = ("added_p50", "added_p99", "added_p50_with_equal_header", "added_p50_python", "ed25519_p50")
            cells = (found["plain"]["p50"], found["plain"]["p99"], *(found[name] for name in added))
            yield _row((f"{label}, {int(pace):,} a second", *(f"{cell:,.0f}" for cell in cells)))


def _limits(report: Report) -> Iterator[str]:
    """Show what there is to be shared: a plain client's time on Kafka beside that of the primitives alone."""
    alone = {row["side"]: row["us"] for row in report["peers"]["figures"] if row["name"] == PRIMITIVES}
    yield from _head("Kafka, us a message", "plain client", "header as long", "primitives alone")
    for what, label, side in (("produce", "`send`, and sign", "sign"), ("consume", "`getmany`, and verify", "verify")):
        rates = rates_on(report, "kafka")[what, "tuned"]
        yield _row((label, *(f"{took:.1f}" for took in (1e6 / rates.plain, 1e6 / rates.equal, alone[side]))))


def _envelope(report: Report) -> Iterator[str]:
    sizes = report["envelope_characters"]
    yield f"The envelope has {sizes['direct']} characters direct and {sizes[f'batch{BATCH}']} in a batch of {BATCH},"
    yield "for names of 25 characters, a key, a header and a partition."


def _starts(report: Report) -> Iterator[str]:
    """Show each kind of reader in a line: lost of what was owed, and seconds to the first delivery."""
    found: dict[str, list[str]] = {}
    for row in report["starts"]["starts"]:
        found.setdefault(row["reader"], []).extend((f"{row['lost']:,}", f"{row['seconds']:.2f}"))
    yield from _head("reader on NATS", "first start: lost", "s", "restart: lost", "s", "subscribed again: lost", "s")
    for name, cells in found.items():
        yield _row((name, *cells))


_BLOCKS: Final[Mapping[str, tuple[set[str], Callable[[Report], Iterator[str]]]]] = {
    "machine": ({"parts"}, _machine),
    "peers": ({"peers"}, _peers),
    "engines": ({"core"}, _engines),
    "core": ({"core"}, _core),
    "algorithms": ({"algorithms"}, _algorithms),
    "characters": ({"algorithms"}, _characters),
    "buses": ({"brokers"}, _buses),
    "latency": ({"latency_us"}, _latency),
    "limits": ({"kafka", "peers"}, _limits),
    "envelope": ({"envelope_characters"}, _envelope),
    "starts": ({"starts"}, _starts),
}
"""Name of a table, what the report needs for it, and how it is made."""


def main() -> None:
    """Put the figures of the last report into the documents that show them."""
    report = json.loads(Path("build/reports/bench.json").read_text())
    for name in DOCUMENTS:
        document = Path("docs", name)
        document.write_text(filled(document.read_text(), report))


if __name__ == "__main__":
    main()
