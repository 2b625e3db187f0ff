"""One Kafka for all processes of a run: who starts it, who stops it, and when."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.brokers.broker import Broker
from tests.brokers.shared import Started, shared
from tests.support.patience import PATIENCE


class Hosts:
    """Brokers that were started, and those that were stopped again."""

    def __init__(self) -> None:
        self.started = 0
        self.stopped: list[str] = []

    def start(self) -> Started:
        """Start another one."""
        self.started += 1
        address = f"127.0.0.1:{self.started}"
        broker = Broker(bus="kafka", kind="process", address=address, version="Kafka", lacks=frozenset({"users"}))
        broker.stop = lambda: self.stopped.append(address)  # type: ignore[method-assign]  # nothing runs
        return broker, ["a better way is not here"]


def none_started() -> Started:
    """Stand where a broker is known."""
    raise AssertionError("a second broker was started")


def test_a_broker_is_started_once_and_stopped_by_whom_started_it(tmp_path: Path) -> None:
    """Later callers get the same broker, marked as one that they may neither pause nor restart."""
    hosts = Hosts()
    with shared(tmp_path, hosts.start) as (first, passed_over):
        with shared(tmp_path, none_started) as (second, passed_over_too):
            assert (second.address, second.kind, str(second)) == (first.address, "process", str(first))
            assert second.lacks == {"users", "pause", "restart"}
            assert first.lacks == {"users"}
            assert passed_over == passed_over_too
        assert not hosts.stopped
    assert hosts.stopped == [first.address]
    with shared(tmp_path, hosts.start) as (third, _):
        assert third.address != first.address


def test_who_started_it_waits_for_the_others(tmp_path: Path) -> None:
    """A process whose tests are over does not take the broker from the others."""
    hosts, begun, over = Hosts(), threading.Event(), threading.Event()

    def start_and_end() -> None:
        with shared(tmp_path, hosts.start):
            begun.set()
            assert over.wait(PATIENCE)

    starter = threading.Thread(target=start_and_end)
    starter.start()
    assert begun.wait(PATIENCE)
    with shared(tmp_path, none_started):
        over.set()
        starter.join(0.5)
        assert not hosts.stopped
        with shared(tmp_path, none_started):
            pass
    starter.join(PATIENCE)
    assert len(hosts.stopped) == 1


USER = """
import sys, time
from pathlib import Path
from tests.brokers.shared import shared
with shared(Path(sys.argv[1]), None):
    print("here", flush=True)
    time.sleep(600)
"""


def test_a_process_that_was_killed_is_not_waited_for(tmp_path: Path) -> None:
    """Its operating system says that it uses the broker no more."""
    hosts = Hosts()
    with shared(tmp_path, hosts.start):
        user = subprocess.Popen([sys.executable, "-c", USER, str(tmp_path)], stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
        with user:
            assert user.stdout is not None
            assert user.stdout.readline() == "here\n"
            user.send_signal(signal.SIGKILL)
    assert len(hosts.stopped) == 1


def test_a_broker_that_does_not_start_is_nobodys(tmp_path: Path) -> None:
    """The next process tries by itself."""

    def fails() -> Started:
        raise OSError("no broker")

    with pytest.raises(OSError, match="no broker"), shared(tmp_path, fails):
        pytest.fail("there is none")
    hosts = Hosts()
    with shared(tmp_path, hosts.start):
        pass
    assert len(hosts.stopped) == 1
