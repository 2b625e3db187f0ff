"""The account of the chaos report, compared with invented runs."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from chaos.accounting import account
from chaos.evidence import (
    ABORTED,
    ACKED,
    ANSWERED,
    APART,
    ARRIVED,
    DELIVERED,
    EVENTS,
    HERE,
    LOG,
    ORIGINAL,
    PRESENT,
    REFUSED,
    REPLAYED,
    RETAINED,
    SENT,
    UNAVAILABLE,
    UNSETTLED,
    WITNESSED,
    Evidence,
    Tally,
    Writer,
)
from chaos.excuses import SEVERAL_HANDS

Rows = Sequence[tuple[str, ...]]


MISSING = {
    SENT: ("", "0"),
    ACKED: ("", "", "0"),
    EVENTS: ("", "", "0"),
    DELIVERED: ("", "", "0", "0", "", "0"),
    REFUSED: ("", "", "", "", "0"),
}
"""What rows may leave out at their ends: times, hands, whether it passed for a redelivery and how late it was."""


def written(directory: Path, **files: Rows) -> Evidence:
    """Write the files of a run as its processes do, and read them again."""
    directory.mkdir(exist_ok=True)
    for name, rows in files.items():
        put(directory, name, *rows)
    return Evidence.read(directory)


def put(directory: Path, name: str, *rows: tuple[str, ...]) -> None:
    """Write rows, with what they leave out."""
    missing = next((those for kind, those in MISSING.items() if name.startswith(kind)), ())
    Writer(directory, name).write(*((*row, *missing[len(row) :]) for row in rows))


def on_log(directory: Path, *, delivered: Rows, refused: Rows | None = None, **files: Rows) -> Evidence:
    """Return a run of two honest messages, each with one copy in the log; one worker lived through it."""
    run: dict[str, Rows] = {
        SENT: [("a",), ("b",)],
        ACKED: [("a", "0@0"), ("b", "1@0")],
        LOG: [("a", "0@0"), ("b", "1@0"), ("a", "0@1"), ("b", "0@2")],
        f"{DELIVERED}0.0": delivered,
        f"{REFUSED}0.0": refused or [],
    }
    return written(directory, **run | files)


def on_core(directory: Path, **files: Rows) -> Evidence:
    """Return a run on core NATS of two honest messages, which worker 0.0 got, and of a copy of the first."""
    run: dict[str, Rows] = {
        SENT: [("a",), ("b",)],
        ACKED: [("a", ORIGINAL), ("b", ORIGINAL)],
        WITNESSED: [("a", ORIGINAL), ("b", ORIGINAL), ("a", "copy.1")],
        f"{ARRIVED}0.0": [("a", ORIGINAL), ("b", ORIGINAL), ("a", "copy.1")],
        f"{DELIVERED}0.0": [("a", "-", "0", "0"), ("b", "-", "0", "0")],
        f"{REFUSED}0.0": [("a", "copy.1", REPLAYED)],
    }
    return written(directory, **run | files)


AWAY_BEFORE: Rows = [(HERE, "-90"), ("stopped", "-60"), (HERE, "-50")]
GOOD: Rows = [("a", "0@0"), ("b", "1@0")]
ONE: Rows = [("a", "-", "0", "0")]


def test_a_good_run_holds(tmp_path: Path) -> None:
    """Where exactly the honest messages were delivered, the run has no fault, and copies are counted."""
    refused: Rows = [("a", "0@1", REPLAYED), ("b", "0@2", "wrong_partition")]
    figures = account(on_log(tmp_path, delivered=GOOD, refused=refused))
    assert figures.holds
    assert (figures.honest_sent, figures.replays_offered, figures.redeliveries) == (2, 2, 0)
    assert figures.replays_refused == {REPLAYED: 1, "wrong_partition": 1}


def test_a_delivered_replay_is_found(tmp_path: Path) -> None:
    """A message at the position of its copy, beside its own, is a replay that was delivered."""
    figures = account(on_log(tmp_path, delivered=[*GOOD, ("a", "0@1")]))
    assert not figures.holds
    assert (figures.replays_delivered, figures.redeliveries) == (1, 0)


def test_a_redelivery_is_none(tmp_path: Path) -> None:
    """A message that comes again at its own position is counted, and no replay."""
    figures = account(on_log(tmp_path, delivered=[*GOOD, *GOOD]))
    assert figures.holds
    assert figures.redeliveries == 2


def test_a_lost_message_is_found(tmp_path: Path) -> None:
    """A message that the bus acknowledged and no handler got is lost."""
    figures = account(on_log(tmp_path, delivered=GOOD[:1]))
    assert not figures.holds
    assert figures.honest_lost == 1


def test_a_message_without_acknowledgement_may_be_delivered(tmp_path: Path) -> None:
    """What the bus kept without saying so was not sent, as far as its sender knows: it may come or not, but once."""
    figures = account(on_log(tmp_path, delivered=GOOD, **{ACKED: GOOD[:1]}))
    assert figures.holds
    assert figures.honest_sent == 1


def test_an_honest_message_called_a_replay_is_found(tmp_path: Path) -> None:
    """A message that was refused as replayed at its own position is a broken promise, even if it came before."""
    figures = account(on_log(tmp_path, delivered=GOOD, refused=[("a", "0@0", REPLAYED)]))
    assert not figures.holds
    assert figures.honest_rejected_as_replay == 1


def test_a_copy_that_came_first_is_told_apart(tmp_path: Path) -> None:
    """A message that was delivered at a copy's position only, and refused at its own, came once: counted by itself."""
    delivered: Rows = [("a", "0@1", "0", "0", "0.0/1"), ("b", "1@0")]
    refused: Rows = [("a", "0@0", REPLAYED, "0.0/2")]
    figures = account(on_log(tmp_path, delivered=delivered, refused=refused))
    assert figures.holds
    assert figures.copies_came_first == 1
    assert figures.excused == {SEVERAL_HANDS: ["a"]}


