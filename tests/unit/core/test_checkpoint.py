"""One line says what a reader remembers, and nothing else is believed to be such a line."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from watchword.checkpoint import MOST_CHARACTERS, MOST_MARKS, Checkpoint, Mark, Trail, read_line, thinned

OFFSETS = st.integers(0, 2**63 - 1)
SECONDS = st.integers(0, 2**33)
TAGS = st.text("0123456789abcdef", min_size=8, max_size=8)
MARKS = st.lists(st.builds(Mark, OFFSETS, SECONDS), max_size=40)
LINE = "w1 0123abcd 7 100 20 10 12:90 20:95"


@st.composite
def checkpoints(draw: st.DrawFn) -> Checkpoint:
    """Draw what a reader may know."""
    since, at = sorted((draw(OFFSETS), draw(OFFSETS)))
    return Checkpoint(at, draw(SECONDS), since, thinned(tuple(draw(MARKS)), since), draw(SECONDS))


@given(checkpoints(), TAGS)
@example(Checkpoint(2**63 - 1, 2**33, 0, tuple(Mark(2**63 - 20 + n, 2**33) for n in range(16)), 2**33), "f" * 8)
def test_what_is_written_is_read_and_fits(checkpoint: Checkpoint, tag: str) -> None:
    """Promise (R3): every line reads as it was written, in at most 512 characters; room is made by the oldest marks."""
    line = checkpoint.line(tag)
    assert len(line) <= MOST_CHARACTERS
    assert line.isascii()
    told = read_line(line)
    assert told is not None
    assert told[0] == tag
    kept = told[1].marks
    assert kept == checkpoint.marks[len(checkpoint.marks) - len(kept) :]
    assert kept == checkpoint.marks or len(checkpoint.line(tag)) > MOST_CHARACTERS - 32
    assert told[1] == Checkpoint(checkpoint.at, checkpoint.floor, checkpoint.since, kept, checkpoint.until)


@given(
    st.text(max_size=600) | st.builds(lambda head, tail: LINE[:head] + tail, st.integers(0, 34), st.text(max_size=9))
)
def test_anything_else_is_somebody_elses(text: str) -> None:
    """Promise (R3): metadata is believed only if it reads exactly as we write it."""
    told = read_line(text)
    assert told is None or _line_of(told) == text


def _line_of(told: tuple[str, Checkpoint]) -> str:
    return told[1].line(told[0])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "w1",
        LINE.replace("w1", "w2"),
        LINE + " ",
        " " + LINE,
        LINE + "\n",
        LINE.replace(" ", "  ", 1),
        LINE.replace("0123abcd", "0123ABCD"),
        LINE.replace("0123abcd", "0123abc"),
        LINE.replace("100", "1\N{ARABIC-INDIC DIGIT ZERO}0"),
        LINE.replace("100", "-100"),
        LINE.replace("100", "1e9"),
        LINE.replace("100", "0100"),
        LINE.replace("12:90", "12:090"),
        LINE.replace("100", "1" * 12),
        LINE.replace("12:90 20:95", "20:95 12:90"),
        LINE.replace("12:90 20:95", "12:90 12:95"),
        LINE.replace("20 10", "10 20"),
        "w1 0123abcd 7 100 99 1" + "".join(f" {n}:1" for n in range(2, 19)),
        "w1 0123abcd 7 100 9000000000000000000 1" + "".join(f" {10**18 + n}:{10**9}" for n in range(16)),
    ],
)
def test_a_line_with_a_fault_is_none(text: str) -> None:
    """Promise (R3): one sign too many, another order, another form of a number: it is not ours."""
    assert read_line(LINE) is not None
    assert read_line(text) is None


@pytest.mark.parametrize(("first", "issued"), [(0, 90), (12, 90), (13, 95), (20, 95), (21, 95)])
def test_marks_tell_what_retention_may_have_taken(first: int, issued: int) -> None:
    """Promise (A39): of all that was handed over below an offset, the latest time is known, or a bound for it."""
    told = read_line(LINE)
    assert told is not None
    trail = Trail()
    trail.follow(told[1])
    assert trail.issued_below(first) == issued


@given(MARKS.map(tuple), OFFSETS)
def test_marks_are_thinned_to_sixteen(marks: tuple[Mark, ...], since: int) -> None:
    """Promise (R3): at most 16 marks stay, none twice or where nobody asks, the last one always, in their order."""
    left = thinned(marks, since)
    assert len(left) <= MOST_MARKS
    assert set(left) <= set(marks)
    assert [mark.offset for mark in left] == sorted({mark.offset for mark in left})
    above = sorted({mark.offset for mark in marks if mark.offset > since})
    assert [mark.offset for mark in left[-1:]] == above[-1:]
    assert len(left) == min(MOST_MARKS, len(above))


def test_of_two_marks_at_one_offset_the_tighter_stays() -> None:
    """Promise (R3): a commit at the offset of a checkpoint gives a line that its successor believes."""
    marks = thinned((Mark(5, 100), Mark(9, 110), Mark(9, 120)), 2)
    assert marks == (Mark(5, 100), Mark(9, 110))
    assert read_line(Checkpoint(9, 0, 2, marks).line("0" * 8)) is not None


def test_marks_stay_spread_over_the_whole() -> None:
    """Promise (A39): of many marks those go that stand closest behind another, so that no part is left without."""
    marks = tuple(Mark(n, n) for n in [*range(1, 100), 5_000, 10_000])
    left = [mark.offset for mark in thinned(marks, 0)]
    assert left[-2:] == [5_000, 10_000]
    assert left[-3] >= 50
