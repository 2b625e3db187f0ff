"""What was judged while a handler worked is judged once more when that took long (A23, A24)."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from nats.aio.msg import Msg

from tests.unit.control.world import OPERATORS, THIRD, issued
from tests.unit.kafka.fakes import KEY, REALM, SENDER, Keys, watchword
from tests.unit.nats.subscribed import SUBJECT, Subscribed, tree
from watchword import Mode, Reason, Rejected, Unavailable, VerificationKey, VerifiedMessage
from watchword.control import Control
from watchword.keys import thumbprint
from watchword.spi import Channel, Expected, Message, Request
from watchword.statements import Contain, Revoke, Saying
from watchword_adapters.nats.look_ups import FRESH
from watchword_adapters.nats.reader import Reader

ALL = [b"%d" % number for number in range(40)]


class Time:
    """A clock of the event loop that can be put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, stands: bool = False) -> None:
        loop = asyncio.get_running_loop()
        now, begun = loop.time, loop.time()
        self.late = 0.0
        monkeypatch.setattr(loop, "time", lambda: (begun if stands else now()) + self.late)

    def pass_by(self, seconds: float = FRESH) -> None:
        """Let verdicts grow too old, just so."""
        self.late += seconds


def revoke(keys: Keys) -> None:
    """Let the sender's key be revoked by now."""
    revoked = VerificationKey.from_public_key(
        KEY.public, principal=SENDER, key_id=KEY.key_id, revoked_at=int(time.time()) - 1
    )
    keys.replace(revoked)


def once(act: Callable[[], object]) -> Callable[[Msg], Awaitable[None]]:
    """Return a handler that acts on the first message only."""
    acted: list[object] = []

    async def handler(_: Msg) -> None:
        if not acted:
            acted.append(act())
            await asyncio.sleep(0)

    return handler


async def test_what_judging_raises_is_told_and_costs_no_other_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: where judging once more fails in a way that nobody foresaw, that costs one message, and no other."""
    clock, agent = Time(monkeypatch), watchword(Keys())
    reverify, failures = agent.verifier.reverify, [RuntimeError("unforeseen")]

    async def failing(*args: Any, **options: Any) -> list[Rejected | Unavailable | None]:
        if failures:
            raise failures.pop()
        return await reverify(*args, **options)

    monkeypatch.setattr(agent.verifier, "reverify", failing)
    there = Subscribed(agent, handler=once(clock.pass_by))
    await there.arrive(*await tree(ALL))
    await there.handled()
    assert there.values == [ALL[0], *ALL[2:]]
    assert [str(error) for error in there.errors] == ["unforeseen"]


@pytest.mark.parametrize("way", ["revoked", "unknown", "contained"])
async def test_a_slow_handler_leaves_no_old_verdict_behind(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """A23, A24: what was judged before a key was revoked or a principal contained is not handed over long after."""
    clock, keys = Time(monkeypatch), Keys()
    agent = watchword(keys)

    def act() -> None:
        clock.pass_by()
        if way == "revoked":
            revoke(keys)
        elif way == "unknown":
            keys.replace()
        else:
            agent.verifier.policy = replace(agent.verifier.policy, contained=frozenset({SENDER}))

    there = Subscribed(agent, handler=once(act))
    await there.arrive(*await tree(ALL), (b"", b"unsigned"))
    await there.handled()
    reason = {"revoked": "key_revoked", "unknown": "unknown_key", "contained": "contained"}[way]
    assert there.values == ALL[:1]
    assert agent.audit.counts == {"delivered": len(ALL), reason: len(ALL) - 1, Reason.UNSIGNED: 1}
    assert there.kept.copies == [*((value, reason) for value in ALL[1:]), (b"unsigned", "unsigned")]
    await there.arrive(*await tree([b"later"]))
    await there.handled()
    assert there.values == ALL[:1]


@pytest.mark.parametrize("saying", [Contain(SENDER), Revoke(thumbprint(KEY.public), 1)], ids=["contain", "revoke"])
async def test_what_an_operator_says_holds_for_what_waits(monkeypatch: pytest.MonkeyPatch, saying: Saying) -> None:
    """A24: at once, and not after the second for which a verdict stands."""
    Time(monkeypatch, stands=True)
    agent, control = watchword(Keys()), Control(OPERATORS)
    agent.verifier.obey(control)
    there = Subscribed(agent, handler=once(lambda: control.hear(issued(saying, THIRD))))
    await there.arrive(*await tree(ALL))
    await there.handled()
    assert there.values == ALL[:1]


async def test_the_answer_of_a_contained_agent_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A24: also where it was asked before."""
    Time(monkeypatch, stands=True)
    agent, control = watchword(Keys()), Control(OPERATORS)
    agent.verifier.obey(control)
    request = Request(id=bytes(16), channel=Channel("nats", REALM, "asked"))
    message = Message(channel=Channel("nats", REALM, SUBJECT), value=b"answer")
    signed = await agent.signer.sign(message, in_reply_to=request.id)
    reader = Reader(agent, "sub:1", expected=lambda _: Expected(requests={request.id: request}))
    there = Subscribed(agent, handler=once(lambda: None), reader=reader)
    control.hear(issued(Contain(SENDER), THIRD))
    await there.arrive((b"NATS/1.0\r\nwatchword: %b\r\n\r\n" % (signed.header[1] or b""), b"answer"))
    await there.handled()
    assert there.values == []
    assert agent.audit.counts == {"contained": 1}