def test_a_copy_that_came_first_needs_an_excuse(tmp_path: Path) -> None:
    """One hand judges in order: a copy came first if the server had to offer the message again, or not at all."""
    delivered: Rows = [("a", "0@1", "0", "0", "0.0/1"), ("b", "1@0")]
    refused: Rows = [("a", "0@0", REPLAYED, "0.0/1", "15")]
    figures = account(on_log(tmp_path / "none", delivered=delivered, refused=refused))
    assert (figures.holds, figures.unexcused, figures.excused) == (False, 1, {"NOTHING": ["a"]})
    for case, events in {"before": [("kill", "0.0", "10")], "long before": [("kill", "0.0", "-100")]}.items():
        figures = account(on_log(tmp_path / case, delivered=delivered, refused=refused, **{EVENTS: events}))
        assert figures.holds is (case == "before")
    waited: Rows = [("a", "0@0", UNAVAILABLE, "0.0/1", "5"), *refused]
    figures = account(on_log(tmp_path / "waited", delivered=delivered, refused=waited))
    assert (figures.holds, figures.excused) == (True, {"it could not be judged, 5.0 s": ["a"]})


def test_what_a_stream_has_lost_is_excused_by_when_it_did(tmp_path: Path) -> None:
    """A message that retention took unread is not ours to deliver; one that was refused before, or is there, is."""
    gone = {RETAINED: [("1", "6", "7")]}
    figures = account(on_log(tmp_path / "gone", delivered=GOOD[1:], **gone))
    assert (figures.honest_lost, figures.honest_lost_behind_cut) == (0, 1)
    assert figures.excused == {"the stream had lost it, 7.0 s": ["a"]}
    refused: Rows = [("a", "0@0", "bad_signature", "", "3")]
    assert account(on_log(tmp_path / "refused", delivered=GOOD[1:], refused=refused, **gone)).honest_lost == 1
    assert account(on_log(tmp_path / "there", delivered=GOOD[:1], **{RETAINED: [("0", "6", "7")]})).honest_lost == 1


