"""Operators, accounts and users of NATS, and the tokens that they sign, as the reference implementation writes them.

``tests/integration/nats/test_nkeys.py`` lets a real server judge them.
"""

import base64
import json
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from watchword_adapters.nkeys.encoding import Kind, encode_public, encode_seed

HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}


class Holder:
    """Someone with an NKey: an operator, an account, a user."""

    def __init__(self, kind: Kind, seed: bytes | None = None) -> None:
        self.kind = kind
        self.private = Ed25519PrivateKey.generate() if seed is None else Ed25519PrivateKey.from_private_bytes(seed)
        self.public = encode_public(kind, self.private.public_key().public_bytes_raw())
        self.seed = encode_seed(kind, self.private.private_bytes_raw())

    def signs(self, claims: dict[str, Any], header: dict[str, Any] | None = None) -> str:
        """Return a token."""
        signed = ".".join(part_of(json.dumps(part).encode()) for part in (header or HEADER, claims))
        return f"{signed}.{part_of(self.private.sign(signed.encode()))}"

    def says(self, kind: str, subject: "Holder", name: str = "", *, iat: int | None = None, **claims: Any) -> str:
        """Return what it says of someone; ``exp`` and ``nbf`` are of the token, all else is NATS's own."""
        times: dict[str, Any] = {key: claims.pop(key) for key in ("exp", "nbf") if key in claims}
        return self.signs(
            {
                "jti": "x",
                "iat": int(time.time()) if iat is None else iat,
                "iss": self.public,
                "name": name or kind,
                "sub": subject.public,
                **times,
                "nats": {**LIMITS.get(kind, {}), **claims, "type": kind, "version": 2},
            }
        )

    def operator_token(self, **claims: Any) -> str:
        """Return what an operator says of itself."""
        return self.says("operator", self, "ACME", **claims)


LIMITS: dict[str, dict[str, Any]] = {
    "account": {
        "limits": {
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": True, "conn": -1,
            "leaf": -1,
        },
        "default_permissions": {"pub": {}, "sub": {}},
        "authorization": {},
    },
    "user": {"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1},
}  # fmt: skip


def part_of(raw: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def operator() -> Holder:
    """Return a new operator."""
    return Holder(Kind.OPERATOR)


def account() -> Holder:
    """Return a new account."""
    return Holder(Kind.ACCOUNT)


def user() -> Holder:
    """Return a new user."""
    return Holder(Kind.USER)


def creds(token: str, seed: str) -> str:
    """Return the text of a ``.creds``."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n"
        "NKEY Seed printed below can be used to sign and prove identity.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n\n"
    )


def write_secret(path: Path, text: str) -> Path:
    """Write a file that nobody else may read or write."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path
