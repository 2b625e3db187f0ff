"""Agents for brokers without a server: everybody knows everybody's key."""

from typing import Final

from watchword import Allow, MemoryKeys, Mode, Policy, SigningKey, Watchword

REALM: Final = "test"
PLANNER: Final = "agent://acme/planner"
CLOUD: Final = "agent://acme/cloud"
STRANGER: Final = "agent://elsewhere/stranger"
KEYS: Final = {name: SigningKey.generate() for name in (PLANNER, CLOUD, STRANGER)}
KNOWN: Final = MemoryKeys(KEYS[name].verification_key(name) for name in (PLANNER, CLOUD))


def agent(
    principal: str = PLANNER, *, mode: Mode = Mode.ENFORCE, allow: tuple[Allow, ...] = (), signs: bool = True
) -> Watchword:
    """Return an agent; the stranger has a key as well, which nobody knows."""
    return Watchword(
        realm=REALM,
        principal=principal,
        key=KEYS[principal] if signs else None,
        keys=KNOWN,
        policy=Policy(mode=mode, allow=allow),
    )
