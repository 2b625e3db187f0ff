import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.figures import Figure, take_turns, take_turns_async
from benchmarks.processes import FailedError, apart
from benchmarks.report import Report
from watchword import ConfigurationError


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


async def test_repetitions_take_turns_after_a_round_that_does_not_count() -> None:
    """A slow moment of the machine hits all alike, and the first round, which warms up, none."""
    played: list[str] = []
    rates = {"a": iter([9.0, 1.0, 2.0, 6.0]), "b": iter([9.0, 4.0, 4.0, 4.0])}

    def play(name: str) -> float:
        played.append(name)
        return next(rates[name])

    async def play_async(name: str) -> float:
        return play(name)

    figures = take_turns({name: lambda name=name: play(name) for name in rates}, 3)  # type: ignore[misc]
    assert played == ["a", "b"] * 4
    assert figures == {"a": Figure(2.0, 1.0, 6.0), "b": Figure(4.0, 4.0, 4.0)}
    assert figures["a"].over(figures["b"]) == 0.5
    rates = {"a": iter([9.0, 1.0]), "b": iter([9.0, 2.0])}
    played.clear()
    again = await take_turns_async({name: lambda name=name: play_async(name) for name in rates}, 1)  # type: ignore[misc]
    assert played == ["a", "b", "a", "b"]
    assert [again[name].per_second for name in "ab"] == [1.0, 2.0]


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