def test_what_is_stale_behind_a_cut_is_excused_for_the_skew_only(tmp_path: Path) -> None:
    """A reader that starts over where a stream was cut cannot believe what was issued by then, but what came later."""
    refused: Rows = [("a", "0@0", "stale", "", "9")]
    for sent, lost in {"8": 0, "11": 1}.items():
        files: dict[str, Rows] = {
            SENT: [("a", sent), ("b", "0")],
            RETAINED: [("0", "6", "7")],
            f"{PRESENT}0.0": [(HERE, "8")],
        }
        figures = account(on_log(tmp_path / sent, delivered=GOOD[1:], refused=refused, **files))
        assert (figures.honest_lost, figures.honest_lost_behind_cut) == (lost, 1 - lost)


def test_readers_apart_are_to_get_everything(tmp_path: Path) -> None:
    """Where each worker is a reader of its own, each has an account, and what one got the other may still have lost."""
    both: dict[str, Rows] = {APART: [], f"{DELIVERED}1.0": GOOD}
    figures = account(on_log(tmp_path / "both", delivered=GOOD, **both))
    assert figures.holds
    assert (figures.replays_delivered, figures.redeliveries, figures.replays_offered) == (0, 0, 2)
    both[f"{DELIVERED}1.0"] = GOOD[:1]
    assert account(on_log(tmp_path / "one", delivered=GOOD, **both)).honest_lost == 1


def test_an_answer_to_another_request_is_found(tmp_path: Path) -> None:
    """A requester gets the answer to what it asked; what was not answered needs an event that explains it."""
    assert account(on_core(tmp_path / "good", **{ANSWERED: [("a", "re:a"), ("b", "re:b")]})).holds
    figures = account(on_core(tmp_path / "swapped", **{ANSWERED: [("a", "re:b"), ("b", "re:b")]}))
    assert (figures.holds, figures.answers_wrong) == (False, 1)
    asked: dict[str, Rows] = {SENT: [("a",), ("b",), ("c", "50")], ANSWERED: [("a", "re:a"), ("b", "re:b")]}
    figures = account(on_core(tmp_path / "unanswered", **asked))
    assert (figures.holds, figures.excused) == (False, {"NOTHING": ["c"]})


def test_a_forgery_that_was_delivered_is_found(tmp_path: Path) -> None:
    """What no honest sender wrote must reach no handler; what of it was offered is counted."""
    log: Rows = [*GOOD, ("x", "0@1"), ("y", "0@2")]
    assert account(on_log(tmp_path / "good", delivered=GOOD, **{LOG: log})).forged_offered == 2
    figures = account(on_log(tmp_path / "bad", delivered=[*GOOD, ("x", "0@1")], **{LOG: log}))
    assert not figures.holds
    assert (figures.forged_delivered, figures.replays_delivered) == (1, 0)


def test_a_delivery_from_nowhere_is_found(tmp_path: Path) -> None:
    """A message that came with a position at which the log holds another one, or none, was led astray."""
    for delivered in [("a", "0@2"), ("a", "0@9")]:
        figures = account(on_log(tmp_path / delivered[1], delivered=[delivered, GOOD[1]]))
        assert not figures.holds
        assert figures.delivered_elsewhere == 1


def test_a_copy_that_passes_for_its_original_is_found(tmp_path: Path) -> None:
    """A position that comes again, or after a later one of its log, though nobody went back, is a copy in disguise."""
    log: Rows = [("a", "0@0"), ("b", "0@1")]
    begins = [("", "0", "", "")]
    files = {LOG: log, ACKED: log}
    for case, delivered in enumerate([[*log, log[0]], [*log, log[1]], log[::-1]]):
        assert account(on_log(tmp_path / f"unordered {case}", delivered=delivered, **files)).holds
        figures = account(on_log(tmp_path / f"in turn {case}", delivered=[*begins, *delivered], **files))
        assert not figures.holds
        assert figures.delivered_out_of_turn == 1


