"""Roots that verified, so that the signature of a batch is checked once and not for each of its messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from watchword.merkle import ProvenTree

if TYPE_CHECKING:
    from watchword.envelope import Envelope
    from watchword.keys import VerificationKey

MAX_LEAVES: Final = 1 << 14
"""Leaves of all trees kept together; each takes up to 700 bytes."""

Name: TypeAlias = tuple[bytes, bytes, int, bytes]
"""Public key, protected bytes, size of the tree, signature."""


class Roots:
    """Verified trees under key, protected bytes, size and signature; those known longest are forgotten first.

    A verdict never depends on what is remembered: what is not proven here is checked in full.
    """

    def __init__(self, *, leaves: int = MAX_LEAVES) -> None:
        self._most = leaves
        self._held = 0
        self._trees: dict[Name, ProvenTree] = {}

    def verifies(self, key: VerificationKey, envelope: Envelope) -> bool:
        """Tell whether the envelope's proof holds under ``key``, by memory or by its signature."""
        if envelope.common.algorithm != key.algorithm:
            return False
        if envelope.common.size and self.prove(key, envelope):
            return True
        data = envelope.to_be_signed()
        if data is None or not key.verifies(envelope.signature, data):
            return False
        self.remember(key, envelope)
        return True

    def prove(self, key: VerificationKey, envelope: Envelope) -> bool:
        """Tell whether memory alone proves that the claims of a batched envelope were signed under this very key."""
        tree = self._trees.get(name_of(key, envelope))
        return tree is not None and tree.proves(envelope.leaf, envelope.index, envelope.path)

    def remember(self, key: VerificationKey, envelope: Envelope) -> None:
        """Keep the tree of an envelope whose signature was checked under ``key``."""
        size = envelope.common.size
        if not size:
            return
        # Anew, if there is one: under another root the same signature would mean another tree.
        name = name_of(key, envelope)
        self._held += size if self._trees.pop(name, None) is None else 0
        tree = self._trees[name] = ProvenTree(size)
        tree.learn(envelope.leaf, envelope.index, envelope.path)
        while self._held > self._most:
            oldest = next(iter(self._trees))
            self._held -= oldest[2]
            del self._trees[oldest]


def name_of(key: VerificationKey, envelope: Envelope) -> Name:
    """Return what a batched envelope's tree is known by."""
    common = envelope.common
    return key.public_bytes, common.protected, common.size, envelope.signature
