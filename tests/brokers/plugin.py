"""Pytest plug-in: the brokers as fixtures, what they cannot do as marks, what was tested on as the run's last lines.

`WATCHWORD_TEST_KAFKA=host:port`, `WATCHWORD_TEST_NATS=nats://host:port` and `WATCHWORD_TEST_REDIS=redis://host:port`
name brokers to use instead of new ones. `WATCHWORD_TEST_BROKERS=required` accepts only Apache Kafka, nats-server and
Redis or Valkey, and lets no test be skipped for them.
"""

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

import nats
import pytest
import pytest_asyncio
from aiokafka.admin import NewTopic

from tests.brokers.broker import Broker, Bus, NotHereError
from tests.brokers.shared import Started, shared
from tests.brokers.start import start
from tests.support.broker_tools import admin_of, create_topics

BUSES: tuple[Bus, ...] = ("kafka", "nats", "redis")
TimestampType = Literal["LogAppendTime", "CreateTime"]


@dataclass
class Account:
    """What the last lines tell."""

    brokers: dict[Bus, str] = field(default_factory=dict)
    undetermined: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def add(self, brokers: dict[Bus, str], undetermined: list[str], skipped: list[str]) -> None:
        """Add what another process tells, which ran some of the tests with brokers of its own."""
        for bus, broker in brokers.items():
            if broker not in self.brokers.setdefault(bus, broker):
                self.brokers[bus] += f" and {broker}"
        self.undetermined += [reason for reason in undetermined if reason not in self.undetermined]
        self.skipped += skipped


ACCOUNT = pytest.StashKey[Account]()


class MakeTopic(Protocol):
    """Creates a topic and returns its name."""

    def __call__(
        self, partitions: int = 1, timestamp_type: TimestampType = "LogAppendTime", **configs: str
    ) -> Awaitable[str]:
        """Further settings are given with underscores for dots: `max_message_bytes="1000"`."""
        ...


class MakeStream(Protocol):
    """Creates a JetStream stream over these subjects (by default one wildcard of its own) and returns its name."""

    def __call__(self, *subjects: str, **config: Any) -> Awaitable[str]:
        """Further settings are those of `nats.js.api.StreamConfig`."""
        ...


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks, and open the account of this run."""
    for bus in BUSES:
        config.addinivalue_line("markers", f"needs_{bus}(*abilities): what the broker must be able to do")
    config.stash[ACCOUNT] = Account()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Give the account to the process that tells it, where xdist runs the tests in several."""
    if hasattr(session.config, "workeroutput"):
        account = session.config.stash[ACCOUNT]
        session.config.workeroutput["account"] = [account.brokers, account.undetermined, account.skipped]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take a process's account when it has ended; one that crashed has none."""
    node.config.stash[ACCOUNT].add(*getattr(node, "workeroutput", {}).get("account", ({}, [], [])))


