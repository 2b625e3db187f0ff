"""The plots, as SVG and PNG: no background and middle tones, so that they read on a light page and on a dark one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from .core import BATCH, SIZE
from .stages import EQUAL, PLAIN, Rates, rates_on
from .stages import OURS as WATCHWORD
from .stages import OURS_IN_PYTHON as IN_PYTHON

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

Report = dict[str, Any]
INK: Final = "#7d8590"
GREY: Final = "#9aa4af"
OURS: Final = "#2f81f7"
LIGHT: Final = "#79aef9"
SECOND: Final = "#db8f1f"
THIRD: Final = "#3fb06a"
FOURTH: Final = "#6b7a8c"
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
    figure, axes = _canvas(10.5, 4.0, 2)
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
        return OURS if "Python engine" not in row["name"] else LIGHT
    return SECOND if "HMAC" in row["how"] else GREY


def _by_batch(report: Report) -> Figure:
    """Draw cost by batch size, with the bare signature as what every message would pay alone."""
    figure, (at,) = _canvas(7, 3.6)
    rows = report["scaling"]["batch"]
    _lines(at, rows, "batch")
    for row in report.get("core", {}).get("figures", ()):
        if row["what"].startswith("ed25519"):
            at.axhline(row["us"], color=GREY, linewidth=1, linestyle=":")
            _beside(at, f"bare {row['what']}", row["us"])
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
            color=GREY,
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


def _engines(report: Report) -> Figure:
    """Draw the engines side by side, and the tree before them, with the rates of the bare signature."""
    engines = report["engines"]
    shown = [name for name in ("native", "python", "before") if name in engines]
    labels = {"native": "native engine", "python": "Python engine", "before": f"tree {report['core']['before']}"}
    colours = {"native": OURS, "python": LIGHT, "before": GREY}
    figure, (at,) = _canvas(8.5, 3.6)
    width = 0.8 / len(shown)
    for place, name in enumerate(shown):
        rows = {x: engines[name][row]["per_second"] / 1000 for x, row in enumerate(_ROWS) if row in engines[name]}
        shifted = [x + width * (place - (len(shown) - 1) / 2) for x in rows]
        bars = at.bar(shifted, list(rows.values()), width=0.95 * width, color=colours[name], label=labels[name])
        at.bar_label(bars, fmt="%.1f", padding=2, color=INK, fontsize=7)
    for row in report["core"]["figures"]:
        if row["what"].startswith("ed25519"):
            at.axhline(row["per_second"] / 1000, color=GREY, linewidth=1, linestyle=":")
            _beside(at, f"bare {row['what']}", row["per_second"] / 1000)
    at.set_xticks(range(len(_ROWS)), list(_ROWS.values()))
    at.tick_params(axis="x", length=0)
    at.set(title=f"what a core does, {SIZE} B values", ylabel="thousand messages/s")
    figure.legend(loc="outside lower center", ncols=len(shown))
    return figure


def _beside(at: Axes, text: str, height: float) -> None:
    """Write to the right of a horizontal line."""
    place: dict[str, Any] = {
        "xycoords": at.get_yaxis_transform(),
        "xytext": (4, 0),
        "textcoords": "offset points",
    }
    at.annotate(text, (1, height), color=INK, fontsize=8, va="center", **place)


def _buses(report: Report) -> Figure:
    """Draw throughput on the buses as a share of the plain client's, with messages per second at the bars."""
    found = {
        (bus, what): rates
        for bus in ("kafka", "nats", "jetstream")
        for (what, options), rates in rates_on(report, bus).items()
        if options != "defaults"
    }
    shown = [key for key in _NAMED if key in found]
    figure, (at,) = _canvas(11, 3.6)
    for place, (kind, (colour, label)) in enumerate(zip(Rates._fields, _KINDS.values(), strict=True)):
        heights = [100 * getattr(found[key], kind) / found[key].plain for key in shown]
        bars = at.bar(
            [x + 0.21 * (place - 1.5) for x in range(len(shown))], heights, width=0.2, color=colour, label=label
        )
        rates = [f"{getattr(found[key], kind) / 1000:,.0f}k" for key in shown]
        at.bar_label(bars, rates, padding=2, color=INK, fontsize=7)
    at.set_xticks(range(len(shown)), [_NAMED[key] for key in shown])
    at.tick_params(axis="x", length=0)
    at.set(title=f"messages/s of {SIZE} B on a bus, engine {report['engine']}", ylabel="% of the plain client's")
    figure.legend(loc="outside lower center", ncols=len(_KINDS))
    return figure


def _latency(report: Report) -> Figure:
    """Draw the quantiles end to end of lone messages, plain beside Watchword."""
    buses = {name: paces for name, paces in report["latency_us"].items() if isinstance(paces, dict)}
    panels = [(bus, pace, found) for bus, paces in buses.items() for pace, found in paces.items()]
    figure, axes = _canvas(2.6 * len(panels), 3.2, len(panels))
    for at, (bus, pace, found) in zip(axes, panels, strict=True):
        names = list(found[PLAIN])
        for place, (kind, (colour, label)) in enumerate(_KINDS.items()):
            quantiles = found.get(kind, found[WATCHWORD])
            heights = [quantiles[name] / 1000 for name in names]
            at.bar([x + 0.21 * (place - 1.5) for x in range(len(names))], heights, width=0.2, color=colour, label=label)
        at.set_xticks(range(len(names)), [name.replace("_", ".") for name in names])
        at.tick_params(axis="x", length=0)
        at.set_title(f"{bus}, {pace} messages/s")
    axes[0].set_ylabel("ms end to end")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(_KINDS))
    return figure


_KINDS: Final = {
    PLAIN: (GREY, "plain client"),
    EQUAL: (FOURTH, "plain, with a header as long"),
    WATCHWORD: (OURS, "Watchword"),
    IN_PYTHON: (LIGHT, "Watchword, Python engine"),
}
_ROWS: Final = {
    "sign_batch64": "sign,\nbatch of 64",
    "verify_batch64": "verify,\nbatch of 64",
    "sign_one": "sign,\neach alone",
    "verify_one": "verify, each\nits signature",
    "verify_lone": "the same,\nlone ones",
    "rebuild": "recall in\na rebuild",
}
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
    "engines": (lambda report: "engines" in report, _engines),
    "batch": (lambda report: "scaling" in report, _by_batch),
    "size": (lambda report: "scaling" in report, _by_size),
    "buses": (lambda report: bool({"kafka", "nats"} & report.keys()), _buses),
    "latency": (lambda report: "latency_us" in report, _latency),
}
