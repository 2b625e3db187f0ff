import json
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest

from tests.brokers.broker import Broker
from tests.support.patience import PATIENCE
from watchword import ConfigurationError
from watchword_adapters.brokers import nats_server
from watchword_adapters.demo.play import play
from watchword_adapters.demo.scenario import Director, Result

COMMAND = [sys.executable, "-m", "watchword_adapters.cli", "demo"]


def _demo(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *options], capture_output=True, timeout=PATIENCE, check=False, text=True)  # noqa: S603 - our own command


def test_on_nats_every_attack_that_worked_before_dies() -> None:
    """On an embedded nats-server and default settings no attack reaches a handler, and everything honest does.

    Every message and every request counts, the first after `watchword init` and the first after a restart among them.
    """
    ran = _demo("--json")
    report = json.loads(ran.stdout)
    assert ran.returncode == 0, ran.stderr
    assert {attack["reached_handler"] for attack in report["attacks"]} == {False}
    assert report["honest"]["sent"] == report["honest"]["delivered"] > len(report["attacks"])
    assert report["requests"] == {"asked": 3, "answered": 3}
    assert report["instances_started"] == report["instances_wanted"]
    assert report["without"]["instances_started"] > 5000


def test_on_kafka_every_attack_that_worked_before_dies(kafka_broker: Broker) -> None:
    """On a Kafka broker that is given no attack reaches a handler either, and what it would have done is shown."""
    result = play("kafka", address=kafka_broker.address)
    assert result.holds
    assert not [outcome for outcome in result.guarded.outcomes if outcome.reached_handler or not outcome.reason]
    assert len({outcome.reason for outcome in result.guarded.outcomes}) >= 8
    assert result.without.instances > 5000


def test_on_the_embedded_kafka_the_demo_works_too() -> None:
    """Without any broker at hand, the Kafka demo brings its own."""
    assert play("kafka").holds


def test_the_demo_tells_when_it_fails(nats_url: str) -> None:
    """An act whose attacks reached the handler is not called a success: the verdict is computed, not written down."""
    result = play("nats", address=nats_url)
    assert result.holds
    unguarded = Result(result.bus, result.broker, result.without, guarded=result.without)
    assert not unguarded.holds
    lost = result.guarded
    lost.delivered -= 1
    assert not Result(result.bus, result.broker, result.without, lost).holds
    lost.delivered += 1
    lost.answered -= 1
    assert not Result(result.bus, result.broker, result.without, lost).holds


def test_the_demo_counts_what_a_start_without_init_loses(nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins as a newcomer does: where `watchword init` makes no journal, the first request goes without answer."""
    monkeypatch.setattr("watchword_adapters.cli.init._make_journal", lambda _settings, _path, report: report.said)
    result = play("nats", address=nats_url)
    assert not result.holds
    assert result.guarded.answered < result.guarded.asked


def test_the_table_shows_both_acts(nats_url: str) -> None:
    """A person sees each attack with what it did before and why it is dropped now, and the sums."""
    ran = _demo("--servers", nats_url)
    assert ran.returncode == 0, ran.stderr
    assert "HMAC, public key as the secret" in ran.stdout
    assert all(word in ran.stdout for word in ("1,000 instances", "client killed", "reached handler", "bad_signature"))
    assert "0 lost" in " ".join(ran.stdout.split())


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (("--servers", "nats://127.0.0.1:1"), "write nats://HOST:PORT"),
        (("--bus", "kafka", "--servers", "127.0.0.1:1"), "write HOST:PORT"),
    ],
)
def test_a_wrong_address_is_one_clear_line(options: tuple[str, ...], advice: str) -> None:
    """A user who names a broker that does not exist gets an error that says what to write, and no stack trace."""
    ran = _demo(*options)
    assert ran.returncode == 2
    assert advice in ran.stderr.splitlines()[-1]
    assert "Traceback" not in ran.stderr


def test_a_broker_that_goes_away_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the broker goes away in the middle of an act, the demo raises its own error, which names the broker."""
    with ExitStack() as stack:
        url = stack.enter_context(nats_server())

        async def go_away(*_: object) -> None:
            stack.close()

        monkeypatch.setattr(Director, "_interfere", go_away)
        with pytest.raises(ConfigurationError, match=f"the broker at {url} did not last to the end"):
            play("nats", address=url)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_ended_ends_its_broker(how: signal.Signals) -> None:
    """Control-C and a supervisor's SIGTERM leave no server behind, and say nothing."""
    with (
        subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,  # noqa: S603 - our own command
        ExitStack() as stack,
    ):
        stack.callback(process.kill)  # leaving the process waits for its end
        assert process.stderr is not None
        port = int(process.stderr.readline().rpartition(":")[2])
        process.stderr.readline()
        with socket.create_connection(("127.0.0.1", port), timeout=30) as spy, spy.makefile("rb") as lines:
            spy.sendall(b"CONNECT {}\r\nSUB cloud.> 1\r\n")
            while not lines.readline().startswith(b"MSG"):  # until an act is under way
                pass
        process.send_signal(how)
        out, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, errors) == (130, "", "")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)
