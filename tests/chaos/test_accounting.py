"""The account of the chaos report, held against runs that are made up."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from chaos.accounting import account
from chaos.evidence import (
    ABORTED,
    ACKED,
    ARRIVED,
    DELIVERED,
    EVENTS,
    LOG,
    ORIGINAL,
    REFUSED,
    REPLAYED,
    SENT,
    UNAVAILABLE,
    UNSETTLED,
    WITNESSED,
    Evidence,
    Tally,
    Writer,
)

Rows = Sequence[tuple[str, ...]]


def written(directory: Path, **files: Rows) -> Evidence:
    """Write the files of a run as its processes do, and read them again."""
    directory.mkdir(exist_ok=True)
    for name, rows in files.items():
        Writer(directory, name).write(*rows)
    return Evidence.read(directory)


def on_log(directory: Path, *, delivered: Rows, refused: Rows | None = None, **files: Rows) -> Evidence:
    """Return a run of two honest messages, each with one copy in the log; one worker lived through it.

    A delivery may leave out whether it passed for a redelivery, and how late it was.
    """
    run: dict[str, Rows] = {
        SENT: [("a",), ("b",)],
        ACKED: [("a", "0@0"), ("b", "1@0")],
        LOG: [("a", "0@0"), ("b", "1@0"), ("a", "0@1"), ("b", "0@2")],
        f"{DELIVERED}0.0": [(*row, "0", "0")[:4] for row in delivered],
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


GOOD: Rows = [("a", "0@0"), ("b", "1@0")]
ONE: Rows = [("a", "-", "0", "0")]


def test_a_good_run_holds(tmp_path: Path) -> None:
    """Where exactly the honest messages were delivered, nothing is held against the run, and copies are counted."""
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
    delivered: Rows = [("a", "0@1"), ("b", "1@0")]
    figures = account(on_log(tmp_path, delivered=delivered, refused=[("a", "0@0", REPLAYED)]))
    assert figures.holds
    assert figures.copies_came_first == 1


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
    """Where a message stands is what its sender was told, even where the log shows a copy of it first."""
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


def test_deeds_are_counted_as_they_were_done(tmp_path: Path) -> None:
    """Kills and restarts are those that were written down, not those that were planned."""
    Writer(tmp_path, EVENTS).write(("kill", "0.0"), ("kill", "1.0"), ("restart", ""))
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
    never = on_core(tmp_path, **{f"{DELIVERED}0.0": ONE, f"{ARRIVED}0.0": [("a", ORIGINAL)]})
    figures = account(never)
    assert figures.holds
    assert figures.honest_lost_by_bus == 1
    Writer(tmp_path, f"{ARRIVED}0.1").write(("b", ORIGINAL))
    Writer(tmp_path, EVENTS).write(("kill", "0.1"))
    figures = account(Evidence.read(tmp_path))
    assert (figures.honest_lost, figures.honest_lost_by_bus) == (0, 1)


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
    Writer(tmp_path, ACKED).write(*GOOD)
    Writer(tmp_path, f"{DELIVERED}0.0").write(("", "0", "", ""), ("a", "0@0", "0", "5"))
    for _ in range(2):
        tally.update()
        assert (tally.acked, tally.waiting) == (2, 1)
    with (tmp_path / f"{ACKED}.tsv").open("a") as file:
        file.write("c\t0@")
    tally.update()
    assert tally.acked == 2


def test_what_is_given_up_waits_no_more(tmp_path: Path) -> None:
    """What was lost on the way holds up no load; what is acknowledged later does, until it is delivered."""
    tally = Tally(tmp_path)
    Writer(tmp_path, ACKED).write(*GOOD)
    tally.update()
    tally.give_up()
    assert (tally.acked, tally.waiting) == (2, 0)
    Writer(tmp_path, ACKED).write(("c", "0@2"))
    tally.update()
    assert tally.waiting == 1
    Writer(tmp_path, f"{DELIVERED}0.0").write(("c", "0@2", "0", "5"))
    tally.update()
    assert tally.waiting == 0


def test_figures_come_from_nothing_but_files(tmp_path: Path) -> None:
    """An empty run has sent nothing and so proves nothing."""
    figures = account(Evidence.read(tmp_path))
    assert (figures.honest_sent, figures.replays_offered, Counter(figures.deeds)) == (0, 0, Counter())
