"""The stages of ``docs/rollout.md`` are settings that load, and each does what its heading says."""

from pathlib import Path

import pytest

import watchword
from tests.support.pages import files_on
from watchword.spi import Channel
from watchword_adapters.cli import main

TASKS, ORDERS = (Channel("kafka", "prod", topic) for topic in ("tasks", "orders.eu"))
STAGES = ("observe", "enforce one", "rules")


@pytest.fixture(params=range(3), ids=STAGES)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """Write the settings of a stage, and the keys that they name; return the stage's name and the file."""
    files = [file for file in files_on("rollout.md") if file.name == "watchword.toml"]
    assert len(files) == len(STAGES)
    main(
        [
            "keygen",
            "--principal",
            "agent://acme/planner",
            "--private",
            str(tmp_path / "a.pem"),
            "--public",
            str(tmp_path / "a.jwk"),
        ]
    )
    main(["jwks", str(tmp_path / "a.jwk"), "--output", str(tmp_path / "agents.jwks")])
    files[request.param].write(tmp_path, {'[telemetry]\nprometheus = "127.0.0.1:9464"\n': ""})
    return STAGES[request.param], tmp_path / "watchword.toml"


def test_each_stage_observes_what_it_says(stage: tuple[str, Path]) -> None:
    """Promise: the settings on the page load as they stand, and drop nothing on the channels that they observe."""
    name, path = stage
    agent = watchword.load(path)
    observed = {channel.name for channel in (TASKS, ORDERS) if agent.observes(channel)}
    assert observed == {"observe": {"tasks", "orders.eu"}, "enforce one": {"orders.eu"}, "rules": {"orders.eu"}}[name]


def test_the_planner_may_do_what_the_page_checks(stage: tuple[str, Path]) -> None:
    """Promise: ``policy check`` says yes on the page's channel at each stage, and no elsewhere once there are rules."""
    name, path = stage
    asked = ["policy", "check", "agent://acme/planner"]
    assert main([*asked, "kafka://prod/tasks", "--config", str(path)]) == 0
    assert main([*asked, "kafka://prod/billing", "--config", str(path)]) == (1 if name == "rules" else 0)
