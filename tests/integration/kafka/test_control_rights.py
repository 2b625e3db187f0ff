"""The rights on the control topic: those on the page suffice for each kind of user, and errors name a missing one."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import CreateAclsRequest, DescribeAclsRequest

from tests.brokers.broker import Broker, NotHereError
from tests.brokers.kafka import with_users
from tests.integration.kafka.world import eventually
from tests.support.broker_tools import admin_of, delete_topics
from tests.support.patience import PATIENCE
from watchword import ConfigurationError, SigningKey, Watchword
from watchword_adapters.kafka.control_log import KafkaControlLog

PAGE = (Path(__file__).parents[3] / "docs" / "control.md").read_text()
TOPIC = "watchword.control"
USERS: dict[str, list[str]] = {
    user: re.findall(r"--operation (\w+)", rights)
    for user, rights in re.findall(r"^\$acl --allow-principal User:(\w+) (.*)$", PAGE, re.MULTILINE)
}
LACKING = [(user, right) for user, rights in USERS.items() for right in rights]
OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
_ANY, _TOPIC, _LITERAL, _ALLOW = 1, 2, 3, 3

pytestmark = pytest.mark.needs_kafka("users")


def login(user: str) -> dict[str, Any]:
    """Return the options of aiokafka with which a user connects."""
    return {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": user,
        "sasl_plain_password": "secret",
    }


def without(user: str, right: str) -> str:
    """Name the user that lacks one right."""
    return f"{user}-{right}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Give a broker with every user of the page, and each of them once more with one right less."""
    try:
        broker = with_users(tmp_path_factory.mktemp("rights"), *USERS, *(without(*one) for one in LACKING))
    except NotHereError as reason:
        pytest.fail(str(reason), pytrace=False)
    try:
        asyncio.run(grant(broker.address))
        yield broker
    finally:
        broker.stop()


async def grant(address: str) -> None:
    """Give everybody their rights."""
    rights = [(user, right) for user, held in USERS.items() for right in held]
    rights += [(without(user, lost), one) for user, lost in LACKING for one in USERS[user] if one != lost]
    client = AIOKafkaClient(bootstrap_servers=address, **login("admin"))
    await client.bootstrap()
    try:
        for user, right in rights:
            request = CreateAclsRequest(_TOPIC, TOPIC, _LITERAL, f"User:{user}", "*", OPERATIONS[right], _ALLOW)
            answer = await client.send(client.get_random_node(), request)
            assert answer.creation_responses[0][0] == 0, answer
        asking = DescribeAclsRequest(_TOPIC, TOPIC, _LITERAL, None, None, _ANY, _ANY)  # type: ignore[arg-type]  # null: any

        async def granted() -> bool:  # the controller answers before the broker knows
            found: Any = await client.send(client.get_random_node(), asking)
            return sum(len(resource[-1]) for resource in found.resources) == len(rights)

        await eventually(granted)
    finally:
        await client.close()


def log_of(server: Broker, user: str) -> KafkaControlLog:
    """Return the control log, as a user."""
    agent = Watchword(realm="prod", principal="agent://acme/oncall", key=SigningKey.generate())
    return KafkaControlLog(TOPIC, watchword=agent, bootstrap_servers=server.address, **login(user))


@pytest_asyncio.fixture
async def admin(server: Broker) -> AsyncIterator[KafkaControlLog]:
    """Give the log to someone who may do everything; it is deleted after the test."""
    async with log_of(server, "admin") as log:
        yield log
    async with admin_of(server.address, **login("admin")) as client:
        await delete_topics(client, TOPIC)


async def agent(log: KafkaControlLog, admin: KafkaControlLog) -> None:
    """Check the log, and read it."""
    await admin.make()
    await admin.publish(b"go", {})
    await log.check()
    assert (await log.end()).next > 0
    async with aclosing(log.read(0)) as entries:
        some, _ = await anext(entries)
    assert some[0].value == b"go"


async def oncall(log: KafkaControlLog, admin: KafkaControlLog) -> None:
    """Say something, and do what an agent does."""
    await admin.make()
    await log.publish(b"go", {})
    await agent(log, admin)


async def founder(log: KafkaControlLog, _: KafkaControlLog) -> None:
    """Make the log, and check it."""
    assert await log.make()
    assert not await log.make()


KINDS = {one.__name__: one for one in (agent, oncall, founder)}


def test_the_page_has_what_is_tried() -> None:
    """Each user of the page is tried, and no other."""
    assert list(USERS) == list(KINDS)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_the_page_permits_is_enough(server: Broker, admin: KafkaControlLog, kind: str) -> None:
    """With just these rights it works."""
    async with asyncio.timeout(PATIENCE), log_of(server, kind) as log:
        await KINDS[kind](log, admin)


@pytest.mark.parametrize(("kind", "right"), LACKING)
async def test_who_lacks_one_right_is_told_which(server: Broker, admin: KafkaControlLog, kind: str, right: str) -> None:
    """Promise: an error of ours names the right that is missing, and nothing hangs."""
    async with asyncio.timeout(PATIENCE), log_of(server, without(kind, right)) as log:
        with pytest.raises(ConfigurationError, match=rf"lacks the right [\w, ]*\b{right}\b.* on it; grant it on the"):
            await KINDS[kind](log, admin)
