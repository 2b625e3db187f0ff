"""What this client asked: requests under way, and what it published with a reply subject of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from nats import errors

from watchword.spi import Expected, Request
from watchword_adapters.nats.headers import NO_RESPONDERS, block_of
from watchword_adapters.nats.reader import Reader, only_answer_to, only_answers
from watchword_adapters.nats.recent import Recent
from watchword_adapters.nats_rights import NotAllowed, refused_right

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from watchword import VerifiedMessage, Watchword

T = TypeVar("T")

MAX_UNREAD_ANSWERS: Final = 64
_MAX_PER_INBOX: Final = 1000


class Requests:
    """Asks, and judges each answer in the requester's own task: it counts if it verifies and answers this request.

    ``listen`` subscribes to what is raw; ``new_inbox`` makes a subject that is nobody else's; ``pong_behind`` gives
    what is done when the server has answered a PING behind all that was sent; ``heard`` hears of verified messages.
    """

    def __init__(
        self,
        watchword: Watchword,
        *,
        listen: Callable[[str, Callable[[Msg], Awaitable[None]]], Awaitable[Subscription]],
        new_inbox: Callable[[], str],
        pong_behind: Callable[[], asyncio.Future[bool]],
        heard: Callable[[VerifiedMessage], None],
    ) -> None:
        self._watchword = watchword
        self._listen = listen
        self._new_inbox = new_inbox
        self._pong_behind = pong_behind
        self._heard = heard
        self._expectations: dict[str, Callable[[str], Expected]] = {}
        self._asked: Recent[dict[bytes, Request]] = Recent(
            seconds=watchword.verifier.policy.window, clock=watchword.clock
        )
        self._waiting: dict[str, Waiting] = {}
        self._fetching: dict[str, set[asyncio.Future[None]]] = {}
        self._prefix = ""
        self._listening: Subscription | None = None
        self._answers: Reader | None = None

    async def ask(self, subject: str, send: Callable[[str], Awaitable[Reader | None]], seconds: float | None) -> Msg:
        """Send a request with a fresh inbox; the reader that ``send`` returns judges the answers, None takes any.

        NotAllowed at once where the server refuses to pass it on, or to let us hear the answer.
        One timer for each request, and none that an answer starts anew: asyncio.timeout does more for each.
        """
        if not self._prefix:
            await self._begin()
        token = self._new_inbox().rpartition(".")[2]
        waiting, loop = Waiting(subject), asyncio.get_running_loop()
        self._waiting[token], timer = waiting, None
        try:
            reader = await send(self._prefix + token)
            waiting.pong = self._pong_behind()
            deadline = None if seconds is None else loop.time() + seconds
            timer = None if deadline is None else loop.call_at(deadline, waiting.over)
            while True:
                raw = await waiting.answer()
                block = block_of(raw)
                if block.status == NO_RESPONDERS:
                    raise errors.NoRespondersError
                if reader is not None:
                    async with asyncio.timeout_at(deadline):
                        answer = await reader.judge(raw)
                    if answer is not None:
                        return answer
                elif block.fault is None:
                    return raw
        except NotAllowed:
            raise
        except TimeoutError:
            raise errors.TimeoutError from None
        finally:
            del self._waiting[token]
            if timer is not None:
                timer.cancel()

    async def unless_refused(self, subject: str, coming: Coroutine[Any, Any, T]) -> T:
        """Return what comes in answer to publishing to ``subject``; NotAllowed where the server refuses that."""
        loop = asyncio.get_running_loop()
        answer, refusal = loop.create_task(coming), loop.create_future()
        answer.add_done_callback(_retrieve)
        refusals = self._fetching.setdefault(subject, set())
        refusals.add(refusal)
        try:
            await asyncio.wait((answer, refusal), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise NotAllowed(f"publish to {subject}")
            return answer.result()
        finally:
            answer.cancel()
            refusals.discard(refusal)
            if not refusals:
                self._fetching.pop(subject, None)

    async def refused(self, told: str) -> bool:
        """Hear of an error of the server's, and end the requests under way that it is about; False if it ends none.

        It comes before the PONG behind them. Where subjects differ by their letters' case only, it could be about
        either, and both wait.
        """
        verb, subject = refused_right(told)
        if verb == "publish":
            about = [one for one in self._waiting.values() if one.subject.lower() == subject and not one.was_passed_on]
            fetches = [name for name in self._fetching if name.lower() == subject]
            if len({one.subject for one in about}.union(fetches)) != 1:
                return False
            for one in about:
                one.end(NotAllowed(f"publish to {one.subject}"))
            for refusal in {one for name in fetches for one in self._fetching[name] if not one.done()}:
                refusal.set_result(None)
            return True
        if verb and self._prefix and subject == f"{self._prefix}*".lower():
            listening, prefix, self._prefix = self._listening, self._prefix, ""  # the next request tries again
            for one in self._waiting.values():
                one.end(NotAllowed(f"subscribe to {prefix}*"))
            if listening is not None:
                with suppress(errors.Error):  # the client's reading ends with an error from here
                    await listening.unsubscribe()
        return False

    def require(self) -> None:
        """Make the reader of all answers, with the first request; ConfigurationError where nothing could verify."""
        if self._answers is None:
            self._answers = Reader(self._watchword, f"answers:{self._new_inbox().rpartition('.')[2]}")

    def reader_of(self, request: Request | None) -> Reader:
        """Return what judges the answers to one request; to one that went out unsigned nothing can be verified."""
        assert self._answers is not None  # noqa: S101 - for the type checker: who asks has called require()
        expected = only_answers if request is None else only_answer_to(request)
        return Reader(self._watchword, self._answers.name, expected=expected, admitted=self._heard)

    def was_answered(self, subject: str) -> bool:
        """Return True if the server has answered the PING behind the request that waits for answers there.

        It says "no responders" before that; whoever else says it can do so only later.
        """
        waiting = self._waiting.get(subject.rpartition(".")[2])
        return waiting is not None and waiting.was_passed_on

    def asked_at(self, reply: str) -> bool:
        """Return True if this client itself asked for answers there."""
        return self._asked.get(reply) is not None

    def ask_at(self, reply: str, request: Request) -> None:
        """Expect answers to a request of this client at a reply subject of its own."""
        asked = self._asked.get(reply) or {}
        asked[request.id] = request
        if len(asked) > _MAX_PER_INBOX:
            del asked[next(iter(asked))]
        self._asked.put(reply, asked)

    def expectation(self, prefix: str) -> Callable[[str], Expected]:
        """Return what tells what is waited for on a subject.

        On a subject under ``prefix``, where this client's inboxes are, only answers are.
        """
        known = self._expectations.get(prefix)
        if known is None:
            known = self._expectations[prefix] = self._new_expectation(prefix)
        return known

    def _new_expectation(self, prefix: str) -> Callable[[str], Expected]:
        anything, replies = Expected(), Expected(only_replies=True)

        def expected(subject: str) -> Expected:
            inbox, asked = subject.startswith(prefix), self._asked.get(subject)
            if asked is None:
                return replies if inbox else anything
            return Expected(requests=asked, only_replies=inbox)

        return expected

    def close(self) -> None:
        """Forget the answers, and where they came: the next connection has inboxes of its own."""
        if self._answers is not None:
            self._answers.close()
        self._prefix = ""

    async def _begin(self) -> None:
        self._prefix = f"{self._new_inbox()}."  # at once: who asks meanwhile asks behind the subscription
        try:
            self._listening = await self._listen(f"{self._prefix}*", self._arrived)
        except BaseException:
            self._prefix = ""
            raise

    async def _arrived(self, msg: Msg) -> None:
        waiting = self._waiting.get(msg.subject.rpartition(".")[2])
        if waiting is not None:
            waiting.arrived(msg)


class Waiting:
    """A request under way: its unread answers, and (once it is sent) what the server's answer to a PING behind it ends.

    The server says "no responders" before that PONG; whoever else says it can do so only later.
    """

    __slots__ = ("_answers", "_arrival", "_end", "pong", "subject")

    def __init__(self, subject: str) -> None:
        self.subject: Final = subject
        self.pong: asyncio.Future[bool] | None = None
        self._answers: deque[Msg] = deque()
        self._arrival: asyncio.Future[None] | None = None
        self._end: TimeoutError | None = None

    @property
    def was_passed_on(self) -> bool:
        """Whether the server has answered the PING behind it."""
        return self.pong is not None and self.pong.done()

    def arrived(self, raw: Msg) -> None:
        """Keep an answer for the requester to judge; a flood is cut off."""
        if self._end is not None:  # what came in time is still judged, and no more: a flood keeps nobody waiting
            return
        if len(self._answers) < MAX_UNREAD_ANSWERS:
            self._answers.append(raw)
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    async def answer(self) -> Msg:
        """Return the next answer; the error that ended it once none is left. One task may wait at a time."""
        while not self._answers:
            if self._end is not None:
                raise self._end
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        return self._answers.popleft()

    def over(self) -> None:
        """Say that the time is up."""
        self.end(TimeoutError())

    def end(self, error: TimeoutError) -> None:
        """Say that no answer comes any more."""
        self._end = self._end or error
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)


def _retrieve(answer: asyncio.Future[Any]) -> None:
    """Take note of an error that the caller, who was cancelled in the same moment, does not see."""
    if not answer.cancelled():
        answer.exception()
