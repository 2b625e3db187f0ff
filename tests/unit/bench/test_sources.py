"""What the report on key sources says of one in a word."""

import pytest

from benchmarks.sources.measuring import new_key, outage
from watchword import Unavailable, VerificationKey


class Answers:
    """A source that answers as it is told: before and after its time is over."""

    def __init__(self, known: VerificationKey, *answers: str) -> None:
        self.known = known
        self.now, self.later = answers
        self.over = False

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource``."""
        says = self.later if self.over else self.now
        if says == "down" or (says == "kept" and (principal, key_id) != (self.known.principal, self.known.key_id)):
            raise Unavailable("keys")
        return self.known if key_id == self.known.key_id else None

    def pass_time(self) -> None:
        """Let its time be over."""
        self.over = True


@pytest.mark.parametrize(
    ("answers", "word"),
    [
        (("kept", "down"), "kept"),
        (("down", "down"), "closed"),
        (("kept", "kept"), "open"),
        (("forgets", "down"), "open"),
        (("down", "forgets"), "open"),
    ],
)
async def test_the_word_for_an_outage(answers: tuple[str, str], word: str) -> None:
    """Kept is what ends, closed what ends at once; what calls somebody unknown, or never ends, is open."""
    key = new_key()
    source = Answers(key, *answers)
    assert await outage(source, key, source.pass_time) == word
