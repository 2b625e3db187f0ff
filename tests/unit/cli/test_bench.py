import sys
from pathlib import Path

import pytest

from benchmarks import brokers
from watchword_adapters.cli import bench, main


def _fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["bench", *arguments]) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_without_the_extra_one_line_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The benchmarks need what Watchword itself does not, and say so at once."""
    monkeypatch.setattr(bench, "find_spec", lambda name: None if name == "celery" else name)
    assert _fails(capsys).endswith("an extra (celery missing): pip install 'watchword[bench]'")


def test_without_the_benchmarks_one_line_says_so_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters that were put somewhere without them do not fail with a stack trace."""
    monkeypatch.setattr(bench, "find_spec", lambda name: None if "benchmarks" in name else name)
    monkeypatch.setattr(bench, "__file__", "/somewhere/adapters/watchword_adapters/cli/bench.py")
    assert "benchmarks are not installed" in _fails(capsys)


def test_an_installed_runner_comes_before_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed beside the adapters is what runs, whatever directory one stands in."""
    asked: list[str] = []
    monkeypatch.setattr(bench, "find_spec", lambda name: name)
    monkeypatch.setattr(bench, "import_module", asked.append)
    bench._benchmarks()
    assert asked == ["watchword_adapters.benchmarks.run"]


def test_a_checkout_is_found_from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an editable install the runner is that of the checkout, also from another directory."""
    root = str(Path(bench.__file__).parents[3])
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in {root, ""}])
    assert bench._benchmarks().__name__ == "benchmarks.run"
    assert sys.path[0] == root


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("nix",), "nix: no such part; choose from core, peers, buses"),
        (("ready", "--kafka", "127.0.0.1:1"), "no kafka at '127.0.0.1:1': write localhost:9092"),
        (("buses", "--nats", "somewhere", "--kafka", "nowhere"), "no kafka at 'nowhere': write localhost:9092"),
    ],
)
def test_wrong_arguments_are_one_clear_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], advice: str
) -> None:
    """Whoever names a part or a broker that is not there is told what to write."""
    assert advice in _fails(capsys, *arguments, "--small", "-o", str(tmp_path))


def test_installed_without_a_broker_the_error_names_the_options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Outside a checkout nothing starts a broker: the line says how to name one, by option or environment."""
    monkeypatch.setattr(brokers, "__package__", "watchword_adapters.benchmarks")
    for bus in ("KAFKA", "NATS"):
        monkeypatch.delenv(f"WATCHWORD_BENCH_{bus}", raising=False)
    assert main(["bench", "buses", "--small", "-o", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "--kafka localhost:9092, or in WATCHWORD_BENCH_KAFKA" in told
    assert told.splitlines()[-1] == "watchword: no bus to measure on"
