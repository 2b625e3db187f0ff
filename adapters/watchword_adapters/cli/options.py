"""Options shared by many commands."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The settings, watchword.toml.")]
SETTINGS = Path("watchword.toml")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


class KeyKind(StrEnum):
    """The algorithms of generated keys."""

    ED25519 = "ed25519"
    ESP256 = "esp256"
    ML_DSA_44 = "ml-dsa-44"
    ML_DSA_65 = "ml-dsa-65"