@pytest.fixture(scope="session")
def shared_kafka(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Give the one Kafka broker of this run, also to its other processes."""
    directory = tmp_path_factory.getbasetemp()
    if hasattr(pytestconfig, "workerinput"):
        directory = directory.parent
    with _noted("kafka", pytestconfig) as note, shared(directory, partial(_start, "kafka", tmp_path_factory)) as broker:
        yield note(*broker)


@pytest.fixture
def kafka_broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Give the Kafka broker of this run; but to a test that pauses or restarts it, one of its own."""
    needs = {ability for mark in request.node.iter_markers("needs_kafka") for ability in mark.args}
    if needs.isdisjoint({"pause", "restart"}):
        yield request.getfixturevalue("shared_kafka")
    else:
        yield from _broker("kafka", request.config, tmp_path_factory)


@pytest.fixture(scope="session")
def nats_broker(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Give the nats-server of this run, with JetStream."""
    yield from _broker("nats", pytestconfig, tmp_path_factory)


@pytest.fixture(scope="session")
def redis_broker(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Give the Redis or Valkey of this run."""
    yield from _broker("redis", pytestconfig, tmp_path_factory)


@pytest.fixture
def kafka_bootstrap(kafka_broker: Broker) -> str:
    """Give the broker's "host:port"."""
    return kafka_broker.address


@pytest.fixture(scope="session")
def nats_url(nats_broker: Broker) -> str:
    """Give the server's "nats://host:port"."""
    return nats_broker.address


@pytest.fixture(scope="session")
def unique() -> Callable[[str], str]:
    """Give a maker of names that no other test uses: topics, subjects, groups, durables."""
    return _unique


@pytest_asyncio.fixture
async def make_topic(kafka_bootstrap: str) -> AsyncIterator[MakeTopic]:
    """Give a maker of topics, which are deleted after the test."""
    made: list[str] = []
    async with admin_of(kafka_bootstrap) as admin:

        async def make(partitions: int = 1, timestamp_type: TimestampType = "LogAppendTime", **configs: str) -> str:
            name = _unique("topic")
            settings = {key.replace("_", "."): value for key, value in configs.items()}
            settings["message.timestamp.type"] = timestamp_type
            await create_topics(admin, NewTopic(name, partitions, 1, topic_configs=settings))
            made.append(name)
            return name

        try:
            yield make
        finally:
            if made:
                await admin.delete_topics(made)


@pytest_asyncio.fixture
async def make_stream(nats_url: str) -> AsyncIterator[MakeStream]:
    """Give a maker of streams, which are deleted after the test."""
    made: list[str] = []
    connection = await nats.connect(nats_url)
    jetstream = connection.jetstream()

    async def make(*subjects: str, **config: Any) -> str:
        name = _unique("stream")
        await jetstream.add_stream(name=name, subjects=list(subjects) or [f"{name}.>"], **config)
        made.append(name)
        return name

    try:
        yield make
        for name in made:
            await jetstream.delete_stream(name)
    finally:
        await connection.close()


@pytest.fixture(autouse=True)
def _abilities(request: pytest.FixtureRequest) -> None:
    """Skip what this run's broker cannot do; where brokers are required, that is a failure."""
    for bus in BUSES:
        for mark in request.node.iter_markers(f"needs_{bus}"):
            broker: Broker = request.getfixturevalue(f"{bus}_broker")
            if missing := sorted(broker.lacks & set(mark.args)):
                reason = f"{broker} lacks {', '.join(missing)}"
                if required():
                    pytest.fail(reason, pytrace=False)
                request.config.stash[ACCOUNT].skipped.append(f"{request.node.nodeid} ({', '.join(missing)})")
                pytest.skip(reason)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was tested on."""
    account = config.stash[ACCOUNT]
    if not account.brokers and not account.undetermined:
        return
    for reason in account.undetermined:
        terminalreporter.write_line(f"brokers: {reason.splitlines()[0]}")
    named = ", ".join(f"{bus} = {account.brokers.get(bus, 'not used')}" for bus in BUSES)
    terminalreporter.write_line(f"brokers: {named}; skipped for it: {', '.join(account.skipped) or 'nothing'}")


def _broker(bus: Bus, config: pytest.Config, directories: pytest.TempPathFactory) -> Iterator[Broker]:
    with _noted(bus, config) as note:
        broker = note(*_start(bus, directories))
        try:
            yield broker
        finally:
            broker.stop()


def _start(bus: Bus, directories: pytest.TempPathFactory) -> Started:
    return start(bus, directories.mktemp(bus), required=required())


@contextmanager
def _noted(bus: Bus, config: pytest.Config) -> Iterator[Callable[[Broker, list[str]], Broker]]:
    """Yield a function that records a broker in the account of the run; if no broker is available, the test fails."""
    account = config.stash[ACCOUNT]

    def note(broker: Broker, undetermined: list[str]) -> Broker:
        account.add({bus: str(broker)}, undetermined, [])
        return broker

    try:
        yield note
    except NotHereError as error:
        account.brokers[bus] = "none"
        pytest.fail(str(error), pytrace=False)


def required() -> bool:
    """Return True if no test may be skipped for want of what it runs on."""
    return os.environ.get("WATCHWORD_TEST_BROKERS") == "required"


def _unique(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(6)}"
