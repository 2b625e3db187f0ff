"""The report in Markdown, as docs/performance.md shows it: what has not been measured is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .core import BATCH, SIZE, SIZES, Case

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Report = dict[str, Any]
_ON_A_BUS: Final = (
    ("kafka", "produce", "tuned", "Kafka, `send`"),
    ("kafka", "produce", "defaults", "Kafka, `send`, aiokafka's defaults"),
    ("kafka", "consume", "tuned", "Kafka, `getmany`"),
    ("kafka", "iterate", "tuned", "Kafka, `async for`"),
    ("nats", "publish to callback", "", "core NATS, `publish` to callback"),
    ("jetstream", "publish", "", "JetStream, `publish`, many in flight"),
    ("jetstream", "pull", "", "JetStream, `fetch` and acks"),
)
_END_TO_END: Final = (("nats", "core NATS"), ("kafka", "Kafka"))


def page(report: Report) -> str:
    """Return the tables."""
    blocks = [list(make(report)) for name, make in _BLOCKS if name in report]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _head(*names: str) -> Iterator[str]:
    yield _row(names)
    yield _row(("---", *("---:" for _ in names[1:])))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _machine(report: Report) -> Iterator[str]:
    machine, versions, brokers = report["machine"], report["versions"], report.get("brokers", {})
    days = sorted({part["when"].partition(" ")[0] for part in report["parts"].values()})
    shown = [machine["python"], *(f"{name} {versions[name]}" for name in ("cryptography", "aiokafka", "nats-py"))]
    on = ", ".join([*shown, *brokers.values()])
    yield f"Medians, measured {' and '.join(days)} on {machine['cores']} cores ({machine['cpu']}) with {on}."
    yield f"Values of {SIZE} bytes where nothing else is said, a key and a header; all nine checks; ids in memory."


def _peers(report: Report) -> Iterator[str]:
    rows = report["peers"]["figures"]
    rates = {(row["name"], row["side"]): f"{row['per_second']:,.0f}" for row in rows}
    yield from _head("one core, messages a second", "sign", "verify")
    for name, how in {row["name"]: row["how"] for row in rows}.items():
        told = f"**{name}**" if name.startswith("Watchword") else f"{name} ({how})"
        yield _row((told, rates.get((name, "sign"), ""), rates[name, "verify"]))


def _core(report: Report) -> Iterator[str]:
    took = {Case(row["what"], row["batch"], row["size"]): row["us"] for row in report["core"]["figures"]}
    sizes = [size for size in SIZES if Case("sha256", size=size) in took]
    yield from _head("one core, us a message", *(f"{size:,} B" for size in sizes))
    for what, batch in (("sign", 1), ("sign", BATCH), ("verify", 1), ("verify", BATCH), ("sha256", 0)):
        label = "one SHA-256" if not batch else f"{what}, " + ("one by one" if batch == 1 else f"batch of {batch}")
        yield _row((label, *(f"{took[Case(what, batch, size)]:.1f}" for size in sizes)))


def _buses(report: Report) -> Iterator[str]:
    yield from _head("on a bus, messages a second", "plain", "Watchword", "share")
    for bus, what, options, label in _ON_A_BUS:
        rates = {
            row["kind"]: row["per_second"]
            for row in report.get(bus, {}).get("figures", ())
            if (row["what"], row.get("options", "")) == (what, options)
        }
        if rates:
            plain, ours = rates["plain"], rates["watchword"]
            yield _row((label, f"{plain:,.0f}", f"{ours:,.0f}", f"{ours / plain:.0%}"))


def _latency(report: Report) -> Iterator[str]:
    yield from _head("end to end, us", "plain p50", "p99", "added p50", "p99", "Ed25519 alone")
    for bus, label in _END_TO_END:
        for pace, found in report["latency_us"].get(bus, {}).items():
            plain = found["plain"]
            cells = (plain["p50"], plain["p99"], found["added_p50"], found["added_p99"], found["ed25519_p50"])
            yield _row((f"{label}, {int(pace):,} a second", *(f"{cell:,.0f}" for cell in cells)))


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


_BLOCKS: Final = (
    ("machine", _machine),
    ("peers", _peers),
    ("core", _core),
    ("brokers", _buses),
    ("latency_us", _latency),
    ("envelope_characters", _envelope),
    ("starts", _starts),
)
