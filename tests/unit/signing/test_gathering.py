"""Signing with a slow back-end: one call at a time, shared by what waits for it."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count

import pytest

from tests.support.patience import PATIENCE
from watchword import SigningKey, Unavailable
from watchword.algorithms import Algorithm
from watchword.signer import Signed, Signer
from watchword.spi import Channel, Message
from watchword.unsigned import UnsignedEnvelope
from watchword_adapters.signing_queue import SigningQueue

KEY = SigningKey.generate()


class Kms:
    """Holds each call until it is answered."""

    def __init__(self) -> None:
        self.calls: list[asyncio.Future[bytes]] = []
        self.cancelled = 0
        self._began = asyncio.Condition()

    async def sign(self, data: bytes) -> bytes:
        """Wait for the answer, then sign."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        async with self._began:
            self.calls.append(answer)
            self._began.notify_all()
        try:
            return await answer or await KEY.sign(data)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def called(self, times: int) -> asyncio.Future[bytes]:
        """Wait until it was called that often, and return the latest call."""
        async with asyncio.timeout(PATIENCE), self._began:
            await self._began.wait_for(lambda: len(self.calls) >= times)
        assert len(self.calls) == times
        return self.calls[-1]


@pytest.fixture
async def kms() -> AsyncIterator[Kms]:
    """Give a back-end, and see that no call is left open."""
    made = Kms()
    yield made
    assert all(call.done() for call in made.calls)


def _signer(kms: Kms) -> Signer:
    return Signer(
        realm="prod", principal="a", key=kms, clock=lambda: 1_700_000_000, key_id=b"k", algorithm=Algorithm.ED25519,
        batch=4,
    )  # fmt: skip


def _prepared(signer: Signer) -> list[UnsignedEnvelope]:
    return [signer.prepare(Message(channel=Channel("kafka", "prod", "t"), value=b"%d" % n)) for n in range(6)]


def _sizes(signed: list[Signed]) -> list[int]:
    """Return the lengths of the envelopes: what shares a signature has a longer one."""
    return [len(one.header[1] or b"") for one in signed]


async def test_one_call_at_a_time_and_what_waits_shares_the_next(kms: Kms) -> None:
    """Promise: a lone message goes out at once; what comes meanwhile is signed in trees of a batch, in order."""
    signer = _signer(kms)
    gathering, envelopes = SigningQueue(signer), _prepared(signer)
    order = count()
    done: dict[int, int] = {}

    async def sign(number: int) -> Signed:
        signed = await gathering.sign(envelopes[number])
        done[number] = next(order)
        return signed

    first = asyncio.create_task(sign(0))
    answer = await kms.called(1)
    rest = [asyncio.create_task(sign(number)) for number in range(1, 6)]
    await asyncio.sleep(0)
    for times in (1, 2, 3):
        answer = await kms.called(times)
        answer.set_result(b"")
    signed = [await first, *(await asyncio.gather(*rest))]
    assert [one.id for one in signed] == [unsigned.id for unsigned in envelopes]
    alone, *together, last = _sizes(signed)
    assert alone == last < min(together)
    assert sorted(done, key=done.__getitem__) == list(range(6))


async def test_what_comes_in_one_round_is_signed_together(kms: Kms) -> None:
    """Promise: sends of one loop iteration share a signature, without any wait for more."""
    signer = _signer(kms)
    gathering, envelopes = SigningQueue(signer), _prepared(signer)[:4]
    signing = asyncio.gather(*map(gathering.sign, envelopes))
    (await kms.called(1)).set_result(b"")
    assert len(set(_sizes(await signing))) == 1
    again = asyncio.create_task(gathering.sign(envelopes[0]))
    (await kms.called(2)).set_result(b"")
    await again


async def test_who_gives_up_harms_nobody(kms: Kms) -> None:
    """Promise: a cancelled send takes no other with it, whether it waited or was being signed."""
    signer = _signer(kms)
    gathering, envelopes = SigningQueue(signer), _prepared(signer)
    tasks = [asyncio.create_task(gathering.sign(unsigned)) for unsigned in envelopes]
    answer = await kms.called(1)
    tasks[1].cancel()
    tasks[4].cancel()
    await asyncio.wait((tasks[1], tasks[4]))
    answer.set_result(b"")
    (await kms.called(2)).set_result(b"")
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(result, Signed) for result in results] == [True, False, True, True, False, True]
    assert kms.cancelled == 0


async def test_a_call_for_which_nobody_waits_holds_up_nobody(kms: Kms) -> None:
    """Promise: a back-end that hangs does so for those only who wait for it: as all have given up, the next go on."""
    signer = _signer(kms)
    gathering, envelopes = SigningQueue(signer), _prepared(signer)
    hung = asyncio.create_task(gathering.sign(envelopes[0]))
    await kms.called(1)
    behind = asyncio.create_task(gathering.sign(envelopes[1]))
    await asyncio.sleep(0)
    hung.cancel()
    (await kms.called(2)).set_result(b"")
    assert (await behind).id == envelopes[1].id
    assert kms.cancelled == 1


@pytest.mark.parametrize("error", [OSError("s3cret"), asyncio.CancelledError()])
async def test_a_failure_is_told_to_each(kms: Kms, error: BaseException) -> None:
    """Promise: each send that a failed call was for has an Unavailable of its own; what comes later is tried again."""
    signer = _signer(kms)
    gathering, envelopes = SigningQueue(signer), _prepared(signer)
    tasks = [asyncio.create_task(gathering.sign(unsigned)) for unsigned in envelopes[:3]]
    answer = await kms.called(1)
    tasks[2].cancel()
    await asyncio.wait((tasks[2],))
    answer.cancel() if isinstance(error, asyncio.CancelledError) else answer.set_exception(error)
    failures = await asyncio.gather(*tasks[:2], return_exceptions=True)
    assert all(isinstance(failure, Unavailable) and failure.what == "signing" for failure in failures)
    assert failures[0] is not failures[1]
    assert "s3cret" not in str(failures)
    later = asyncio.create_task(gathering.sign(envelopes[3]))
    (await kms.called(2)).set_result(b"")
    assert (await later).id == envelopes[3].id
