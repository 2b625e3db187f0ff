"""What is published in one round of the event loop shares a signature, and is sent in the order of the calls."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import ConnectionClosedError, ConnectionDrainingError, OutboundBufferLimitError

from tests.brokers.plugin import MakeStream
from tests.integration.nats.world import CLOUD, PLANNER, REALM, World, soon, until, verified
from watchword import SigningError, SigningKey, Unavailable, Watchword
from watchword.envelope import parse
from watchword.spi import Channel, Message, Signer
from watchword_adapters import config
from watchword_adapters.config import load
from watchword_adapters.nats import WatchwordClient, outbox
from watchword_adapters.settings_watch import CHECK_EVERY, SettingsWatch
from watchword_adapters.testing import Clock

Unique = Callable[[str], str]


async def tapped(world: World, subject: str) -> Subscription:
    """Return a plain subscription, to see what is on the wire."""
    attacker = await world.plain()
    tap = await attacker.subscribe(subject)
    await attacker.flush()
    return tap


async def seen(tap: Subscription, count: int) -> list[Msg]:
    """Return the next messages on the wire."""
    return [await soon(tap.next_msg(timeout=None)) for _ in range(count)]


def trees(messages: list[Msg]) -> list[int]:
    """Return the size of the tree under which each was signed; 0 for one that was signed alone."""
    return [parse((msg.headers or {})["watchword"].encode()).size for msg in messages]


async def test_publishes_of_one_round_are_one_tree_and_verify_alone(world: World, unique: Unique) -> None:
    """What gathers until the event loop comes round has one signature; each message can be judged alone."""
    subject, guard = unique("post"), world.agent(CLOUD)
    tap, planner = await tapped(world, subject), await world.client(world.agent(PLANNER))
    for number in range(10):
        await planner.publish(subject, b"%d" % number, headers={"kind": "order"})
    messages = await seen(tap, 10)
    assert [msg.data for msg in messages] == [b"%d" % number for number in range(10)]
    assert trees(messages) == [10] * 10
    headers = tuple((name, value.encode()) for name, value in (messages[3].headers or {}).items())
    alone = Message(channel=Channel("nats", "prod", subject), value=b"3", headers=headers, reader="alone")
    assert (await guard.verifier.verify(alone)).principal == PLANNER


async def test_who_only_sends_follows_its_key(
    world: World, unique: Unique, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first message after a look was due bears the new key's signature; in their order, however many wait."""

    def write(key: SigningKey) -> None:
        private = tmp_path / "planner.pem"
        private.touch(mode=0o600)
        private.write_bytes(key.to_pem())

    first, second = SigningKey.generate(), SigningKey.generate()
    write(first)
    settings = f'realm = "{REALM}"\nprincipal = "{PLANNER}"\n[signer]\nkey = "planner.pem"\n[replay]\nstate = ""\n'
    (tmp_path / "watchword.toml").write_text(settings)
    clock = Clock(0.0)
    monkeypatch.setattr(config, "SettingsWatch", partial(SettingsWatch, clock=clock))
    agent = load(tmp_path / "watchword.toml")
    subject, planner = unique("posting"), await world.client(agent)
    tap = await tapped(world, subject)
    await planner.publish(subject, b"0")
    write(second)
    await planner.flush()
    clock.advance(CHECK_EVERY)
    await asyncio.gather(*(planner.publish(subject, b"%d" % number) for number in range(1, 100)))
    got = await seen(tap, 100)
    assert [msg.data for msg in got] == [b"%d" % number for number in range(100)]
    signed_by = [parse((msg.headers or {})["watchword"].encode()).common.key_id for msg in got]
    assert signed_by == [first.key_id] + [second.key_id] * 99


class Careless(dict[str, str]):
    """Equal to whatever it is compared with, as a mapping is that looks at no letter's case."""

    __hash__ = None

    def __eq__(self, _: object) -> bool:
        return True


