"""Checks 5 and 6: finds a message's key, and checks its signature; a batch's signature is checked only once.

Takes parsed envelopes. A key's validity in time and what its owner may send are for other checks.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from watchword.checks import shown_id
from watchword.encoding import sig_structure
from watchword.errors import Pending, Reason, Rejected, Shed, Unavailable
from watchword.keys import VerificationKey
from watchword.merkle import whole_root
from watchword.plugged import answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from watchword.envelope import Envelope
    from watchword.keys import KeySource
    from watchword.verification import Verification

CheckRunner: TypeAlias = "Callable[[Sequence[Callable[[], bool]]], Awaitable[Sequence[bool]]]"
"""Runs checks, each of which takes as long as verifying a signature and has no side effects; returns their results.

Its results are trusted. If it fails, or returns anything but one bool per check, the verifier runs the checks itself.
"""

MAX_ROOTS: Final = 4096
"""The number of verified roots that are remembered; the oldest are forgotten first.

Each takes some 300 bytes, and with ML-DSA the longer signature: at most some 15 MB in all.
"""

_Tree: TypeAlias = tuple[bytes, bytes, int, bytes]
"""Public key, protected bytes, size (0 for a direct signature) and signature."""

Job: TypeAlias = tuple[VerificationKey, bytes, int, bytes, bytes]
"""A signature to check: key, protected bytes, size, signature, and the root that it covers."""

_SEVERAL: Final = 2
"""The fewest signatures that are worth another thread."""


async def find_key(keys: KeySource, principal: str, key_id: bytes) -> VerificationKey | Reason:
    """Check 5: return the principal's key with this id, or the reason for rejection; the source's answer is checked."""
    try:
        key: object = await answer(keys.find(principal, key_id))
    except (Pending, Shed):
        raise
    except Unavailable as error:  # which says more than its type does
        raise Unavailable("keys", error.detail) from error
    except Exception as error:
        raise Unavailable("keys", type(error).__name__) from error
    if key is None:
        return Reason.UNKNOWN_KEY
    if not isinstance(key, VerificationKey) or key.key_id != key_id:
        raise Unavailable("keys", "the key source returned another key than the one asked for")
    return key if key.principal == principal else Reason.WRONG_PRINCIPAL


class SignatureChecker:
    """Checks signatures, and caches each verified root together with the key that verified it.

    The cache never changes a verdict: an entry counts only for the same root, key and signature.
    """

    def __init__(self) -> None:
        self._roots: dict[_Tree, bytes] = {}

    def signed(self, case: Verification) -> None:
        """Check 6: raise Rejected unless the key made the signature, with the key's own algorithm."""
        if case.signed is None:
            case.signed = self._holds(case, case.key)
        if not case.signed:
            by = shown_id(case.key.key_id)
            raise Rejected(Reason.BAD_SIGNATURE, f"not by key {by}: forged, or its sender has another key of that id")

    def _holds(self, envelope: Envelope, key: VerificationKey) -> bool:
        if envelope.common.algorithm != key.algorithm:
            return False
        root = envelope.root()
        if root is None:
            return False
        if not envelope.size:  # no other message shares a direct signature, so caching it is no use
            return key.verifies(envelope.signature, envelope.to_be_signed(root))
        tree = _tree_of(key, envelope)
        if self._roots.get(tree) == root:
            return True
        holds = key.verifies(envelope.signature, envelope.to_be_signed(root))
        if holds:
            self._remember(tree, root)
        return holds

    async def check_together(
        self, cases: Sequence[Verification], check: CheckRunner | None, others: Sequence[Job] = ()
    ) -> list[bool]:
        """Check the cases' signatures, each once and in parallel if ``check`` can, and set ``signed`` in each case.

        The jobs in ``others`` are checked with them; return whether each of these holds.
        """
        asked: list[tuple[_Tree, bytes]] = []
        jobs: dict[tuple[_Tree, bytes], Callable[[], bool]] = {}
        for key, protected, size, signature, root in others:
            asked.append(job := ((key.public_bytes, protected, size, signature), root))
            jobs[job] = partial(key.verifies, signature, sig_structure(protected, size, root))
        groups: list[tuple[tuple[_Tree, bytes], list[Verification]]] = []
        for tree, siblings in _by_tree(cases).items():
            for root, group in _by_root(siblings).items():
                groups.append((job := (tree, root), group))
                jobs[job] = partial(group[0].key.verifies, group[0].signature, group[0].to_be_signed(root))
        holds = {(tree, root): True for tree, root in jobs if self._roots.get(tree) == root}
        open_ = [job for job in jobs if job not in holds]
        for job, holding in zip(open_, await _checked([jobs[job] for job in open_], check), strict=True):
            holds[job] = holding
            if holding:
                self._remember(*job)
        for job, group in groups:
            for case in group:
                case.signed = holds[job]
        return [holds[job] for job in asked]

    def _remember(self, tree: _Tree, root: bytes) -> None:
        if not tree[2]:  # a direct signature, as above
            return
        if len(self._roots) >= MAX_ROOTS:
            del self._roots[next(iter(self._roots))]
        self._roots[tree] = root


async def _checked(jobs: list[Callable[[], bool]], check: CheckRunner | None) -> Sequence[bool]:
    """Run the checks with ``check``, or here if that fails: its failure says nothing about the signatures."""
    if check is not None and len(jobs) >= _SEVERAL:
        with suppress(Exception):
            verdicts = await check(jobs)
            if [type(verdict) for verdict in verdicts] == [bool] * len(jobs):
                return verdicts
    return [job() for job in jobs]


def _tree_of(key: VerificationKey, envelope: Envelope) -> _Tree:
    return key.public_bytes, envelope.common.protected, envelope.size, envelope.signature


def _by_tree(cases: Sequence[Verification]) -> dict[_Tree, list[Verification]]:
    groups: dict[_Tree, list[Verification]] = {}
    for case in cases:
        if case.verdict is None and case.signed is None and case.common.algorithm == case.key.algorithm:
            groups.setdefault(_tree_of(case.key, case), []).append(case)
    return groups


def _by_root(siblings: list[Verification]) -> dict[bytes, list[Verification]]:
    """Group cases by the root that their proofs lead to; a complete tree is computed once for all of its leaves."""
    first = siblings[0]
    found: dict[bytes, list[Verification]] = {}
    places = {case.index: case for case in reversed(siblings)}
    if 1 < first.size == len(places):
        root = whole_root([(places[at].leaf, places[at].path) for at in range(first.size)])
        if root is not None:
            found[root] = [*places.values()]
            siblings = [case for case in siblings if places[case.index] is not case]
    for case in siblings:
        root = case.root()
        if root is not None:
            found.setdefault(root, []).append(case)
    return found
