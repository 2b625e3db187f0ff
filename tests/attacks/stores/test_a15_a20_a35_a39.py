"""A15, A20, A35 and A39 against the shared stores: a store that forgets, lies or stalls delivers no replay.

One lie cannot be detected: a store that says FIRST twice. The store's operator is trusted not to (SECURITY.md).
"""

import asyncio
import random
import secrets
from collections import Counter
from typing import Any

import pytest

from tests.attacks.stores.conftest import PER_PRINCIPAL, Shared
from tests.attacks.stores.world import at, ending, signed
from tests.support.patience import PATIENCE
from tests.unit.core.world import ALICE, BOB
from watchword import Reason
from watchword.spi import Admission, Message


async def served(member: Any, message: Message) -> Reason | str:
    """Return how it ends once the store is there again; until then nothing is delivered."""
    async with asyncio.timeout(PATIENCE):
        while (told := await ending(member, message)) == "unavailable":  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
    return told


async def test_a15_replay_to_another_member_is_dropped(shared: Shared) -> None:
    """Whichever member of a queue group gets the copies, the message is delivered once."""
    members = [await shared.member() for _ in range(3)]
    await shared.settled()
    message = await signed()
    endings = await asyncio.gather(*(ending(member, message) for member in members for _ in range(5)))
    assert Counter(endings) == {"delivered": 1, Reason.REPLAYED: 14}


async def test_a17_honest_redelivery_to_another_member_is_delivered(shared: Shared) -> None:
    """What one worker left unfinished another gets, and nobody gets it from elsewhere."""
    one, other = await shared.member(), await shared.member()
    await shared.settled()
    message = await signed()
    assert await ending(one, at(message, 1)) == "delivered"
    assert await ending(other, at(message, 1)) == "redelivered"
    assert await ending(other, at(message, 2)) is Reason.REPLAYED


async def test_a20_who_floods_the_store_is_limited_and_nobody_else(shared: Shared) -> None:
    """A compromised agent spends its own room only, and drives nothing out."""
    member, other = await shared.member(), await shared.member()
    await shared.settled()
    first = [await signed(BOB), await signed()]
    assert [await ending(member, message) for message in first] == ["delivered"] * 2
    flood = [await signed() for _ in range(PER_PRINCIPAL + 200)]
    endings = Counter(await asyncio.gather(*(ending(member, message) for message in flood)))
    assert set(endings) == {"delivered", Reason.OVER_QUOTA}
    assert endings["delivered"] < PER_PRINCIPAL
    assert await ending(other, await signed(ALICE)) is Reason.OVER_QUOTA
    assert await ending(other, await signed(BOB)) == "delivered"
    assert [await ending(other, message) for message in [*first, flood[0]]] == [Reason.REPLAYED] * 3


async def test_a35_a_store_that_stalls_delivers_nothing(shared: Shared) -> None:
    """What cannot be judged is unavailable, and is judged when the store is back."""
    member = await shared.member()
    await shared.settled()
    known, fresh = at(await signed(), 1), at(await signed(), 2)
    assert await ending(member, known) == "delivered"
    async with shared.stalled():
        told = await asyncio.gather(*(ending(member, message) for message in (known, at(known, 3), fresh)))
        assert told == ["unavailable"] * 3
    assert await served(member, at(known, 3)) is Reason.REPLAYED
    assert await served(member, fresh) in {"delivered", "redelivered"}
    assert await served(member, at(fresh, 4)) is Reason.REPLAYED


async def test_a39_a_store_that_forgets_delivers_no_replay(shared: Shared) -> None:
    """Whenever it loses everything, with messages under way, no message is delivered twice; later ones are."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # noqa: T201 - to give back
    rng = random.Random(seed)  # noqa: S311 - a schedule
    members = [await shared.member() for _ in range(3)]
    seen: list[Message] = []
    delivered: Counter[int] = Counter()

    async def offer(number: int) -> None:
        told = await ending(rng.choice(members), seen[number])
        delivered[number] += told in {"delivered", "redelivered"}

    for _ in range(3):
        await shared.settled()
        seen += [await signed() for _ in range(30)]
        for number in range(len(seen) - 30, len(seen) - 25):
            assert await served(members[0], seen[number]) == "delivered"
            delivered[number] += 1
        work = [offer(rng.randrange(len(seen))) for _ in range(150)]
        await asyncio.gather(*work[:50])
        await asyncio.gather(*work[50:100], shared.forget())
        await asyncio.gather(*work[100:])
        for number in range(len(seen)):
            await offer(number)
    assert max(delivered.values()) == 1
    await shared.settled()
    last = await signed()
    assert await served(members[0], last) == "delivered"
    assert await served(members[1], last) is Reason.REPLAYED


@pytest.mark.parametrize("lie", [None, "first", True, 1, b"F", [], [Admission.FIRST] * 2, [None]])
async def test_a35_an_answer_that_is_none_delivers_nothing(shared: Shared, lie: object) -> None:
    """Whatever else than an admission comes back, it is no verdict."""
    member = await shared.member()
    (store,) = shared.stores

    async def judge(_uses: object) -> object:
        return lie

    store._judge = judge  # type: ignore[method-assign, assignment] # what it says when it lies
    assert await ending(member, await signed()) == "unavailable"
