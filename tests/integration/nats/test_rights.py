"""The page of rights: each writer and reader works with the rights on the page, and learns which ones it lacks."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.errors import Error
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError

from tests.brokers.broker import Broker
from tests.brokers.nats import wheel
from tests.integration.nats.world import CLOUD, PLANNER, World, soon, until, world_on
from tests.support.patience import PATIENCE
from watchword import ConfigurationError, Policy, Unavailable, VerifiedMessage, Watchword, WatchwordError
from watchword.jwk import to_jwks
from watchword.replay import ReaderBirth
from watchword.spi import Admission, ReplayStore
from watchword_adapters.cli.store import Word, run_init
from watchword_adapters.contract.replay_store import make_claim
from watchword_adapters.nats import WatchwordClient
from watchword_adapters.nats.control_log import NatsControlLog
from watchword_adapters.nats.quarantine import NatsQuarantine
from watchword_adapters.nats.redrive import redrive
from watchword_adapters.stores.nats_kv import NatsKvReplayStore
from watchword_adapters.stores.sqlite import SqliteReplayStore

PAGE = Path(__file__).parents[3] / "docs" / "nats-rights.md"
SNIPPETS = {
    text.split("user: ")[1].split(",")[0]: text for text in re.findall("```conf\n(.*?)```", PAGE.read_text(), re.DOTALL)
}
ORDERS, QUARANTINE, WORKER, CONTROL = "ORDERS", "QUARANTINE", "worker", "watchword.control"


def rights_of(snippet: str) -> list[str]:
    """Return the patterns that a user may publish or subscribe to, in the order of the page."""
    lists: list[str] = re.findall(r"(?:publish|subscribe): \[(.*?)\]", snippet, re.DOTALL)
    return [right for one in lists for right in re.findall('"(.*?)"', one)]


LACKING = [(user, right) for user, snippet in SNIPPETS.items() for right in rights_of(snippet)]


def without(snippet: str, user: str, right: str, name: str) -> str:
    """Return a user of another name who lacks one right."""

    def shorter(found: re.Match[str]) -> str:
        left = [f'"{one}"' for one in re.findall('"(.*?)"', found[2]) if one != right]
        return f"{found[1]}: [{', '.join(left)}]" if left else f'{found[1]}: {{ deny: ">" }}'

    renamed = snippet.replace(f"user: {user},", f"user: {name},")
    return re.sub(r"(publish|subscribe): \[(.*?)\]", shorter, renamed, flags=re.DOTALL)


def configuration() -> str:
    """Return the server's: an administrator, every user of the page, and each of them with one right less."""
    mutants = [without(SNIPPETS[user], user, right, f"{user}-{n}") for n, (user, right) in enumerate(LACKING)]
    return "\n".join(
        [
            'SECRET: "secret"',
            "no_auth_user: admin",
            'authorization { users: [ { user: admin, password: x, permissions: { publish: ">", subscribe: ">" } }',
            *SNIPPETS.values(),
            *mutants,
            "] }",
        ]
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Give a server with these users."""
    folder = tmp_path_factory.mktemp("rights")
    path = folder / "server.conf"
    path.write_text(configuration())
    broker = wheel(folder, "-c", str(path))
    yield broker
    broker.stop()


@dataclass
class Case:
    """A world on that server, and one user of it; ``told`` lists the errors that the server sent to that user."""

    world: World
    planner: WatchwordClient
    admin: Client
    user: str
    kind: str
    folder: Path
    told: list[str] = field(default_factory=list)
    got: list[bytes] = field(default_factory=list)

    async def client(
        self,
        *,
        alone: bool = False,
        speaks: str = CLOUD,
        store: ReplayStore | None = None,
        agent: Watchword | None = None,
        **options: Any,
    ) -> WatchwordClient:
        """Connect the user; ``alone`` is without a store that is shared."""
        agent = agent or self.world.agent(speaks, shared=not alone, store=store)
        return await self.world.client(agent, **self.login(), **options)

    def login(self) -> dict[str, Any]:
        """Return the options of nats-py with which the user connects."""

        async def told(error: Exception) -> None:
            self.told.append(str(error))

        prefix = f"_INBOX.{self.kind}"
        return {"user": self.user, "password": "secret", "inbox_prefix": prefix, "error_cb": told}

    def kv(self, **login: Any) -> NatsKvReplayStore:
        """Return the store in the bucket that the page names, as its administrator or as the user."""
        connect = {**login, "password": "secret"} if login else {}
        return NatsKvReplayStore(self.world.url, policy=Policy(), clock=time.time, connect=connect)

    async def bucket(self) -> None:
        """Make the bucket, as an administrator."""
        async with self.kv():
            pass

    async def handle(self, msg: Any) -> None:
        """Note what was delivered."""
        self.got.append(msg.data)

    async def acknowledged(self, msg: Any) -> None:
        """Acknowledge what was delivered, and note it."""
        await msg.ack()
        await msg._client.flush()
        await self.handle(msg)

    async def consumer(self, **config: Any) -> None:
        """Make the durable, as an administrator."""
        await self.admin.jetstream().add_consumer(ORDERS, ConsumerConfig(durable_name=WORKER, **config))

    async def heard(self, value: bytes = b"go") -> None:
        """Wait until it was delivered, or the server has refused something."""
        await until(lambda: value in self.got or self.told)

    def lacks(self, right: str) -> bool:
        """Return True if the server has refused the user that right."""
        subject = re.escape(right.partition(" ")[0].lower()).replace(r"\*", "[^. ]+").replace(">", '[^ "]+')
        named = re.compile(f'(?:publish|subscribe|subscription) to "?{subject}(?!\\.)')
        return any(named.search(one.lower()) for one in self.told)


Stage = Callable[..., Awaitable[Case]]


@pytest_asyncio.fixture
async def stage(server: Broker, tmp_path: Path) -> AsyncIterator[Stage]:
    """Give what makes a case, with a stream ORDERS of its own."""
    async with world_on(server.address) as world:
        planner, admin = await world.client(world.agent(PLANNER)), await world.plain()

        async def make(kind: str, user: str = "") -> Case:
            case = Case(world, planner, admin, user or kind, kind, tmp_path)
            await admin.jetstream().add_stream(name=ORDERS, subjects=["orders.>"])
            return case

        yield make
        for stream in (ORDERS, QUARANTINE, "KV_watchword", CONTROL.replace(".", "-")):
            with suppress(NotFoundError):
                await admin.jetstream().delete_stream(stream)


async def publisher(case: Case) -> None:
    """Publish."""
    reader = await case.world.client(case.world.agent(CLOUD))
    await reader.subscribe("tasks.>", cb=case.handle)
    await reader.flush()
    await (await case.client(speaks=PLANNER)).publish("tasks.a", b"go")
    await case.heard()


async def requester(case: Case) -> None:
    """Ask, and be answered."""
    service = await case.world.client(case.world.agent(CLOUD))
    await service.subscribe("tasks.>", cb=answer)
    await service.flush()
    await case.handle(await (await case.client(speaks=PLANNER)).request("tasks.a", b"?", timeout=20))


async def subscriber(case: Case) -> None:
    """Be delivered what is published."""
    await listen(case)


async def member(case: Case) -> None:
    """Be delivered what is published, in a queue group."""
    await listen(case, queue="workers")


async def listen(case: Case, **options: Any) -> None:
    """Subscribe, and wait for what is published then."""
    client = await case.client()
    await client.subscribe("tasks.>", cb=case.handle, **options)
    await client.flush()
    await case.planner.publish("tasks.a", b"go")
    await case.heard()


async def responder(case: Case) -> None:
    """Answer a request."""
    client = await case.client()
    await client.subscribe("tasks.>", cb=answer)
    await client.flush()
    if not case.told:
        await case.handle(await case.planner.request("tasks.a", b"?", timeout=20))


async def answer(msg: Any) -> None:
    """Answer."""
    await msg.respond(b"go")


async def storer(case: Case) -> None:
    """Store a message, and hear that it is stored."""
    client = await case.client(speaks=PLANNER)
    ack = await client.jetstream().publish("orders.a", b"go", timeout=20)
    assert ack.stream == ORDERS
    case.got.append(b"go")


async def worker(case: Case) -> None:
    """Fetch from a durable, and acknowledge."""
    await case.consumer()
    js = (await case.client()).jetstream()
    await fetch(case, await js.pull_subscribe_bind(WORKER, ORDERS))


async def maker(case: Case) -> None:
    """Make the durable, fetch from it, and acknowledge."""
    js = (await case.client()).jetstream()
    await fetch(case, await js.pull_subscribe("orders.>", WORKER, stream=ORDERS))


async def sole(case: Case) -> None:
    """Read the stream again up to where the durable has got to, and go on."""
    await case.consumer()
    before = await case.planner.jetstream().publish("orders.a", b"before")
    plain = await (await case.world.plain()).jetstream().pull_subscribe_bind(WORKER, ORDERS)
    for _ in range(before.seq):
        await (await plain.fetch(1, timeout=10))[0].ack_sync()
    js = (await case.client(alone=True)).jetstream(sole_reader=True)
    await fetch(case, await js.pull_subscribe_bind(WORKER, ORDERS))


async def passing(case: Case) -> None:
    """Fetch through a consumer that the caller made."""
    js = (await case.client(alone=True)).jetstream()
    await fetch(case, await js.pull_subscribe("orders.>", stream=ORDERS))


async def fetch(case: Case, bound: Any) -> None:
    """Fetch what is stored, and acknowledge it."""
    await case.planner.jetstream().publish("orders.a", b"go")
    (msg,) = await bound.fetch(1, timeout=5)
    await case.acknowledged(msg)


async def pushed(case: Case) -> None:
    """Be pushed what is stored."""
    await case.consumer(deliver_subject="deliver.orders")
    await push(case, durable=WORKER)


async def grouped(case: Case) -> None:
    """Be pushed what is stored, in a deliver group."""
    await case.consumer(deliver_subject="deliver.orders", deliver_group=WORKER)
    await push(case, queue=WORKER)


async def listener(case: Case) -> None:
    """Be pushed what is stored, through a consumer that the caller made."""
    await push(case, alone=True)


async def push(case: Case, *, alone: bool = False, **options: Any) -> None:
    """Subscribe, and acknowledge what is stored."""
    client = await case.client(alone=alone)
    await client.jetstream().subscribe("orders.>", cb=case.acknowledged, manual_ack=True, stream=ORDERS, **options)
    await case.planner.jetstream().publish("orders.a", b"go")
    await case.heard()
    await client.flush()


async def follower(case: Case) -> None:
    """Follow a stream in its order, over a gap and under flow control."""
    client = await case.client(alone=True)
    push = await client.jetstream().subscribe("orders.>", cb=case.handle, stream=ORDERS, ordered_consumer=True)
    state: Any = push._sub._jsi
    await state.reset_ordered_consumer(1)
    for value in (*[b"x" * 400_000] * 6, b"go"):
        await case.planner.jetstream().publish("orders.a", value)
    await case.heard()
    await client.flush()


async def quarantining(case: Case) -> None:
    """Drop what nobody signed, and keep a copy."""
    await case.admin.jetstream().add_stream(name=QUARANTINE, subjects=["quarantine.prod"])
    agent = case.world.agent(CLOUD)
    client = await case.client(agent=agent, quarantine=NatsQuarantine("quarantine.prod", watchword=agent, timeout=1.0))
    await client.subscribe("tasks.>", cb=case.handle)
    await client.flush()
    await case.admin.publish("tasks.a", b"unsigned")
    await case.planner.publish("tasks.a", b"go")
    await case.heard()
    assert client.copies is not None
    await client.copies.written(10)
    if not case.told:
        assert (await case.admin.jetstream().stream_info(QUARANTINE)).state.messages == 1


async def redriver(case: Case) -> None:
    """List the quarantine, and redrive what it points at."""
    await case.admin.jetstream().add_stream(name=QUARANTINE, subjects=["quarantine.prod"])
    await case.planner.jetstream().publish("orders.a", b"go")
    reader = case.world.agent(CLOUD, max_hold=0)
    keeper = await case.world.client(reader, quarantine=NatsQuarantine("quarantine.prod", watchword=reader))
    case.world.keys.down = True
    await keeper.jetstream().subscribe("orders.>", stream=ORDERS, cb=case.handle)
    await until(lambda: reader.audit.counts["undetermined"])
    case.world.keys.down = False
    again = redrive(
        "quarantine.prod",
        watchword=case.world.agent(CLOUD, shared=False),
        servers=case.world.url,
        patience=2,
        **case.login(),
    )
    async for one in again:
        if isinstance(one.verdict, Unavailable):
            raise one.verdict
        assert isinstance(one.verdict, VerifiedMessage)
        case.got.append(one.verdict.value or b"")


async def store(case: Case) -> None:
    """Open the store, admit a reader, and claim."""
    await case.bucket()
    async with case.kv(user=case.user) as kept:
        await kept.admit_reader("js:ORDERS:worker", ReaderBirth(floor=-inf))
        assert await kept.claim(make_claim(1, reader="js:ORDERS:worker", at=time.time())) is Admission.FIRST
    case.got.append(b"go")


async def operator(case: Case) -> None:
    """Accept the backlog of a durable."""
    await case.consumer()
    await case.bucket()
    path = case.folder / "watchword.toml"
    path.write_text(
        f'realm = "prod"\n[replay]\nstore = "nats_kv"\nurl = "{case.world.url}"\n'
        f'[[keys]]\nsource = "files"\npaths = ["{case.folder / "agents.jwks"}"]\n'
        f'[nats]\nservers = ["{case.world.url}"]\nuser = "{case.user}"\npassword = "secret"\n'
    )
    (case.folder / "agents.jwks").write_text(to_jwks([case.world.signing[PLANNER].verification_key(PLANNER)]))
    word = Word("js:ORDERS:worker", path, None, accept_backlog=True, nothing_handled_before=False)
    assert await asyncio.to_thread(run_init, word, as_json=True) == 0
    case.got.append(b"go")


async def controlled(case: Case) -> None:
    """Follow the control log."""
    async with control_log(case, user="admin", password="x") as admin:
        await admin.make()
        await admin.publish(b"go", {})
    async with control_log(case, **case.login()) as log:
        await follow(case, log)


async def oncall(case: Case) -> None:
    """Make a statement, and hear it."""
    async with control_log(case, user="admin", password="x") as admin:
        await admin.make()
    async with control_log(case, **case.login()) as log:
        await log.publish(b"go", {})
        await follow(case, log)


async def founder(case: Case) -> None:
    """Make the control log, and check it."""
    async with control_log(case, **case.login()) as log:
        assert await log.make()
        assert not await log.make()
    case.got.append(b"go")


def control_log(case: Case, **login: Any) -> NatsControlLog:
    """Return the control log, as a user."""
    return NatsControlLog(CONTROL, watchword=case.world.agent(PLANNER), servers=case.world.url, **login)


async def follow(case: Case, log: NatsControlLog) -> None:
    """Check the log, and read it."""
    await log.check()
    assert (await log.end()).next > 1
    async with aclosing(log.read(1)) as entries:
        some, _ = await anext(entries)
    case.got += [one.value or b"" for one in some]


KINDS: dict[str, Callable[[Case], Awaitable[None]]] = {
    one.__name__: one
    for one in (
        *(publisher, requester, subscriber, responder, member, storer, worker, maker, pushed, grouped, sole, passing),
        *(listener, follower, quarantining, redriver, store, operator, controlled, oncall, founder),
    )
}


def test_the_page_has_what_is_tried() -> None:
    """Each user of the page is tried, and no other."""
    assert list(SNIPPETS) == list(KINDS)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_the_page_permits_is_enough(stage: Stage, kind: str) -> None:
    """With just these rights the reader or writer works, and the server refuses it nothing."""
    case = await stage(kind)
    await KINDS[kind](case)
    assert (case.got[-1:], case.told) == ([b"go"], [])


@pytest.mark.parametrize(("number", "kind", "right"), [(n, *one) for n, one in enumerate(LACKING)])
async def test_who_lacks_one_right_is_told_which(
    stage: Stage, caplog: pytest.LogCaptureFixture, number: int, kind: str, right: str
) -> None:
    """Nothing hangs: an error, a warning, or what the client reports names what the server refused."""
    case = await stage(kind, f"{kind}-{number}")
    async with asyncio.timeout(PATIENCE):
        while not case.lacks(right):  # a busy server may refuse nothing in time
            try:
                await KINDS[kind](case)
            except (Error, WatchwordError) as error:
                case.told.append(str(error))
            await asyncio.sleep(0.05)
            case.told += caplog.messages


@pytest.mark.parametrize("alone", [True, False])
async def test_who_may_only_fetch_is_refused_at_once_where_nothing_is_known(
    stage: Stage, tmp_path: Path, *, alone: bool
) -> None:
    """Binding takes no time-out: the one error names the missing rights, and the command or setting that helps."""
    case = await stage("worker")
    await case.consumer()
    store = None if alone else SqliteReplayStore(tmp_path / "ids", policy=Policy(), clock=time.time)
    js = (await case.client(alone=alone, store=store)).jetstream(sole_reader=alone, timeout=3600)
    remedy = "configure a store" if alone else "watchword store init js:ORDERS:worker"
    with pytest.raises(ConfigurationError, match=remedy) as refusal:
        await soon(js.pull_subscribe_bind(WORKER, ORDERS))
    assert "may not publish to $JS.API.CONSUMER.INFO.ORDERS.worker nor publish to $JS.API.STREAM.INFO.ORDERS" in str(
        refusal.value
    )
    assert case.told == []


LOOKS = ("$JS.API.CONSUMER.INFO.ORDERS.worker", "$JS.API.STREAM.INFO.ORDERS")


@pytest.mark.parametrize("right", [*LOOKS, "$JS.API.STREAM.MSG.GET.ORDERS", "$JS.API.CONSUMER.CREATE.ORDERS"])
async def test_a_sole_reader_is_told_first_of_all_which_right_is_missing(stage: Stage, right: str) -> None:
    """A store is the other way out, and no reason is given that is not so: nobody said that others read as well."""
    case = await stage("sole", f"sole-{LACKING.index(('sole', right))}")
    with pytest.raises(ConfigurationError, match="the stream is this reader's memory but") as refusal:
        await sole(case)
    told = str(refusal.value)
    assert f"this user may not publish to {right}; permit it on the server (docs/nats-rights.md)" in told
    assert "another member" not in told
    assert ("or configure a store, " in told) is (right in LOOKS)  # to read it again is nothing that a store replaces
    assert case.told == []


async def test_who_may_only_fetch_goes_on_where_the_store_knows_the_reader(stage: Stage, tmp_path: Path) -> None:
    """With the reader admitted it binds at once, and reads."""
    case = await stage("worker")
    await case.consumer()
    store = SqliteReplayStore(tmp_path / "ids", policy=Policy(), clock=time.time)
    await store.admit_reader("js:ORDERS:worker", ReaderBirth(floor=-inf))
    js = (await case.client(store=store)).jetstream(timeout=3600)
    bound = await soon(js.pull_subscribe_bind(WORKER, ORDERS))
    await fetch(case, bound)
    assert (case.got, case.told) == ([b"go"], [])
    await store.close()


async def test_a_store_that_may_not_make_its_bucket_says_so(stage: Stage) -> None:
    """Where the bucket is missing as well as the right to make it, the start is refused with that right."""
    case = await stage("store")
    with pytest.raises(ConfigurationError, match=r"may not publish to \$JS\.API\.STREAM\.CREATE\.KV_watchword"):
        await case.kv(user=case.user).start()
