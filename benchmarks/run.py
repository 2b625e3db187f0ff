"""The runner: measures the parts that are named, prints tables, writes ``bench.json`` and plots."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from rich.console import Console

from watchword import ConfigurationError

from .brokers import Bus, NoBrokerError, server
from .page import page
from .processes import apart
from .report import Report
from .stages import engine_name
from .tables import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from .brokers import Server

Found: TypeAlias = "dict[str, Any]"


@dataclass(frozen=True, slots=True)
class Options:
    """How to measure: ``small`` proves in seconds that everything works; where brokers are, if they are given."""

    reports: Path
    small: bool
    addresses: Mapping[Bus, str | None]
    say: Callable[[str], None]


def run(names: Sequence[str], options: Options) -> None:
    """Measure these parts; none at all: what takes no longer than minutes, on the brokers that are available."""
    if unknown := [name for name in names if name not in PARTS]:
        raise ConfigurationError(f"{', '.join(unknown)}: no such part; choose from {', '.join(PARTS)}")
    report, console = Report(options.reports), Console()
    options.say(f"engine: {engine_name()}")
    for name in names or DEFAULT:
        options.say(f"measuring {name}")
        begun = time.perf_counter()
        try:
            for found in PARTS[name](options):
                report.add(name, found, small=options.small, seconds=time.perf_counter() - begun)
        except NoBrokerError as error:
            if names:
                raise
            options.say(f"left out: {error}")
            continue
        for table in tables(name, report.content):
            console.print(table)
    if "ratios" in report.content:
        for table in tables("ratios", report.content):
            console.print(table)
    (options.reports / "bench.md").write_text(page(report.content))
    plots = apart(_call, "plots", "draw", report.content, options.reports / "plots")
    console.print(f"written to {report.path}; {plots} plots in {options.reports / 'plots'}")


def _call(module: str, function: str, *arguments: Any, **keywords: Any) -> Any:
    """Import late: the other process alone needs what a part is made of."""
    return getattr(import_module(f".{module}", __package__), function)(*arguments, **keywords)


def _measure(module: str, options: Options, *arguments: Any) -> Found:
    found: Found = apart(_call, module, "measure", *arguments, small=options.small)
    return found


def _alone(module: str) -> Callable[[Options], Iterator[Found]]:
    def part(options: Options) -> Iterator[Found]:
        yield _measure(module, options)

    return part


def _buses(options: Options) -> Iterator[Found]:
    """Measure on Kafka and on NATS; one of them is enough."""
    found = False
    halves: dict[Bus, Callable[[Server, Options], Iterator[Found]]] = {"kafka": _on_kafka, "nats": _on_nats}
    for bus, measure in halves.items():
        with ExitStack() as stack:
            try:
                broker = stack.enter_context(server(bus, options.addresses.get(bus)))
            except NoBrokerError as error:
                options.say(f"left out: {error}")
                continue
            options.say(f"on {broker.told}")
            found = True
            yield {"brokers": {bus: broker.told}}
            yield from measure(broker, options)
    if not found:
        raise NoBrokerError("no bus to measure on")


def _on_kafka(broker: Server, options: Options) -> Iterator[Found]:
    yield _measure("kafka", options, broker.address)
    yield _measure("latency", options, "kafka", broker.address)


def _on_nats(broker: Server, options: Options) -> Iterator[Found]:
    yield _measure("core_nats", options, broker.address)
    yield _measure("jetstream", options, broker.address)
    yield _measure("latency", options, "nats", broker.address)


def _stores(options: Options) -> Iterator[Found]:
    with (
        server("nats", options.addresses.get("nats")) as nats,
        server("redis", options.addresses.get("redis")) as redis,
    ):
        yield _measure("stores", options, (nats.address, nats.told), (redis.address, redis.told))


def _ready(options: Options) -> Iterator[Found]:
    with server("kafka", options.addresses.get("kafka")) as broker:
        yield _measure("ready", options, broker.address, broker.told)


def _starts(options: Options) -> Iterator[Found]:
    with server("nats", options.addresses.get("nats")) as broker:
        yield _measure("starts", options, broker.address, broker.told)


PARTS: Final[Mapping[str, Callable[[Options], Iterator[Found]]]] = {
    "core": _alone("core"),
    "algorithms": _alone("algorithms"),
    "peers": _alone("peers"),
    "buses": _buses,
    "memory": _alone("memory"),
    "stores": _stores,
    "scaling": _alone("scaling"),
    "ready": _ready,
    "starts": _starts,
}
DEFAULT: Final = ("core", "algorithms", "peers", "buses", "memory", "stores", "scaling", "starts")
