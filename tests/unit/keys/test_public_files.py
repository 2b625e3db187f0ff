import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from watchword import Algorithm, ConfigurationError, SigningKey, VerificationKey
from watchword.jwk import to_jwk, to_jwks
from watchword_adapters.keys import public_files
from watchword_adapters.keys.public_files import list_files, parse_public, read_keys

ALICE = "agent://acme/alice"


def pem_of(public: object) -> bytes:
    """Return a public key as PEM."""
    assert hasattr(public, "public_bytes")
    pem: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


@pytest.fixture
def key() -> SigningKey:
    """Return Alice's key."""
    return SigningKey.generate()


def test_a_set_a_single_jwk_and_a_pem_are_the_same_key(key: SigningKey) -> None:
    """However a public key is written down, it is the same key of the same owner."""
    expected = [key.verification_key(ALICE)]
    assert parse_public(to_jwks(expected).encode()) == expected
    assert parse_public(json.dumps(to_jwk(expected[0])).encode()) == expected
    assert parse_public(f"Principal: {ALICE}\n".encode() + pem_of(key.public)) == expected


def test_the_text_above_a_pem_may_say_more(key: SigningKey) -> None:
    """Comments and a chosen key id may stand above the key; lines of other names are comments."""
    text = f"made on a Monday\r\nPrincipal: \t{ALICE} \r\nKey-Id: 2026-01\r\nx-Principal: b\r\n"
    (found,) = parse_public(text.encode() + pem_of(key.public))
    assert (found.principal, found.key_id) == (ALICE, b"2026-01")


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_pem_of_each_algorithm_is_read(algorithm: Algorithm) -> None:
    """All keys travel as PEM alike."""
    key = SigningKey.generate(algorithm)
    assert parse_public(f"Principal: {ALICE}\n".encode() + pem_of(key.public)) == [key.verification_key(ALICE)]


def _named(pem: bytes, text: str = f"Principal: {ALICE}\n") -> bytes:
    return text.encode() + pem


_ED = pem_of(SigningKey.generate().public)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (_ED, 'write one line "Principal: agent://..." above the key'),
        (_named(_ED, "Principal: a\nPrincipal: b\n"), "write one line"),
        (_ED + b"Principal: a\n", "write one line"),
        (_named(_ED, "Principal: \n"), "principal ''"),
        (_named(_ED, "Principal: a\nKey-Id: \n"), "key id of 0 bytes"),
        (b"\xff" + _named(_ED), "not UTF-8"),
        (_named(_ED + _ED), "exactly one PUBLIC KEY block"),
        (_named(b"-----BEGIN CERTIFICATE-----\n"), "exactly one PUBLIC KEY block per file, and no certificate"),
        (_named(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), "not a public key in PEM"),
        (_named(SigningKey.generate().to_pem()), "a private key among public ones"),
        (_named(_ED + SigningKey.generate().to_pem()), "a private key among public ones"),
        (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", "a private key among public ones"),
        (b'{"kty": "OKP", "d": "AA"}', "private key material in a public set"),
        (
            _named(pem_of(rsa.generate_private_key(65537, 2048).public_key())),
            "use an Ed25519, P-256, ML-DSA-44 or ML-DSA-65 key",
        ),
        (
            _named(pem_of(ec.generate_private_key(ec.SECP384R1()).public_key())),
            "use an Ed25519, P-256, ML-DSA-44 or ML-DSA-65 key",
        ),
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'"kty"', "write a JWK Set"),
        (b"{" + b" " * 4 * 1024 * 1024, "at most 4194304"),
    ],
)
def test_what_is_no_public_key_of_somebody_is_refused(data: bytes, complaint: str) -> None:
    """A secret, a certificate, another algorithm, a key of nobody or of two: one line each (A32)."""
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        parse_public(data)
    assert "BEGIN" not in str(caught.value)


def test_a_directory_stands_for_its_key_files(tmp_path: Path) -> None:
    """Key files are found by their endings; hidden ones, others and what is deeper down are left out."""
    for name in ("b.pem", "a.jwks", "c.jwk", "d.json", ".hidden.pem", "README.md", "e.pem~"):
        (tmp_path / name).touch()
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "f.pem").touch()
    assert [path.name for path in list_files([tmp_path])] == ["a.jwks", "b.pem", "c.jwk", "d.json"]


