"""What a client with a quarantine does, step by step: it judges, and puts what does not verify."""

from typing import Any

from nats.js.api import ConsumerConfig

from tests.integration.nats.world import CLOUD, REALM, World
from watchword import Mode, Reason, Rejected, Unavailable, VerifiedMessage, Watchword
from watchword.spi import Channel, Message, Position
from watchword_adapters.nats import ObservedMsg
from watchword_adapters.nats.quarantine import NatsQuarantine
from watchword_adapters.nats.redrive import copies, redrive
from watchword_adapters.redriving import ANY, Choice, Redriven, Stored

UNSIGNED = Rejected(Reason.UNSIGNED)
UNDETERMINED = Unavailable("keys")


def message(offset: int | None = 1, **fields: Any) -> Message:
    """Return what stands in the stream TASKS."""
    position = None if offset is None else Position("TASKS", offset)
    given: dict[str, Any] = {"channel": Channel("nats", REALM, "tasks.scale"), "value": b"x", "position": position}
    return Message(**given | fields)


async def quarantine_on(world: World, subject: str, **options: Any) -> NatsQuarantine:
    """Return a quarantine that publishes through a client of its own."""
    client = await world.client(world.agent(CLOUD))
    quarantine = NatsQuarantine(subject, watchword=client.watchword, **options)
    quarantine.attach(client)
    return quarantine


async def pass_through(world: World, stream: str, quarantine: NatsQuarantine) -> list[bool]:
    """Judge what a stream holds, and put what does not verify; return what the quarantine said."""
    js = (await world.client(world.agent(CLOUD, mode=Mode.OBSERVE))).jetstream()
    bound = await js.pull_subscribe(f"{stream}.>", stream=stream, config=ConsumerConfig())
    found = await bound.fetch((await bound.consumer_info()).num_pending or 0, timeout=10)
    answers = []
    for msg in found:
        assert isinstance(msg, ObservedMsg)
        if isinstance(msg.verdict, Rejected | Unavailable):
            answers.append(await quarantine.put(msg.message, msg.verdict))
    return answers


async def held(world: World, subject: str, **options: Any) -> list[Stored]:
    """Return what a quarantine holds."""
    return await copies(subject, watchword=world.agent(CLOUD), servers=world.url, **options)


async def driven(world: World, subject: str, agent: Watchword | None = None, *, only: Choice = ANY) -> list[Redriven]:
    """Drive everything in a quarantine again."""
    agent = agent or world.agent(CLOUD)
    return [one async for one in redrive(subject, watchword=agent, servers=world.url, only=only)]


def told(results: list[Redriven]) -> list[tuple[str, str]]:
    """Return what was read, and the verdicts in short."""
    return [(one.read, short(one.verdict)) for one in results]


def short(verdict: VerifiedMessage | Rejected | Unavailable) -> str:
    """Return a verdict in a word."""
    if isinstance(verdict, VerifiedMessage):
        return (verdict.value or b"").decode()
    return str(verdict.reason) if isinstance(verdict, Rejected) else verdict.what
