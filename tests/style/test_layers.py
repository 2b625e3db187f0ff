"""The picture of the layers in CONTRIBUTING.md shows what import-linter enforces."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_picture_shows_the_contract() -> None:
    """Promise: the picture names all modules of the core, in the order of the layers, and the arrows go down."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = (one["layers"] for one in contracts if one["type"] == "layers")
    picture = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("```mermaid\n")[2].partition("```")[0]
    doors = re.search(r'doors\["front doors: (.*)"\]', picture)
    assert doors is not None
    core = picture.partition("subgraph core[")[2].partition("end\n")[0]
    boxes = dict(re.findall(r'^ *(\w+)\["([\w ]+)"\]', core, re.MULTILINE))
    shown = [doors[1].split(), *([module] for box in boxes.values() for module in box.split())]
    wanted = [layer.split(" | ") for layer in layers]
    assert [module for layer in shown for module in layer] == [module for layer in wanted for module in layer]
    arrows = re.findall(r"^ *(\w+)(?:\[.*\])? --> (\w+)$", core, re.MULTILINE)
    assert arrows == list(zip(boxes, list(boxes)[1:], strict=False))
