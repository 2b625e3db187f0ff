"""Threads of a signer's own: in turn, bounded, and no burden when they hang, idle or are forked."""

import asyncio
import subprocess
import sys
import threading

import pytest

from watchword import Unavailable
from watchword_adapters.signers import worker
from watchword_adapters.signers.worker import MOST_WAITING, PerProcess, Workers


class Gate:
    """A call that waits until it is let go; ``begun`` counts how often it was made."""

    def __init__(self) -> None:
        self.begun = 0
        self.most = 0
        self._at_once = 0
        self._open = threading.Event()
        self._changed = threading.Condition()

    def __call__(self) -> int:
        """Wait, and return how many were made before."""
        with self._changed:
            self._at_once += 1
            self.begun += 1
            self.most = max(self.most, self._at_once)
            self._changed.notify_all()
        self._open.wait(60)
        with self._changed:
            self._at_once -= 1
        return self.begun

    async def until(self, begun: int) -> None:
        """Wait until that many calls have begun."""

        def wait() -> bool:
            with self._changed:
                return self._changed.wait_for(lambda: self.begun >= begun, 60)

        assert await asyncio.to_thread(wait)

    def open(self) -> None:
        """Let all calls go on."""
        self._open.set()


@pytest.mark.parametrize("count", [1, 3])
async def test_no_more_threads_than_were_asked_for(count: int) -> None:
    """A library that knows no threads is never called by two at once; where several may call, that many do."""
    gate, workers = Gate(), Workers(count)
    calls = [asyncio.create_task(workers.run(gate, timeout=60)) for _ in range(7)]
    await gate.until(count)
    await asyncio.sleep(0)
    assert gate.begun == count
    gate.open()
    assert len(await asyncio.gather(*calls)) == 7
    assert gate.most == count


async def test_a_call_that_nobody_waits_for_is_not_begun() -> None:
    """A caller that gives up while others are served costs the device nothing."""
    gate, never, workers = Gate(), Gate(), Workers()
    first = asyncio.create_task(workers.run(gate, timeout=60))
    await gate.until(1)
    second = asyncio.create_task(workers.run(never, timeout=60))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    gate.open()
    await first
    assert await workers.run(lambda: "next", timeout=60) == "next"
    assert never.begun == 0


async def test_a_device_that_hangs_holds_up_nobody_for_long() -> None:
    """Each call has its time; when too many wait the next fails at once; and when the device is back it continues."""
    gate, workers = Gate(), Workers()
    with pytest.raises(TimeoutError):
        workers.run_now(gate, timeout=0.01)
    waiting = [asyncio.create_task(workers.run(gate, timeout=60)) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match=f"{MOST_WAITING} calls are waiting"):
        await workers.run(gate, timeout=60)
    with pytest.raises(TimeoutError):
        await Workers().run(gate, timeout=0.01)
    gate.open()
    await asyncio.gather(*waiting)
    assert await workers.run(lambda: "later", timeout=60) == "later"


async def test_what_a_call_raises_is_the_callers() -> None:
    """An error in a call is raised to its caller, and the thread continues."""
    workers = Workers()
    with pytest.raises(ZeroDivisionError):
        await workers.run(lambda: 1 // 0, timeout=60)
    assert await workers.run(lambda: 1, timeout=60) == 1


async def test_an_idle_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signer that signs no more keeps no thread, and one that begins again has one."""
    monkeypatch.setattr(worker, "IDLE", 0.0)
    workers, at_work = Workers(), list[threading.Thread]()
    for _ in range(2):
        await workers.run(lambda: at_work.append(threading.current_thread()), timeout=60)
        await asyncio.to_thread(at_work[-1].join, 60)
        assert not at_work[-1].is_alive()
    assert len(set(at_work)) == 2


def _run(program: str) -> str:
    """Run a program, which must end by itself; return what it prints."""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)  # noqa: S603 - ours
    return run.stdout


def test_a_hanging_device_keeps_no_process_from_ending() -> None:
    """A process ends when its program does, whatever a call still waits for."""
    told = _run(
        "import threading\n"
        "from watchword_adapters.signers.worker import Workers\n"
        "try: Workers().run_now(threading.Event().wait, timeout=0.1)\n"
        "except TimeoutError: print('ends')\n".replace("\\\n", "\n")
    )
    assert told == "ends\n"


def test_a_forked_child_begins_anew() -> None:
    """It has no thread of its parent's, and speaks on no connection of its parent's."""
    told = _run(
        "import os\n"
        "from watchword_adapters.signers.worker import PerProcess, Workers\n"
        "workers, own = Workers(), PerProcess(os.getpid, lambda _: None)\n"
        "assert workers.run_now(own.get, timeout=60) == os.getpid() == own.get()\n"
        "child = os.fork()\n"
        "assert workers.run_now(own.get, timeout=60) == os.getpid()\n"
        "if child: print(os.waitpid(child, 0)[1])\n"
    )
    assert told == "0\n"


def test_what_a_process_has_of_its_own_is_closed_when_nobody_holds_it() -> None:
    """A key that was replaced leaves no connection open."""
    closed: list[str] = []
    own = PerProcess(lambda: "connection", closed.append)
    assert own.get() is own.get()
    assert closed == []
    del own
    assert closed == ["connection"]
