"""Runs the demo: finds or starts a broker and plays both acts on it."""

from __future__ import annotations

import asyncio
import importlib.util
import uuid
from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal, TypeAlias

from watchword import ConfigurationError, WatchwordError
from watchword_adapters.brokers import kafka_broker, nats_server
from watchword_adapters.demo.ending import run
from watchword_adapters.demo.scenario import Act, Director, Result
from watchword_adapters.demo.stage import cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword_adapters.demo.stage import Cast, Handler, Stage

Bus: TypeAlias = Literal["nats", "kafka"]

_CLIENTS = {"nats": "nats", "kafka": "aiokafka"}


def play(bus: Bus, *, address: str | None = None, told: Callable[[str], None] = lambda _: None) -> Result:
    """Play the scenario on ``address`` (a NATS URL or Kafka bootstrap), or on an embedded broker; report progress."""
    if importlib.util.find_spec(_CLIENTS[bus]) is None:
        raise ConfigurationError(f"the client for {bus} is not installed: pip install 'watchword[demo]'")
    embedded, name = (nats_server, "nats-server") if bus == "nats" else (kafka_broker, "noida-db (Kafka-compatible)")
    with nullcontext(address) if address is not None else embedded() as where:
        told(f"broker: {name if address is None else 'yours'} at {where}")
        try:
            told("act 1: planner, controller and attacker, without Watchword")
            without = run(_act(bus, where, None))
            told("act 2: the same with Watchword, after `watchword init` for each agent, on default settings")
            with cast() as agents:
                guarded = run(_act(bus, where, agents))
        except WatchwordError:
            raise
        except (Exception, asyncio.CancelledError) as error:  # how plain clients report a lost bus
            raise ConfigurationError(
                f"the broker at {where} did not last to the end ({type(error).__name__}): play again on one that does"
            ) from error
    return Result(bus, "given" if address is not None else f"{name}, embedded", without, guarded)


async def _act(bus: Bus, where: str, agents: Cast | None) -> Act:
    if agents is None:
        director = Director()
    else:
        director = Director(planner=agents.planner_key, earlier=agents.earlier, counts=agents.counts)
    return await director.play(_stage(bus, where, director.handle, agents))


def _stage(bus: Bus, where: str, handler: Handler, agents: Cast | None) -> Stage:
    name = uuid.uuid4().hex[:8]
    if bus == "nats":
        from watchword_adapters.demo.nats_stage import NatsStage  # noqa: PLC0415 - imports a client

        return NatsStage(where, handler, agents, name)
    from watchword_adapters.demo.kafka_stage import KafkaStage  # noqa: PLC0415 - imports a client

    return KafkaStage(where, handler, agents, name)
