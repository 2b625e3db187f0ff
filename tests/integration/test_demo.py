import json
import subprocess
import sys

from tests.brokers.broker import Broker
from watchword_adapters.demo.play import play
from watchword_adapters.demo.scenario import Result


def test_on_nats_every_attack_that_worked_before_dies() -> None:
    """On an embedded nats-server no attack reaches a handler, and every honest message does; the exit code says so."""
    ran = subprocess.run(
        [sys.executable, "-m", "watchword_adapters.cli", "demo", "--json"], capture_output=True, timeout=60, check=False
    )
    report = json.loads(ran.stdout)
    assert ran.returncode == 0, ran.stderr
    assert {attack["reached_handler"] for attack in report["attacks"]} == {False}
    assert report["honest"]["sent"] == report["honest"]["delivered"] > len(report["attacks"])
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
