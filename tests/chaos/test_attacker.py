"""What the chaos report's attacker counts as offered."""

import asyncio
from pathlib import Path

import pytest
from nats.aio.client import Client

from chaos import on_core, on_requests
from chaos.bus import Captured, bus_of
from chaos.evidence import Evidence
from chaos.nats_clients import connected
from chaos.plan import Plan
from chaos.witness import watch
from tests.brokers.broker import Broker


@pytest.mark.parametrize("scenario", ["nats_plain", "nats_requests"])
async def test_a_copy_on_core_nats_counts_as_taken_once_the_witness_saw_it(
    scenario: str, nats_broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server had nobody to give to was not offered: so however long it is away, enough copies are in the end.

    The account counts what the witness saw, and the attacker continues until that is enough.
    """
    plan = Plan(
        scenario=scenario, seed=1, honest=1, directory=str(tmp_path), address=nats_broker.address, channel="seen"
    )
    async with bus_of(plan).attacking() as attacking, connected(Client(), plan.address) as sender:
        await sender.publish(plan.subjects[0], b"1", reply="_INBOX.1", headers={"any": "header"})
        raw = (await anext(attacking.captures())).raw
        with monkeypatch.context() as impatient:
            for module in (on_core, on_requests):
                impatient.setattr(module, "WITNESS_SECONDS", 0.1)
            assert not await attacking.replay(Captured("1", raw))
        watching = asyncio.create_task(watch(plan))
        while not await attacking.replay(Captured("1", raw)):
            assert not watching.done()
        watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert {name for name, mark in Evidence.read(tmp_path).witnessed if mark != "-"} == {"1"}
