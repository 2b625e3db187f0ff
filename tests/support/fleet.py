"""Agents of one directory, each with settings of its own, an operator among them, and a control log."""

import asyncio
import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from watchword import Watchword
from watchword_adapters.cli import main
from watchword_adapters.config import control_parts, load
from watchword_adapters.control.desk import desk
from watchword_adapters.settings_file import read_settings

PLANNER, CLOUD, MALLORY = "agent://acme/planner", "agent://acme/cloud", "agent://acme/mallory"
ONCALL = "agent://acme/oncall"

SETTINGS = """
realm = "prod"
principal = "{principal}"
[signer]
key = "{name}.pem"
[[keys]]
source = "files"
paths = ["agents.jwks"]
[policy]
max_skew = "30s"
{policy}
[replay]
state = ".{name}"
[{bus}]
servers = ["{address}"]
[control]
channel = "{bus}://prod/{channel}"
presence = "{bus}://prod/{channel}.presence"
announce_every = "1s"
[[control.operators]]
principal = "agent://acme/oncall"
may = ["contain", "release"]
over = ["agent://acme/**"]
"""


class Fleet:
    """Settings, keys and agents."""

    def __init__(self, directory: Path, bus: str, address: str, channel: str) -> None:
        self.directory = directory
        self.bus, self.address, self.channel = bus, address, channel
        self.presence = f"{channel}.presence"
        for principal in (PLANNER, CLOUD, MALLORY, ONCALL):
            assert main(["keygen", "-p", principal]) == 0
            self.write(principal)
        names = [f"{one.rpartition('/')[2]}.jwk" for one in (PLANNER, CLOUD, MALLORY, ONCALL)]
        assert main(["jwks", *names, "-o", "agents.jwks"]) == 0
        for name in ("planner", "cloud", "mallory", "oncall"):  # readers begin without a floor
            assert main(["init", "-c", f"{name}.toml"]) == 0

    def write(self, principal: str, policy: str = "") -> Path:
        """Write an agent's settings, and return where they are."""
        name = principal.rpartition("/")[2]
        path = self.directory / f"{name}.toml"
        path.write_text(
            SETTINGS.format(
                principal=principal,
                name=name,
                policy=policy,
                bus=self.bus,
                address=self.address,
                channel=self.channel,
            )
        )
        return path

    def agent(self, principal: str, policy: str = "") -> Watchword:
        """Return an agent of its settings."""
        return load(self.write(principal, policy), telemetry=False)

    async def say(self, saying: Any) -> None:
        """Let the operator say something."""
        path = self.directory / "oncall.toml"
        agent = load(path, telemetry=False)
        async with desk(agent, control_parts(agent, read_settings(path), self.directory)) as at:
            await at.say(saying)

    async def who(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
        """Return what the operator's ``watchword who --json`` prints, by principal."""
        capsys.readouterr()
        code = await asyncio.to_thread(main, ["who", "-c", "oncall.toml", "--json", *arguments])
        captured = capsys.readouterr()
        assert (code, captured.err) == (0, "")
        told = json.loads(captured.out)
        return {one["principal"]: one for one in told["principals"]} | {"dropped": told["dropped"]}


@contextlib.contextmanager
def clean_environment(directory: Path) -> Any:
    """Work in this directory, with no settings from outside."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.upper().startswith("WATCHWORD_") and "TEST" not in name]:
            patch.delenv(name)
        patch.chdir(directory)
        yield
