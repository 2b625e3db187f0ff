"""Questions about the topic of a control log, and what is made of each answer that brokers may give."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    InvalidTopicError,
    KafkaConnectionError,
    KafkaError,
    PolicyViolationError,
)
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.offset import OffsetRequest

from tests.support.raw_kafka import Batch, Raw
from watchword import ConfigurationError, Unavailable
from watchword.spi import Channel
from watchword_adapters.kafka import control_broker, control_reader
from watchword_adapters.kafka.control_broker import ControlBroker
from watchword_adapters.kafka.control_reader import TopicFollower, entries_of
from watchword_adapters.kafka.topic_ids import NO_ID, FetchByIdRequest, TopicRequest, fetched_in, topic_in

ID, OTHER = bytes(range(16)), bytes(range(1, 17))
CHANNEL = Channel("kafka", "prod", "control")


def told(*, error: int = 0, topic_id: bytes = ID, leader: int = 1, partitions: int = 1) -> Any:
    """Return how a broker describes the topic."""
    parts: list[Any] = [(0, number, leader, 0, [1], [1], [], {}) for number in range(partitions)]
    topics: list[Any] = [(error, "control", topic_id, False, [] if error else parts, 0, {})]
    return SimpleNamespace(topics=topics, controller_id=7, brokers=[None] * 5)


def offset(number: int, error: int = 0) -> Any:
    """Return what a broker answers to a question for one end."""
    return SimpleNamespace(topics=[("control", [(0, error, -1, number)])])


def fetched(records: bytes = b"", *, error: int = 0, end: int = 100) -> Any:
    """Return what a broker answers to a fetch."""
    part: Any = (0, error, end, end, 0, None, -1, records, {})
    return SimpleNamespace(error_code=0, topics=[(ID, [part], {})])


class Answers:
    """Answers of brokers, by kind of request; the last of a kind is given again."""

    def __init__(self, **answers: Sequence[Any]) -> None:
        self.left = {name: list(found) for name, found in answers.items()}
        self.asked: list[Any] = []
        self.groups: dict[Any, set[type]] = {}

    @property
    def send(self) -> Any:
        """Give what stands in for the client's own method: it gives the next answer, or raises it."""

        async def send(_: object, node_id: int, request: Any, *, group: Any) -> Any:
            self.groups.setdefault(group, set()).add(type(request))
            return self.answer(node_id, request)

        return send

    def answer(self, node: int, request: Any) -> Any:
        """Return the next answer, or raise it."""
        self.asked.append((node, request))
        kinds: dict[Any, str] = {
            TopicRequest: "topic",
            OffsetRequest: "offset",
            FetchByIdRequest: "fetch",
            DescribeConfigsRequest: "settings",
            CreateTopicsRequest: "create",
        }
        found = self.left[kinds[type(request)]]
        answer = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@asynccontextmanager
async def asking(answers: Answers, node: int | None = 1) -> AsyncIterator[ControlBroker]:
    """Give a broker of these answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AIOKafkaClient, "send", answers.send)
        patch.setattr(AIOKafkaClient, "get_random_node", lambda _: node)
        patch.setattr(control_broker, "FIRST_PAUSE", 0.0)
        broker = ControlBroker("control")
        yield broker
        await broker.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be asked again."""
    monkeypatch.setattr(control_broker, "PATIENCE", 0.0)


# Of the topic


async def test_brokers_that_know_no_ids_are_refused() -> None:
    """Promise (A52): a broker without topic ids, which cannot distinguish a recreated topic, is refused."""
    for answer in (told(topic_id=NO_ID), NotImplementedError(), IncompatibleBrokerVersion()):
        async with asking(Answers(topic=[answer])) as broker:
            with pytest.raises(ConfigurationError, match=r"needs Kafka 3\.1 or later"):
                await broker.topic()


@pytest.mark.parametrize("code", [3, 5, 6, 7, 9, 56, 72, 74, 75, 76, 78, 100, 103])
async def test_what_passes_is_asked_again(code: int) -> None:
    """A leader that moves, or a broker that does not know yet, ends no reading."""
    async with asking(Answers(topic=[told()], fetch=[fetched(error=code), fetched(end=5)])) as broker:
        topic = await broker.topic()
        assert (await broker.patiently(lambda: broker.fetch(topic, 0))).end == 5


