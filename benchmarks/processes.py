"""Processes of our own: each part of the benchmarks runs in fresh ones, so that none finds what another left behind."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import traceback
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Self

from watchword import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.connection import Connection
    from pathlib import Path

_SPAWN: Final = multiprocessing.get_context("spawn")
_END_SECONDS: Final = 5.0

ENGINE: Final = "WATCHWORD_ENGINE"
"""See ``watchword.engine``, which a tree before the engines has not."""


class FailedError(Exception):
    """A measurement did not work; the message is the other process's traceback."""


class Child:
    """A process that runs ``work(connection, *arguments)``; it ends when the ``with`` block does.

    ``engine`` is the one that Watchword is to use there, by default the one that it uses here; ``tree`` is a checkout
    of another Watchword.
    """

    def __init__(
        self, work: Callable[..., None], *arguments: object, engine: str | None = None, tree: Path | None = None
    ) -> None:
        self._connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_main, args=(theirs, work, arguments))
        with _surrounded(engine, tree):
            self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join(_END_SECONDS)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def tell(self, order: object) -> None:
        """Send it something."""
        self._connection.send(order)

    def answer(self) -> Any:
        """Wait for what it sends; FailedError where it failed, ConfigurationError where it says what to write."""
        try:
            answer: object = self._connection.recv()
        except EOFError:
            raise FailedError("a process of the benchmark ended before its time") from None
        if isinstance(answer, ConfigurationError | FailedError):
            raise answer
        return answer


def apart(work: Callable[..., Any], *arguments: Any, engine: str | None = None, **options: Any) -> Any:
    """Return what the function returns when it is called in a process of its own, which may use another engine."""
    with Child(_call, work, arguments, options, engine=engine) as child:
        return child.answer()


def side_by_side(work: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Return what the function returns for each of these arguments, called at once: not for what is timed."""
    with ExitStack() as stack:
        children = [stack.enter_context(Child(_call, work, each, {})) for each in arguments]
        return [child.answer() for child in children]


@contextmanager
def _surrounded(engine: str | None, tree: Path | None) -> Iterator[None]:
    """Change what a process that is spawned takes over from this one: the environment, and where modules are found."""
    before, path = os.environ.get(ENGINE), list(sys.path)
    try:
        if engine is not None:
            os.environ[ENGINE] = engine
        if tree is not None:
            sys.path[:0] = [str(tree / "src"), str(tree / "adapters")]
        yield
    finally:
        sys.path[:] = path
        if before is None:
            os.environ.pop(ENGINE, None)
        else:
            os.environ[ENGINE] = before


async def orders(connection: Connection) -> Any:
    """Wait for an order; None where the other side has gone."""
    try:
        return await asyncio.to_thread(connection.recv)
    except EOFError:
        return None


def _call(
    connection: Connection, work: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    connection.send(work(*arguments, **options))


def _main(connection: Connection, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # our parent process ends us
    # What a client or the audit trail says in passing would end up between the tables.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        work(connection, *arguments)
    except ConfigurationError as error:
        _tell(connection, error)
    except Exception:  # noqa: BLE001 - all of it is reported
        _tell(connection, FailedError(traceback.format_exc()))


def _tell(connection: Connection, error: Exception) -> None:
    with suppress(BrokenPipeError):  # our parent process was interrupted, and no longer reads
        connection.send(error)
