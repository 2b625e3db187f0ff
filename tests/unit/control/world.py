"""Operators, their keys, and what they say."""

from hashlib import sha256

from watchword import SigningKey, VerificationKey
from watchword.control import Issued, Operator, OperatorKey
from watchword.keys import thumbprint
from watchword.statements import Contain, GiveKey, Head, Release, Revoke, Saying, Statement, Verb

ALL = frozenset(Verb)
ONCALL, SECURITY, BOT = "agent://acme/oncall", "agent://acme/security", "agent://acme/bot"
PLANNER, CONTROLLER, OTHER = "agent://acme/planner", "agent://acme/controller", "agent://other/planner"
OPERATORS = (
    Operator(ONCALL, ALL, ("agent://acme/**",)),
    Operator(SECURITY, ALL, ("**",)),
    Operator(BOT, frozenset({Verb.CONTAIN}), ("agent://acme/*",)),
)
KEYS: dict[OperatorKey, SigningKey] = {}
for _name in (ONCALL, ONCALL, SECURITY, BOT):
    _key = SigningKey.generate()
    KEYS[_name, thumbprint(_key.public)] = _key
FIRST, SECOND, THIRD, FOURTH = KEYS
AGENTS = {name: SigningKey.generate() for name in (PLANNER, CONTROLLER, OTHER)}


def key_of(principal: str, key: SigningKey | None = None) -> VerificationKey:
    """Return an agent's public key."""
    return (key or AGENTS[principal]).verification_key(principal)


def issued(
    saying: Saying, by: OperatorKey = FIRST, *, rank: int = 1, number: int = 1, previous: str = "", at: float = 0.0
) -> Issued:
    """Return a statement as one that verified."""
    statement = Statement(number, previous, 0 if isinstance(saying, Head) else rank, saying)
    return Issued(by, sha256(repr(by).encode() + statement.to_json()).digest(), statement, None, at, at)


__all__ = [
    "AGENTS",
    "ALL",
    "BOT",
    "CONTROLLER",
    "FIRST",
    "FOURTH",
    "KEYS",
    "ONCALL",
    "OPERATORS",
    "OTHER",
    "PLANNER",
    "SECOND",
    "SECURITY",
    "THIRD",
    "Contain",
    "GiveKey",
    "Head",
    "Release",
    "Revoke",
    "issued",
    "key_of",
]
