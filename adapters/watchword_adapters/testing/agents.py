"""A cast of agents that know one another, each with a throwaway key."""

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
"""The realm of agents and buses unless they are told another."""


class Agents:
    """Makes agents of one realm: ``agents("agent://acme/planner")`` is a ``Watchword`` that reads and signs.

    All know the public keys of all, also of those that are made later: ``keys`` is their key source. Called twice for
    one principal, it makes two processes of that agent: one key, and a replay memory each.
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
        """Return one more process of an agent."""
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
        """Return the key with which a principal signs; the first time, it is made and becomes known to all."""
        key = self._signing.get(principal)
        if key is None:
            key = SigningKey.generate()
            self.keys.add(key.verification_key(principal))
            self._signing[principal] = key
        return key
