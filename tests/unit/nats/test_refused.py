"""How a delivery of a stream ends that is not handed over: what is published to its ack subject, and when."""

import asyncio
import json
from typing import Any

import pytest
from nats.aio.msg import Msg

from tests.support.kept import Kept
from tests.unit.kafka.fakes import Keys, watchword
from watchword import Reason, Rejected, Unavailable
from watchword_adapters.copies import Copies
from watchword_adapters.nats.jetstream_reader import StreamReader

UNSIGNED = Rejected(Reason.UNSIGNED)
DOWN = Unavailable("keys")


class Stage:
    """One reader of the consumer ``c`` of the stream ``s``; ``answers`` is what it published."""

    def __init__(self, *, quarantined: bool = True, max_hold: float = 0.0, **options: Any) -> None:
        self.agent = watchword(Keys(), max_hold=max_hold)
        self.kept = Kept()
        self.copies = Copies(self.kept, self.agent.audit) if quarantined else None
        self.answers: list[tuple[str, str]] = []
        given: dict[str, Any] = {"stream": "s", "consumer": "c", "acknowledged": True, "exclusive": True}
        client: Any = self  # as much of one as a reader needs
        self.reader = StreamReader(self.agent, client, "js:1", **(given | options), copies=self.copies)

    async def publish(self, subject: str, payload: bytes = b"") -> None:
        """Note an answer."""
        self.answers.append((subject, payload.decode()))

    async def refuse(self, verdict: Rejected | Unavailable, *, reply: str = "$JS.ACK.s.c.1.7.7.1.0") -> None:
        """Let the reader refuse what was delivered with this ack subject."""
        raw: Any = Msg(_client=None, subject="tasks", reply=reply)  # type: ignore[arg-type]  # never answered through it
        await self.reader.refused(raw, self.reader.message(raw), verdict)

    async def ended(self) -> list[str]:
        """Return the answers once all copies are written."""
        if self.copies is not None:
            await self.copies.written(20)
        return [payload for _, payload in self.answers]


@pytest.mark.parametrize("deletes", [True, False])
@pytest.mark.parametrize("fault", ["", "no quarantine", "full", "down", "no room"])
async def test_a44_what_is_rejected_is_terminated_whatever_becomes_of_its_copy(*, deletes: bool, fault: str) -> None:
    """Never a nak, which would fill ``max_ack_pending``: without a copy it ends as well, and is counted."""
    there = Stage(deletes=deletes, quarantined=fault != "no quarantine")
    there.kept.full, there.kept.down = fault == "full", fault == "down"
    if fault == "no room":
        assert there.copies is not None
        await there.copies.close()
    await there.refuse(UNSIGNED)
    assert await there.ended() == ["+TERM unsigned"]
    assert there.agent.audit.counts["left_out"] == (fault in {"full", "down", "no room"})
    assert there.kept.copies == ([] if fault else [(b"", "unsigned")])


@pytest.mark.parametrize("fault", ["", "no quarantine", "full", "down", "no room"])
async def test_a38_what_could_not_be_judged_ends_only_with_a_copy(fault: str) -> None:
    """After ``max_hold`` it is terminated once its copy is kept; until then the server is asked for it again, later."""
    there = Stage(quarantined=fault != "no quarantine")
    there.kept.full, there.kept.down = fault == "full", fault == "down"
    if fault == "no room":
        assert there.copies is not None
        await there.copies.close()
    await there.refuse(DOWN, reply="$JS.ACK.s.c.3.7.7.1.0")
    (answer,) = await there.ended()
    if not fault:
        assert (answer, there.agent.audit.counts) == ("+TERM undetermined", {"undetermined": 1})
    else:
        assert json.loads(answer.removeprefix("-NAK ")) == {"delay": 2_000_000_000}
        assert there.agent.audit.counts == {}


async def test_a38_within_max_hold_no_copy_is_made() -> None:
    """While an outage may pass the message is asked for again, and leaves no copy."""
    there = Stage(max_hold=30.0)
    await there.refuse(DOWN)
    assert (await there.ended())[0].startswith("-NAK")
    assert there.kept.copies == []


@pytest.mark.parametrize(("most", "waits"), [(1000, True), (-1, True), (4, True), (3, False)])
async def test_a44_copies_keep_a_bounded_number_of_deliveries_open(most: int, *, waits: bool) -> None:
    """Of what may be unacknowledged a quarter may wait for copies; a server without a bound has ours."""
    there = Stage(max_ack_pending=most)
    gate = asyncio.Event()

    async def slowly(*_: object) -> bool:
        await gate.wait()
        return True

    there.kept.put = slowly  # type: ignore[assignment, method-assign]  # a double
    await there.refuse(UNSIGNED)
    assert [payload for _, payload in there.answers] == ([] if waits else ["+TERM unsigned"])
    if most == 4:
        await there.refuse(UNSIGNED)
        assert [payload for _, payload in there.answers] == ["+TERM unsigned"]
    gate.set()
    assert await there.ended() == ["+TERM unsigned"] * len(there.answers)


@pytest.mark.parametrize("verdict", [UNSIGNED, DOWN])
async def test_no_consumer_of_others_is_answered(verdict: Rejected | Unavailable) -> None:
    """A forged ack subject makes us end nobody else's delivery, and a consumer without acks is not answered."""
    for reply, options in (("$JS.ACK.s.other.1.7.7.1.0", {}), ("$JS.ACK.s.c.1.7.7.1.0", {"acknowledged": False})):
        there = Stage(**options)
        await there.refuse(verdict, reply=reply)
        await there.refuse(verdict, reply="inbox")
        assert await there.ended() == []
