import asyncio
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE
from watchword import ConfigurationError, SigningKey, Unavailable, VerificationKey
from watchword.jwk import to_jwks
from watchword_adapters.keys import files as module
from watchword_adapters.keys import public_files
from watchword_adapters.keys.files import FileKeys

ALICE = "agent://acme/alice"
BOB = "agent://acme/bob"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Warnings(list[str]):
    """The warnings that were given."""

    def __call__(self, event: str, **fields: str | float | None) -> None:
        """Note a warning."""
        self.append(f"{event} {fields['failure']}")


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


@pytest.fixture
def warnings() -> Warnings:
    """Return a list of warnings."""
    return Warnings()


@pytest.fixture
def old() -> VerificationKey:
    """Return a key of Alice's."""
    return SigningKey.generate().verification_key(ALICE)


@pytest.fixture
def new() -> VerificationKey:
    """Return another key of Alice's."""
    return SigningKey.generate().verification_key(ALICE)


@pytest.fixture
def path(tmp_path: Path, old: VerificationKey) -> Path:
    """Return a set with the old key, which has not changed for an hour."""
    path = tmp_path / "agents.jwks"
    write(path, [old])
    return path


def write(path: Path, keys: Sequence[VerificationKey]) -> None:
    """Replace a set as a careful program does."""
    beside = path.with_suffix(".new")
    beside.write_text(to_jwks(keys))
    beside.replace(path)


def spoil(path: Path, content: str | None) -> None:
    """Overwrite a set in place, or remove it."""
    if content is None:
        path.unlink()
    else:
        path.write_text(content)


async def test_a_known_key_is_answered_without_looking_until_it_is_time(
    path: Path, clock: Clock, old: VerificationKey
) -> None:
    """Removal takes effect at the next look, which comes after check_every seconds."""
    keys = FileKeys([path], check_every=5, clock=clock)
    write(path, [])
    clock.now += 4.9
    assert await keys.find(ALICE, old.key_id) == old
    clock.now += 0.1
    assert await keys.find(ALICE, old.key_id) is None
    assert keys.keys == ()


