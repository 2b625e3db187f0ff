"""The account of the chaos report, held against runs that are made up."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from chaos.accounting import account
from chaos.evidence import (
    ACKED,
    ARRIVED,
    DELIVERED,
    EVENTS,
    LOG,
    ORIGINAL,
    REFUSED,
    REPLAYED,
    UNAVAILABLE,
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


def on_log(directory: Path, *, delivered: Rows, refused: Rows | None = None, acked: Rows | None = None) -> Evidence:
    """Return a run of two honest messages, each with one copy in the log; one worker lived through it."""
    return written(
        directory,
        **{
            ACKED: acked or [("a", "0@0"), ("b", "1@0")],
            LOG: [("a", "0@0"), ("b", "1@0"), ("a", "0@1"), ("b", "0@2")],
            f"{DELIVERED}0.0": [(*row, "0") for row in delivered],
            f"{REFUSED}0.0": refused or [],
        },
    )


def on_core(directory: Path, **files: Rows) -> Evidence:
    """Return a run on core NATS of two honest messages, which worker 0.0 got, and of a copy of the first."""
    run: dict[str, Rows] = {
        ACKED: [("a", ORIGINAL), ("b", ORIGINAL)],
        WITNESSED: [("a", ORIGINAL), ("b", ORIGINAL), ("a", "copy.1")],
        f"{ARRIVED}0.0": [("a", ORIGINAL), ("b", ORIGINAL), ("a", "copy.1")],
        f"{DELIVERED}0.0": [("a", "-", "0"), ("b", "-", "0")],
        f"{REFUSED}0.0": [("a", "copy.1", REPLAYED)],
    }
    return written(directory, **run | files)


GOOD: Rows = [("a", "0@0"), ("b", "1@0")]


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
    figures = account(on_log(tmp_path, acked=GOOD[:1], delivered=GOOD))
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
    figures = account(on_core(tmp_path, **{f"{DELIVERED}1.0": [("a", "-", "0")]}))
    assert not figures.holds
    assert figures.replays_delivered == 1


def test_core_loss_in_a_living_worker_is_ours(tmp_path: Path) -> None:
    """What a worker that lived on got and did not hand over is not the bus's loss."""
    figures = account(on_core(tmp_path, **{f"{DELIVERED}0.0": [("a", "-", "0")]}))
    assert not figures.holds
    assert (figures.honest_lost, figures.honest_lost_by_bus) == (1, 0)


def test_core_loss_of_the_bus_is_counted_beside_it(tmp_path: Path) -> None:
    """What reached no worker, or one that was killed, core NATS does not offer again."""
    delivered: Rows = [("a", "-", "0")]
    never = on_core(tmp_path, **{f"{DELIVERED}0.0": delivered, f"{ARRIVED}0.0": [("a", ORIGINAL)]})
    figures = account(never)
    assert figures.holds
    assert figures.honest_lost_by_bus == 1
    Writer(tmp_path, f"{ARRIVED}0.1").write(("b", ORIGINAL))
    Writer(tmp_path, EVENTS).write(("kill", "0.1"))
    figures = account(Evidence.read(tmp_path))
    assert (figures.honest_lost, figures.honest_lost_by_bus) == (0, 1)


def test_core_what_could_not_be_judged_is_told_apart(tmp_path: Path) -> None:
    """A message that came while the store was down is lost on core NATS: counted by itself."""
    figures = account(
        on_core(tmp_path, **{f"{DELIVERED}0.0": [("a", "-", "0")], f"{REFUSED}0.0": [("b", ORIGINAL, UNAVAILABLE)]})
    )
    assert (figures.honest_lost, figures.honest_lost_unavailable, figures.honest_lost_by_bus) == (0, 1, 0)


def test_core_a_copy_that_died_with_its_worker_is_the_kills_loss(tmp_path: Path) -> None:
    """Where a killed worker had claimed a copy that came first, the message itself is a repeat: the kill took it."""
    refused: Rows = [("b", ORIGINAL, REPLAYED), ("a", "copy.1", REPLAYED)]
    run = {f"{DELIVERED}0.0": [("a", "-", "0")], f"{REFUSED}0.0": refused, f"{ARRIVED}0.1": [("b", "copy.2")]}
    assert not account(on_core(tmp_path / "living", **run)).holds
    figures = account(on_core(tmp_path / "dead", **run | {EVENTS: [("kill", "0.1")]}))
    assert figures.holds
    assert (figures.honest_lost_by_bus, figures.honest_rejected_as_replay) == (1, 0)
    judged = {f"{REFUSED}0.1": [("b", "copy.2", REPLAYED)]}
    assert not account(on_core(tmp_path / "judged", **run | judged | {EVENTS: [("kill", "0.1")]})).holds


def test_core_an_honest_message_called_a_replay_is_found(tmp_path: Path) -> None:
    """A message that nobody delivered and that was refused as replayed is a broken promise."""
    figures = account(
        on_core(tmp_path, **{f"{DELIVERED}0.0": [("a", "-", "0")], f"{REFUSED}0.0": [("b", ORIGINAL, REPLAYED)]})
    )
    assert not figures.holds
    assert figures.honest_rejected_as_replay == 1


def test_the_tally_reads_whole_lines_once(tmp_path: Path) -> None:
    """The running count takes each line once, and none before it is complete."""
    tally = Tally(tmp_path)
    tally.update()
    assert (tally.acked, tally.waiting) == (0, 0)
    Writer(tmp_path, ACKED).write(*GOOD)
    Writer(tmp_path, f"{DELIVERED}0.0").write(("a", "0@0", "0"))
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
    Writer(tmp_path, f"{DELIVERED}0.0").write(("c", "0@2", "0"))
    tally.update()
    assert tally.waiting == 0


def test_figures_come_from_nothing_but_files(tmp_path: Path) -> None:
    """An empty run has sent nothing and so proves nothing."""
    figures = account(Evidence.read(tmp_path))
    assert (figures.honest_sent, figures.replays_offered, Counter(figures.deeds)) == (0, 0, Counter())
