"""An in-memory replay store that the agents of one test share, as processes share a real one."""

from __future__ import annotations

import time
from collections import Counter
from math import inf
from typing import TYPE_CHECKING, Final, Literal

from watchword import Policy
from watchword.replay import ReaderForgottenError
from watchword.spi import Admission, ReaderBirth

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watchword.replay import Place
    from watchword.spi import Claim

PER_PRINCIPAL: Final = 1_000_000


class SharedMemoryStore:
    """A ``SharedReplayStore`` that forgets nothing unless told to: pass the same object to all that share it.

    ``policy`` must be that of all of them; ``clock`` returns seconds since the epoch. A reader that was not admitted is
    unknown, as in any shared store; with ``open_to_all`` it counts as one that has never read. While ``is_down``, calls
    raise ConnectionError.
    """

    def __init__(
        self,
        *,
        policy: Policy | None = None,
        clock: Callable[[], float] = time.time,
        open_to_all: bool = False,
        per_principal: int = PER_PRINCIPAL,
    ) -> None:
        self._policy: Final = policy or Policy()
        self._clock: Final = clock
        self._default: Final = ReaderBirth(floor=-inf) if open_to_all else None
        self._per_principal: Final = per_principal
        self.is_down = False
        self.forget()

    def forget(self) -> None:
        """Lose all ids and readers, as in an accident; the store is reborn now."""
        self._born_at = self._clock()
        self._ids: dict[tuple[str, str, bytes, int], tuple[bytes, Place | bytes | None]] = {}
        self._held: Counter[str] = Counter()
        self._births: dict[str, ReaderBirth] = {}

    def __len__(self) -> int:
        """Return the number of stored ids."""
        return len(self._ids)

    async def claim(self, claim: Claim) -> Admission:
        """See ``ReplayStore.claim``."""
        self._be_there()
        if claim.reference < self._clock() - self._policy.max_lag:
            return Admission.TOO_OLD
        key = (claim.scope, claim.principal, claim.id, claim.issued_at)
        mark = claim.arrival if claim.place is None else claim.place
        known = self._ids.get(key)
        if known is not None:
            again = mark is not None and known == (claim.digest, mark)
            return Admission.REDELIVERED if again else Admission.REPLAYED
        refused = self._refusal(claim)
        if refused == "forgotten":
            raise ReaderForgottenError(claim.reader)
        if refused is not None:
            return refused
        if self._held[claim.principal] >= self._per_principal:
            return Admission.OVER_QUOTA
        self._ids[key] = (claim.digest, mark)
        self._held[claim.principal] += 1
        return Admission.FIRST

    async def claim_many(self, claims: Sequence[Claim]) -> Sequence[Admission | BaseException]:
        """See ``BulkStore.claim_many``."""
        return [await self._answered(claim) for claim in claims]

    async def _answered(self, claim: Claim) -> Admission | BaseException:
        try:
            return await self.claim(claim)
        except Exception as error:  # noqa: BLE001 - the answer to this claim alone
            return error

    async def birth(self, reader: str) -> ReaderBirth | None:
        """See ``SharedReplayStore.birth``."""
        self._be_there()
        return self._births.get(reader, self._default)

    async def admit_reader(self, reader: str, birth: ReaderBirth, *, replace: bool = False) -> ReaderBirth:
        """See ``SharedReplayStore.admit_reader``."""
        self._be_there()
        if replace:
            self._births[reader] = birth
        return self._births.setdefault(reader, self._default or birth)

    def _be_there(self) -> None:
        if self.is_down:
            raise ConnectionError("the replay store is down")

    def _refusal(self, claim: Claim) -> Admission | Literal["forgotten"] | None:
        """Return why an unknown id may have been used before the reader was admitted; None if it cannot have been."""
        birth = self._births.get(claim.reader, self._default)
        position, stamp = claim.place or (None, None)
        appended = claim.appended_after if stamp is None else stamp
        appended = -inf if appended is None else appended
        if birth is not None:
            offset, time_of_last = birth.accepted.get(position.log, (-1, -inf)) if position else (-1, -inf)
            accepted = position is not None and position.offset <= offset and appended <= time_of_last
            return None if accepted or claim.issued_at > birth.floor else Admission.TOO_OLD
        known_from = self._born_at + self._policy.max_skew
        if claim.issued_at > known_from:
            return None
        return Admission.TOO_OLD if position is None or appended > known_from else "forgotten"
