"""The report as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

from .stages import rates_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Report = dict[str, Any]
_LEFT: Final = frozenset(
    {"what", "name", "how", "side", "store", "raw is", "on", "bus", "options", "figure", "stage", "reader", "moment"}
)
_PYTHON: Final = "_python"
_MANY: Final = 1000


def tables(part: str, report: Report) -> Iterator[Table]:
    """Show what a part found; ``ratios`` shows how we stand beside others."""
    return _TABLES[part](report)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="left" if name in _LEFT else "right")
    return table


def _rate(figure: Mapping[str, float]) -> tuple[str, str, str]:
    middle = figure["per_second"]
    spread = f"{figure['least'] / middle - 1:+.0%} {figure['greatest'] / middle - 1:+.0%}"
    return f"{middle:,.0f}", f"{figure['us']:.1f}", spread


def _core(report: Report) -> Iterator[Table]:
    core = report["core"]
    table = _table(
        f"the core on one CPU, median of {core['repeats']} (least, greatest)",
        ("what", "batch", "bytes", "per second", "us each", "spread"),
    )
    for row in core["figures"]:
        table.add_row(row["what"], *(f"{row[name]:,}" if row[name] else "" for name in ("batch", "size")), *_rate(row))
    yield table
    for what, added in core["added_over_sha256"].items():
        told = ", ".join(f"batch {batch}: {times:.2f}" for batch, times in added.items())
        table.caption = f"{table.caption or ''}{what} of the largest value, in passes of SHA-256: {told}\n"
    yield _engines(report["engines"], core)


def _engines(engines: Report, core: Report) -> Table:
    """Show one beside the other, and the tree before them where it was measured."""
    shown = [name for name in engines if name != "in_use"]
    names = (f"{core['before'] if name == 'before' else name}, us" for name in shown)
    table = _table(f"engine in use: {engines['in_use']}", ("what", *names, f"{shown[0]}, per second"))
    for what, first in engines[shown[0]].items():
        rows = (engines[name].get(what) for name in shown)
        table.add_row(what, *("" if one is None else f"{one['us']:.1f}" for one in rows), f"{first['per_second']:,.0f}")
    if "before_left_out" in core:
        table.caption = f"{core['before']} is not beside them: {core['before_left_out']}"
    return table


def _algorithms(report: Report) -> Iterator[Table]:
    found = report["algorithms"]
    title = f"signature algorithms, values of {found['value_bytes']} bytes, messages per second of processor time"
    engines = list(found["figures"])
    table = _table(title, ("how", "what", "batch", *engines))
    for rows in zip(*found["figures"].values(), strict=True):
        first = rows[0]
        rates = (f"{row['per_second']:,.0f}" for row in rows)
        table.add_row(first["algorithm"], first["what"], str(first["batch"]), *rates)
    yield table
    table = _table("characters of an envelope", ("how", *next(iter(found["characters"].values()))))
    for algorithm, sizes in found["characters"].items():
        table.add_row(algorithm, *(f"{size:,}" for size in sizes.values()))
    yield table


def _peers(report: Report) -> Iterator[Table]:
    peers = report["peers"]
    title = f"{peers['value_bytes']} bytes, one CPU, median of {peers['repeats']} (least, greatest)"
    table = _table(title, ("name", "how", "side", "per second", "us each", "spread"))
    for row in sorted(peers["figures"], key=lambda row: (row["side"], -row["per_second"])):
        table.add_row(row["name"], row["how"], row["side"], *_rate(row))
    yield table


def _buses(report: Report) -> Iterator[Table]:
    names = ("plain", "as long", "ours", "of plain", "of as long", "in Python")
    table = _table(f"messages per second, engine in use: {report['engine']}", ("what", *names))
    table.caption = "as long: a plain client whose messages have a header as long as the envelope"
    for bus in ("kafka", "nats", "jetstream"):
        for (what, options), (plain, equal, ours, python) in rates_on(report, bus).items():
            rates = (f"{rate:,.0f}" for rate in (plain, equal, ours))
            shares = (f"{ours / plain:.0%}", f"{ours / equal:.0%}")
            table.add_row(f"{bus} {what} {options}".strip(), *rates, *shares, f"{python:,.0f}")
    yield table
    yield _latency(report.get("latency_us", {}))


def _latency(buses: Report) -> Table:
    names = ("plain us", "added us", "to as long", "in Python")
    table = _table("end to end, alone on the bus", ("bus", "quantile", *names))
    for bus, paces in buses.items():
        for pace, found in paces.items() if isinstance(paces, dict) else ():
            ours, python = (found[f"added_p50_over_ed25519{suffix}"] for suffix in ("", _PYTHON))
            told = f"Ed25519 alone takes {found['ed25519_p50']:,.0f} us; p50 adds {ours:.1f} of it, Python {python:.1f}"
            table.caption = f"{table.caption or ''}{bus}, {pace}/s: {told}\n"
            for name, plain in found["plain"].items():
                added = (found[f"added_{name}{suffix}"] for suffix in ("", "_with_equal_header", _PYTHON))
                cells = (f"{took:,.0f}" for took in (plain, *added))
                table.add_row(f"{bus}, {pace}/s", name.replace("_", "."), *cells)
    return table


def _memory(report: Report) -> Iterator[Table]:
    memory = report["memory"]
    table = _table(
        f"{memory['ids']:,} ids of {memory['principals']:,} principals in memory",
        ("logs", "bytes an id", "at most", "resident", "claims/s", "slowest"),
    )
    for row in memory["memory"]:
        held = (f"{row[name]:.1f}" for name in ("bytes_per_id", "peak_bytes_per_id", "rss_bytes_per_id"))
        table.add_row(str(row["logs"]), *held, f"{row['claims_per_second']:,.0f}", f"{row['slowest_claim_ms']:.1f} ms")
    yield table


def _stores(report: Report) -> Iterator[Table]:
    stores = report["stores"]
    table = _table(
        f"claims per second, {stores['in_flight']} in flight, median of {stores['repeats']}",
        ("store", "claims/s", "raw/s", "share", "lone claim", "raw is", "on"),
    )
    for row in stores["stores"]:
        ours, raw = row["claims_per_second"], row["raw_per_second"]
        share = ("", "") if raw is None else (f"{raw:,.0f}", f"{ours / raw:.0%}")
        table.add_row(row["name"], f"{ours:,.0f}", *share, f"{row['lone_claim_us']:,.0f} us", row["raw"], row["server"])
    yield table


def _scaling(report: Report) -> Iterator[Table]:
    scaling = report["scaling"]
    for grows in ("batch", "value_bytes", "principals", "ids_held"):
        rows = scaling[grows]
        sides = [name for name in rows[0] if name != grows]
        names = [f"{side.replace('_', ' ')}, us" for side in sides]
        table = _table(f"a message's cost by {grows.replace('_', ' ')}", (grows.replace("_", " "), *names))
        for row in rows:
            table.add_row(f"{row[grows]:,}", *(f"{row[side]['us']:.1f}" for side in sides))
        yield table


def _ready(report: Report) -> Iterator[Table]:
    ready = report["ready"]
    table = _table(
        f"from the assignment to the first delivery, {ready['rate']:,} messages/s in the partition, {ready['broker']}",
        (
            "window",
            "after",
            "messages read again",
            "seconds",
            "bare consumer",
            "read again per second",
            "per processor second",
            "load",
        ),
    )
    for row in ready["ready"]:
        seconds = f"{row['seconds']:.3f}", f"{row['bare_seconds']:.3f}"
        rates = f"{row['per_second']:,.0f}", f"{row['per_processor_second']:,.0f}"
        told = (f"{row['window']} s", f"{row['what']}, {row['engine']}", f"{row['read_again']:,}")
        table.add_row(*told, *seconds, *rates, f"{row['load']:.1f}")
    yield table


def _starts(report: Report) -> Iterator[Table]:
    starts = report["starts"]
    title = (
        f"starts on NATS, a skew of {starts['max_skew']:g} s, {starts['per_second']:g} messages/s, {starts['broker']}"
    )
    table = _table(title, ("reader", "moment", "lost", "of", "first delivery", "floor announced to end", "promise"))
    for row in starts["starts"]:
        announced = "" if row["announced"] is None else f"{row['announced']:.1f} s"
        counts = (str(row["lost"]), str(row["owed"]), f"{row['seconds']:.2f} s", announced)
        table.add_row(row["reader"], row["moment"], *counts, "held" if row["holds"] else "BROKEN")
    yield table


def _ratios(report: Report) -> Iterator[Table]:
    ratios = report["ratios"]
    table = _table(f"ours over theirs; engine in use: {report['engine']}", ("figure", "ratio", "in Python"))
    for name, ratio in ratios.items():
        if not name.endswith(_PYTHON):
            in_python = ratios.get(f"{name}{_PYTHON}")
            table.add_row(name, _number(ratio), "" if in_python is None else _number(in_python))
    yield table


def _number(ratio: float) -> str:
    return f"{ratio:,.2f}" if abs(ratio) < _MANY else f"{ratio:,.0f}"


_TABLES: Final[Mapping[str, Callable[[Report], Iterator[Table]]]] = {
    "core": _core,
    "algorithms": _algorithms,
    "peers": _peers,
    "buses": _buses,
    "memory": _memory,
    "stores": _stores,
    "scaling": _scaling,
    "ready": _ready,
    "starts": _starts,
    "ratios": _ratios,
}
