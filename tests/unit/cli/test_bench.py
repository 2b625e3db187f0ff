import sys
from pathlib import Path

import pytest

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
    """An installed Watchword has none, and does not fail with a stack trace."""
    monkeypatch.setattr(bench, "__file__", "/somewhere/adapters/watchword_adapters/cli/bench.py")
    assert "clone it, and run make bench" in _fails(capsys)


def test_a_checkout_is_found_from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an editable install the runner is that of the checkout, also from another directory."""
    root = str(Path(bench.__file__).parents[3])
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in {root, ""}])
    assert bench._benchmarks().__name__ == "benchmarks.run"
    assert sys.path[0] == root


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("--part", "nix"), "nix: no such part; choose from core, algorithms, peers, buses"),
        (("--part", "ready", "--kafka", "127.0.0.1:1"), "no kafka at '127.0.0.1:1': write localhost:9092"),
        (
            ("--part", "buses", "--nats", "somewhere", "--kafka", "nowhere"),
            "no kafka at 'nowhere': write localhost:9092",
        ),
    ],
)
def test_wrong_arguments_are_one_clear_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], advice: str
) -> None:
    """A user who names a part or a broker that does not exist gets an error that says what to write."""
    assert advice in _fails(capsys, *arguments, "--small", "-o", str(tmp_path))
