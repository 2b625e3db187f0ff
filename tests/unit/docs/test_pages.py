"""What pages list is what there is: every reason and every event, and nothing else."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from watchword import Reason

ROOT = Path(__file__).parents[3]
SPACES = (
    "control", "engine", "faststream", "kafka", "keys", "message", "nats", "policy", "presence", "quarantine", "replay",
    "settings", "signer", "spiffe", "trust",
)  # fmt: skip
"""What names of events begin with."""
OTHERS = {"kafka.tls", "nats.tls"}
"""Names of settings that look like events."""


def text_of(page: str) -> str:
    """Return a page under ``docs``."""
    return (ROOT / "docs" / page).read_text()


def test_every_reason_has_a_section_that_says_how_to_find_the_cause() -> None:
    """Promise: each reason is a heading with its meaning and a way to the cause, and nothing else is one."""
    sections = dict(re.findall(r"^## `([a-z_]+)`\n(.*?)(?=^## )", text_of("rejections.md"), re.DOTALL | re.MULTILINE))
    assert list(sections) == [str(reason) for reason in Reason]
    lacking = [name for name, text in sections.items() if "**Means:**" not in text or "**Find it:**" not in text]
    assert lacking == []
    assert [reason for reason in Reason if f"[`{reason}`](#{reason})" not in text_of("rejections.md")] == []


def logged() -> Iterator[str]:
    """Yield the name of each event that the code can log."""
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "adapters").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                name = node.value
                if re.fullmatch(rf"({'|'.join(SPACES)})\.[a-z_]+", name) and name not in OTHERS:
                    yield name
    yield from (f"quarantine.{cause}" for cause in ("no_room", "capped"))  # made of a cause


def test_every_event_is_on_its_page() -> None:
    """Promise: an operator finds every event that is logged on one page, which lists nothing that is never logged."""
    listed = re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", text_of("events.md"), re.MULTILINE)
    assert sorted(listed) == sorted(set(logged()))
    assert len(listed) > 50


def test_every_attack_that_is_named_is_promised() -> None:
    """Promise: an id on the page of past faults stands in the table of SECURITY."""
    promised = set(re.findall(r"^\| (A\d\d) \|", (ROOT / "SECURITY.md").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bA\d\d\b", text_of("faults.md")))
    assert len(named) > 15
    assert sorted(named - promised) == []