def test_who_goes_back_is_given_it_again(tmp_path: Path) -> None:
    """After an assignment, or a seek, a log is read from an earlier place: those are redeliveries."""
    begins = ("", "0", "", "")
    log: Rows = [("a", "0@0"), ("b", "1@0"), ("c", "0@1")]
    sent: Rows = [("a",), ("b",), ("c",)]
    figures = account(
        on_log(
            tmp_path,
            delivered=[begins, ("", "1", "", ""), *log, begins, log[0], log[2]],
            **{LOG: log, ACKED: log, SENT: sent},
        )
    )
    assert figures.holds
    assert (figures.redeliveries, figures.delivered_out_of_turn) == (2, 0)


def test_an_aborted_message_has_no_place(tmp_path: Path) -> None:
    """A copy of what was sent in an aborted transaction may be delivered, once; the aborted record itself may not."""
    files = {ACKED: GOOD[1:], UNSETTLED: [("a",)], ABORTED: GOOD[:1]}
    figures = account(on_log(tmp_path / "copy", delivered=[("a", "0@1"), GOOD[1]], **files))
    assert figures.holds
    assert (figures.copies_came_first, figures.replays_offered) == (0, 3)
    figures = account(on_log(tmp_path / "aborted", delivered=GOOD, **files))
    assert not figures.holds
    assert figures.aborted_delivered == 1
    log: Rows = [("a", "0@0"), ("b", "1@0"), ("a", "0@1"), ("a", "0@2")]
    twice: Rows = [("a", "0@1"), ("a", "0@2"), GOOD[1]]
    assert account(on_log(tmp_path / "twice", delivered=twice, **files | {LOG: log})).replays_delivered == 1


def test_what_retention_took_was_there(tmp_path: Path) -> None:
    """A message's position is the one acknowledged to its sender, even if the log has an earlier copy of it."""
    log: Rows = [("a", "0@1"), ("b", "1@0"), ("a", "0@0")]
    figures = account(on_log(tmp_path, delivered=GOOD, refused=[("a", "0@0", REPLAYED)], **{LOG: log}))
    assert figures.honest_rejected_as_replay == 1


def test_lateness_is_that_of_first_deliveries(tmp_path: Path) -> None:
    """The 99th percentile is over messages, each counted at its first delivery."""
    names = [f"{number:03d}" for number in range(200)]
    rows = [(name, f"0@{number}") for number, name in enumerate(names)]
    late = [(*row, "0", str(number)) for number, row in enumerate(rows)]
    files: dict[str, Rows] = {LOG: rows, ACKED: rows, SENT: [(name,) for name in names]}
    again = [(*rows[0], "1", "90000")]
    figures = account(on_log(tmp_path, delivered=[*late, *again], **files))
    assert (figures.deliveries_late_ms, figures.redeliveries) == (197, 1)


def test_core_lateness_is_that_of_originals(tmp_path: Path) -> None:
    """What the bus lost and a copy brought late does not count; what came itself counts from when it was sent."""
    late: Rows = [("a", "-", "0", "0", "", "0.25"), ("b", "-", "0", "0", "", "30")]
    figures = account(on_core(tmp_path / "came", **{f"{DELIVERED}0.0": late}))
    assert figures.deliveries_late_ms == 30_000
    came: Rows = [("a", ORIGINAL), ("b", "copy.2")]
    figures = account(on_core(tmp_path / "copy", **{f"{DELIVERED}0.0": late, f"{ARRIVED}0.0": came}))
    assert figures.deliveries_late_ms == 250


def test_deeds_are_counted_as_they_were_done(tmp_path: Path) -> None:
    """Kills and restarts are those that were written down, not those that were planned."""
    put(tmp_path, EVENTS, ("kill", "0.0"), ("kill", "1.0"), ("restart", ""))
    figures = account(on_log(tmp_path, delivered=GOOD))
    assert (figures.kills, figures.broker_restarts) == (2, 1)


