"""Processes in which runs wait for their turns: one for each engine, for a tree, or for a client of some kind."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import watchword

from .figures import tidy
from .processes import Child, FailedError, orders

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from contextlib import AbstractAsyncContextManager
    from multiprocessing.connection import Connection

    from .figures import AsyncRun, Figure, Run

PYTHON: Final = "python"
PLAIN: Final = "plain"
EQUAL: Final = "equal_header"
"""A plain client whose messages have a header of random characters, as long as the envelope."""

OURS: Final = "watchword"
OURS_IN_PYTHON: Final = "watchword_python"
"""Watchword with the Python engine, where another one is in use."""


def engine_name() -> str:
    """Return the engine that is in use here, as operators see it."""
    from watchword import engine  # noqa: PLC0415 - a tree before the engines, which is measured too, has none

    return engine.name()


def engine_in_use() -> str:
    """Return the engine that is in use here, without its version."""
    return engine_name().partition(" ")[0]


def engines() -> tuple[str, ...]:
    """Name what can be measured here: the engine that is in use, and the Python engine in any case."""
    return tuple(dict.fromkeys((engine_in_use(), PYTHON)))


def kinds() -> dict[str, str]:
    """Name the kinds of clients that are measured on a bus, and the engine of each."""
    own, *others = engines()
    return {PLAIN: own, EQUAL: own, OURS: own} | dict.fromkeys([OURS_IN_PYTHON] if others else [], PYTHON)


def is_ours(kind: str) -> bool:
    """Return True if a client of this kind signs and verifies."""
    return kind not in {PLAIN, EQUAL}


def ratios(name: str, figures: Mapping[str, Figure]) -> dict[str, float]:
    """Compare what was measured for each kind on a bus: beside the plain client, and beside that with a header as long.

    With the suffix ``_python`` stands the Python engine.
    """
    found = {}
    for suffix, ours in (("", figures[OURS]), ("_python", figures.get(OURS_IN_PYTHON, figures[OURS]))):
        found[f"{name}{suffix}"] = ours.over(figures[PLAIN])
        found[f"{name}_with_equal_header{suffix}"] = ours.over(figures[EQUAL])
    return found


class Rates(NamedTuple):
    """Messages a second on a bus; ``python`` is ours with the Python engine, whichever is in use."""

    plain: float
    equal: float
    ours: float
    python: float


def rates_on(report: Mapping[str, Any], bus: str) -> dict[tuple[str, str], Rates]:
    """Return what a report has of a bus, by what was done and with which options."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in report.get(bus, {}).get("figures", ()):
        found.setdefault((row["what"], row.get("options", "")), {})[row["kind"]] = row["per_second"]
    return {
        key: Rates(rates[PLAIN], rates[EQUAL], rates[OURS], rates.get(OURS_IN_PYTHON, rates[OURS]))
        for key, rates in found.items()
    }


class Stage:
    """A process that has runs ready, and makes one when it is asked to.

    ``make(*arguments)`` is called there: it returns the runs, or a context in which an event loop has them. ``engine``
    and ``tree`` are as for ``Child``.
    """

    def __init__(
        self, make: Callable[..., Any], *arguments: object, engine: str | None = None, tree: Path | None = None
    ) -> None:
        self._child = Child(_serve, make, arguments, tree, engine=engine, tree=tree)
        self._names: list[Hashable] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._child.__exit__(*exc)

    def runs(self) -> dict[Any, Run]:
        """Wait until the runs are ready, and return them: each lets the process make its own, and waits for it."""
        if self._names is None:
            self._names = self._child.answer()
        return {name: partial(self._run, name) for name in self._names}

    def _run(self, name: Hashable) -> float:
        self._child.tell(name)
        found: float = self._child.answer()
        return found


def ready(stages: Mapping[str, Stage]) -> dict[tuple[str, Any], Run]:
    """Return the runs of all stages by (stage, name), with those of one name beside one another."""
    runs = {at: stage.runs() for at, stage in stages.items()}
    names = dict.fromkeys(name for found in runs.values() for name in found)
    return {(at, name): found[name] for name in names for at, found in runs.items() if name in found}


def _serve(connection: Connection, make: Callable[..., Any], arguments: tuple[Any, ...], tree: Path | None) -> None:
    if tree is not None and not Path(watchword.__file__).is_relative_to(tree):
        raise FailedError(f"{watchword.__file__} is not in {tree}")
    made = make(*arguments)
    if hasattr(made, "__aenter__"):
        asyncio.run(_serve_async(connection, made))
        return
    connection.send(list(made))
    while True:
        try:
            name = connection.recv()
        except EOFError:
            return
        connection.send(made[name]())


async def _serve_async(connection: Connection, made: AbstractAsyncContextManager[Mapping[Any, AsyncRun]]) -> None:
    async with made as runs:
        connection.send(list(runs))
        while (name := await orders(connection)) is not None:
            tidy()
            connection.send(await runs[name]())
