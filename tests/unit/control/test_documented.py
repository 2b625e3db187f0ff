"""What is written about the control log names what there is."""

import re
from pathlib import Path

from watchword.statements import Verb
from watchword_adapters.kafka.control_topic import MADE

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/control.md").read_text()


def test_every_event_is_in_the_table() -> None:
    """Promise: a reader of an event finds out what it means, and the table names nothing else."""
    files = [ROOT / "src/watchword/control.py", *(ROOT / "adapters/watchword_adapters/control").glob("*.py")]
    told = {name for path in files for name in re.findall(r'"(control\.[a-z_]+)"', path.read_text())}
    assert set(re.findall(r"^\| `(control\.[a-z_]+)` \|", PAGE, re.MULTILINE)) == told
    assert len(told) > 5


def test_every_setting_of_the_topic_and_every_verb_is_named() -> None:
    """Promise: nobody has to look into the program for what `init` makes, and for what an operator may say."""
    assert [name for name, value in MADE.items() if f"`{name}={value}`" not in PAGE] == []
    assert [verb for verb in Verb if f'"{verb}"' not in PAGE] == []