def test_core_a_good_run_holds(tmp_path: Path) -> None:
    """On core NATS, too, a good run is called one."""
    figures = account(on_core(tmp_path))
    assert figures.holds
    assert (figures.honest_sent, figures.replays_offered, figures.honest_lost_by_bus) == (2, 1, 0)


def test_core_a_second_delivery_is_a_replay(tmp_path: Path) -> None:
    """On core NATS nothing comes twice by itself."""
    figures = account(on_core(tmp_path, **{f"{DELIVERED}1.0": ONE}))
    assert not figures.holds
    assert figures.replays_delivered == 1


def test_core_loss_in_a_living_worker_is_ours(tmp_path: Path) -> None:
    """What a worker that lived on got and did not hand over is not the bus's loss."""
    figures = account(on_core(tmp_path, **{f"{DELIVERED}0.0": ONE}))
    assert not figures.holds
    assert (figures.honest_lost, figures.honest_lost_by_bus) == (1, 0)


def test_core_loss_of_the_bus_is_counted_beside_it(tmp_path: Path) -> None:
    """What reached no worker, or one that was killed, core NATS does not offer again."""
    away: Rows = [(HERE, "-9"), ("connection lost", "1"), (HERE, "2")]
    files: dict[str, Rows] = {f"{DELIVERED}0.0": ONE, f"{ARRIVED}0.0": [("a", ORIGINAL)], f"{PRESENT}0.0": away}
    figures = account(on_core(tmp_path, **files))
    assert figures.holds
    assert figures.honest_lost_by_bus == 1
    assert figures.excused == {"connection lost, worker 0, 1.0 s": ["b"]}
    put(tmp_path, f"{ARRIVED}0.1", ("b", ORIGINAL))
    put(tmp_path, EVENTS, ("kill", "0.1"))
    figures = account(Evidence.read(tmp_path))
    assert (figures.honest_lost, figures.honest_lost_by_bus) == (0, 1)


def test_core_what_a_killed_worker_had_not_read_is_the_kills_loss(tmp_path: Path) -> None:
    """A busy machine may have left it unread for long; but what was sent later and read shows that this was, too."""
    files: dict[str, Rows] = {
        SENT: [("a", "0"), ("b", "3"), ("c", "9")],
        ACKED: [("a", ORIGINAL, "0"), ("b", ORIGINAL, "3"), ("c", ORIGINAL, "9")],
        EVENTS: [("kill", "0.0", "60")],
    }
    for case, read in {"neither": "a", "the later one": "ac"}.items():
        figures = account(
            on_core(
                tmp_path / case,
                **files,
                **{
                    f"{PRESENT}0.0": [(HERE, "-9")],
                    f"{ARRIVED}0.0": [(name, ORIGINAL) for name in read],
                    f"{DELIVERED}0.0": [(name, ORIGINAL) for name in read],
                },
            )
        )
        unread = [name for name in "bc" if name not in read]
        why = "kill, worker 0, 60.0 s" if read == "a" else "NOTHING"
        assert (figures.holds, figures.excused) == (read == "a", {why: unread})


def test_core_loss_without_an_event_is_found(tmp_path: Path) -> None:
    """What the bus is said to have lost while the reader was there, and nothing happened, was not the bus's loss."""
    for case, there in {"never said": [], "there": [(HERE, "-9")], "long away before": AWAY_BEFORE}.items():
        files: dict[str, Rows] = {f"{DELIVERED}0.0": ONE, f"{ARRIVED}0.0": [("a", ORIGINAL)], f"{PRESENT}0.0": there}
        figures = account(on_core(tmp_path / case, **files))
        assert (figures.holds, figures.unexcused, figures.excused) == (False, 1, {"NOTHING": ["b"]})


def test_core_who_was_away_for_long_lost_what_came_then(tmp_path: Path) -> None:
    """While nobody of a group is there all is lost; while one of them is, nothing is."""
    gone: Rows = [(HERE, "-90"), ("stopped", "-60"), (HERE, "60")]
    files: dict[str, Rows] = {f"{DELIVERED}0.0": ONE, f"{ARRIVED}0.0": [("a", ORIGINAL)], f"{PRESENT}0.0": gone}
    assert account(on_core(tmp_path / "alone", **files)).holds
    assert not account(on_core(tmp_path / "other", **files, **{f"{PRESENT}1.0": [(HERE, "-90")]})).holds


