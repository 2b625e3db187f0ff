"""The checks of language find what they are there for; `make lint` runs them on the tree."""

from pathlib import Path

import pytest

from tests.style.decisions import faults
from tests.style.idioms import IDIOMS, Idiom, findings

RECORD = "# 0001 Title\n\n- Status: accepted\n- Date: 2026-11-30\n\n## Context\n"
LINE = "| [0001](0001-title.md) | Title | accepted | 2026-11-30 |\n"


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ('"""Tell whether it is open."""', True),
        ("a key that is none", True),
        ("where there is none", False),
        ("its algorithm is none of ours", False),
        ("if found is None:", False),
        ("begin anew", True),
        ("the newest", False),
        ("a store can be had", True),
        ("to be handed over", False),
        ("so that it be known", True),
        ("so that it begins", False),
        ("a broker of one's own", True),
        ("ask whoever holds it", True),
    ],
)
def test_phrases(tmp_path: Path, line: str, *, is_found: bool) -> None:
    """Promise: each phrase is found as a phrase, in code and pages, and not within other words."""
    for name in ("one.py", "page.md"):
        (tmp_path / name).write_text(f"first\n{line}\n", encoding="utf-8")
    found = list(findings(tmp_path))
    assert [(one.file, one.line) for one in found] == ([("one.py", 2), ("page.md", 2)] if is_found else [])


def test_what_tools_write_is_not_read(tmp_path: Path) -> None:
    """Promise: hidden and generated folders are skipped, at any depth."""
    for folder in (".venv", "native/target", "build"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "one.md").write_text("anew", encoding="utf-8")
    assert not list(findings(tmp_path))


def test_a_folder_that_is_not_clean_yet(tmp_path: Path) -> None:
    """Promise: a phrase may stand in the folders and files named beside it, and in no neighbour of theirs."""
    for folder in ("src", "srcs"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.py").write_text("# anew\n", encoding="utf-8")
    found = list(findings(tmp_path, [Idiom(r"\banew\b", '"again"', ("src",))]))
    assert {one.file: one.is_left for one in found} == {"src/one.py": True, "srcs/one.py": False}
    assert str(found[1]) == "srcs/one.py:1: 'anew': write \"again\""


def test_each_phrase_says_what_to_write() -> None:
    """Promise: every finding says what to write."""
    assert all(idiom.instead for idiom in IDIOMS)


@pytest.mark.parametrize(
    ("record", "index", "why"),
    [
        (RECORD, LINE, None),
        (RECORD.replace("accepted", "accepted; its decoder was replaced by 0008"), LINE, "add the line"),
        (RECORD, "", "add the line"),
        (RECORD.replace("- Date: 2026-11-30\n", ""), LINE, "begin it with"),
        (RECORD.replace("accepted", "proposed, maybe"), LINE, "begin it with"),
        (RECORD.replace("0001", "0002"), LINE, "begin it with"),
    ],
)
def test_records_of_decisions(tmp_path: Path, record: str, index: str, why: str | None) -> None:
    """Promise: a record without status, date or its line in the list is named, with what to write."""
    (tmp_path / "0001-title.md").write_text(record, encoding="utf-8")
    (tmp_path / "README.md").write_text(index, encoding="utf-8")
    found = list(faults(tmp_path))
    assert len(found) == (why is not None)
    assert why is None or why in found[0]
