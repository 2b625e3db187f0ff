import sys
from pathlib import Path

import pytest

from watchword import ConfigurationError
from watchword_adapters.demo import broker


def test_a_broker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever lacks a wheel is told which extra brings it."""
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"watchword\[demo\]"), broker.nats_server():
        pytest.fail("a broker came from nowhere")


def test_a_broker_that_does_not_start_is_an_error_and_not_a_hang(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A broker that never gets ready is given up, and its process ended."""
    for name in ("nats-server", "noida-db"):
        script = tmp_path / name
        script.write_text(
            f"#!{sys.executable}\nimport signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)\n"
        )
        script.chmod(0o755)
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(broker, "_READY_SECONDS", 0.1)
    monkeypatch.setattr(broker, "_END_SECONDS", 0.1)
    for start in (broker.nats_server, broker.kafka_compatible):
        with pytest.raises(ConfigurationError, match="did not start"), start():
            pytest.fail("a dead broker was called ready")
