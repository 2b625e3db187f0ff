"""What no implementation of the format can do without: hashes, base64url, random ids and its share of a signature."""

from __future__ import annotations

import asyncio
import os
import time
from binascii import a2b_base64, b2a_base64
from hashlib import sha256
from itertools import repeat
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from watchword.encoding import encode_pairs
from watchword.envelope import parse, unarmored

from . import cast
from .core import BATCH
from .figures import Run, rate

if TYPE_CHECKING:
    from watchword.envelope import Envelope

NAME: Final = f"primitives of a batch of {BATCH}"
_NODE: Final = bytes(65)
"""As long as what an inner node of a tree is hashed from."""


def alone(batch: int, size: int, batches: int) -> dict[str, Run]:
    """Return runs, by side, of the primitives that ``batches`` batches of messages of ``size`` bytes need, and no more.

    Each message has its value, its key and headers, its leaf and a node of the tree hashed, and its envelope armored
    or unarmored; each batch has a signature.
    """
    messages = asyncio.run(cast.signed(cast.signer(batch=batch), cast.messages(size, batch)))
    key, value = Ed25519PrivateKey.generate(), cast.value(size)
    text = messages[0].headers[-1][1] or b""
    envelope: Envelope = parse(text)
    raw, leaf = unarmored(text), b"\x00" + envelope.claims_bytes
    padded = b2a_base64(raw, newline=False)
    metadata = (messages[0].key or b"") + encode_pairs(cast.HEADERS)
    root = envelope.to_be_signed(bytes(32))
    public, signature = key.public_key(), key.sign(root)

    def hashes() -> None:
        sha256(value).digest()
        sha256(metadata).digest()
        sha256(leaf).digest()
        sha256(_NODE).digest()

    def sign() -> None:
        for _ in repeat(None, batches):
            for _ in repeat(None, batch):
                os.urandom(16)
                hashes()
                b2a_base64(raw, newline=False)
            key.sign(root)

    def verify() -> None:
        for _ in repeat(None, batches):
            for _ in repeat(None, batch):
                a2b_base64(padded, strict_mode=True)
                hashes()
            public.verify(signature, root)

    count = batch * batches
    return {"sign": lambda: rate(count, sign), "verify": lambda: rate(count, verify)}


def at_pace(count: int, per_second: float) -> list[float]:
    """Return the microseconds that an Ed25519 signature and its check take together, at so many a second.

    Between two of them a processor forgets: this is what a lone message pays to the algorithm itself.
    """
    key, data = Ed25519PrivateKey.generate(), cast.value(256)
    public, took, begun = key.public_key(), list[float](), time.perf_counter()
    for number in range(count):
        time.sleep(max(0.0, begun + number / per_second - time.perf_counter()))  # the pace
        start = time.perf_counter()
        public.verify(key.sign(data), data)
        took.append(1e6 * (time.perf_counter() - start))
    return took
