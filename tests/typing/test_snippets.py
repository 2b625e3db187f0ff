"""What stands in the documentation passes both type checkers, in their strict modes."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from tests.support.pages import files_on
from tests.typing.checkers import ROOT, mypy_on, pyright_on, write
from tests.typing.snippets import CONTEXT, PAGES, snippets

FOUND = snippets()
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FILES = [file for page in PAGES[1:] for file in files_on(page.name) if file.name.endswith(".py")]
NAMES = [*(one.name for one in FOUND), *(path.name for path in EXAMPLES), *(file.name for file in FILES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a program for each snippet."""
    made = tmp_path_factory.mktemp("snippets")
    (made / "context.py").write_text(CONTEXT)
    for file in FILES:  # one may import another
        file.write(made, {})
    programs = [*(snippet.program for snippet in FOUND), *(path.read_text() for path in EXAMPLES)]
    write(made, [*programs, *(file.text for file in FILES)])
    return made


def test_there_are_snippets() -> None:
    """A pattern that finds none would let all of them be wrong."""
    assert len(FOUND) >= 9
    assert len(FILES) >= 5


@pytest.mark.slow
@pytest.mark.usefixtures("not_traced")  # mypy runs in this process
@pytest.mark.parametrize("checker", [partial(mypy_on, imports_clients=True), pyright_on], ids=["mypy", "pyright"])
def test_what_a_reader_copies_is_typed(folder: Path, checker: Callable[[Path], Mapping[int, str]]) -> None:
    """No checker has anything to say about it, and nobody needs an ignore."""
    assert {NAMES[number] if number >= 0 else "": text for number, text in checker(folder).items()} == {}