def test_core_what_could_not_be_judged_is_told_apart(tmp_path: Path) -> None:
    """A message that came while the store was down is lost on core NATS: counted by itself."""
    figures = account(on_core(tmp_path, **{f"{DELIVERED}0.0": ONE, f"{REFUSED}0.0": [("b", ORIGINAL, UNAVAILABLE)]}))
    assert (figures.honest_lost, figures.honest_lost_unavailable, figures.honest_lost_by_bus) == (0, 1, 0)


def test_core_a_copy_that_died_with_its_worker_is_the_kills_loss(tmp_path: Path) -> None:
    """Where a killed worker had claimed a copy that came first, the message itself is a repeat: the kill took it."""
    refused: Rows = [("b", ORIGINAL, REPLAYED), ("a", "copy.1", REPLAYED)]
    run: dict[str, Rows] = {f"{DELIVERED}0.0": ONE, f"{REFUSED}0.0": refused, f"{ARRIVED}0.1": [("b", "copy.2")]}
    assert not account(on_core(tmp_path / "living", **run)).holds
    figures = account(on_core(tmp_path / "dead", **run | {EVENTS: [("kill", "0.1")]}))
    assert figures.holds
    assert (figures.honest_lost_by_bus, figures.honest_rejected_as_replay) == (1, 0)
    judged = {f"{REFUSED}0.1": [("b", "copy.2", REPLAYED)]}
    assert not account(on_core(tmp_path / "judged", **run | judged | {EVENTS: [("kill", "0.1")]})).holds


def test_core_an_honest_message_called_a_replay_is_found(tmp_path: Path) -> None:
    """A message that nobody delivered and that was refused as replayed is a broken promise."""
    figures = account(on_core(tmp_path, **{f"{DELIVERED}0.0": ONE, f"{REFUSED}0.0": [("b", ORIGINAL, REPLAYED)]}))
    assert not figures.holds
    assert figures.honest_rejected_as_replay == 1


def test_the_tally_reads_whole_lines_once(tmp_path: Path) -> None:
    """The running count takes each line once, and none before it is complete."""
    tally = Tally(tmp_path)
    tally.update()
    assert (tally.acked, tally.waiting) == (0, 0)
    put(tmp_path, ACKED, *GOOD)
    put(tmp_path, f"{DELIVERED}0.0", ("", "0", "", ""), ("a", "0@0", "0", "5"))
    for _ in range(2):
        tally.update()
        assert (tally.acked, tally.waiting) == (2, 1)
    handled = tally.handled
    put(tmp_path, f"{REFUSED}0.0", ("b", "0@1", REPLAYED, "0.0/0", "6"))
    tally.update()
    assert tally.handled == handled + 1
    with (tmp_path / f"{ACKED}.tsv").open("a") as file:
        file.write("c\t0@")
    tally.update()
    assert tally.acked == 2


def test_what_is_given_up_waits_no_more(tmp_path: Path) -> None:
    """What was lost on the way holds up no load; what is acknowledged later does, until it is delivered."""
    tally = Tally(tmp_path)
    put(tmp_path, ACKED, *GOOD)
    tally.update()
    tally.give_up()
    assert (tally.acked, tally.waiting) == (2, 0)
    put(tmp_path, ACKED, ("c", "0@2"))
    tally.update()
    assert tally.waiting == 1
    put(tmp_path, f"{DELIVERED}0.0", ("c", "0@2", "0", "5"))
    tally.update()
    assert tally.waiting == 0


def test_figures_come_from_nothing_but_files(tmp_path: Path) -> None:
    """An empty run has sent nothing and so proves nothing."""
    figures = account(Evidence.read(tmp_path))
    assert (figures.honest_sent, figures.replays_offered, Counter(figures.deeds)) == (0, 0, Counter())
