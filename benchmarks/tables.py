"""The report as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Report = dict[str, Any]
_LEFT: Final = frozenset(
    {"what", "name", "how", "side", "store", "raw is", "on", "bus", "options", "figure", "stage", "reader", "moment"}
)


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


def _peers(report: Report) -> Iterator[Table]:
    peers = report["peers"]
    title = f"{peers['value_bytes']} bytes, one CPU, median of {peers['repeats']} (least, greatest)"
    table = _table(title, ("name", "how", "side", "per second", "us each", "spread"))
    for row in sorted(peers["figures"], key=lambda row: (row["side"], -row["per_second"])):
        table.add_row(row["name"], row["how"], row["side"], *_rate(row))
    yield table


def _buses(report: Report) -> Iterator[Table]:
    table = _table("messages per second, plain and with Watchword", ("bus", "what", "plain", "Watchword", "share"))
    for bus in ("kafka", "nats", "jetstream"):
        figures = {
            (row["what"], row.get("options", ""), row["kind"]): row for row in report.get(bus, {}).get("figures", ())
        }
        for what, options in dict.fromkeys(key[:2] for key in figures):
            plain, ours = (figures[what, options, kind]["per_second"] for kind in ("plain", "watchword"))
            table.add_row(bus, f"{what} {options}".strip(), f"{plain:,.0f}", f"{ours:,.0f}", f"{ours / plain:.0%}")
    yield table
    columns = ("bus", "per second", "quantile", "plain us", "Watchword us", "added us")
    table = _table("end to end, alone on the bus", columns)
    for bus, paces in report.get("latency_us", {}).items():
        if isinstance(paces, dict):
            for pace, found in paces.items():
                alone = f"{bus}, {pace} a second: Ed25519 alone takes {found['ed25519_p50']:,.0f} us of that"
                table.caption = f"{table.caption or ''}{alone}\n"
                for name, plain in found["plain"].items():
                    added = found[f"added_{name}"]
                    cells = (f"{took:,.0f}" for took in (plain, found["watchword"][name], added))
                    table.add_row(bus, pace, name.replace("_", "."), *cells)
    yield table


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
        table.add_row(
            f"{row['window']} s", row["what"], f"{row['read_again']:,}", *seconds, *rates, f"{row['load']:.1f}"
        )
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
    table = _table("ours over theirs, messages per second", ("figure", "ratio"))
    for name, ratio in report["ratios"].items():
        table.add_row(name, f"{ratio:.2f}")
    yield table


_TABLES: Final[Mapping[str, Callable[[Report], Iterator[Table]]]] = {
    "core": _core,
    "peers": _peers,
    "buses": _buses,
    "memory": _memory,
    "stores": _stores,
    "scaling": _scaling,
    "ready": _ready,
    "starts": _starts,
    "ratios": _ratios,
}
