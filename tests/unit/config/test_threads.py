"""The checker on threads of its own."""

import asyncio
import gc
import threading
from collections.abc import Callable

import pytest

from tests.unit.core.world import ALICE, World, endings, kafka, nats, press, press_many
from watchword import Rejected
from watchword_adapters.threads import FEW, Threads


def ours() -> list[threading.Thread]:
    """Return the threads that checkers run."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("watchword")]


@pytest.mark.parametrize("processors", [1, 2, 3, 64])
@pytest.mark.parametrize("jobs", [0, 1, FEW, FEW + 1, 7, 200])
async def test_answers_come_in_order(monkeypatch: pytest.MonkeyPatch, processors: int, jobs: int) -> None:
    """Promise: however many jobs and threads there are, each job is done once, and answered in its place."""
    monkeypatch.setattr("watchword_adapters.threads._processors", lambda: processors)
    done: list[int] = []

    def job(number: int) -> Callable[[], bool]:
        def work() -> bool:
            done.append(number)
            return number % 3 == 0

        return work

    check = Threads()
    assert await check([job(number) for number in range(jobs)]) == [number % 3 == 0 for number in range(jobs)]
    assert sorted(done) == list(range(jobs))


async def test_jobs_run_off_the_loop_and_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: jobs that wait for each other are all done, and none on the event loop's thread."""
    monkeypatch.setattr("watchword_adapters.threads._processors", lambda: FEW + 1)
    together = threading.Barrier(FEW + 1, timeout=10)

    def job() -> bool:
        together.wait()
        return threading.current_thread() is not threading.main_thread()

    assert await Threads()([job] * (FEW + 1)) == [True] * (FEW + 1)


async def test_few_jobs_are_done_at_once() -> None:
    """Promise: what takes no longer than the way to a thread is done on the loop's own; more of it is not."""
    check = Threads()

    def here() -> bool:
        return threading.current_thread() is threading.main_thread()

    assert await check([here] * FEW) == [True] * FEW
    assert await check([here] * (FEW + 1)) == [False] * (FEW + 1)


async def test_a_job_that_fails_is_told() -> None:
    """Promise: what a job raises is raised, and the threads go on."""
    check = Threads()

    def failing() -> bool:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        await check([failing, *[bool] * FEW])
    assert await check([lambda: True] * 9) == [True] * 9


async def test_the_threads_end_with_their_owner() -> None:
    """Promise: when nobody holds the checker any more its threads end, without anyone closing it."""
    check = Threads()
    before = {*ours()}
    assert await asyncio.gather(*(check([lambda: True] * (FEW + 1)) for _ in range(3))) == [[True] * (FEW + 1)] * 3
    started = [thread for thread in ours() if thread not in before]
    assert started
    del check
    gc.collect()
    for thread in started:
        thread.join(10)
    assert not any(thread.is_alive() for thread in started)


def test_as_many_threads_as_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: the processors of this process count, or all where the platform does not tell, one at least."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert Threads()._count == 3
    monkeypatch.delattr("os.sched_getaffinity")
    for told, count in ((7, 7), (None, 1)):
        monkeypatch.setattr("os.cpu_count", lambda told=told: told)
        assert Threads()._count == count


async def test_a_bulk_is_verified_on_threads() -> None:
    """Promise: a verifier that is given the checker gives the verdicts that it gives without one."""
    world, check = World(), Threads()
    direct = [press(nats(), c7=bytes([at]) * 16) for at in range(20)]
    tree = press_many([kafka(value=b"%d" % at) for at in range(5)])
    forged = [press(nats(), principal=ALICE, c7=b"x" * 16, q=b"q" * 16)]
    messages = [*direct, *tree, *forged]
    verdicts = await world.verifier.verify_many(messages, check=check)
    assert [isinstance(verdict, Rejected) for verdict in verdicts] == [False] * 25 + [True]
    assert endings(World(), messages) == ["first"] * 25 + ["wrong_request"]
