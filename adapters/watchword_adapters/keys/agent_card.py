"""A2A agent cards, and the keys that signed them (A2A specification, section 8.4).

A card names the key that signed it and the URL of its set (``kid``, ``jku``), and anyone can write a card. So a key
counts only if it comes from a set that the caller trusts; keys and certificates in a header are ignored. Verification
shows that a key of that set signed the card, not that the card's statements are true.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import rfc8785

from watchword import Algorithm, ConfigurationError
from watchword.algorithms import SCHEMES
from watchword.strict import base64url, from_base64url, json_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from watchword import VerificationKey

WELL_KNOWN: Final = "/.well-known/agent-card.json"

MAX_SIGNATURES: Final = 16
_SHOWN: Final = 64
"""Most characters of a key id in a reason, since the card's writer chose it."""

_ALGORITHMS: Final = {
    "EdDSA": Algorithm.ED25519,
    "Ed25519": Algorithm.ED25519,
    "ES256": Algorithm.ESP256,
    "ESP256": Algorithm.ESP256,
    "ML-DSA-44": Algorithm.ML_DSA_44,
    "ML-DSA-65": Algorithm.ML_DSA_65,
}

_KEPT: Final = frozenset(
    {
        "authorizationUrl", "capabilities", "defaultInputModes", "defaultOutputModes", "description",
        "deviceAuthorizationUrl", "documentationUrl", "extendedAgentCard", "flows", "iconUrl", "id", "location", "name",
        "openIdConnectUrl", "organization", "protocolBinding", "protocolVersion", "pushNotifications", "scheme",
        "scopes", "skills", "streaming", "supportedInterfaces", "tags", "tokenUrl", "url", "version",
    }
)  # fmt: skip
"""Fields of a card that are signed even if they are empty: the specification calls them required or optional."""

_MAPS: Final = frozenset({"schemes", "securitySchemes"})
_FREE: Final = "params"
"""The field of an extension with arbitrary contents."""


class Signature(NamedTuple):
    """A signature of a card: its key's id and set (``jku``), its protected header in base64url, and its bytes."""

    key_id: bytes
    jku: str | None
    algorithm: Algorithm
    protected: str
    signature: bytes


class Card(NamedTuple):
    """A parsed card; ``passed_over`` says why some of its signatures were skipped."""

    members: dict[str, object]
    signatures: Sequence[Signature]
    passed_over: Sequence[str]


def read_card(data: bytes) -> Card:
    """Read a card; ConfigurationError if it is not one, or has no signature to check."""
    try:
        members = json_object(data)
    except ValueError as error:
        raise ConfigurationError(f"not an agent card: {str(error).partition(':')[0]}") from None
    listed = members.get("signatures")
    if not isinstance(listed, list) or not listed:
        raise ConfigurationError("the card is not signed: it has no signatures")
    if len(listed) > MAX_SIGNATURES:
        raise ConfigurationError(f"the card has {len(listed)} signatures: at most {MAX_SIGNATURES}")
    signatures, passed_over = list[Signature](), list[str]()
    for number, entry in enumerate(listed, 1):
        try:
            signatures.append(_signature(entry))
        except ValueError as error:
            passed_over.append(f"signature {number}: {error}")
    return Card(members, signatures, passed_over)


def signers(
    card: Card, keys_of: Callable[[Signature], Sequence[VerificationKey]], now: float, why: list[str] | None = None
) -> Iterator[VerificationKey]:
    """Yield the keys that signed a card, of those that ``keys_of`` returns for each signature.

    The reasons why other signatures do not count are appended to ``why``.
    """
    payloads = [*_payloads(card.members)]
    told = [] if why is None else why
    for one in card.signatures:
        named = f"key {one.key_id.decode()[:_SHOWN]!r}"
        keys = [key for key in keys_of(one) if key.key_id == one.key_id]
        if not keys:
            told.append(f"{named} is not in these sets")
        for key in keys:
            if (wrong := _why_not(key, one, now)) is not None:
                told.append(f"{named} {wrong}")
                continue
            # Each ECDSA signature has two forms (s and n - s), and other signers may use either.
            signature = SCHEMES[key.algorithm].canonical(one.signature)
            if any(key.verifies(signature, f"{one.protected}.{payload}".encode()) for payload in payloads):
                yield key
            else:
                told.append(
                    f"{named} has not signed the card as it is now: the card was changed, or another key signed it"
                )


def _why_not(key: VerificationKey, one: Signature, now: float) -> str | None:
    """Return why a key cannot have made a signature that counts; None if it can."""
    if key.algorithm is not one.algorithm:
        return f"is an {key.algorithm.label} key, but the signature says {one.algorithm.label}"
    if key.revoked_at is not None and key.revoked_at <= now:
        return "is revoked"
    if key.not_after is not None and key.not_after <= now:
        return "has expired"
    if key.not_before is not None and key.not_before > now:
        return "is not valid yet"
    return None


def _signature(entry: object) -> Signature:
    """Read a JWS in JSON serialization (RFC 7515 section 7.2.1); ValueError says why it is skipped."""
    if not isinstance(entry, dict):
        raise ValueError("not an object")  # noqa: TRY004 - wrong text, not a wrong type of the caller's
    protected, other = entry.get("protected"), entry.get("header", {})
    try:
        header = json_object(from_base64url(protected))
    except ValueError:
        raise ValueError("its protected header is not a JSON object in base64url") from None
    if not isinstance(other, dict) or header.keys() & other.keys():
        raise ValueError("a parameter is in both of its headers")
    if "crit" in header:
        raise ValueError("its header has an unsupported extension (crit)")
    algorithm, key_id, jku = (header.get(name) for name in ("alg", "kid", "jku"))
    if not isinstance(algorithm, str) or algorithm not in _ALGORITHMS:
        raise ValueError(f"its algorithm is not one of {', '.join(sorted(_ALGORITHMS))}")
    if not isinstance(key_id, str) or not key_id or not isinstance(jku, str | None):
        raise ValueError("its header names no key: kid is missing")
    signature = from_base64url(entry.get("signature"))
    if not signature:
        raise ValueError("its signature is empty")
    return Signature(key_id.encode(), jku, _ALGORITHMS[algorithm], str(protected), signature)


def _payloads(members: dict[str, object]) -> Iterator[str]:
    """Yield what may have been signed: the card as it is, without default values, and in the Python library's form.

    The specification says to remove members with default values first, and most signers serve the card like that. Its
    Python library (a2a-sdk 1.3) removes all empty members, and escapes non-ASCII characters, unlike RFC 8785.
    """
    card: dict[str, Any] = {name: member for name, member in members.items() if name != "signatures"}
    try:
        forms = [rfc8785.dumps(card), rfc8785.dumps(_without_defaults(card))]
        forms.append(json.dumps(_without_empty(card) or {}, separators=(",", ":"), sort_keys=True).encode())
    except RecursionError:
        raise ConfigurationError("not an agent card: nested too deeply") from None
    except ValueError:
        raise ConfigurationError("not an agent card: a value has no canonical form (RFC 8785)") from None
    for form in dict.fromkeys(forms):
        yield base64url(form)


def _without_defaults(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_defaults(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: one if name == _FREE else _without_defaults(one)
        for name, one in value.items()
        if name in _KEPT or not (one is False or one in ("", []) or (name in _MAPS and not one))
    }


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: kept for name, one in value.items() if (kept := _without_empty(one)) is not None} or None
    if isinstance(value, list):
        return [kept for one in value if (kept := _without_empty(one)) is not None] or None
    return None if value == "" else value
