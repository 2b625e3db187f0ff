"""nats-py's micro services on a protected client, as plain clients look for them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from nats import micro
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError
from nats.micro.service import Service

from tests.integration.nats.world import CLOUD, PLANNER, World, raw, soon, until
from watchword import Mode, Reason
from watchword_adapters.nats import WatchwordClient

Unique = Callable[[str], str]


async def service_of(client: WatchwordClient, name: str, served: list[Any]) -> Service:
    """Start a service with one endpoint, which notes who asked."""

    async def handler(request: Any) -> None:
        served.append(request._msg.verified)
        await request.respond(request.data, headers={"kind": "answer"})

    service = await micro.add_service(client, name=name, version="1.2.3")
    await service.add_endpoint(name="work", subject=f"{name}.work", handler=handler)
    await client.flush()
    return service


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
async def test_a_plain_client_finds_a_service(world: World, unique: Unique, mode: Mode) -> None:
    """PING, INFO and STATS, with and without name and number, are answered to a client that signs nothing, unsigned."""
    agent, name, served = world.agent(CLOUD, mode=mode), unique("svc"), list[Any]()
    service = await service_of(await world.client(agent), name, served)
    asking = await world.plain()
    for verb in ("PING", "INFO", "STATS"):
        for subject in (f"$SRV.{verb}.{name}", f"$SRV.{verb}.{name}.{service.id}"):
            answer = await asking.request(subject, b"", timeout=10, headers={"secret": "s"})
            assert json.loads(answer.data)["name"] == name
            assert answer.headers is None
    assert agent.audit.counts == {}
    inbox = asking.new_inbox()
    answers = await asking.subscribe(inbox)
    await asking.publish("$SRV.PING", b"", reply=inbox)
    while json.loads((await soon(answers.next_msg(timeout=None))).data)["id"] != service.id:
        pass
    planner = await world.client(world.agent(PLANNER))
    assert json.loads((await planner.request(f"$SRV.PING.{name}", timeout=10)).data)["id"] == service.id
    await service.stop()


async def test_endpoints_are_judged_and_see_who_asked(world: World, unique: Unique) -> None:
    """An unsigned request reaches no endpoint; a signed one is answered, signed, and bears who wrote it."""
    agent, name, served = world.agent(CLOUD), unique("svc"), list[Any]()
    service = await service_of(await world.client(agent), name, served)
    asking, planner = await world.plain(), await world.client(world.agent(PLANNER))
    with pytest.raises(NatsTimeoutError):
        await asking.request(f"{name}.work", b"forged", timeout=0.3)
    answer = await planner.request(f"{name}.work", b"real", timeout=10)
    assert (answer.data, answer.headers) == (b"real", {"kind": "answer"})
    assert [verified.principal for verified in served] == [PLANNER]
    assert agent.audit.counts == {"delivered": 1, Reason.UNSIGNED: 1}
    await service.stop()


async def test_a45_a_question_makes_a_service_give_no_order(world: World, unique: Unique, make_stream: Any) -> None:
    """A45: a question whose reply subject is the server's own is not answered, nor is one without any."""
    stream, name = await make_stream(unique("kept")), unique("svc")
    asking = await world.plain()
    client = await world.client(world.agent(CLOUD))
    errors: list[Exception] = []

    async def told(error: Exception) -> None:
        errors.append(error)

    client._error_cb = told
    service = await service_of(client, name, [])
    orders = await asking.subscribe("$KV.orders")
    await asking.flush()
    await asking.publish(f"$SRV.PING.{name}", b"", reply="$KV.orders")
    await asking.publish(f"$SRV.PING.{name}", b"", reply=f"$JS.API.STREAM.PURGE.{stream}")
    await raw(asking, f"$SRV.PING.{name}", b"NATS/1.0 100 Idle\r\n\r\n", reply="orders")
    await asking.publish(f"$SRV.PING.{name}", b"")
    await until(lambda: errors)
    await asking.request(f"$SRV.PING.{name}", timeout=10)
    assert [str(error) for error in errors] == ["no reply subject available"]
    assert orders.pending_msgs == 0
    await service.stop()


async def test_a_subscription_of_ones_own_is_judged(world: World) -> None:
    """What a program's own handler gets of these subjects was verified."""
    agent, got = world.agent(CLOUD), list[Msg]()
    client, asking = await world.client(agent), await world.plain()
    await client.subscribe("$SRV.PING", cb=_into(got))
    await client.flush()
    await asking.publish("$SRV.PING", b"")
    await until(lambda: agent.audit.counts[Reason.UNSIGNED])
    assert got == []


def _into(got: list[Msg]) -> Callable[[Msg], Any]:
    async def handler(msg: Msg) -> None:
        got.append(msg)

    return handler


async def test_a_request_that_hides_its_reply_subject_makes_no_observed_endpoint_fail(
    world: World, unique: Unique, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise (A45): requests with a subject of the server's own cause one warning, and no error."""
    agent, name, served = world.agent(CLOUD, mode=Mode.OBSERVE), unique("svc"), list[Any]()
    client, failed, told = await world.client(agent), list[Exception](), list[tuple[str, dict[str, Any]]]()

    async def failing(error: Exception) -> None:
        failed.append(error)

    monkeypatch.setattr(client, "_error_cb", failing)
    monkeypatch.setattr(agent.audit, "warn", lambda event, **fields: told.append((event, fields)))
    service = await service_of(client, name, served)
    asking = await world.plain()
    for _ in range(3):
        await asking.publish(f"{name}.work", b"x", reply="$JS.API.STREAM.PURGE.X")
    await asking.flush()
    await until(lambda: len(served) == 3)
    planner = await world.client(world.agent(PLANNER))
    assert (await planner.request(f"{name}.work", b"ask", timeout=10)).data == b"ask"
    assert not failed
    assert [stats.num_errors for stats in service.stats().endpoints] == [0]
    assert [event for event, _ in told if event == "nats.answer_dropped"] == ["nats.answer_dropped"]
    await service.stop()
