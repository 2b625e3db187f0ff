"""Programs that both type checkers must pass, and programs that neither may."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from tests.typing.checkers import mypy_on, pyright_on, write


@pytest.mark.slow
@pytest.mark.usefixtures("not_traced")  # mypy runs in this process
class Programs:
    """What is tested of programs with one head; of a wrong one, mypy's message is known."""

    head: ClassVar[str]
    right: ClassVar[Mapping[str, str]]
    wrong: ClassVar[Mapping[str, tuple[str, str]]]

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Return a folder with all programs, the right ones first."""
        made = tmp_path_factory.mktemp("programs")
        sources = [*cls.right.values(), *(source for source, _ in cls.wrong.values())]
        write(made, [cls.head + source for source in sources])
        return made

    def test_right_programs_pass(self, folder: Path) -> None:
        """Promise: what the documentation allows passes both checkers."""
        for checker in (mypy_on, pyright_on):
            told = checker(folder)
            assert {name: told[number] for number, name in enumerate(self.right) if number in told} == {}

    def test_wrong_programs_do_not(self, folder: Path) -> None:
        """Promise: what would let something unverified through is found before it runs."""
        told, told_by_other = mypy_on(folder), pyright_on(folder)
        for number, (name, (_, error)) in enumerate(self.wrong.items(), start=len(self.right)):
            assert error in told[number], name
            assert told_by_other[number], name
