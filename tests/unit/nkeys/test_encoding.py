import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from watchword import ConfigurationError
from watchword_adapters.nkeys import encoding
from watchword_adapters.nkeys.encoding import Kind, crc16, decode_public, decode_seed, encode_public, encode_seed

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("vectors.json").read_text())
KINDS = {name: Kind[name.partition("_")[0].upper()] for name in VECTORS["keys"]}
USER, SEED = VECTORS["keys"]["user"]


def test_the_crc_is_the_one_that_the_field_calls_xmodem() -> None:
    """The check value of CRC-16/XMODEM, and the last entries of the table in nkeys' crc16.go."""
    assert crc16(b"123456789") == 0x31C3
    assert [crc16(bytes([byte])) for byte in (0, 1, 254, 255)] == [0, 0x1021, 0x0ED1, 0x1EF0]


@pytest.mark.parametrize("name", KINDS)
def test_what_the_reference_implementation_writes_is_read(name: str) -> None:
    """Public keys and seeds of each kind: the bytes of one make the other's text, and the pair belongs together."""
    public, seed = VECTORS["keys"][name]
    kind = KINDS[name]
    raw = decode_public(public, kind)
    assert encode_public(kind, raw) == public
    assert public.startswith(kind.letter)
    assert seed.startswith(f"S{kind.letter}")
    if kind is Kind.USER:
        assert Ed25519PrivateKey.from_private_bytes(decode_seed(seed)).public_key().public_bytes_raw() == raw
        assert encode_seed(kind, decode_seed(seed)) == seed


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind is not Kind.USER])
def test_only_users_sign(name: str) -> None:
    """The seed or the public key of anyone else is refused, and the error says whose it is."""
    public, seed = VECTORS["keys"][name]
    told = KINDS[name].told
    with pytest.raises(ConfigurationError, match=rf"seed of an? {told[:5]}.*write a user's seed \(SU\.\.\.\)") as error:
        decode_seed(seed)
    assert seed[4:] not in str(error.value)
    with pytest.raises(ConfigurationError, match=rf"public key of an? {told[:5]}.*write the user's public key \(U"):
        decode_public(public, Kind.USER)
    with pytest.raises(ConfigurationError, match=rf"public key of an? {told[:5]}.*write the user's seed"):
        decode_seed(public)


def test_a_curve_key_is_none_though_its_bytes_would_do() -> None:
    """An X25519 key has 32 bytes like an Ed25519 one: only its first byte tells them apart."""
    raw = X25519PrivateKey.generate().public_key().public_bytes_raw()
    assert decode_public(encode_public(Kind.CURVE, raw), Kind.CURVE) == raw
    with pytest.raises(ConfigurationError, match="curve key"):
        decode_public(encode_public(Kind.CURVE, raw), Kind.USER)


def test_a_seed_where_a_public_key_belongs_is_not_shown() -> None:
    """Not even where it has a slip in it, so that it is no NKey any more."""
    for text in (SEED, SEED[:-1] + "A", SEED[:-1]):
        with pytest.raises(ConfigurationError) as error:
            decode_public(text, Kind.USER)
        assert SEED[:8] not in str(error.value)
    with pytest.raises(ConfigurationError, match="a private NKey instead of the user's public key"):
        decode_public(SEED, Kind.USER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "U",
        USER[:-1],
        USER + "A",
        USER.lower(),
        USER[:10] + ("A" if USER[10] != "A" else "B") + USER[11:],
        USER + "=",
        " " + USER,
        "U" * 1000,
        "ß" * 56,
        encode_public(Kind.USER, b"short"),
        encode_public(Kind.USER, bytes(33)),
        encode_public(Kind(0), bytes(32))[:-3],
    ],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    """A slip, another length, another alphabet: one text stands for a key, and no other."""
    with pytest.raises(ConfigurationError, match="user's public key"):
        decode_public(text, Kind.USER)


@pytest.mark.parametrize(
    "text", ["", "SU", SEED[:-1], SEED.lower(), SEED[:20] + SEED[21] + SEED[20] + SEED[22:], SEED + "A", USER]
)
def test_what_is_no_seed_is_refused(text: str) -> None:
    """Nor is it shown."""
    with pytest.raises(ConfigurationError, match="user's seed") as error:
        decode_seed(text)
    assert SEED[4:20] not in str(error.value)


def test_a_seed_of_another_length_or_of_nobody_is_refused() -> None:
    """A checksum that is right does not make a seed of it."""
    with pytest.raises(ConfigurationError, match="this is not a user's seed"):
        decode_seed(encode_seed(Kind.USER, bytes(31)))
    nobody = encode_public(Kind.USER, bytes(32))  # for its bytes, and then with the leading bits of a seed
    raw = bytearray(34)
    raw[0], raw[1] = 0b1001_0111, 0b1111_1000
    with pytest.raises(ConfigurationError, match="this is not a user's seed"):
        decode_seed(encoding._encoded(bytes(raw)))
    with pytest.raises(ConfigurationError, match="not a seed"):
        decode_seed(encoding._encoded(b"\x01" + bytes(33)))
    assert decode_public(nobody, Kind.USER) == bytes(32)
