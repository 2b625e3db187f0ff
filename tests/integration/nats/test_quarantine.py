"""The quarantine stream on a real server."""

from collections.abc import Callable

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.brokers.plugin import MakeStream
from tests.integration.nats.quarantining import UNDETERMINED, UNSIGNED, held, message, quarantine_on
from tests.integration.nats.world import CLOUD, World, until
from watchword import ConfigurationError, Unavailable
from watchword.settings import QuarantineSettings
from watchword.spi import QuarantineLimits
from watchword_adapters.nats import quarantine as module
from watchword_adapters.nats.quarantine import NatsQuarantine


async def test_a_copy_is_unsigned_and_bears_no_guessable_id(world: World, make_stream: MakeStream) -> None:
    """The client that signs everything does not sign a copy; its id cannot be sent first to keep the copy out."""
    subject = f"{await make_stream()}.copies"
    ids = set()
    for _ in range(2):
        quarantine = await quarantine_on(world, subject)
        assert await quarantine.put(message(), UNSIGNED)
    plain = (await world.plain()).jetstream()
    for sequence in (1, 2):
        headers = (await plain.get_msg(subject.split(".", maxsplit=1)[0], sequence)).headers or {}
        assert "watchword" not in headers
        ids.add(headers["Nats-Msg-Id"])
    assert len(ids) == 2


async def test_the_stream_drops_a_copy_sent_twice(world: World, make_stream: MakeStream) -> None:
    """A copy whose answer was lost is sent again, and stands there once."""
    subject = f"{await make_stream()}.copies"
    quarantine = await quarantine_on(world, subject)
    assert await quarantine.put(message(), UNSIGNED)
    quarantine._kept.clear()  # as if the answer had not come
    assert await quarantine.put(message(), UNSIGNED)
    assert len(await held(world, subject)) == 1


async def test_orders_to_the_server_are_not_passed_on(world: World, make_stream: MakeStream) -> None:
    """A forged message cannot roll up, expire or misdirect what the quarantine stream holds."""
    subject = f"{await make_stream(allow_rollup_hdrs=True)}.copies"
    quarantine = await quarantine_on(world, subject)
    assert await quarantine.put(message(1), UNSIGNED)
    orders = (("Nats-Rollup", b"all"), ("nats-ttl", b"1s"), ("Nats-Expected-Stream", b"other"), ("Nats-Msg-Id", b"x"))
    assert await quarantine.put(message(2, headers=orders), UNSIGNED)
    found = await held(world, subject)
    assert len(found) == 2
    assert found[1].kept is not None
    assert found[1].kept.message.headers == orders


