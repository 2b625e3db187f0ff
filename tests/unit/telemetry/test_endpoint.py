"""The page of metrics: from ``[telemetry]`` in the settings to what Prometheus reads."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from opentelemetry.metrics import NoOpMeterProvider

from tests.unit.core.world import ALICE, ALICE_KEY, NOW, at_once, nats, press, public
from watchword import ConfigurationError, Watchword
from watchword.jwk import to_jwks
from watchword.settings import Address, Settings
from watchword_adapters.config import load
from watchword_adapters.telemetry import Telemetry
from watchword_adapters.telemetry import endpoint as endpoints
from watchword_adapters.telemetry.endpoint import Endpoint

BASE = 'realm = "prod"\n[[keys]]\nsource = "files"\npaths = ["agents.jwks"]\n[replay]\nstate = ""\n'


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Endpoint]]:
    """Return the endpoints that a test opens, which are closed at its end."""
    made: list[Endpoint] = []

    class Kept(Endpoint):
        def __init__(self, address: Address) -> None:
            super().__init__(address)
            made.append(self)

    monkeypatch.setattr(endpoints, "Endpoint", Kept)
    yield made
    for one in made:
        one.close()


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    """Return a function that writes a settings file with more lines."""
    key = public(ALICE_KEY, ALICE, not_after=NOW + 86_400)
    (tmp_path / "agents.jwks").write_text(to_jwks([key]))

    def write(more: str) -> Path:
        path = tmp_path / "watchword.toml"
        path.write_text(BASE + more)
        return path

    return write


def _page(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def test_prometheus_reads_what_was_judged(endpoint: list[Endpoint], settings: Any) -> None:
    """Promise: one line in the settings, and verdicts, times, and days to the end of keys are on the page."""
    agent = load(settings('[telemetry]\nprometheus = "127.0.0.1:0"\n'), clock=lambda: NOW + 1.0)
    at_once(agent.admit_many([press(nats())]))
    page = _page(endpoint[0].port)
    label = 'messaging_destination_name="tasks.scale",messaging_system="nats"'
    assert re.search(rf"watchword_verdicts_total\{{{label},.*watchword_verdict=\"delivered\"\}} 1\.0", page)
    assert re.search(r'watchword_judge_duration_seconds_bucket\{.*messaging_system="nats".*\} 1\.0', page)
    assert re.search(r'watchword_key_remaining_days\{.*watchword_key_id="alice-1".*\} 0\.99', page)
    assert re.search(r'watchword_outage_age_seconds\{.*watchword_part="keys"\} 0\.0', page)


def test_a_port_that_is_taken_is_one_line(endpoint: list[Endpoint], settings: Any) -> None:
    """Promise: a second process on the same port gets an error that names the line of the settings at fault."""
    load(settings('[telemetry]\nprometheus = "127.0.0.1:0"\n'))
    port = endpoint[0].port
    with pytest.raises(ConfigurationError, match=rf'telemetry: prometheus = "127.0.0.1:{port}": .*a free port'):
        load(settings(f'[telemetry]\nprometheus = "127.0.0.1:{port}"\n'))


def test_a_closed_endpoint_answers_no_more() -> None:
    """Promise: closing frees the port and ends the thread."""
    one = Endpoint(Address("127.0.0.1", 0))
    one.close()
    with pytest.raises(URLError):
        _page(one.port)


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "[::]:9464", "192.0.2.1:9464"])
def test_an_address_that_others_reach_needs_a_word(settings: Any, address: str) -> None:
    """Promise: principals and channels are shown to other machines only where someone wrote so."""
    with pytest.raises(ConfigurationError, match=r'"127\.0\.0\.1:9464", or public = true'):
        load(settings(f'[telemetry]\nprometheus = "{address}"\n'))
    public = Settings.model_validate({"realm": "prod", "telemetry": {"prometheus": address, "public": True}})
    assert str(public.to_endpoint()) == address


@pytest.mark.parametrize("address", ["127.0.0.1:9464", "[::1]:9464", "127.8.8.8:0"])
def test_addresses_of_this_machine(address: str) -> None:
    """Promise: both kinds of IP address can be written, and come out as they were."""
    settings = Settings.model_validate({"realm": "prod", "telemetry": {"prometheus": address}})
    assert str(settings.to_endpoint()) == address


@pytest.mark.parametrize("address", ["9464", "localhost:9464", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", ":1", ""])
def test_what_is_no_address_is_told_by_what_to_write(settings: Any, address: str) -> None:
    """Promise: a name is refused too: what it stands for is not for the settings to say."""
    with pytest.raises(ConfigurationError, match=r'telemetry\.prometheus: .*"127\.0\.0\.1:9464"'):
        load(settings(f'[telemetry]\nprometheus = "{address}"\n'))


def test_without_an_endpoint_metrics_go_to_the_global_provider(settings: Any) -> None:
    """Promise: an application that exports by itself writes the table alone, and no port is opened."""
    agent = load(settings("[telemetry]\n"))
    assert isinstance(agent.audit.meter, Telemetry)


def test_without_the_table_nothing_is_measured(settings: Any) -> None:
    """Promise: what nobody asked for costs nothing, and imports nothing."""
    assert not isinstance(load(settings("")).audit.meter, Telemetry)
    program = f"import sys, watchword; watchword.load({str(settings(''))!r}); print('opentelemetry' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603 - ours
    assert run.stdout == "False\n"


def test_followed_by_two_telemetries_the_last_one_measures() -> None:
    """Promise: an agent has one meter; following it again replaces it."""
    agent = Watchword(realm="prod")
    first, second = Telemetry(NoOpMeterProvider()), Telemetry(NoOpMeterProvider())
    first.follow(agent)
    second.follow(agent)
    assert agent.audit.meter is second
