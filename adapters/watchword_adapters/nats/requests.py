"""The client's requests: sends them, judges their answers, and records reply subjects that it published."""

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
    """Sends requests, and judges each answer in the requesting task: only verified answers to that request count.

    ``listen`` opens a raw subscription; ``new_inbox`` returns a unique subject; ``pong_behind`` returns a future that
    completes when the server has answered a PING sent after everything so far; ``heard`` receives verified messages.
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
        """Send a request with a fresh inbox; the reader that ``send`` returns judges the answers, None accepts any.

        NotAllowed as soon as the server refuses the request, or the subscription to answers. One timer per request is
        cheaper than an ``asyncio.timeout`` per answer.
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
        """Return what ``coming`` returns; NotAllowed as soon as the server refuses to publish to ``subject``."""
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
        """Handle an error of the server: end the requests that it is about; False if it ends none.

        It precedes the PONG sent after them. If subjects differ in letter case only, it could be about either, and both
        keep waiting.
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
                with suppress(errors.Error):  # the an error here would end the client's reading
                    await listening.unsubscribe()
        return False

    def require(self) -> None:
        """Create the reader of all answers at the first request; ConfigurationError if the agent cannot verify."""
        if self._answers is None:
            self._answers = Reader(self._watchword, f"answers:{self._new_inbox().rpartition('.')[2]}")

    def reader_of(self, request: Request | None) -> Reader:
        """Return the reader of one request's answers; answers to an unsigned request cannot be verified."""
        assert self._answers is not None  # noqa: S101 - for the type checker: callers have called require()
        expected = only_answers if request is None else only_answer_to(request)
        return Reader(self._watchword, self._answers.name, expected=expected, admitted=self._heard)

    def was_answered(self, subject: str) -> bool:
        """Return True if the server has answered the PING sent after the request that awaits answers on ``subject``.

        The server's own "no responders" precedes that; anyone else's can only follow it.
        """
        waiting = self._waiting.get(subject.rpartition(".")[2])
        return waiting is not None and waiting.was_passed_on

    def asked_at(self, reply: str) -> bool:
        """Return True if this client requested answers on that subject."""
        return self._asked.get(reply) is not None

    def ask_at(self, reply: str, request: Request) -> None:
        """Expect answers to a request on a reply subject that the caller chose."""
        asked = self._asked.get(reply) or {}
        asked[request.id] = request
        if len(asked) > _MAX_PER_INBOX:
            del asked[next(iter(asked))]
        self._asked.put(reply, asked)

    def expectation(self, prefix: str) -> Callable[[str], Expected]:
        """Return a function from a subject to what may be delivered there.

        Subjects under ``prefix``, the prefix of this client's inboxes, deliver only answers.
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
        """Forget the answers and their inbox: the next connection uses a new one."""
        if self._answers is not None:
            self._answers.close()
        self._prefix = ""

    async def _begin(self) -> None:
        self._prefix = f"{self._new_inbox()}."  # at once: concurrent requests are then sent after the subscription
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
    """A pending request: its unread answers, and, once it is sent, the PONG of a PING sent after it.

    The server's own "no responders" precedes that PONG; anyone else's can only follow it.
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
        """True if the server has answered the PING sent after it."""
        return self.pong is not None and self.pong.done()

    def arrived(self, raw: Msg) -> None:
        """Queue an answer for the requester to judge; beyond a limit, answers are dropped."""
        if self._end is not None:  # answers in time are still judged; a flood cannot extend the wait
            return
        if len(self._answers) < MAX_UNREAD_ANSWERS:
            self._answers.append(raw)
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    async def answer(self) -> Msg:
        """Return the next answer, or raise the error that ended the request. One task may wait at a time."""
        while not self._answers:
            if self._end is not None:
                raise self._end
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        return self._answers.popleft()

    def over(self) -> None:
        """End the request with a timeout."""
        self.end(TimeoutError())

    def end(self, error: TimeoutError) -> None:
        """End the request: no further answer is accepted."""
        self._end = self._end or error
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)


def _retrieve(answer: asyncio.Future[Any]) -> None:
    """Mark an error as retrieved that the caller, cancelled at the same time, will not see."""
    if not answer.cancelled():
        answer.exception()
