import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import watchword
import watchword_adapters as adapters
from benchmarks import before
from benchmarks.figures import AsyncRun, Figure, Run, take_turns
from benchmarks.page import _BLOCKS, DOCUMENTS, blocks, filled
from benchmarks.processes import ENGINE, FailedError, apart
from benchmarks.report import FORMAT, Report
from benchmarks.stages import Stage, engine_name, engines, kinds, ratios, ready
from watchword import ConfigurationError, engine


def _found(ratio: float) -> dict[str, Any]:
    return {"core": {"figures": [ratio]}, "ratios": {"one": ratio}}


def test_a_part_that_is_measured_again_leaves_the_others(tmp_path: Path) -> None:
    """A run of some parts replaces their figures in the report that is there, and keeps those of the others."""
    Report(tmp_path).add("core", _found(1.0), small=False, seconds=1.0)
    Report(tmp_path).add("memory", {"memory": {"ids": 7}}, small=False, seconds=1.0)
    Report(tmp_path).add("peers", {"peers": {}, "ratios": {"other": 2.0}}, small=True, seconds=1.0)
    Report(tmp_path).add("core", _found(3.0), small=False, seconds=1.0)
    report = json.loads((tmp_path / "bench.json").read_text())
    assert report["core"] == {"figures": [3.0]}
    assert report["ratios"] == {"one": 3.0, "other": 2.0}
    assert report["memory"] == {"ids": 7}
    assert {name: part["small"] for name, part in report["parts"].items()} == {
        "core": False,
        "memory": False,
        "peers": True,
    }
    assert json.loads((tmp_path / "memory.json").read_text())["ids"] == 7


def test_a_report_that_cannot_be_read_is_begun_anew(tmp_path: Path) -> None:
    """A run that was cut off while it wrote does not spoil the next one."""
    (tmp_path / "bench.json").write_text('{"core":')
    Report(tmp_path).add("core", _found(1.0), small=False, seconds=1.0)
    assert json.loads((tmp_path / "bench.json").read_text())["ratios"] == {"one": 1.0}


def test_a_report_of_another_shape_is_begun_anew(tmp_path: Path) -> None:
    """What an earlier version wrote is not shown as if this one had."""
    (tmp_path / "bench.json").write_text('{"kafka": {"figures": []}, "ratios": {"one": 9.0}}')
    Report(tmp_path).add("core", _found(1.0), small=False, seconds=1.0)
    report = json.loads((tmp_path / "bench.json").read_text())
    assert (report["format"], report["ratios"], "kafka" in report) == (FORMAT, {"one": 1.0}, False)


def test_a_ratio_that_cannot_be_found_again_is_gone(tmp_path: Path) -> None:
    """What was beside a tree that is not there any more does not stay in the report as if it were."""
    Report(tmp_path).add("core", {"ratios": {"one": 1.0, "python_over_before": 1.1}}, small=False, seconds=1.0)
    Report(tmp_path).add("core", {"ratios": {"one": 2.0, "python_over_before": None}}, small=False, seconds=1.0)
    assert json.loads((tmp_path / "bench.json").read_text())["ratios"] == {"one": 2.0}


def test_repetitions_take_turns_after_a_round_that_does_not_count() -> None:
    """A slow moment of the machine hits all alike, and the first round, which warms up, none."""
    played: list[str] = []
    rates = {"a": iter([9.0, 1.0, 2.0, 6.0]), "b": iter([9.0, 4.0, 4.0, 4.0])}

    def play(name: str) -> float:
        played.append(name)
        return next(rates[name])

    figures = take_turns({name: lambda name=name: play(name) for name in rates}, 3)  # type: ignore[misc]
    assert played == ["a", "b"] * 4
    assert figures == {"a": Figure(2.0, 1.0, 6.0), "b": Figure(4.0, 4.0, 4.0)}
    assert figures["a"].over(figures["b"]) == 0.5


def _double(number: int, *, say: str = "") -> int:
    if say:
        raise ConfigurationError(say)
    return number // 0 if number < 0 else 2 * number


def test_work_apart_comes_back_or_says_what_failed() -> None:
    """What another process measured arrives; its advice too, and of a fault the whole trace."""
    assert apart(_double, 21) == 42
    with pytest.raises(ConfigurationError, match="write another address"):
        apart(_double, 1, say="write another address")
    with pytest.raises(FailedError, match="ZeroDivisionError"):
        apart(_double, -1)


def _sync_runs(answer: float) -> dict[str, Run]:
    return {"one": lambda: answer, "engine": lambda: float(engine_name() == "python"), "own": lambda: 7.0}


@asynccontextmanager
async def _async_runs(answer: float) -> AsyncIterator[dict[str, AsyncRun]]:
    loop = asyncio.get_running_loop()

    async def run() -> float:
        return answer if asyncio.get_running_loop() is loop else 0.0

    yield {"one": run}