async def test_each_message_bears_its_own_headers(world: World, unique: Unique) -> None:
    """Headers are those of the call, though they be the dict of the call before with another value in it, or none."""
    subject, got = unique("post"), list[dict[str, str] | None]()
    reader, planner = await world.client(world.agent(CLOUD)), await world.client(world.agent(PLANNER))
    tap = await tapped(world, subject)

    async def handler(msg: Msg) -> None:
        got.append(msg.headers)

    await reader.subscribe(subject, cb=handler)
    await reader.flush()
    ours = {"kind": "order"}
    wanted: list[dict[str, str] | None] = []
    for changed in ({}, {}, {"kind": "offer"}, {"more": "1"}):
        ours |= changed
        for headers in (ours, None, {}, ours):
            await planner.publish(subject, b"x", headers=headers)
            wanted.append(dict(headers) if headers else None)
    wire = [{*(msg.headers or {})} - {"watchword"} for msg in await seen(tap, len(wanted))]
    assert wire == [{*(headers or {})} for headers in wanted]
    with pytest.raises(SigningError, match="header name"):
        await planner.publish(subject, b"x", headers=ours | {"a/b": "1"})
    await until(lambda: len(got) == len(wanted))
    assert got == wanted
    await planner.publish(subject, b"x", headers=Careless(KIND="offer", more="1"))
    (last,) = await seen(tap, 1)
    assert {*(last.headers or {})} == {"KIND", "more", "watchword"}


async def test_full_batch_is_signed_at_once(world: World, unique: Unique) -> None:
    """No more than ``Signer.batch`` messages wait, and the rest goes when the loop comes round."""
    subject = unique("post")
    tap, planner = await tapped(world, subject), await world.client(world.agent(PLANNER))
    for _ in range(130):
        await planner.publish(subject, b"x")
        assert len(planner.outbox.waiting) < planner.watchword.signer.batch
    assert trees(await seen(tap, 130)) == [64] * 128 + [2] * 2


async def test_lone_message_is_signed_directly(world: World, unique: Unique) -> None:
    """A message that nothing joins in its round waits for nobody, and has a signature of its own."""
    subject = unique("post")
    tap, planner = await tapped(world, subject), await world.client(world.agent(PLANNER))
    for _ in range(2):
        await planner.publish(subject, b"x")
        assert trees(await seen(tap, 1)) == [0]


async def test_order_holds_against_the_clients_other_commands(world: World, unique: Unique) -> None:
    """What was published before a subscription began does not reach it, and what was before its end does."""
    subject, got = unique("post"), list[bytes]()
    planner = await world.client(world.agent(PLANNER))

    async def handler(msg: Msg) -> None:
        got.append(msg.data)

    await planner.publish(subject, b"before")
    subscription = await planner.subscribe(subject, cb=handler)
    await planner.publish(subject, b"1")
    await planner.publish(subject, b"2")
    await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py leaves it untyped
    await planner.publish(subject, b"after")
    await planner.flush()
    assert got == [b"1", b"2"]


async def test_flush_means_that_the_server_has_it(world: World, unique: Unique) -> None:
    """After ``flush`` everything that was published before is with the server."""
    subject = unique("post")
    tap, planner = await tapped(world, subject), await world.client(world.agent(PLANNER))
    for number in range(3):
        await planner.publish(subject, b"%d" % number)
    await planner.flush()
    await tap._conn.flush()
    assert tap.pending_msgs == 3
    assert planner.outbox.waiting == []


async def test_flush_sends_what_waits_without_the_clients_own_tasks(world: World, unique: Unique) -> None:
    """Where the client's flusher was cancelled from without, ``flush`` writes by itself, and what waits first."""
    subject = unique("post")
    tap, planner = await tapped(world, subject), await world.client(world.agent(PLANNER))
    assert planner._flusher_task is not None
    planner._flusher_task.cancel()
    await asyncio.wait([planner._flusher_task])
    await planner.publish(subject, b"x")
    await planner.flush()
    assert not planner.outbox.waiting
    assert not planner._pending
    assert [msg.data for msg in await seen(tap, 1)] == [b"x"]


async def test_nothing_is_accepted_once_publishers_are_drained(world: World, unique: Unique) -> None:
    """Who publishes while the client's last round trip is under way is refused, as by the base."""
    planner = await world.client(world.agent(PLANNER))
    planner._status = Client.DRAINING_PUBS
    with pytest.raises(ConnectionDrainingError):
        await planner.publish(unique("post"), b"late")
    planner._status = Client.CONNECTED


@pytest.mark.parametrize("end", ["close", "drain"])
async def test_closing_and_draining_send_what_waits(world: World, unique: Unique, end: str) -> None:
    """What ``publish`` accepted before the client's end is sent; afterwards it accepts nothing."""
    subject = unique("post")
    tap, planner = await tapped(world, subject), await world.client(world.agent(PLANNER))
    for number in range(3):
        await planner.publish(subject, b"%d" % number)
    await getattr(planner, end)()
    assert trees(await seen(tap, 3)) == [3] * 3
    with pytest.raises(ConnectionClosedError):
        await planner.publish(subject, b"late")


