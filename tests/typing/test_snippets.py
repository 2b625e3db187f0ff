"""What stands in the documentation passes both type checkers, in their strict modes."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from tests.typing.checkers import ROOT, mypy_on, pyright_on, write
from tests.typing.snippets import CONTEXT, snippets

FOUND = snippets()
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NAMES = [*(snippet.name for snippet in FOUND), *(path.name for path in EXAMPLES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a program for each snippet."""
    made = tmp_path_factory.mktemp("snippets")
    (made / "context.py").write_text(CONTEXT)
    write(made, [*(snippet.program for snippet in FOUND), *(path.read_text() for path in EXAMPLES)])
    return made


def test_there_are_snippets() -> None:
    """A pattern that finds none would let all of them be wrong."""
    assert len(FOUND) >= 9


@pytest.mark.slow
@pytest.mark.parametrize("checker", [partial(mypy_on, imports_clients=True), pyright_on], ids=["mypy", "pyright"])
def test_what_a_reader_copies_is_typed(folder: Path, checker: Callable[[Path], Mapping[int, str]]) -> None:
    """No checker has anything to say about it, and nobody needs an ignore."""
    assert {NAMES[number] if number >= 0 else "": text for number, text in checker(folder).items()} == {}
