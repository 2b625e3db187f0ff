from pathlib import Path

import pytest

from watchword import ConfigurationError
from watchword.settings import Settings
from watchword_adapters.cli.connecting import connection

SETTINGS = Settings.model_validate(
    {
        "realm": "prod",
        "nats": {"servers": ["nats://n:1"], "token": "hunter2"},
        "kafka": {"servers": ["k:1"], "mechanism": "PLAIN", "user": "u", "password": "hunter2"},
    }
)


def test_the_settings_say_how_to_connect(tmp_path: Path) -> None:
    """Without --servers a command connects as the settings say; its NATS client does not try to reconnect."""
    nats = connection("nats", SETTINGS, tmp_path, None)
    assert (nats["servers"], nats["token"], nats["allow_reconnect"]) == (["nats://n:1"], "hunter2", False)
    kafka = connection("kafka", SETTINGS, tmp_path, None)
    assert (kafka["bootstrap_servers"], kafka["sasl_plain_password"]) == (["k:1"], "hunter2")


def test_a_login_goes_to_no_other_server(tmp_path: Path) -> None:
    """A server named by hand gets nothing that the settings hold for another one."""
    nats = connection("nats", SETTINGS, tmp_path, "nats://a:1, nats://b:2")
    kafka = connection("kafka", SETTINGS, tmp_path, "a:1")
    assert (nats["servers"], kafka["bootstrap_servers"]) == (["nats://a:1", "nats://b:2"], ["a:1"])
    assert "hunter2" not in f"{nats} {kafka}"


@pytest.mark.parametrize("servers", ["", "a b", "nats://u:p@h", "a,,b"])
def test_addresses_that_are_none(tmp_path: Path, servers: str) -> None:
    """A wrong address is reported as a mistake in --servers."""
    with pytest.raises(ConfigurationError, match=r"^--servers: write "):
        connection("nats", SETTINGS, tmp_path, servers)
