import asyncio
import signal
import threading

import pytest

from tests.support.patience import PATIENCE
from watchword_adapters.demo.ending import run

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(params=BOTH)
def number(request: pytest.FixtureRequest) -> signal.Signals:
    """Give each signal that ends a demo."""
    return signal.Signals(request.param)


def test_what_is_let_run_to_its_end_gives_its_result() -> None:
    """Promise: without a signal it is ``asyncio.run``, and the signals are whose they were before."""

    async def main() -> str:
        await asyncio.sleep(0)
        return "done"

    before = [signal.getsignal(number) for number in BOTH]
    assert run(main()) == "done"
    assert [signal.getsignal(number) for number in BOTH] == before


def test_a_signal_ends_it_in_good_order(number: signal.Signals) -> None:
    """Promise: what is under way is cancelled, and its ``finally`` runs in a loop that works."""
    ended = []

    async def main() -> None:
        try:
            signal.raise_signal(number)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(number)

    with pytest.raises(KeyboardInterrupt):
        run(main())
    assert ended == [number]


def test_no_task_loses_its_step(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a signal between a task and its next step takes nothing from it; its end would be waited for in vain."""
    ended = []
    run_handle, armed = asyncio.Handle._run, False  # what the loop has just taken from its queue

    def run_signalled(handle: asyncio.Handle) -> None:
        nonlocal armed
        if armed:
            armed = False
            signal.raise_signal(number)
        run_handle(handle)

    monkeypatch.setattr(asyncio.Handle, "_run", run_signalled)

    async def other(woken: asyncio.Event) -> None:
        try:
            await woken.wait()
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    async def main() -> None:
        nonlocal armed
        woken = asyncio.Event()
        task = asyncio.create_task(other(woken))
        await asyncio.sleep(0)
        woken.set()  # its next step is the next thing that the loop does
        armed = True
        await task

    with pytest.raises(KeyboardInterrupt):
        run(main())
    assert ended == [number]


def test_a_cancellation_that_is_swallowed_is_not_the_last(number: signal.Signals) -> None:
    """Promise: a client that swallows a cancellation does not keep the demo alive."""
    swallowed = []

    async def main() -> None:
        signal.raise_signal(number)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed.append(number)
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.Event().wait()
        except TimeoutError:
            swallowed.clear()

    with pytest.raises(KeyboardInterrupt):
        run(main())
    assert swallowed == [number]


def test_an_error_on_the_way_out_hides_no_signal(number: signal.Signals) -> None:
    """Promise: what fails because it was cancelled is an interruption, and no fault of the broker's."""

    async def main() -> None:
        try:
            signal.raise_signal(number)
            await asyncio.Event().wait()
        finally:
            raise ConnectionError

    with pytest.raises(KeyboardInterrupt):
        run(main())


def test_what_ends_in_spite_of_a_signal_counts_as_interrupted(number: signal.Signals) -> None:
    """Promise: a signal that comes with the last step is heard all the same."""

    async def main() -> None:
        signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt):
        run(main())


def test_a_cancellation_of_its_own_is_none_of_a_signals() -> None:
    """Promise: without a signal, a cancellation and an error are what they were."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def failed() -> None:
        raise ValueError("bad")

    with pytest.raises(asyncio.CancelledError):
        run(cancelled())
    with pytest.raises(ValueError, match="bad"):
        run(failed())


def test_in_a_thread_it_leaves_signals_alone() -> None:
    """Promise: where Python allows no handler, the demo plays on without."""
    results = []

    async def main() -> int:
        await asyncio.sleep(0)
        return 1

    thread = threading.Thread(target=lambda: results.append(run(main())))
    thread.start()
    thread.join()
    assert results == [1]