async def test_what_cannot_be_signed_fails_where_it_is_published(world: World, unique: Unique) -> None:
    """An error is raised at the call at fault, nothing of that one is sent, and those beside it are."""
    subject = unique("post")
    tap, planner = await tapped(world, subject), await world.client(world.agent(PLANNER))
    await planner.publish(subject, b"1")
    for headers in ({"kind": "ä"}, {"na\x7fme": "x"}, {"a(b": "x"}):
        with pytest.raises(SigningError):
            await planner.publish(subject, b"bad", headers=headers)
    with pytest.raises(SigningError, match="this server accepts"):
        await planner.publish(subject, b"x" * planner.max_payload)
    await planner.publish(subject, b"2")
    messages = await seen(tap, 2)
    assert [msg.data for msg in messages] == [b"1", b"2"]
    assert trees(messages) == [2, 2]


async def test_who_gives_up_harms_no_other(world: World, unique: Unique) -> None:
    """A publish whose task is cancelled is sent or not; those beside it are sent, in order."""
    subject = unique("post")
    tap, planner = await tapped(world, subject), await world.client(world.agent(PLANNER))
    publishes = [asyncio.create_task(planner.publish(subject, b"%d" % number)) for number in range(4)]
    publishes[1].cancel()
    await asyncio.gather(*publishes, return_exceptions=True)
    publishes[2].cancel()  # too late: it was accepted
    assert [msg.data for msg in await seen(tap, 3)] == [b"0", b"2", b"3"]


async def test_tight_loop_does_not_grow_without_bound(world: World, unique: Unique) -> None:
    """A loop that publishes without a pause waits where the base's would: for its own flusher."""
    subject = unique("post")
    planner = await world.client(world.agent(PLANNER), pending_size=100_000)
    tap = await tapped(world, subject)
    most = 0
    for _ in range(1000):
        await planner.publish(subject, b"x" * 1000)
        most = max(most, planner.pending_data_size + planner.outbox.waiting_size)
    assert most < 100_000 + 64 * 3000
    await planner.flush()
    assert len(await seen(tap, 1000)) == 1000


async def test_large_messages_do_not_wait_for_a_full_batch(world: World, unique: Unique) -> None:
    """What waits for a signature is bounded in bytes as well."""
    subject = unique("post")
    tap, planner = await tapped(world, subject), await world.client(world.agent(PLANNER))
    for _ in range(5):
        await planner.publish(subject, b"x" * 400_000)
        assert planner.outbox.waiting_size < outbox.MOST_BYTES
    assert trees(await seen(tap, 5)) == [3, 3, 3, 2, 2]


async def test_what_is_published_while_reconnecting_is_kept_as_the_base_keeps_it(world: World, unique: Unique) -> None:
    """Up to ``pending_size`` bytes wait for the connection, signed and in order; more is refused as by the base."""
    subject = unique("post")
    planner = await world.client(world.agent(PLANNER), pending_size=20_000)
    tap = await tapped(world, subject)
    await planner.flush()
    planner._status = Client.RECONNECTING
    for number in range(3):
        await planner.publish(subject, b"%d" % number)
    with pytest.raises(OutboundBufferLimitError):
        await planner.publish(subject, b"x" * 19_000)
    await asyncio.sleep(0)
    assert planner.outbox.waiting == []
    with pytest.raises(OutboundBufferLimitError):
        await planner.publish(subject, b"x" * 19_000)
    waiting = planner.outbox.pong_behind()
    await asyncio.sleep(0)
    planner._status = Client.CONNECTED
    await planner.flush()
    assert [msg.data for msg in await seen(tap, 3)] == [b"0", b"1", b"2"]
    assert not waiting.done()


async def test_parallel_stores_share_one_tree_and_one_ping(world: World, make_stream: MakeStream) -> None:
    """Requests of one round go as one batch, and one PING behind them tells for all who answers in their place."""
    stream = await make_stream()
    tap, planner = await tapped(world, f"{stream}.task"), await world.client(world.agent(PLANNER))
    js = planner.jetstream()
    await js.publish(f"{stream}.task", b"first")
    before = planner._pongs_received
    acks = await asyncio.gather(*(js.publish(f"{stream}.task", b"%d" % number) for number in range(63)))
    assert sorted(ack.seq for ack in acks) == list(range(2, 65))
    assert trees(await seen(tap, 64)) == [0, *[63] * 63]
    assert planner._pongs_received == before + 1
    futures = [await js.publish_async(f"{stream}.task", b"%d" % number) for number in range(64)]
    await asyncio.gather(*futures)
    assert trees(await seen(tap, 64)) == [64] * 64


