"""Checks 5 and 6: whose key it is, and that it signed this."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from watchword.errors import Reason, Rejected, Unavailable
from watchword.keys import VerificationKey
from watchword.roots import Roots, name_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from watchword.case import Case
    from watchword.keys import KeySource

Checker: TypeAlias = "Callable[[Sequence[Callable[[], bool]]], Awaitable[Sequence[bool]]]"
"""Makes checks that take some 70 us each and touch nothing, and returns what they return, in order."""

_SEVERAL: Final = 2
"""Signatures that are worth another thread."""


async def find_key(keys: KeySource, principal: str, key_id: bytes) -> VerificationKey | Reason:
    """Check 5: return the principal's key of this id, or why there is none; the source is not taken at its word."""
    try:
        key: object = await keys.find(principal, key_id)
    except Exception as error:
        raise Unavailable("keys", type(error).__name__) from error
    if key is None:
        return Reason.UNKNOWN_KEY
    if not isinstance(key, VerificationKey) or key.key_id != key_id:
        raise Unavailable("keys", "the key source answered with another key than was asked for")
    return key if key.principal == principal else Reason.WRONG_PRINCIPAL


class Proving:
    """Checks signatures, one for all messages of a batch."""

    def __init__(self) -> None:
        self._roots = Roots()

    async def check_together(self, cases: Sequence[Case], check: Checker) -> None:
        """Check the signatures that several cases need, each once; of those cases it is known whether theirs holds."""
        jobs: dict[object, tuple[Case, Callable[[], bool]]] = {}
        for case in cases:
            if case.verdict is not None:
                continue
            key, envelope = case.key, case.envelope
            name = name_of(key, envelope) if envelope.common.size else case
            if name in jobs or envelope.common.algorithm != key.algorithm:
                continue
            case.signed = self._roots.prove(key, envelope) or None
            data = None if case.signed else envelope.to_be_signed()
            if data is not None:
                jobs[name] = case, partial(key.verifies, envelope.signature, data)
        if len(jobs) < _SEVERAL:
            return
        verdicts = await check([job for _, job in jobs.values()])
        for (case, _), holds in zip(jobs.values(), verdicts, strict=True):
            case.signed = holds
            if holds:
                self._roots.remember(case.key, case.envelope)

    def signed(self, case: Case) -> None:
        """Check 6: the signature is the key's, by the key's own algorithm."""
        if case.signed is None:
            case.signed = self._roots.verifies(case.key, case.envelope)
        if not case.signed:
            raise Rejected(Reason.BAD_SIGNATURE)
