"""What the shared stores have in common, on a store that a test holds in its hand."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.stores.world import signed
from tests.support.patience import PATIENCE
from tests.unit.core.world import ALICE, ALICE_KEY, REALM
from watchword import ConfigurationError, MemoryKeys, Policy, Unavailable
from watchword.replay import ReaderBirth, StoreError
from watchword.spi import Admission, Verifier
from watchword_adapters.config import load
from watchword_adapters.contract.replay_store import make_claim
from watchword_adapters.stores.batched import FORGOTTEN, Answer, BatchedReplayStore, NoAnswerError, Use
from watchword_adapters.stores.nats_kv import NatsKvReplayStore
from watchword_adapters.stores.redis import RedisReplayStore
from watchword_adapters.stores.sqlite import SqliteReplayStore
from watchword_adapters.stores.where import shown

FIRST = Admission.FIRST


class Held(BatchedReplayStore):
    """A store that answers FIRST when it is let."""

    flights = 2
    most = 10

    def __init__(self, **options: Any) -> None:
        self.batches: list[int] = []
        self.answer: Answer = FIRST
        self.opened = 0
        self.closed = 0
        self.abandoned = 0
        self.refuses: Exception | None = None
        self.born: dict[str, ReaderBirth] = {}
        self.let = asyncio.Event()
        super().__init__(policy=Policy(), clock=time.time, **options)

    @property
    def where(self) -> str:
        """See the base."""
        return "where it is held"

    async def _open(self) -> None:
        self.opened += 1
        if self.refuses is not None:
            raise self.refuses

    async def _judge(self, uses: Sequence[Use]) -> Sequence[Answer]:
        self.batches.append(len(uses))
        await self.let.wait()
        return [self.answer] * len(uses)

    async def _birth_of(self, reader: str) -> ReaderBirth | None:
        return self.born.get(reader)

    async def _admit(self, reader: str, birth: ReaderBirth, *, replace: bool) -> ReaderBirth:
        del replace
        return self.born.setdefault(reader, birth)

    async def _close(self) -> None:
        self.closed += 1

    def _abandon(self) -> None:
        self.abandoned += 1


async def test_claims_gather_while_batches_are_out() -> None:
    """Promise: many claims go together, and not one round trip after another."""
    store = Held()
    claims = [asyncio.ensure_future(store.claim(make_claim(number))) for number in range(45)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert store.batches == [10, 10]
    store.let.set()
    assert await asyncio.gather(*claims) == [FIRST] * 45
    assert store.batches == [10, 10, 10, 10, 5]
    assert store.opened == 1


async def test_a_bulk_goes_together_and_is_given_up_together() -> None:
    """Promise: the claims of a bulk fill batches as others do; a bulk whose caller gives up is not asked for."""
    store = Held()
    out = [asyncio.ensure_future(store.claim_many([make_claim(at + number) for number in range(10)])) for at in (0, 10)]
    await asyncio.sleep(0.01)
    bulk = asyncio.ensure_future(store.claim_many([make_claim(20), make_claim(21)]))
    await asyncio.sleep(0)
    bulk.cancel()
    store.let.set()
    assert [list(answers) for answers in await asyncio.gather(*out)] == [[FIRST] * 10] * 2
    assert store.batches == [10, 10]


async def test_who_gave_up_is_not_asked_for() -> None:
    """Promise: a claim whose task was cancelled costs the store nothing, and harms no other of its batch."""
    store = Held()
    out = [asyncio.ensure_future(store.claim(make_claim(number))) for number in range(20)]
    await asyncio.sleep(0.01)
    waiting = [asyncio.ensure_future(store.claim(make_claim(number))) for number in range(20, 25)]
    await asyncio.sleep(0)
    for claim in (out[0], waiting[0]):
        claim.cancel()
    store.let.set()
    assert await asyncio.gather(*out[1:], *waiting[1:]) == [FIRST] * 23
    assert store.batches == [10, 10, 4]


async def test_who_waits_too_long_is_told() -> None:
    """Promise: behind a store that hangs, claims fail in bounded time."""
    store = Held(timeout=0.05)
    failures = await asyncio.gather(*(store.claim(make_claim(n)) for n in range(30)), return_exceptions=True)
    told = "where it is held: no answer within 0.05 s; if it is up, but slow or far away, write a longer timeout"
    assert {str(failure).partition(" under")[0] for failure in failures} == {told}
    assert all(isinstance(failure, StoreError) and isinstance(failure, TimeoutError) for failure in failures)
    assert store.batches == [10, 10]
    cancelled = asyncio.ensure_future(store.claim(make_claim(1)))
    await asyncio.sleep(0.01)
    cancelled.cancel()
    await store.close()
    store.let.set()
    assert await store.claim(make_claim(1)) is FIRST


async def test_a_failure_to_open_speaks_for_those_that_follow() -> None:
    """Promise: a store that is down is not knocked at by each claim; ``start`` knocks at once."""
    store = Held()
    store.refuses = OSError("down")
    store.let.set()
    for _ in range(5):
        with pytest.raises(OSError, match="down"):
            await store.claim(make_claim(1))
    assert store.opened == 1
    store.refuses = None
    await store.start()
    assert await store.claim(make_claim(1)) is FIRST
    assert store.opened == 2


async def test_another_number_of_answers_is_an_error() -> None:
    """Promise: answers that cannot be matched to claims are none."""

    class Short(Held):
        async def _judge(self, uses: Sequence[Use]) -> Sequence[Answer]:
            return (await super()._judge(uses))[:1]

    store = Short()
    store.let.set()
    failures = await asyncio.gather(store.claim(make_claim(1)), store.claim(make_claim(2)), return_exceptions=True)
    assert {type(failure) for failure in failures} == {StoreError}


def test_it_serves_one_event_loop_after_another() -> None:
    """Promise: a store that was made once may be used by ``asyncio.run`` twice, and be closed by another."""
    store = Held()
    for _ in range(2):
        store.let = asyncio.Event()
        store.let.set()
        assert asyncio.run(store.claim(make_claim(1))) is FIRST
    assert store.opened == 2
    asyncio.run(store.start())
    assert store.opened == 3
    asyncio.run(store.close())


def test_two_event_loops_at_once_are_refused(tmp_path: Path) -> None:
    """Promise: a second thread gets an error at once and disturbs no claim of the first; then it may use the store."""
    store = Held()
    asked, told = threading.Event(), threading.Event()

    async def serve() -> Admission:
        claim = asyncio.ensure_future(store.claim(make_claim(1)))
        await asyncio.sleep(0)
        asked.set()
        await asyncio.to_thread(told.wait, 60)
        store.let.set()
        async with asyncio.timeout(PATIENCE):
            return await claim

    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(lambda: asyncio.run(serve()))
        assert asked.wait(10)
        try:
            for work in (lambda: store.claim(make_claim(2)), store.start, store.close, lambda: store.birth("group")):
                with pytest.raises(ConfigurationError, match="create a separate Watchword in each thread"):
                    asyncio.run(_awaited(work()))
        finally:
            told.set()
        assert first.result(10) is FIRST
    assert asyncio.run(store.claim(make_claim(2))) is FIRST

    async def leave(closed: threading.Event, gone: threading.Event) -> None:
        async with SqliteReplayStore(tmp_path / "ids.db", policy=Policy(), clock=time.time) as other:
            shared.append(other)
        closed.set()
        await asyncio.to_thread(gone.wait)

    shared: list[SqliteReplayStore] = []
    closed, gone = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, leave(closed, gone))
        assert closed.wait(10)
        try:
            assert asyncio.run(shared[0].claim(make_claim(1))) is FIRST
            asyncio.run(shared[0].close())
        finally:
            gone.set()


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work


async def test_the_verifier_is_told_what_to_type() -> None:
    """Promise: what our own stores say reaches the operator; what others wrote into their errors does not (A31)."""
    store = Held()
    store.let.set()
    verifier = Verifier(
        realm=REALM,
        keys=MemoryKeys([ALICE_KEY.verification_key(ALICE)]),
        replay=store,
        policy=Policy(),
        clock=time.time,
    )
    assert verifier.shared_replay
    message = await signed()
    answers: dict[str, Answer] = {"type: watchword store init q:workers": FORGOTTEN, "full": StoreError("full")}
    for text, answer in answers.items():
        store.answer = answer
        with pytest.raises(Unavailable, match=text):
            await verifier.verify(message)
    await store.close()
    store.refuses = StoreError("the clocks differ")
    with pytest.raises(Unavailable, match="the clocks differ"):
        await verifier.start()
    store.refuses = OSError("redis://:hunter2@host")
    with pytest.raises(Unavailable, match=r"^replay unavailable: OSError$"):
        await verifier.start()
    with pytest.raises(Unavailable, match=r"^replay unavailable: OSError$"):
        await verifier.verify(message)


async def test_a_reader_that_is_not_known_is_told_once() -> None:
    """Promise: the operator learns of a loss once a reader and birth, until when it matters, and what to type."""
    told: list[tuple[str, dict[str, Any]]] = []

    class Reborn(Held):
        born_at = 0.0

        async def _judge(self, uses: Sequence[Use]) -> Sequence[Answer]:
            self._noted(self.born_at, sorted({use.reader for use in uses}))
            return await super()._judge(uses)

    store = Reborn(realm="prod", warn=lambda event, **fields: told.append((event, fields)))
    store.let.set()
    for store.born_at, readers in ((0.0, ["js:S:w", "queue:q:t.*"]), (0.0, ["js:S:w"]), (60.0, ["js:S:w"])):
        claims = [make_claim(number, reader=reader) for number, reader in enumerate(readers)]
        assert await asyncio.gather(*map(store.claim, claims)) == [FIRST] * len(claims)
    assert [event for event, _ in told] == ["replay.store_forgot"] * 3
    assert [fields["reader"] for _, fields in told] == ["js:S:w", "queue:q:t.*", "js:S:w"]
    assert told[2][1]["judged_if_issued_after"] == "1970-01-01T00:01:05+00:00"
    assert told[0][1]["remedy"] == "type: watchword store init js:S:w --accept-backlog, or --nothing-handled-before"
    assert told[1][1]["remedy"] == "type: watchword store init 'queue:q:t.*'"


async def test_readers_of_two_realms_are_two() -> None:
    """Promise: a store that two clusters share never takes the reader of one for that of the other."""
    store, other = Held(realm="east"), Held(realm="west")
    other.born = store.born
    await store.admit_reader("group", ReaderBirth(floor=1.0))
    assert await other.birth("group") is None
    assert await store.birth("group") == ReaderBirth(floor=1.0)


async def test_as_a_context_it_is_open_within() -> None:
    """Promise: ``async with`` opens it, and closes it after the claims that are out."""
    async with Held() as store:
        assert store.opened == 1
        claim = asyncio.ensure_future(store.claim(make_claim(1)))
        await asyncio.sleep(0.01)
        store.let.set()
    assert await claim is FIRST
    assert store.closed == 1


async def test_a_start_that_takes_too_long_is_told() -> None:
    """Promise: a store that hangs while it is opened, or asked of a reader, says where it is and what to change."""

    class Hanging(Held):
        opens = True

        async def _open(self) -> None:
            if not self.opens:
                await asyncio.sleep(60)

        async def _birth_of(self, reader: str) -> ReaderBirth | None:
            await asyncio.sleep(60)
            return await super()._birth_of(reader)

    store, told = Hanging(timeout=0.05), r"^where it is held: no answer within 0\.05 s; .* under \[replay\]$"
    with pytest.raises(NoAnswerError, match=told):
        await store.birth("group")
    await store.close()
    store.opens = False
    with pytest.raises(NoAnswerError, match=told):
        await store.start()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://user:pa55@host:6379/0", "redis://host:6379"),
        ("rediss://:pa55@host/0?password=pa55", "rediss://host"),
        ("nats://pa55@[::1]:4222", "nats://[::1]:4222"),
        ("unix:///run/redis.sock?password=pa55", "unix:///run/redis.sock"),
        ("redis://:pa/pa55@host", "the server in its url"),
        ("redis://:pa55/x@host:1", "the server in its url"),
        ("redis://user:pa55/x@host", "the server in its url"),
        ("redis://[::1", "the server in its url"),
    ],
)
def test_an_url_is_shown_without_its_password(url: str, told: str) -> None:
    """Promise (A31): an error names the server, and nothing else of the URL."""
    assert shown(url) == told


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": 61}, {"timeout": float("nan")}, {"per_principal": 0}])
def test_a_limit_that_is_none_is_refused(options: dict[str, Any]) -> None:
    """Promise: limits have bounds, and a value beyond them raises an error when the store is created."""
    with pytest.raises(ConfigurationError, match="write "):
        Held(**options)


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ('store = "sqlite"\npath = "ids.db"', SqliteReplayStore),
        ('store = "redis"\nurl = "redis://localhost:6379/0"\nprefix = "ids:"', RedisReplayStore),
        ('store = "redis"\nurl = "redis://ids/0"\nsentinels = ["a:26379", "b:26379"]', RedisReplayStore),
        ('store = "nats_kv"\nurl = "nats://localhost"\nreplicas = 3\ncredentials = "a.creds"', NatsKvReplayStore),
    ],
)
def test_the_settings_name_it(tmp_path: Path, table: str, kind: type[BatchedReplayStore]) -> None:
    """Promise: one table makes the store, and the verifier knows then that all readers share it."""
    replay = _loaded(tmp_path, table + '\ntimeout = "3s"\nper_principal = 5\nmax_lag = "1h"')
    assert isinstance(replay, kind)
    assert replay._timeout == 3.0
    assert replay._per_principal == 5
    assert replay._max_lag == 3600.0


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ('store = "sqlite"', "replay: path: missing: add it"),
        ('store = "redis"\nurl = "localhost"', "replay: url: "),
        ('store = "redis"\nurl = "redis://x"\nsentinels = ["a"]', "replay: sentinels: 'a': write host:26379"),
        ('store = "redis"\nurl = "redis://x"\ntimeout = "2m"', "replay: timeout: "),
        ('store = "nats_kv"\nurl = "nats://x"\nbucket = "a.b"', "replay: bucket 'a.b': use letters"),
    ],
)
def test_mistakes_in_the_settings_are_told(tmp_path: Path, table: str, complaint: str) -> None:
    """Promise: one line names the place and says what to write."""
    with pytest.raises(ConfigurationError) as caught:
        _loaded(tmp_path, table)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def _loaded(directory: Path, table: str) -> object:
    (directory / "a.jwks").write_text('{"keys": []}')
    path = directory / "watchword.toml"
    path.write_text(f'realm = "prod"\n[[keys]]\nsource = "files"\npaths = ["a.jwks"]\n[replay]\n{table}\n')
    verifier = load(path).verifier
    assert verifier.shared_replay
    return verifier.replay