async def test_what_still_holds_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A17: an honest message that waited for a slow handler is not lost, no replay, and judged but once more."""
    clock, keys = Time(monkeypatch), Keys()
    there = Subscribed(watchword(keys), handler=once(clock.pass_by))
    await there.arrive(*await tree(ALL))
    await there.handled()
    assert there.values == ALL
    assert there.agent.audit.counts == {"delivered": len(ALL)}
    assert keys.asked == 2


async def test_a_verdict_that_is_fresh_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a handler that is quick enough costs no second look at what is judged."""
    clock, keys = Time(monkeypatch, stands=True), Keys()
    there = Subscribed(watchword(keys), handler=once(lambda: clock.pass_by(0.99 * FRESH)))
    await there.arrive(*await tree(ALL))
    await there.handled()
    assert keys.asked == 1


async def test_a_key_source_slower_than_verdicts_stand_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A21: however long each look-up takes, what it found is handed over: it is made once more, and no third time."""
    clock, keys = Time(monkeypatch), Keys()
    find = keys.find

    async def slowly(principal: str, key_id: bytes) -> VerificationKey | None:
        clock.pass_by()
        return await find(principal, key_id)

    monkeypatch.setattr(keys, "find", slowly)
    there = Subscribed(watchword(keys))
    await there.arrive(*await tree(ALL))
    await there.handled()
    assert there.values == ALL
    assert keys.asked == 2


async def test_an_outage_hands_nothing_over_on_an_old_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """A35: what cannot be judged once more is dropped and kept, as any on core NATS; what is behind is judged."""
    clock, keys = Time(monkeypatch), Keys()

    def act() -> None:
        clock.pass_by()
        keys.failures = 2

    there = Subscribed(watchword(keys), handler=once(act))
    await there.arrive(*await tree(ALL))
    await there.handled()
    assert there.values == [ALL[0], *ALL[3:]]
    assert there.kept.copies == [(ALL[1], "undetermined"), (ALL[2], "undetermined")]
    assert there.agent.audit.counts == {"delivered": len(ALL), "unavailable": 2, "undetermined": 2}
    assert keys.asked == 4


async def test_observing_hands_on_what_does_not_hold_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """In observe mode a slow handler gets everything, with the verdict that enforcing would have given then."""
    clock, keys = Time(monkeypatch), Keys()

    def act() -> None:
        clock.pass_by()
        revoke(keys)

    there = Subscribed(watchword(keys, Mode.OBSERVE), handler=once(act))
    await there.arrive(*await tree(ALL), (b"", b"unsigned"))
    await there.handled()
    assert there.values == [*ALL, b"unsigned"]
    verdicts = [getattr(msg.verdict, "reason", type(msg.verdict)) for msg in there.got]
    assert verdicts == [VerifiedMessage, *[Reason.KEY_REVOKED] * (len(ALL) - 1), Reason.UNSIGNED]
    assert there.kept.copies == []


async def test_an_answer_is_not_held_against_other_expectations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A22: an answer is judged in its turn, by what was asked; so a slow handler of another one does not cost it."""
    clock, agent = Time(monkeypatch), watchword(Keys())
    request = Request(id=bytes(16), channel=Channel("nats", REALM, "asked"))
    answers: list[tuple[bytes, bytes]] = []
    for value in ALL:
        message = Message(channel=Channel("nats", REALM, SUBJECT), value=value)
        signed = await agent.signer.sign(message, in_reply_to=request.id)
        answers.append((b"NATS/1.0\r\nwatchword: %b\r\n\r\n" % (signed.header[1] or b""), value))
    reader = Reader(agent, "sub:1", expected=lambda _: Expected(requests={request.id: request}))
    there = Subscribed(agent, handler=once(clock.pass_by), reader=reader)
    await there.arrive(*answers)
    await there.handled()
    assert there.values == ALL
