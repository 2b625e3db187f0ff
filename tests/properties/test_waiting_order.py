"""However long a key source takes, the messages of one sender come to a handler in order, and none is lost for it."""

import asyncio
import selectors
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import count, cycle, repeat
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nats.errors import TimeoutError as NatsTimeoutError

from tests.unit.kafka.fakes import REALM
from tests.unit.nats.subscribed import SUBJECT, Subscribed
from watchword import Mode, Policy, SigningKey, VerificationKey, Watchword
from watchword.spi import Channel, Message, Signer
from watchword_adapters.nats import reader
from watchword_adapters.nats.jetstream_reader import StreamReader
from watchword_adapters.nats.look_ups import LONGEST

pytestmark = pytest.mark.usefixtures("not_traced")

SENDERS = A, B, C = [f"agent://test/{name}" for name in ("a", "b", "c")]
SIGNING = {principal: SigningKey.generate() for principal in SENDERS}
KNOWN = {principal: key.verification_key(principal) for principal, key in SIGNING.items()}
MOST = 40
"""Most messages of one sender."""

WAYS = ("callback", "next_msg", "messages", "limited", "acknowledged", "unacknowledged")
"""How messages are read; the last two are push consumers of a stream."""

NOW = 1_800_000_000.0


class Waiting(selectors.DefaultSelector):
    """A selector that waits for nothing: the time for which it would have waited has passed at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """See ``selectors.BaseSelector``."""
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits, and no timer will wake it"
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock advances only while nothing is left to do, and then at once."""

    def __init__(self) -> None:
        self._waiting = Waiting()
        super().__init__(self._waiting)

    def time(self) -> float:
        """See ``asyncio.AbstractEventLoop``."""
        return self._waiting.now


@dataclass(frozen=True)
class Answer:
    """How a look-up ends: after so many turns of the event loop, or seconds, and with a key or an error."""

    turns: int = 0
    seconds: float = 0.0
    fails: bool = False


class Source:
    """A source whose look-ups end as ``answers`` say, one after the other."""

    def __init__(self, answers: Iterator[Answer]) -> None:
        self.answers = answers
        self.keys = [*KNOWN.values()]

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:  # noqa: ARG002 - each has one key
        """See ``KeySource.find``."""
        answer = next(self.answers)
        for _ in range(answer.turns):
            await asyncio.sleep(0)
        if answer.seconds:
            await asyncio.sleep(answer.seconds)
        if answer.fails:
            raise OSError("down")
        return KNOWN[principal]


@cache
def sent() -> dict[str, list[tuple[bytes, bytes]]]:
    """Return the messages of each sender, signed together: header block and payload."""
    return {principal: asyncio.run(_signed(principal)) for principal in SENDERS}


async def _signed(principal: str) -> list[tuple[bytes, bytes]]:
    by = Signer(realm=REALM, principal=principal, key=SIGNING[principal], clock=lambda: NOW)
    values = [b"%s %d" % (principal.encode(), number) for number in range(MOST)]
    signed = await by.sign_many([Message(channel=Channel("nats", REALM, SUBJECT), value=value) for value in values])
    headers = [b"NATS/1.0\r\nwatchword: %b\r\n\r\n" % (one.header[1] or b"") for one in signed]
    return list(zip(headers, values, strict=True))