async def test_a_topic_without_a_leader_is_asked_for_again() -> None:
    """So is one of which a broker says so."""
    answers = Answers(topic=[told(leader=-1), told(error=5), told()])
    async with asking(answers) as broker:
        assert (await broker.topic()).id == ID
    assert len(answers.asked) == 3


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("failure", [told(error=5), told(leader=-1), KafkaConnectionError()])
async def test_what_does_not_pass_is_told(failure: Any) -> None:
    """After a while the client's error is raised: nothing hangs."""
    async with asking(Answers(topic=[failure])) as broker:
        with pytest.raises(KafkaError):
            await broker.topic()


async def test_no_broker_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody to ask is an error like any other of the connection."""
    monkeypatch.setattr(control_broker, "PATIENCE", 0.0)
    async with asking(Answers(), node=None) as broker:
        with pytest.raises(KafkaConnectionError):
            await broker.topic()


async def test_what_cannot_pass_is_told_at_once() -> None:
    """An error that asking again does not mend is the client's own."""
    answers = Answers(topic=[told(error=17)])
    async with asking(answers) as broker:
        with pytest.raises(InvalidTopicError):
            await broker.topic()
    assert len(answers.asked) == 1


@pytest.mark.parametrize("code", [29, 31])
async def test_a_missing_right_is_named(code: int) -> None:
    """Promise: each question says which right it lacks, at once."""
    settings = SimpleNamespace(resources=[(code, "", 2, "control", [])])
    create = SimpleNamespace(topic_errors=[("control", code, None)])
    asks: list[tuple[str, Answers, Callable[[ControlBroker], Any]]] = [
        ("Read, or at least Describe,", Answers(topic=[told(error=code)]), lambda broker: broker.topic()),
        ("Read, or at least Describe,", Answers(topic=[told()], offset=[offset(0, code)]), lambda broker: broker.end()),
        ("DescribeConfigs", Answers(settings=[settings]), lambda broker: broker.settings()),
        ("Create", Answers(topic=[told(error=3)], create=[create]), lambda broker: broker.make(None)),
        ("Read", Answers(fetch=[fetched(error=code)]), lambda broker: broker.fetch(topic_in(told()), 0)),
    ]
    for right, answers, ask in asks:
        async with asking(answers) as broker:
            with pytest.raises(ConfigurationError, match=f"this user lacks the right {right} on it; grant it"):
                await ask(broker)


async def test_ends_are_those_of_one_topic() -> None:
    """Promise (A52): where the topic is recreated meanwhile its ends are asked once more."""
    answers = Answers(topic=[told(), told(topic_id=OTHER)], offset=[offset(5), offset(9), offset(0), offset(2)])
    async with asking(answers) as broker:
        assert (await broker.end())[1:] == (0, 2)


async def test_what_is_asked_for_is_what_is_made() -> None:
    """The controller makes it, with three replicas where there are so many brokers, or as many as asked for."""
    for replicas, count in ((None, 3), (2, 2)):
        create = SimpleNamespace(topic_errors=[("control", 0, None)])
        answers = Answers(topic=[told(error=3), told()], create=[create])
        async with asking(answers) as broker:
            assert await broker.make(replicas)
        ((node, request),) = [one for one in answers.asked if isinstance(one[1], CreateTopicsRequest)]
        assert (node, request.create_topic_requests[0][:3]) == (7, ("control", 1, count))
        assert len(answers.left["topic"]) == 1, "it is waited for until it is known"


async def test_a_refusal_to_make_it_is_told() -> None:
    """With what the broker says about it; a controller that is another one by now is asked for again."""
    create = [SimpleNamespace(topic_errors=[("control", code, "by policy")]) for code in (41, 44)]
    async with asking(Answers(topic=[told(error=3)], create=create)) as broker:
        with pytest.raises(PolicyViolationError, match="by policy"):
            await broker.make(None)


def created(*codes: int) -> list[Any]:
    """Return how the controller answers requests for a topic."""
    return [SimpleNamespace(topic_errors=[("control", code, None)]) for code in codes]


async def test_who_is_slower_finds_it() -> None:
    """Someone else has made it in between."""
    async with asking(Answers(topic=[told(error=3), told()], create=created(36))) as broker:
        assert not await broker.make(None)


async def test_a_topic_that_the_broker_learns_of_late_is_waited_for() -> None:
    """It counts as created once, however often the controller is asked for it."""
    answers = Answers(topic=[told(error=3), told(error=3), told(error=3), told()], create=created(0, 36))
    async with asking(answers) as broker:
        assert await broker.make(None)