async def test_a_copy_never_exceeds_what_the_server_takes(
    world: World, make_stream: MakeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Payload and headers together stay within ``max_payload``, over which the server would end the connection."""
    subject = f"{await make_stream()}.copies"
    quarantine = await quarantine_on(world, subject, limits=QuarantineLimits(max_size=1_000_000))
    assert isinstance(quarantine._client, Client)
    most = quarantine._client.max_payload
    assert await quarantine.put(message(1, value=bytes(most - 100)), UNSIGNED)
    monkeypatch.setattr(module, "MAX_HEADER_BYTES", 3000)
    assert await quarantine.put(message(2, headers=tuple((f"h{at}", b"x" * 100) for at in range(50))), UNSIGNED)
    assert await quarantine.put(message(3), UNSIGNED)
    assert [stored.kept and stored.kept.complete for stored in await held(world, subject)] == [False, False, True]


async def test_core_publish_is_for_whoever_listens(world: World, unique: Callable[[str], str]) -> None:
    """Told so, copies go out without a stream; nothing is known to be kept, so the undetermined are not passed over."""
    subject = unique("copies")
    heard: list[Msg] = []
    listener = await world.plain()

    async def hear(msg: Msg) -> None:
        heard.append(msg)

    await listener.subscribe(subject, cb=hear)
    await listener.flush()
    quarantine = await quarantine_on(world, subject, stored=False)
    assert await quarantine.put(message(None), UNSIGNED) is True
    assert await quarantine.put(message(None), UNDETERMINED) is False
    await until(lambda: len(heard) == 1)
    assert (heard[0].headers or {})["watchword-reason"] == "unsigned"
    assert "Nats-Msg-Id" not in (heard[0].headers or {})


async def test_a_connection_that_is_gone_is_unavailable_at_once(world: World, make_stream: MakeStream) -> None:
    """What cannot be stored now is not buffered as if it were."""
    subject = f"{await make_stream()}.copies"
    for options in ({}, {"stored": False}):
        quarantine = await quarantine_on(world, subject, **options)
        assert quarantine._client is not None
        await quarantine._client.close()
        with pytest.raises(Unavailable, match="quarantine unavailable: ConnectionClosedError"):
            await quarantine.put(message(), UNSIGNED)


@pytest.mark.parametrize(
    "answer", [b"", b"{", b"[" * 10_000, b"7", b'{"error": 7}', b'{"error": {"err_code": 10077}}', b'{"stream": "S"}']
)
async def test_only_a_streams_answer_counts(world: World, unique: Callable[[str], str], answer: bytes) -> None:
    """What is no PubAck keeps nothing: a listener on the subject is no stream, and a full stream took nothing."""
    subject = unique("copies")
    listener = await world.plain()

    async def respond(msg: Msg) -> None:
        await msg.respond(answer)

    await listener.subscribe(subject, cb=respond)
    await listener.flush()
    quarantine = await quarantine_on(world, subject)
    with pytest.raises(Unavailable, match="refused it"):
        await quarantine.put(message(), UNSIGNED)


async def test_only_the_first_answer_counts(world: World, unique: Callable[[str], str]) -> None:
    """Someone who answers twice, or when nobody waits any more, disturbs nothing."""
    subject = unique("copies")
    listener = await world.plain()
    replies: list[str] = []

    async def respond(msg: Msg) -> None:
        replies.append(msg.reply)
        for seq in (1, 2):
            await msg.respond(b'{"stream": "S", "seq": %d}' % seq)

    await listener.subscribe(subject, cb=respond)
    await listener.flush()
    quarantine = await quarantine_on(world, subject)
    assert await quarantine.put(message(1), UNSIGNED)
    await listener.publish(replies[0], b"{}")
    await listener.flush()
    assert await quarantine.put(message(2), UNSIGNED)


async def test_answers_that_stop_are_listened_for_anew(world: World, unique: Callable[[str], str]) -> None:
    """After a copy without an answer the next one has a subscription of its own: the first may be gone."""
    subject = unique("copies")
    listener = await world.plain()
    silent = await listener.subscribe(subject)
    await listener.flush()
    quarantine = await quarantine_on(world, subject, timeout=0.1)
    with pytest.raises(Unavailable, match=r"no answer in 0.1 s"):
        await quarantine.put(message(1), UNSIGNED)
    first = (await silent.next_msg(timeout=10)).reply
    quarantine._failed_at = None
    with pytest.raises(Unavailable):
        await quarantine.put(message(1), UNSIGNED)
    second = (await silent.next_msg(timeout=10)).reply
    assert first.rpartition(".")[0] != second.rpartition(".")[0]


def test_what_is_no_subject_is_refused(world: World) -> None:
    """Wildcards and the server's own subjects are no place for copies."""
    for subject in ("a.>", "a b", "", "$JS.API.x", "_INBOX.a"):
        with pytest.raises(ConfigurationError, match="quarantine subject"):
            NatsQuarantine(subject, watchword=world.agent(CLOUD))


async def test_without_a_client_it_says_what_to_do(world: World) -> None:
    """The operator reads the remedy, the reader continues."""
    agent = world.agent(CLOUD)
    details: list[object] = []
    agent.audit.warn = lambda _, **fields: details.append(fields["detail"])  # type: ignore[method-assign]  # a tap
    with pytest.raises(Unavailable):
        await NatsQuarantine("copies", watchword=agent).put(message(), UNSIGNED)
    assert "connect(quarantine=...)" in str(details)


def test_settings_make_it(world: World) -> None:
    """``[quarantine] nats`` gives one with its caps, and without it there is none."""
    agent = world.agent(CLOUD)
    assert NatsQuarantine.from_settings(agent) is None
    agent.quarantine = QuarantineSettings(kafka="q")
    assert NatsQuarantine.from_settings(agent) is None
    agent.quarantine = QuarantineSettings(nats="q", max_size=2048)
    made = NatsQuarantine.from_settings(agent)
    assert made is not None
    assert (made.subject, made._limits.max_size) == ("q", 2048)