async def test_an_unknown_key_has_the_files_looked_at_once_a_second(
    path: Path, clock: Clock, old: VerificationKey, new: VerificationKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rotated key is found at once, and forged key ids cannot keep the disk busy."""
    keys = FileKeys([path], check_every=3600, clock=clock)
    looks = 0
    really = public_files.list_files

    def counted(paths: Iterable[Path]) -> list[Path]:
        nonlocal looks
        looks += 1
        return really(paths)

    monkeypatch.setattr(public_files, "list_files", counted)
    clock.now += 1
    assert await keys.find(ALICE, new.key_id) is None
    write(path, [old, new])
    for _ in range(100):
        assert await keys.find(ALICE, new.key_id) is None
    assert looks == 1
    clock.now += 1
    assert await keys.find(ALICE, new.key_id) == new
    assert looks == 2


async def test_a_key_id_under_another_name_has_the_files_looked_at_too(
    path: Path, clock: Clock, old: VerificationKey
) -> None:
    """An id that was given to another principal is found once the file says so."""
    keys = FileKeys([path], check_every=3600, clock=clock)
    moved = SigningKey.generate()
    bobs = VerificationKey.from_public_key(moved.public, principal=BOB, key_id=old.key_id)
    assert await keys.find(BOB, old.key_id) == old
    write(path, [bobs])
    clock.now += 1
    assert await keys.find(BOB, old.key_id) == bobs


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="missing"),
        pytest.param('{"keys": [', id="half"),
        pytest.param('{"keys": [{"kty": "OKP", "d": "AA"}]}', id="private"),
        pytest.param("x" * (4 * 1024 * 1024 + 1), id="oversize"),
        pytest.param('{"keys": "none"}', id="type"),
    ],
)
async def test_a_poisoned_file_leaves_the_last_good_set_for_a_stated_time(  # noqa: PLR0917 - fixtures
    path: Path, clock: Clock, old: VerificationKey, new: VerificationKey, warnings: Warnings, content: str | None
) -> None:
    """A missing or bad file changes nothing at once, makes no key unknown, is logged once, and ends in Unavailable."""
    keys = FileKeys([path], check_every=5, max_staleness=60, clock=clock, warn=warnings)
    spoil(path, content)
    for _ in range(12):
        clock.now += 5
        assert await keys.find(ALICE, old.key_id) == old
        with pytest.raises(Unavailable, match=r"agents\.jwks: "):
            await keys.find(ALICE, new.key_id)
    assert len(warnings) == 1
    assert warnings[0].startswith(f"keys.files_not_read {path}: ")
    clock.now += 5
    with pytest.raises(Unavailable, match="longer than max_staleness"):
        await keys.find(ALICE, old.key_id)
    write(path, [new])
    clock.now += 5
    assert await keys.find(ALICE, new.key_id) == new
    assert await keys.find(ALICE, old.key_id) is None


async def test_a_set_that_comes_to_contradict_itself_is_not_taken(
    path: Path, tmp_path: Path, clock: Clock, old: VerificationKey, warnings: Warnings
) -> None:
    """One public key under two principals, over all files of the source, leaves the last good set."""
    more = tmp_path / "more.jwks"
    write(more, [])
    keys = FileKeys([path, more], check_every=0, clock=clock, warn=warnings)
    write(more, [VerificationKey.from_public_key(old.public, principal=BOB, key_id=b"mine")])
    assert await keys.find(ALICE, old.key_id) == old
    with pytest.raises(Unavailable):
        await keys.find(BOB, b"mine")
    assert "one public key for" in warnings[0]


def test_a_contradicting_set_is_refused_at_the_start(path: Path, tmp_path: Path, old: VerificationKey) -> None:
    """Two owners of one key, or one id twice, stop the start, also across files (A32)."""
    more = tmp_path / "more.jwks"
    write(more, [VerificationKey.from_public_key(old.public, principal=BOB, key_id=b"mine")])
    with pytest.raises(ConfigurationError, match=r"^key file .*agents\.jwks, .*more\.jwks: one public key for"):
        FileKeys([path, more])
    write(more, [old])
    with pytest.raises(ConfigurationError, match="two keys with id"):
        FileKeys([path, more])


async def test_a_key_file_removed_from_a_directory_is_no_longer_trusted(
    tmp_path: Path, clock: Clock, old: VerificationKey, new: VerificationKey
) -> None:
    """In a directory a file that is gone is a key withdrawn; the last one gone is a directory that cannot be right."""
    directory = tmp_path / "agents"
    directory.mkdir()
    write(directory / "old.jwks", [old])
    write(directory / "new.jwks", [new])
    keys = FileKeys([directory], check_every=0, clock=clock)
    (directory / "old.jwks").unlink()
    assert await keys.find(ALICE, old.key_id) is None
    assert await keys.find(ALICE, new.key_id) == new
    (directory / "new.jwks").unlink()
    assert await keys.find(ALICE, new.key_id) == new
    with pytest.raises(Unavailable, match="no key file in it"):
        await keys.find(ALICE, old.key_id)


async def test_unchanged_files_are_not_read_again(
    path: Path, clock: Clock, old: VerificationKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at files that stayed as they are costs a stat each, and counts as knowing that the set is current."""
    later = time.time_ns() + 3600 * 10**9
    monkeypatch.setattr("time.time_ns", lambda: later)
    keys = FileKeys([path], check_every=5, max_staleness=60, clock=clock)
    monkeypatch.setattr(public_files, "read_keys", None)
    for _ in range(100):
        clock.now += 5
        assert await keys.find(ALICE, old.key_id) == old


async def test_a_change_that_the_file_system_does_not_show_is_seen(
    path: Path, clock: Clock, old: VerificationKey, new: VerificationKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changed a moment ago is read again: two changes within a tick leave all its times alike."""
    tick = time.time_ns()
    monkeypatch.setattr(public_files, "_state", lambda path, _status: (str(path), 0, 0, 0, tick, tick))
    keys = FileKeys([path], check_every=0, clock=clock)
    write(path, [new])
    assert await keys.find(ALICE, new.key_id) == new
    assert await keys.find(ALICE, old.key_id) is None


class SlowDisk:
    """Files that do not answer until they are let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads = 0
        self.answer = threading.Event()
        self._really = public_files.list_files
        monkeypatch.setattr(public_files, "list_files", self._list)

    def _list(self, paths: Iterable[Path]) -> list[Path]:
        self.reads += 1
        self.answer.wait()
        return self._really(paths)


async def test_a_disk_that_hangs_delays_one_message_and_a_bounded_time(
    path: Path, clock: Clock, old: VerificationKey, warnings: Warnings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a read hangs, known keys are answered at once, unknown ones are undetermined, and no second read begins."""
    keys = FileKeys([path], check_every=5, clock=clock, warn=warnings)
    disk = SlowDisk(monkeypatch)
    monkeypatch.setattr(module, "READ_LIMIT", 0.01)
    try:
        clock.now += 5
        assert await keys.find(ALICE, old.key_id) == old
        assert warnings == ["keys.files_not_read reading key files takes longer than 0.01 s"]
        clock.now += 5
        for _ in range(10):
            assert await keys.find(ALICE, old.key_id) == old
            with pytest.raises(Unavailable, match="takes longer"):
                await keys.find(ALICE, b"unknown")
        assert disk.reads == 1
    finally:
        disk.answer.set()
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                assert await keys.find(ALICE, b"unknown") is None
                break
            except Unavailable:
                await asyncio.sleep(0.001)


async def test_after_a_quiet_time_nobody_is_told_that_readable_files_are_stale(
    path: Path, clock: Clock, old: VerificationKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody looked for longer than max_staleness, since nobody asked: then those who ask at once wait for one look."""
    keys = FileKeys([path], check_every=5, max_staleness=5, clock=clock)
    disk = SlowDisk(monkeypatch)
    clock.now += 3600
    asking = [asyncio.ensure_future(keys.find(ALICE, old.key_id)) for _ in range(3)]
    await asyncio.sleep(0)
    disk.answer.set()
    assert await asyncio.gather(*asking) == [old] * 3
    assert disk.reads == 1
    for _ in range(20):  # and at no time between two looks
        clock.now += 1
        assert await keys.find(ALICE, old.key_id) == old


async def test_known_keys_do_not_wait_for_a_read_that_others_began(
    path: Path, clock: Clock, old: VerificationKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forged key id on a slow disk does not hold up honest traffic (A38)."""
    monkeypatch.setattr(module, "READ_LIMIT", 600.0)  # so that none is given up before
    keys = FileKeys([path], check_every=0, clock=clock)
    disk = SlowDisk(monkeypatch)
    asking = asyncio.ensure_future(keys.find(ALICE, b"unknown"))
    await asyncio.sleep(0)
    try:
        assert await asyncio.wait_for(keys.find(ALICE, old.key_id), 60) == old
        assert not asking.done()
    finally:
        disk.answer.set()
    assert await asking is None


async def test_questions_about_a_new_key_share_one_read(
    path: Path, clock: Clock, new: VerificationKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages under a key that was just added wait for the same look, and none of them is called unknown."""
    keys = FileKeys([path], clock=clock)
    disk = SlowDisk(monkeypatch)
    write(path, [new])
    clock.now += 1
    asking = [asyncio.ensure_future(keys.find(ALICE, new.key_id)) for _ in range(5)]
    await asyncio.sleep(0)
    disk.answer.set()
    assert await asyncio.gather(*asking) == [new] * 5
    assert disk.reads == 1


async def test_a_question_given_up_leaves_the_source_in_order(
    path: Path, clock: Clock, new: VerificationKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelling the caller neither cancels the read for the others nor loses what was read."""
    keys = FileKeys([path], clock=clock)
    disk = SlowDisk(monkeypatch)
    write(path, [new])
    clock.now += 1
    first, second = (asyncio.ensure_future(keys.find(ALICE, new.key_id)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    disk.answer.set()
    assert await second == new


def test_a_source_outlives_an_event_loop(
    path: Path, clock: Clock, new: VerificationKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that an ended loop left behind does not keep the next loop from reading."""
    keys = FileKeys([path], clock=clock)
    disk = SlowDisk(monkeypatch)
    write(path, [new])
    clock.now += 1

    async def give_up() -> None:
        asking = asyncio.ensure_future(keys.find(ALICE, new.key_id))
        await asyncio.sleep(0)
        asking.cancel()

    ended = asyncio.new_event_loop()
    ended.run_until_complete(give_up())
    ended.close()
    disk.answer.set()
    clock.now += 1
    assert asyncio.run(keys.find(ALICE, new.key_id)) == new


def test_a_late_answer_of_an_earlier_read_is_not_taken(
    path: Path, clock: Clock, new: VerificationKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the read that was begun last changes the set, also if its event loop is not the one that continues."""
    keys, really = FileKeys([path], clock=clock), public_files.read_keys
    asked, answers = threading.Event(), threading.Event()

    def late(files: Sequence[Path]) -> tuple[list[VerificationKey], public_files.State]:
        found = really(files)
        if not asked.is_set():
            asked.set()
            answers.wait()
        return found

    async def give_up() -> None:
        asking = asyncio.ensure_future(keys.find(ALICE, b"unknown"))
        await asyncio.to_thread(asked.wait)
        asking.cancel()

    monkeypatch.setattr(public_files, "read_keys", late)
    clock.now += 1
    with asyncio.Runner() as first:
        first.run(give_up())
        write(path, [new])
        clock.now += 1
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(asyncio.run, keys.find(ALICE, new.key_id)).result(60) == new
        answers.set()
        first.run(first.get_loop().shutdown_default_executor())
    assert keys.keys == (new,)


async def test_a_read_that_is_cancelled_changes_nothing(path: Path, clock: Clock, old: VerificationKey) -> None:
    """The set that was read before still answers."""
    keys = FileKeys([path], clock=clock)
    keys._reading = asyncio.get_running_loop().create_future()
    keys._reading.cancel()
    keys._take(keys._reading)
    assert keys.keys == (old,)


async def test_a_surprise_while_reading_is_told_by_its_kind(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody foresaw leaves the last good set, like those that were foreseen."""
    keys = FileKeys([path], clock=clock)

    def burst(*_: object) -> None:
        raise MemoryError("secret detail")

    monkeypatch.setattr(public_files, "read_keys", burst)
    clock.now += 1
    with pytest.raises(Unavailable, match=r"MemoryError$"):
        await keys.find(ALICE, b"unknown")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"paths": []}, "name at least one path"),
        ({"paths": "agents.jwks"}, "name at least one path"),
        ({"paths": ["none"]}, "key file none: No such file or directory; make one with 'watchword keygen'"),
        ({"paths": ["a"], "check_every": -1.0}, "check_every of -1 s: choose 0 s to 3600 s"),
        ({"paths": ["a"], "max_staleness": float("nan")}, "max_staleness of nan s: choose 5 s to 604800 s"),
        ({"paths": ["a"], "check_every": 0.0, "max_staleness": 0.0}, "max_staleness of 0 s: choose 5 s to 604800 s"),
        (
            {"paths": ["a"], "check_every": 60.0, "max_staleness": 59.0},
            "max_staleness of 59 s: choose 60 s to 604800 s",
        ),
    ],
)
def test_a_wrong_set_up_is_refused_in_one_line(options: dict[str, object], complaint: str) -> None:
    """At the start a mistake is an error that says what to write."""
    with pytest.raises(ConfigurationError, match=complaint):
        FileKeys(**options)  # type: ignore[arg-type]  # wrong on purpose
