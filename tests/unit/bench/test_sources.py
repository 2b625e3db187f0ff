"""What the report on key sources says of one in a word."""

import json
from pathlib import Path

import pytest

from benchmarks.sources import report
from benchmarks.sources.measuring import new_key, outage
from watchword import Unavailable, VerificationKey


class Answers:
    """A source with one answer before its time is over, and another one after."""

    def __init__(self, known: VerificationKey, *answers: str) -> None:
        self.known = known
        self.now, self.later = answers
        self.over = False

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource``."""
        says = self.later if self.over else self.now
        if says == "down" or (says == "kept" and (principal, key_id) != (self.known.principal, self.known.key_id)):
            raise Unavailable("keys")
        return self.known if key_id == self.known.key_id and says != "forgets" else None

    def pass_time(self) -> None:
        """Let its time be over."""
        self.over = True


@pytest.mark.parametrize(
    ("answers", "word"),
    [
        (("kept", "down"), "kept"),
        (("down", "down"), "closed"),
        (("kept", "kept"), "open"),
        (("knows all", "down"), "believed"),
        (("forgets", "down"), "open"),
        (("down", "forgets"), "open"),
    ],
)
async def test_the_word_for_an_outage(answers: tuple[str, str], word: str) -> None:
    """Kept is what ends, believed what says meanwhile who is unknown, closed what ends at once; all else is open."""
    key = new_key()
    source = Answers(key, *answers)
    assert await outage(source, key, source.pass_time) == word


def test_the_report_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was measured stands in the file that is named, and every figure of a source is there."""
    path = tmp_path / "reports" / "sources.json"
    assert report.main(["--source", "environment", "--output", str(path)]) == 0
    assert json.loads(path.read_text()) == {
        "sources": {
            "environment": {
                "seconds_to_new_key": None,
                "seconds_to_revocation": None,
                "under_outage": "never",
                "lookups_for_100000_unknown_ids": 0,
                "measured_with": "a process that continues",
            }
        }
    }
    assert str(path) in capsys.readouterr().out