class Remote:
    """A key held elsewhere: it signs when it is let."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self.let = asyncio.Event()
        self.asked = asyncio.Event()
        self.down = False

    async def sign(self, data: bytes) -> bytes:
        """See ``SigningBackend.sign``."""
        self.asked.set()
        await self.let.wait()
        if self.down:
            raise ConnectionError("the key is out of reach")
        return self._key.sign_now(data)


async def remote_planner(world: World) -> tuple[WatchwordClient, Remote]:
    """Return a client whose key is elsewhere."""
    key, agent = world.signing[PLANNER], world.agent(PLANNER)
    remote = Remote(key)
    options: dict[str, Any] = {"key_id": key.key_id, "algorithm": key.algorithm}
    signer = Signer(realm="prod", principal=PLANNER, key=remote, clock=agent.clock, **options)
    return await world.client(Watchword.of(verifier=agent.verifier, signer=signer)), remote


async def test_slow_back_end_signs_what_gathers_meanwhile_together(world: World, unique: Unique) -> None:
    """Each publish awaits its own signature; what comes while one is made shares the next; order is kept."""
    subject = unique("post")
    tap, (planner, remote) = await tapped(world, subject), await remote_planner(world)
    cloud = await world.client(world.agent(CLOUD))
    subscription = await cloud.subscribe(subject)
    await cloud.flush()
    publishes = [asyncio.create_task(planner.publish(subject, b"%d" % number)) for number in range(6)]
    await remote.asked.wait()
    publishes[2].cancel()
    remote.let.set()
    await asyncio.gather(*publishes, return_exceptions=True)
    messages = await seen(tap, 5)
    assert [msg.data for msg in messages] == [b"0", b"1", b"3", b"4", b"5"]
    assert max(trees(messages)) > 1
    for msg in messages:
        assert verified(await soon(subscription.next_msg(timeout=None))).data == msg.data


async def test_slow_back_end_that_fails_sends_nothing(world: World, unique: Unique) -> None:
    """If signing fails, nothing is sent and each caller gets an error, also if its client was closed meanwhile."""
    subject = unique("post")
    tap, (planner, remote) = await tapped(world, subject), await remote_planner(world)
    remote.let.set()
    remote.down = True
    failed = await asyncio.gather(*(planner.publish(subject, b"x") for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in failed] == [Unavailable] * 3
    remote.down = False
    await planner.publish(subject, b"y")
    assert [msg.data for msg in await seen(tap, 1)] == [b"y"]
    remote.let.clear()
    remote.asked.clear()
    late = asyncio.create_task(planner.publish(subject, b"z"))
    await remote.asked.wait()
    await planner.close()
    remote.let.set()
    with pytest.raises(ConnectionClosedError):
        await late
    await until(lambda: planner.is_closed)


async def test_headers_go_out_by_their_names(world: World, unique: Unique) -> None:
    """A reader whose client hands headers over as a map knows no other order, and the order is signed."""
    subject = unique("post")
    plain, planner, cloud = (
        await world.plain(),
        await world.client(world.agent(PLANNER)),
        await world.client(world.agent(CLOUD)),
    )
    heard, verified = await plain.subscribe(subject), await cloud.subscribe(subject)
    await plain.flush()
    await cloud.flush()
    await planner.publish(subject, b"x", headers={"zone": "a", "Kind": "b", "attempt": "1"})
    assert [*((await soon(heard.next_msg())).headers or {})] == ["Kind", "attempt", "zone", "watchword"]
    assert (await soon(verified.next_msg())).headers == {"Kind": "b", "attempt": "1", "zone": "a"}


@pytest.mark.parametrize("headers", [{1: "x", "a": "y"}, {"a": 1}, {"a": "naïve"}])
async def test_headers_of_another_type_are_one_error(world: World, unique: Unique, headers: Any) -> None:
    """What is no text on NATS is a SigningError, whatever else is among the headers."""
    planner = await world.client(world.agent(PLANNER))
    with pytest.raises(SigningError):
        await planner.publish(unique("post"), b"x", headers=headers)
