"""Arithmetic on the curve of Ed25519 (RFC 8032 section 5.1), points of small order included, for edge vectors.

Plain and slow: nothing here is secret, and nothing here serves to verify.
"""

from hashlib import sha512
from typing import Final

Point = tuple[int, int]

P: Final = 2**255 - 19
ORDER: Final = 2**252 + 27742317777372353535851937790883648493
D: Final = -121665 * pow(121666, -1, P) % P
NEUTRAL: Final[Point] = (0, 1)


def add(one: Point, other: Point) -> Point:
    """Add two points."""
    (a, b), (c, d) = one, other
    product = D * a * b * c * d
    return (a * d + b * c) * pow(1 + product, -1, P) % P, (b * d + a * c) * pow(1 - product, -1, P) % P


def times(number: int, point: Point) -> Point:
    """Add a point to itself so often."""
    found = NEUTRAL
    for bit in f"{number:b}":
        found = add(found, found)
        if bit == "1":
            found = add(found, point)
    return found


def encoded(point: Point) -> bytes:
    """Return a point's 32 bytes."""
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def decoded(y: int) -> Point:
    """Return the point of an y that has the even x."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    if root * root % P != square:
        root = root * pow(2, (P - 1) // 4, P) % P
    assert root * root % P == square, "no point has this y"
    return (P - root if root & 1 else root), y


def _eighth() -> Point:
    for y in range(2, 100):
        try:
            found = times(ORDER, decoded(y))
        except AssertionError:
            continue
        if times(4, found) != NEUTRAL:
            return found
    raise AssertionError("half of all points have such a part")


BASE: Final = decoded(4 * pow(5, -1, P) % P)
EIGHTH: Final = _eighth()  # a point of order 8; all points of small order are its multiples


def scalar(seed: bytes) -> int:
    """Return the secret number of a private key."""
    raw = bytearray(sha512(seed).digest()[:32])
    raw[0] &= 248
    raw[31] = raw[31] & 63 | 64
    return int.from_bytes(raw, "little")


def challenge(r: bytes, public: bytes, data: bytes) -> int:
    """Return the number that a signature answers, not yet reduced."""
    return int.from_bytes(sha512(r + public + data).digest(), "little")