async def test_a_topic_that_goes_while_it_is_made_is_made_again() -> None:
    """A controller that has not deleted the one before says that it exists; the next request creates it."""
    answers = Answers(topic=[told(error=3), told(error=3), told()], create=created(36, 0))
    async with asking(answers) as broker:
        assert await broker.make(None)


@pytest.mark.usefixtures("impatient")
async def test_a_topic_that_stays_unknown_ends_the_making() -> None:
    """Brokers that never learn of it are an error after a while."""
    async with asking(Answers(topic=[told(error=3)], create=created(0))) as broker:
        with pytest.raises(KafkaError, match="is being created or deleted: no broker knows it"):
            await broker.make(None)


@pytest.mark.parametrize("others", [[told()], [told(error=3), told()], [KafkaConnectionError(), told()]])
async def test_a_broker_that_lags_behind_hides_no_topic(others: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The other brokers are asked before a topic is said to be missing; one that cannot be reached is passed over."""
    monkeypatch.setattr(ClusterMetadata, "brokers", lambda _: [SimpleNamespace(nodeId=number) for number in (1, 2, 3)])
    answers = Answers(topic=[told(error=3), *others], create=[])
    async with asking(answers) as broker:
        assert (await broker.look()).id == ID
        assert [node for node, _ in answers.asked] == [1, 2, 3][: len(answers.asked)]
        answers.left["topic"] = [told(error=3), *others]
        assert not await broker.make(None), "it is not created a second time"


async def test_what_no_broker_knows_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is asked once, and the error says what to do."""
    monkeypatch.setattr(ClusterMetadata, "brokers", lambda _: [SimpleNamespace(nodeId=number) for number in (1, 2, 3)])
    answers = Answers(topic=[told(error=3), KafkaConnectionError(), told(error=3)])
    async with asking(answers) as broker:
        with pytest.raises(ConfigurationError, match="does not exist: run watchword control init"):
            await broker.look()
    assert [node for node, _ in answers.asked] == [1, 2, 3]


async def test_a_fetch_that_waits_holds_up_no_question() -> None:
    """A broker answers what comes over one connection in turn, so fetches have one of their own."""
    answers = Answers(topic=[told()], fetch=[fetched(bytes(Batch(records=[Raw()])))])
    await take(answers)
    assert sorted(answers.groups.values(), key=str) == [{FetchByIdRequest}, {TopicRequest}]


def test_asking_about_a_topic_makes_none() -> None:
    """Promise (A52): brokers that make topics that someone asks about would give them the settings of the day."""
    classes: Any = TopicRequest._CLASSES
    assert TopicRequest("control").build(classes[0]).get_item("allow_auto_topic_creation") is False


def test_an_error_of_the_whole_answer_is_one_of_the_topic() -> None:
    """A broker that refuses a fetch as a whole names no topic."""
    assert fetched_in(SimpleNamespace(error_code=100, topics=fetched().topics)).error == 100
    assert fetched_in(SimpleNamespace(error_code=0, topics=[])).error == -1


def test_an_answer_that_is_cut_off_is_no_id() -> None:
    """It is an error of decoding, as the client expects it."""
    classes: Any = TopicRequest._CLASSES
    struct = TopicRequest("control").build(classes[0])
    with pytest.raises(ValueError, match="cut off"):
        type(struct).decode(struct.encode()[:9])


# Reading


async def take(answers: Answers, position: int = 0, known: str | None = None) -> Any:
    """Return what a follower gives first."""
    async with asking(answers) as broker:
        return await TopicFollower(broker, "prod", position, known).next()


async def test_a_batch_whose_checksum_fails_is_told() -> None:
    """Promise: what a disk has changed is not passed over, for it may have been a statement."""
    batch = bytearray(bytes(Batch(records=[Raw()])))
    batch[-1] ^= 1
    with pytest.raises(Unavailable, match="the checksum of the batch at 0 fails"):
        await take(Answers(topic=[told()], fetch=[fetched(bytes(batch))]))


@pytest.mark.parametrize(("base", "size"), [(3, None), (99, 40)], ids=["before", "cut off"])
async def test_what_leads_nowhere_is_told(base: int, size: int | None) -> None:
    """Promise: a broker that sends nothing that is there yet, or parts of batches, is not asked on and on."""
    records = bytes(Batch(records=[Raw()], base_offset=base))[:size]
    with pytest.raises(Unavailable, match="nothing beyond position 10"):
        await take(Answers(topic=[told()], fetch=[fetched(records)]), 10)


async def test_a_batch_that_memory_does_not_suffice_for_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: what cannot be unpacked here is not passed over."""

    def short(*_: object) -> Any:
        yield
        raise MemoryError

    monkeypatch.setattr(control_reader, "without_poison", short)
    with pytest.raises(Unavailable, match="not enough memory"):
        await take(Answers(topic=[told()], fetch=[fetched(b"x")]))


async def test_an_offset_that_is_there_and_cannot_be_read_is_asked_for_again() -> None:
    """A leader that was elected just now may not know its own end yet."""
    record = bytes(Batch(records=[Raw(value=b"before"), Raw()], base_offset=6))
    ends = [offset(0), offset(9)]
    answers = Answers(topic=[told()], fetch=[fetched(error=1), fetched(record)], offset=ends)
    entries, behind = await take(answers, 7)
    assert ([one.value for one in entries], behind) == ([b"raw"], 8)


async def test_a_topic_that_is_made_anew_between_two_questions_is_told() -> None:
    """Promise (A52): ends of another topic move no reader."""
    answers = Answers(topic=[told(), told(topic_id=OTHER)], fetch=[fetched(error=1)], offset=[offset(50), offset(60)])
    with pytest.raises(Unavailable, match="deleted and recreated"):
        await take(answers, 7)


async def test_each_answer_is_looked_for_where_it_is() -> None:
    """After any failure the leader is looked up again."""
    records = bytes(Batch(records=[Raw()]))
    answers = Answers(topic=[told(leader=1), told(leader=2)], fetch=[fetched(), fetched(error=6), fetched(records)])
    await take(answers)
    assert [node for node, request in answers.asked if isinstance(request, FetchByIdRequest)] == [1, 1, 2]


async def test_where_nothing_comes_the_next_fetch_waits() -> None:
    """An answer without records is no news; the topic is not looked up again for it."""
    answers = Answers(topic=[told()], fetch=[fetched(), fetched(), fetched(bytes(Batch(records=[Raw()])))])
    await take(answers)
    assert [type(request) for _, request in answers.asked] == [TopicRequest, *[FetchByIdRequest] * 3]


def test_holes_are_passed_over() -> None:
    """What compaction leaves of batches, and markers of transactions, bear no entries, and their positions count."""
    batches = b"".join(
        bytes(batch)
        for batch in (
            Batch(records=[Raw(value=b"0"), Raw(value=b"4", delta=4)], base_offset=10, last_delta=5),
            Batch(records=[], base_offset=20, last_delta=3, count=0),
            Batch(records=[Raw(value=b"marker", key=b"\0\0\0\1")], base_offset=30, attributes=0x30),
            Batch(records=[Raw(value=b"last")], base_offset=40, first_timestamp=5_000, attributes=0x08),
        )
    )
    found = [(None if one is None else one.value, behind) for one, behind in entries_of(batches, CHANNEL, 10)]
    expected = [(b"0", 11), (b"4", 15), (None, 16), (None, 24), (None, 31), (b"last", 41), (None, 41)]
    assert found == expected
    assert [behind for _, behind in entries_of(batches, CHANNEL, 15)][0] == 16  # noqa: RUF015 - as above


def test_only_the_brokers_own_stamp_is_one() -> None:
    """Promise (A52): a time that the publisher chose is not the time at which the broker stored it."""
    for attributes, stamp in ((0x08, 5.0), (0, None)):
        batch = Batch(records=[Raw(key=b"k")], first_timestamp=5_000, attributes=attributes)
        entry = next(entries_of(bytes(batch), CHANNEL, 0))[0]
        assert entry is not None
        assert (entry.appended_at, entry.created_at, entry.key) == (stamp, None, b"k")


async def test_a_closed_connection_is_not_opened_again() -> None:
    """Promise: a caller that continues to read on a closed connection gets Unavailable."""
    async with asking(Answers(topic=[told()])) as broker:
        await broker.close()
        with pytest.raises(Unavailable, match="was closed"):
            await broker.topic()


async def test_a_name_of_the_client_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A48: a client that was changed is refused, with the name that is missing."""
    monkeypatch.delattr(AIOKafkaClient, "bootstrap")
    with pytest.raises(ConfigurationError, match=r"AIOKafkaClient\.bootstrap does not exist"):
        ControlBroker("control")