def test_stages_let_each_process_make_its_own_runs() -> None:
    """What is compared runs in processes of its own, in turns by name, on the event loop where it was made."""
    with Stage(_sync_runs, 1.5) as one, Stage(_async_runs, 2.5) as other:
        runs = ready({"a": one, "b": other})
        assert list(runs) == [("a", "one"), ("b", "one"), ("a", "engine"), ("a", "own")]
        assert [runs[at, "one"]() for at in ("a", "b", "a", "b")] == [1.5, 2.5, 1.5, 2.5]


def test_a_process_uses_the_engine_that_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python engine is measured beside another that is in use here, which stays in use."""
    monkeypatch.delenv(ENGINE, raising=False)
    with Stage(_sync_runs, 0.0, engine="python") as stage:
        assert stage.runs()["engine"]() == 1.0
    assert apart(engine.name, engine="python") == "python"
    assert ENGINE not in os.environ
    monkeypatch.setenv(ENGINE, "python")
    with Stage(_sync_runs, 0.0, engine="nonsense") as stage, pytest.raises(ConfigurationError, match="nonsense"):
        stage.runs()["engine"]()
    assert os.environ[ENGINE] == "python"


def test_the_python_engine_is_measured_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine in use comes first; where that is the Python engine, it is measured once and stands in both places."""
    monkeypatch.setattr("benchmarks.stages.engine_name", lambda: "native 9.9")
    assert engines() == ("native", "python")
    assert list(kinds()) == ["plain", "equal_header", "watchword", "watchword_python"]
    rates = {"plain": 8.0, "equal_header": 4.0, "watchword": 2.0, "watchword_python": 1.0}
    figures = {kind: Figure(rate, rate, rate) for kind, rate in rates.items()}
    assert ratios("kafka", figures) == {
        "kafka": 0.25,
        "kafka_with_equal_header": 0.5,
        "kafka_python": 0.125,
        "kafka_with_equal_header_python": 0.25,
    }
    monkeypatch.setattr("benchmarks.stages.engine_name", lambda: "python")
    assert engines() == ("python",)
    assert list(kinds()) == ["plain", "equal_header", "watchword"]
    del figures["watchword_python"]
    assert ratios("kafka", figures)["kafka_python"] == 0.25


def _both_in(tree: str) -> dict[str, Run]:
    return {"both": lambda: float(all(str(module.__file__).startswith(tree) for module in (watchword, adapters)))}


def test_another_tree_is_measured_instead_of_this_one(tmp_path: Path) -> None:
    """What is said of a tree was measured on that tree; where it would not be, nothing is said."""
    path, checkout = list(sys.path), Path(before.__file__).parents[1]
    for name in ("src", "adapters"):
        (tmp_path / name).symlink_to(checkout / name)
    with Stage(_both_in, str(tmp_path), tree=tmp_path) as stage:
        assert stage.runs()["both"]() == 1.0
    assert sys.path == path
    empty = tmp_path / "empty"
    with Stage(_both_in, str(empty), tree=empty) as stage, pytest.raises(FailedError, match=f"is not in {empty}"):
        stage.runs()


def test_a_revision_is_unpacked_and_a_directory_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user may name a checkout to compare with; a tree that does not exist, or a missing git, raises an error."""
    monkeypatch.setenv(before.VARIABLE, str(Path(before.__file__).parents[1]))
    with before.tree() as tree:
        assert tree == Path(before.__file__).parents[1]
    monkeypatch.setenv(before.VARIABLE, "no-such-revision")
    with pytest.raises(before.NoTreeError), before.tree():
        pass
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(before.NoTreeError, match="no git"), before.tree():
        pass


def test_figures_are_put_into_a_document_at_their_places() -> None:
    """The documentation's tables come from a report; what was not measured this time stays as it was."""
    report: dict[str, Any] = {"envelope_characters": {"direct": 376, "batch64": 674}}
    ((name, block),) = blocks(report).items()
    kept = "<!-- figures: starts -->\nold\n<!-- end of starts -->"
    text = f"a\n<!-- figures: {name} -->\nold\n<!-- end of {name} -->\nb\n{kept}\n"
    assert filled(text, report) == f"a\n<!-- figures: {name} -->\n\n{block}\n\n<!-- end of {name} -->\nb\n{kept}\n"
    assert filled("no places", report) == "no places"


def test_the_page_of_figures_has_a_place_for_every_table() -> None:
    """No table that is measured is missing where users read what Watchword costs."""
    docs = Path(before.__file__).parents[1] / "docs"
    page = "".join([(docs / name).read_text() for name in DOCUMENTS])
    for name in _BLOCKS:
        assert page.count(f"<!-- figures: {name} -->") == page.count(f"<!-- end of {name} -->") == 1
