"""The plots, as SVG and PNG: no background and middle tones, so that they read on a light page and on a dark one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from .core import BATCH, SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

Report = dict[str, Any]
INK: Final = "#7d8590"
PLAIN: Final = "#9aa4af"
OURS: Final = "#2f81f7"
SECOND: Final = "#db8f1f"
THIRD: Final = "#3fb06a"
_DPI: Final = 160
_STYLE: Final[Any] = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "font.size": 9,
    "svg.hashsalt": "watchword",
    "svg.fonttype": "none",  # text stays text
    "font.family": ["sans-serif"],
}


def draw(report: Report, directory: Path) -> int:
    """Draw what the report has figures for, and return how many plots that are."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn = 0
    with rc_context(_STYLE):
        for name, (needs, plot) in _PLOTS.items():
            if needs(report):
                figure = plot(report)
                FigureCanvasAgg(figure)
                for kind in ("svg", "png"):
                    metadata = {"Date": None} if kind == "svg" else None
                    figure.savefig(directory / f"{name}.{kind}", dpi=_DPI, transparent=True, metadata=metadata)
                drawn += 1
    return drawn


def _canvas(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, [figure.add_subplot(1, columns, at + 1) for at in range(columns)]


def _peers(report: Report) -> Figure:
    """Draw throughput beside peers: verifying and signing."""
    figure, axes = _canvas(9.5, 3.6, 2)
    for at, side in zip(axes, ("verify", "sign"), strict=True):
        rows = [row for row in report["peers"]["figures"] if row["side"] == side]
        rows = sorted((row for row in rows if "JSON" not in row["name"]), key=lambda row: row["per_second"])
        colours = [_colour(row) for row in rows]
        names = [f"{row['name']}\n{row['how']}" for row in rows]
        bars = at.barh(names, [row["per_second"] / 1000 for row in rows], color=colours, height=0.62)
        at.bar_label(bars, fmt="%.1f", padding=3, color=INK, fontsize=8)
        at.tick_params(axis="y", labelsize=7, length=0)
        at.margins(x=0.14)
        at.set(title=f"{side}, {report['peers']['value_bytes']} B values, one core", xlabel="thousand messages/s")
    return figure


def _colour(row: Mapping[str, Any]) -> str:
    if row["name"].startswith("Watchword"):
        return OURS
    return SECOND if "HMAC" in row["how"] else PLAIN


def _by_batch(report: Report) -> Figure:
    """Draw cost by batch size, with the bare signature as what every message would pay alone."""
    figure, (at,) = _canvas(7, 3.6)
    rows = report["scaling"]["batch"]
    _lines(at, rows, "batch")
    for row in report.get("core", {}).get("figures", ()):
        if row["what"].startswith("ed25519"):
            at.axhline(row["us"], color=PLAIN, linewidth=1, linestyle=":")
            beside: dict[str, Any] = {
                "xycoords": at.get_yaxis_transform(),
                "xytext": (4, 0),
                "textcoords": "offset points",
            }
            at.annotate(f"bare {row['what']}", (1, row["us"]), color=INK, fontsize=8, va="center", **beside)
    at.set_xscale("log", base=2)
    at.set_xticks([row["batch"] for row in rows], [str(row["batch"]) for row in rows])
    at.set(title=f"cost of a message of {SIZE} B by batch size", xlabel="messages that share a signature")
    at.set_ylim(bottom=0)
    return figure


def _by_size(report: Report) -> Figure:
    """Draw cost by value size, with one pass of SHA-256 as what cannot be saved."""
    figure, (at,) = _canvas(6, 3.6)
    rows = report["scaling"]["value_bytes"]
    _lines(at, rows, "value_bytes")
    passes = [row for row in report.get("core", {}).get("figures", ()) if row["what"] == "sha256"]
    if passes:
        at.plot(
            [row["size"] for row in passes],
            [row["us"] for row in passes],
            color=PLAIN,
            linestyle=":",
            label="one SHA-256",
        )
        at.legend()
    at.set_xscale("log", base=2)
    at.set_yscale("log")
    at.xaxis.set_major_formatter(FuncFormatter(lambda size, _: _bytes(size)))
    at.yaxis.set_major_formatter(FuncFormatter(lambda took, _: f"{took:g}"))
    at.set(title=f"cost of a message by value size, batch of {BATCH}", xlabel="value")
    return figure


def _lines(at: Axes, rows: Sequence[Mapping[str, Any]], by: str) -> None:
    for side, colour, label in (
        ("sign", SECOND, "sign"),
        ("verify", OURS, "verify in bulk"),
        ("verify_one", THIRD, "verify one by one"),
    ):
        known = [row for row in rows if side in row]
        at.plot(
            [row[by] for row in known],
            [row[side]["us"] for row in known],
            color=colour,
            marker="o",
            ms=3.5,
            label=label,
        )
    at.set_ylabel("\N{MICRO SIGN}s a message")
    at.legend()


def _bytes(size: float) -> str:
    for unit, limit in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= limit:
            return f"{size / limit:g} {unit}"
    return f"{size:g} B"


def _buses(report: Report) -> Figure:
    """Draw throughput on the buses as a share of the plain client's, with messages per second at the bars."""
    figures = {
        (bus, row["what"], row["kind"]): row["per_second"]
        for bus in ("kafka", "nats", "jetstream")
        for row in report.get(bus, {}).get("figures", ())
        if row.get("options") != "defaults"
    }
    shown = [key for key in _NAMED if (*key, "plain") in figures]
    figure, (at,) = _canvas(8.5, 3.6)
    for shift, kind, colour, label in ((-0.2, "plain", PLAIN, "plain client"), (0.2, "watchword", OURS, "Watchword")):
        heights = [100 * figures[*key, kind] / figures[*key, "plain"] for key in shown]
        bars = at.bar([x + shift for x in range(len(shown))], heights, width=0.38, color=colour, label=label)
        rates = [f"{figures[*key, kind] / 1000:,.1f}k" for key in shown]
        at.bar_label(bars, rates, padding=2, color=INK, fontsize=8)
    at.set_xticks(range(len(shown)), [_NAMED[key] for key in shown])
    at.tick_params(axis="x", length=0)
    at.set(title=f"messages/s of {SIZE} B on a bus", ylabel="% of the plain client's")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _latency(report: Report) -> Figure:
    """Draw the quantiles end to end of lone messages, plain beside Watchword."""
    buses = {name: paces for name, paces in report["latency_us"].items() if isinstance(paces, dict)}
    panels = [(bus, pace, found) for bus, paces in buses.items() for pace, found in paces.items()]
    figure, axes = _canvas(2.6 * len(panels), 3.2, len(panels))
    for at, (bus, pace, found) in zip(axes, panels, strict=True):
        names = list(found["plain"])
        for shift, kind, colour in ((-0.2, "plain", PLAIN), (0.2, "watchword", OURS)):
            heights = [found[kind][name] / 1000 for name in names]
            at.bar([x + shift for x in range(len(names))], heights, width=0.38, color=colour, label=kind)
        at.set_xticks(range(len(names)), [name.replace("_", ".") for name in names])
        at.tick_params(axis="x", length=0)
        at.set_title(f"{bus}, {pace} messages/s")
    axes[0].set_ylabel("ms end to end")
    figure.legend(["plain client", "Watchword"], loc="outside lower center", ncols=2)
    return figure


_NAMED: Final = {
    ("kafka", "produce"): "Kafka\nproduce",
    ("kafka", "consume"): "Kafka\ngetmany",
    ("kafka", "iterate"): "Kafka\nasync for",
    ("nats", "publish to callback"): "NATS\npublish to callback",
    ("jetstream", "publish"): "JetStream\npublish",
    ("jetstream", "pull"): "JetStream\nfetch",
}

_PLOTS: Final[Mapping[str, tuple[Callable[[Report], bool], Callable[[Report], Figure]]]] = {
    "peers": (lambda report: "peers" in report, _peers),
    "batch": (lambda report: "scaling" in report, _by_batch),
    "size": (lambda report: "scaling" in report, _by_size),
    "buses": (lambda report: bool({"kafka", "nats"} & report.keys()), _buses),
    "latency": (lambda report: "latency_us" in report, _latency),
}
