"""What the server refuses ends the request that it is about, and no other."""

import asyncio
from itertools import count
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError

from tests.unit.kafka.fakes import Keys, watchword
from watchword_adapters.nats.requests import Requests
from watchword_adapters.nats_rights import NotAllowed, refused_right

PREFIX = "_INBOX.me."


class Server:
    """A server that answers nothing; ``pongs`` are what it owes, ``subscribed`` is what it was asked to deliver."""

    def __init__(self) -> None:
        self.pongs: list[asyncio.Future[bool]] = []
        self.subscribed: list[str] = []
        numbers = count()
        self.requests = Requests(
            watchword(Keys()),
            listen=self._listen,
            new_inbox=lambda: f"{PREFIX}{next(numbers)}",
            pong_behind=self._pong,
            heard=lambda _: None,
        )

    async def _listen(self, subject: str, cb: Any) -> Any:
        del cb
        self.subscribed.append(subject)
        return self

    async def unsubscribe(self) -> None:
        """Take the last subscription back, on a connection that is closed by then."""
        self.subscribed.append("")
        raise ConnectionClosedError

    def _pong(self) -> asyncio.Future[bool]:
        self.pongs.append(asyncio.get_running_loop().create_future())
        return self.pongs[-1]

    async def asked(self, subject: str) -> asyncio.Task[Msg]:
        """Ask, and return what waits for the answer."""

        async def send(_: str) -> None:
            pass

        asking = asyncio.get_running_loop().create_task(self.requests.ask(subject, send, 30))
        for _ in range(5):
            await asyncio.sleep(0)
        return asking

    async def refuses(self, verb: str, subject: str) -> bool:
        """Refuse as nats-server does, and as nats-py passes it on."""
        return await self.requests.refused(f"'Permissions Violation for {verb} to \"{subject}\"'".lower())


async def ended(asking: asyncio.Task[Any]) -> str:
    """Return the refusal that ended it."""
    with pytest.raises(NotAllowed) as refusal:
        await asyncio.wait_for(asking, 60)
    return str(refusal.value)


async def test_a_refused_request_fails_at_once_and_others_wait_on() -> None:
    """By its subject, whose letters nats-py makes small; the right that is missing is named as it was asked for."""
    server = Server()
    info, other = await server.asked("$JS.API.STREAM.INFO.S"), await server.asked("$JS.API.STREAM.INFO.T")
    assert await server.refuses("Publish", "$JS.API.STREAM.INFO.S")
    assert "may not publish to $JS.API.STREAM.INFO.S;" in await ended(info)
    assert not other.done()
    other.cancel()


async def test_what_the_server_passed_on_is_not_ended_by_a_later_refusal() -> None:
    """The refusal comes before the PONG, so one that comes after it is about another request."""
    server = Server()
    first = await server.asked("tasks")
    server.pongs[0].set_result(True)
    second = await server.asked("TASKS")
    assert await server.refuses("Publish", "TASKS")
    assert "publish to TASKS;" in await ended(second)
    assert not first.done()
    first.cancel()


async def test_a_refusal_that_may_be_about_either_ends_neither() -> None:
    """If subjects differ in letter case only, a refusal ends neither request, and is left to the client to report."""
    server = Server()
    asking = [await server.asked("tasks"), await server.asked("Tasks")]
    assert not await server.refuses("Publish", "Tasks")
    assert not any(one.done() for one in asking)
    for one in asking:
        one.cancel()


async def test_who_may_not_hear_answers_is_told_and_may_try_again() -> None:
    """A refused inbox ends every request that waits for it; the next one subscribes again."""
    server = Server()
    asking = await server.asked("tasks")
    assert not await server.refuses("Subscription", f"{PREFIX}0.*")
    assert f"may not subscribe to {PREFIX}0.*;" in await ended(asking)
    again = await server.asked("tasks")
    assert server.subscribed == [f"{PREFIX}0.*", "", f"{PREFIX}2.*"]
    assert not await server.refuses("Subscription", f"{PREFIX}0.*")
    assert not again.done()
    again.cancel()


async def test_a_refused_fetch_ends_and_one_that_is_given_up_leaves_nothing() -> None:
    """A fetch waits for its request to be refused as well as for messages."""
    server, subject = Server(), "$JS.API.CONSUMER.MSG.NEXT.S.c"
    loop = asyncio.get_running_loop()
    fetching = [loop.create_task(server.requests.unless_refused(subject, asyncio.sleep(30))) for _ in range(3)]
    await asyncio.sleep(0)
    fetching[0].cancel()
    await asyncio.wait(fetching[:1])
    assert await server.refuses("Publish", subject)
    assert [f"publish to {subject};" in await ended(one) for one in fetching[1:]] == [True, True]
    assert not await server.refuses("Publish", subject)
    assert await server.requests.unless_refused(subject, asyncio.sleep(0, "messages")) == "messages"


@pytest.mark.parametrize("told", ["'stale connection'", "permissions violation", 'permissions violation for x to "y"'])
async def test_other_errors_end_nothing(told: str) -> None:
    """Only what names a right that is missing counts."""
    server = Server()
    asking = await server.asked("tasks")
    assert not await server.requests.refused(told)
    assert refused_right(told) == ("", "")
    assert not asking.done()
    asking.cancel()