def test_mounted_files_behind_links_are_read(tmp_path: Path, key: SigningKey) -> None:
    """Mounted secrets and maps are links to links, and count as files."""
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "a.jwks").write_text(to_jwks([key.verification_key(ALICE)]))
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "a.jwks").symlink_to("..data/a.jwks")
    assert read_keys(list_files([tmp_path]))[0] == [key.verification_key(ALICE)]


def test_links_that_lead_nowhere_or_round_are_errors(tmp_path: Path) -> None:
    """A dangling link or a loop is a file that cannot be read, not a set without keys."""
    (tmp_path / "a.jwks").symlink_to("none")
    (tmp_path / "b.jwks").symlink_to("b.jwks")
    for name in ("a.jwks", "b.jwks"):
        with pytest.raises(OSError, match=name):
            read_keys([tmp_path / name])


def test_a_directory_or_pipe_in_place_of_a_file_is_an_error(tmp_path: Path) -> None:
    """What is no regular file is refused at once and never waited for."""
    (tmp_path / "a.pem").mkdir()
    os.mkfifo(tmp_path / "b.pem")
    with pytest.raises(OSError, match="is a directory"):
        read_keys([tmp_path / "a.pem"])
    with pytest.raises(OSError, match="is not a regular file"):
        read_keys([tmp_path / "b.pem"])


def test_a_directory_without_key_files_is_refused(tmp_path: Path) -> None:
    """An empty directory is a mount that went away: it does not take all trust with it unseen."""
    with pytest.raises(ConfigurationError, match=r'put a file with {"keys": \[\]} there'):
        list_files([tmp_path])


def test_bounds_hold_over_all_files(tmp_path: Path, key: SigningKey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small files exhaust memory no better than a large one (A32)."""
    for name in ("a.jwks", "b.jwks", "c.jwks"):
        (tmp_path / name).write_text(to_jwks([key.verification_key(ALICE)]))
    files = list_files([tmp_path])
    monkeypatch.setattr(public_files, "MAX_SET_KEYS", 2)
    with pytest.raises(ConfigurationError, match=r"c\.jwks: more than 2 keys in all"):
        read_keys(files)
    monkeypatch.setattr(public_files, "MAX_TOTAL_BYTES", 2 * files[0].stat().st_size)
    with pytest.raises(ConfigurationError, match=r"c\.jwks: more than \d+ bytes of keys in all"):
        read_keys(files)
    monkeypatch.setattr(public_files, "MAX_FILES", 2)
    with pytest.raises(ConfigurationError, match="more than 2 key files"):
        list_files([tmp_path])


def test_a_file_that_changes_while_it_is_read_is_no_set(
    tmp_path: Path, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of an old and half of a new set is never taken for a set."""
    path = tmp_path / "a.jwks"
    path.write_text(to_jwks([key.verification_key(ALICE)]))
    fstat = os.fstat
    calls = iter(range(10))

    def grown(descriptor: int) -> os.stat_result:
        if next(calls) == 1:  # between opening and the end of reading
            with path.open("a") as file:
                file.write("\n")
        return fstat(descriptor)

    monkeypatch.setattr("os.fstat", grown)
    with pytest.raises(OSError, match="changed while being read"):
        read_keys([path])


def test_a_key_of_a_wrong_file_is_named_with_its_file(tmp_path: Path) -> None:
    """The message says which file of a directory is wrong."""
    (tmp_path / "a.jwks").write_text('{"keys": [5]}')
    with pytest.raises(ConfigurationError, match=r"a\.jwks: key 1: not an object"):
        read_keys(list_files([tmp_path]))


def test_keys_are_alike_however_often_they_are_read(key: SigningKey) -> None:
    """Reading gives equal keys, so that sets can be compared."""
    once, again = (parse_public(_named(pem_of(key.public))) for _ in range(2))
    assert once == again
    assert isinstance(once[0], VerificationKey)


def test_a_pem_that_cryptography_does_not_know_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ML-DSA key under an old library is no damaged file."""

    def refuse(_: bytes) -> None:
        raise ValueError("Unknown key type: 2.16.840.1.101.3.4.3.17")

    monkeypatch.setattr("watchword_adapters.keys.public_files.load_pem_public_key", refuse)
    with pytest.raises(ConfigurationError, match="does not support ML-DSA: pip install 'cryptography>=48'"):
        parse_public(_named(_ED))