class Play:
    """One subscription, what was sent to it, and what its handler was given."""

    def __init__(self, mode: Mode, way: str, answers: list[Answer], pauses: list[float]) -> None:
        self.pauses, self.sent, self.source = cycle(pauses), Counter[str](), Source(cycle(answers))
        self.agent = Watchword(
            realm=REALM,
            principal=SENDERS[0],
            key=SIGNING[SENDERS[0]],
            keys=self.source,
            policy=Policy(mode=mode),
            clock=lambda: NOW,
        )
        pulls, most = way in {"next_msg", "messages"}, 10_000 if way == "limited" else 0
        self.arrived = count(1) if way.endswith("acknowledged") else None
        stream = None if self.arrived is None else self._stream(acknowledged=way == "acknowledged")
        self.there = Subscribed(self.agent, handler=self._handled, reader=stream, pulls=pulls, max_msgs=most)
        self.pulling = asyncio.ensure_future(getattr(self, f"_{way}")()) if pulls else None

    def _stream(self, *, acknowledged: bool) -> StreamReader:
        async def answered(*_: object) -> None:
            pass

        server: Any = SimpleNamespace(publish=answered)
        return StreamReader(
            self.agent, server, "js:1", stream="s", consumer="c", acknowledged=acknowledged, exclusive=True, copies=None
        )

    async def _handled(self, _: object) -> None:
        if pause := next(self.pauses):
            await asyncio.sleep(pause)

    async def _next_msg(self) -> None:
        while True:
            with suppress(NatsTimeoutError):
                await self.there.take(await self.there.sub.next_msg(timeout=1.0))

    async def _messages(self) -> None:
        async for msg in self.there.sub.messages:
            await self.there.take(msg)

    async def arrives(self, senders: list[str], turns: int, seconds: float) -> None:
        """Let messages come in one piece, and time pass after them."""
        for sender in senders:
            number = self.sent[sender]
            if number < MOST:
                self.sent[sender] += 1
                at = 0 if self.arrived is None else next(self.arrived)
                reply = b"$JS.ACK.s.c.1.%d.%d.%d.0" % (at, at, NOW * 1e9) if at else b""
                await self.there.arrive(sent()[sender][number], reply=reply)
        for _ in range(turns):
            await asyncio.sleep(0)
        if seconds:
            await asyncio.sleep(seconds)

    async def end(self) -> None:
        """Wait until everything that came has been judged and handled; look-ups end well from now on."""
        self.source.answers = repeat(Answer())
        if self.pulling is None:
            await self.there.sub.waiting.join()
        else:
            await asyncio.sleep(200)  # as long as all handlers may take
            self.pulling.cancel()
            await asyncio.gather(self.pulling, return_exceptions=True)
        await self.there.sub.unsubscribe()

    def given(self) -> dict[str, list[int]]:
        """Return the numbers of what was delivered of each sender, in the order of delivery."""
        numbers: dict[str, list[int]] = {principal: [] for principal in SENDERS}
        for value in self.there.values:
            principal, number = value.decode().split()
            numbers[principal].append(int(number))
        return numbers


TURNS = st.integers(0, 6)
PAUSES = st.sampled_from([0.0, 0.0, 0.004, 1.3])
"""Seconds that a handler takes; in the longest, a verdict becomes too old."""

ANSWERS = st.builds(
    Answer, TURNS, st.sampled_from([0.0, 0.0, 0.0, 0.001, 0.03, 0.5, 1.5, 20.0]), st.sampled_from([False] * 7 + [True])
)
BURSTS = st.tuples(
    st.lists(st.sampled_from(SENDERS), min_size=1, max_size=8), TURNS, st.sampled_from([0.0, 0.0, 0.001, 0.05, 1.1])
)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
@settings(max_examples=50)
@given(
    answers=st.lists(ANSWERS, min_size=1, max_size=8),
    bursts=st.lists(BURSTS, max_size=12),
    pauses=st.lists(PAUSES, min_size=1, max_size=6),
)
@example(  # a look-up becomes too old between the judging of two messages that wait for it and their turn
    answers=[Answer(), Answer(), Answer(seconds=0.03), Answer(seconds=1.5)],
    bursts=[([B] * 5, 0, 1.1), ([B, *[A] * 6, B], 0, 1.1), ([B], 0, 0.0)],
    pauses=[0.0, 0.0, 1.3, 0.0],
)
def test_nothing_of_a_sender_overtakes_another_of_its_messages(
    way: str, mode: Mode, answers: list[Answer], bursts: list[tuple[list[str], int, float]], pauses: list[float]
) -> None:
    """Promise: look-ups end in any order, at any time and in any way, and no sender's messages change theirs.

    However many wait for keys that the source lists, none is lost while it finds them.
    """
    sent()  # outside of any loop, once

    async def play() -> None:
        there = Play(mode, way, answers, pauses)
        for burst in bursts:
            await there.arrives(*burst)
        await there.end()
        counts, given = there.agent.audit.counts, there.given()
        assert all(numbers == sorted(set(numbers)) for numbers in given.values()), given
        assert set(counts) <= {"delivered", "unavailable", "undetermined"}
        handed_over = sum(map(len, given.values()))
        finds_all = not any(answer.fails or answer.seconds > LONGEST for answer in answers)
        if finds_all or (mode is Mode.ENFORCE and way == "unacknowledged"):  # which holds what it cannot judge
            assert handed_over == there.sent.total()
        # Of one whose verdict became too old, and could not be renewed, both are counted.
        assert counts["delivered"] + counts["unavailable"] >= there.sent.total()

    with pytest.MonkeyPatch.context() as patch, asyncio.Runner(loop_factory=VirtualLoop) as runner:
        patch.setattr(reader, "MOST_PARKED", 6)
        runner.run(play())
