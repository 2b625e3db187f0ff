"""A group of agents that know one another's keys, each with a throwaway key."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from watchword import SigningKey, Watchword
from watchword_adapters.testing.keys import KeyDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword import Policy
    from watchword.settings import QuarantineSettings
    from watchword.spi import ReplayStore

REALM: Final = "test"
"""The default realm of agents and buses."""


class Agents:
    """Creates agents of one realm: ``agents("agent://acme/planner")`` is a ``Watchword`` that reads and signs.

    All of them know all public keys, including those of later agents: ``keys`` is their key source. Two calls for one
    principal create two processes of that agent, with the same key and separate replay memories.
    """

    def __init__(self, *, realm: str = REALM, clock: Callable[[], float] = time.time) -> None:
        self.realm: Final = realm
        self.clock: Final = clock
        self.keys: Final = KeyDirectory()
        self._signing: dict[str, SigningKey] = {}

    def __call__(
        self,
        principal: str,
        *,
        policy: Policy | None = None,
        replay: ReplayStore | None = None,
        quarantine: QuarantineSettings | None = None,
    ) -> Watchword:
        """Return another process of an agent."""
        return Watchword(
            realm=self.realm,
            principal=principal,
            key=self.key(principal),
            keys=self.keys,
            policy=policy,
            replay=replay,
            clock=self.clock,
            quarantine=quarantine,
        )

    def key(self, principal: str) -> SigningKey:
        """Return a principal's signing key; on the first call it is created, and becomes known to all agents."""
        key = self._signing.get(principal)
        if key is None:
            key = SigningKey.generate()
            self.keys.add(key.verification_key(principal))
            self._signing[principal] = key
        return key
