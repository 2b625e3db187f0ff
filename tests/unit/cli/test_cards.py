"""``watchword key import-card``: whose word is taken for who signed a card."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from tests.support.key_server import Answer, Authority, KeyServer, authority, serving
from tests.unit.cli.conftest import PLANNER, Run
from watchword import SigningKey
from watchword.jwk import parse_jwks, to_jwk
from watchword.keys import thumbprint_id
from watchword.strict import base64url

CARD: dict[str, Any] = {"name": "Planner \u202e", "description": "plans", "version": "1.0"}
KIND = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def ca() -> Iterator[Authority]:
    """Return an authority that only these tests trust."""
    with authority() as made:
        yield made


@pytest.fixture
def server(ca: Authority) -> Iterator[KeyServer]:
    """Return an agent's own host."""
    with serving(ca.server_side("127.0.0.1")) as running:
        yield running


@pytest.fixture
def key() -> SigningKey:
    """Return the agent's key."""
    return SigningKey.generate()


def card_of(key: SigningKey, **header: Any) -> bytes:
    """Return a card that a key signed."""
    protected = base64url(json.dumps({"alg": "EdDSA", "kid": "key-1", **header}).encode())
    signature = asyncio.run(key.sign(f"{protected}.{base64url(rfc8785.dumps(CARD))}".encode()))
    return json.dumps({**CARD, "signatures": [{"protected": protected, "signature": base64url(signature)}]}).encode()


def set_of(key: SigningKey, **members: Any) -> bytes:
    """Return an agent's key set, as a third party publishes it."""
    entry = {**to_jwk(key.verification_key(PLANNER)), "kid": "key-1", **members}
    if "principal" not in members:
        del entry["principal"]
    return json.dumps({"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}, entry]}).encode()


def publish(server: KeyServer, key: SigningKey, *, set_at: str = "/jwks.json") -> str:
    """Have a host serve a card that points to its set; return the set's address."""
    jku = server.url(set_at, host="127.0.0.1")
    server.answers["/.well-known/agent-card.json"] = Answer(card_of(key, jku=jku), headers=KIND)
    server.answers[set_at] = Answer(set_of(key), headers=KIND)
    return jku


def test_the_key_behind_a_card_becomes_a_key_of_the_agent(
    run: Run, server: KeyServer, ca: Authority, key: SigningKey, directory: Path
) -> None:
    """Card and set are fetched, and what signed the card is written down under the id that a signer has by default."""
    jku = publish(server, key)
    typed = ("key", "import-card", server.url("", host="127.0.0.1"), "-p", PLANNER, "--jku", jku)
    ended = run(*typed, "--allow-private", "--ca", str(ca.path), "-o", "planner.jwks")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f'key {key.key_id.decode()} of {PLANNER} signed the card of "Planner \\u202e"\n'
    assert parse_jwks((directory / "planner.jwks").read_bytes()) == [key.verification_key(PLANNER)]
    assert (
        run(*typed, "--allow-private", "--ca", str(ca.path)).out.encode() == (directory / "planner.jwks").read_bytes()
    )


def test_a_set_that_nobody_named_is_not_asked(run: Run, server: KeyServer, ca: Authority, key: SigningKey) -> None:
    """A card cannot choose who vouches for it: its jku is fetched only if the operator has typed it (A09, A32)."""
    publish(server, key)
    other = server.url("/other.json", host="127.0.0.1")
    server.answers["/other.json"] = Answer(set_of(SigningKey.generate()), headers=KIND)
    url = server.url("/.well-known/agent-card.json", host="127.0.0.1")
    typed = ("key", "import-card", url, "-p", PLANNER, "--allow-private", "--ca", str(ca.path))
    ended = run(*typed, "--jku", other)
    assert (ended.code, ended.out) == (1, "")
    assert "no key of these sets has signed the card: key 'key-1' is not in these sets; its keys are at" in ended.err
    assert (server.count("/jwks.json"), server.count("/other.json")) == (0, 0)
    ended = run(*typed)
    assert ended.code == 2
    assert "which key set says who signed the card? write --jku URL" in ended.err


def test_a_card_and_a_set_may_be_files(run: Run, key: SigningKey, directory: Path) -> None:
    """Keys that came another way vouch for a card, whether it points anywhere or not."""
    (directory / "known.jwks").write_bytes(set_of(key))
    for header in ({}, {"jku": "https://elsewhere.test/jwks.json"}):
        (directory / "card.json").write_bytes(b"\xef\xbb\xbf" + card_of(key, **header))
        ended = run("key", "import-card", "card.json", "-p", PLANNER, "--keys", "known.jwks")
        (found,) = parse_jwks(ended.out.encode())
        assert (found.principal, found.key_id) == (PLANNER, thumbprint_id(key.public))


def test_a_key_of_somebody_else_vouches_for_nothing(run: Run, key: SigningKey, directory: Path) -> None:
    """A set that says whose a key is is not overruled by what is typed (A32)."""
    (directory / "card.json").write_bytes(card_of(key))
    (directory / "known.jwks").write_bytes(set_of(key, principal="agent://acme/other"))
    ended = run("key", "import-card", "card.json", "-p", PLANNER, "--keys", "known.jwks")
    assert (ended.code, ended.out) == (1, "")
    assert "known.jwks: 1 of other principals, as 'agent://acme/other'" in ended.err


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"exp": 5}, "key 'key-1' has expired"),
        ({"revoked": 5}, "key 'key-1' is revoked"),
        ({"nbf": 5_000_000_000}, "key 'key-1' is not valid yet"),
        ({"use": "enc"}, "known.jwks: 2 of another kind or use"),
        ({"kid": "key-2"}, "key 'key-1' is not in these sets"),
        ({"principal": "agent://acme/other", "x": "AA"}, "1 of other principals"),
    ],
)
def test_why_a_key_does_not_count_is_told(
    run: Run, key: SigningKey, directory: Path, members: dict[str, Any], why: str
) -> None:
    """A user who imports a card learns what to mend: the key, the set or the card."""
    (directory / "card.json").write_bytes(card_of(key))
    (directory / "known.jwks").write_bytes(set_of(key, **members))
    ended = run("key", "import-card", "card.json", "-p", PLANNER, "--keys", "known.jwks")
    assert (ended.code, ended.out) == (1, "")
    assert why in ended.err


def test_a_signature_that_names_no_set_is_told_as_such(run: Run, key: SigningKey, directory: Path) -> None:
    """A set by its address counts only for a card that points there; the way out is a file."""
    (directory / "card.json").write_bytes(card_of(key))
    ended = run("key", "import-card", "card.json", "-p", PLANNER, "--jku", "https://a.test/jwks.json")
    assert ended.code == 1
    assert "a signature names no key set (jku): name the set's file by --keys" in ended.err


def test_a_card_that_somebody_else_signed_gives_no_key(run: Run, key: SigningKey, directory: Path) -> None:
    """A forged card under the right id is refused with the reason, and nothing is written."""
    (directory / "card.json").write_bytes(card_of(SigningKey.generate()))
    (directory / "known.jwks").write_bytes(set_of(key))
    assert run("key", "import-card", "card.json", "-p", PLANNER, "--keys", "known.jwks", "-o", "out").code == 1
    assert not (directory / "out").exists()
    (directory / "card.json").write_bytes(card_of(key, alg="none"))
    ended = run("key", "import-card", "card.json", "-p", PLANNER, "--keys", "known.jwks")
    assert "signed the card: signature 1: its algorithm is not one of" in ended.err
    (directory / "card.json").write_bytes(card_of(key).replace(b"plans", b"steals"))
    ended = run("key", "import-card", "card.json", "-p", PLANNER, "--keys", "known.jwks")
    assert "key 'key-1' has not signed the card as it is now: the card was changed" in ended.err
    (directory / "card.json").write_bytes(card_of(key, alg="ES256"))
    ended = run("key", "import-card", "card.json", "-p", PLANNER, "--keys", "known.jwks")
    assert "key 'key-1' is an ed25519 key, but " in ended.err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("card.json", "--keys", "none.jwks"), "none.jwks: No such file"),
        (("none.json", "--keys", "known.jwks"), "none.json: No such file"),
        (("known.jwks", "--keys", "known.jwks"), "the card is not signed"),
        (("card.json", "--keys", "card.json"), 'card.json: no list "keys"'),
        (("card.json", "--keys", "known.jwks", "-p", "agent:/acme"), "principal: "),
        (("http://a.test", "--keys", "known.jwks"), "write https://"),
    ],
)
def test_a_mistake_is_one_line(
    run: Run, key: SigningKey, directory: Path, arguments: tuple[str, ...], why: str
) -> None:
    """A wrong argument, a missing file, and a file that is no key set are each reported in one line."""
    (directory / "card.json").write_bytes(card_of(key))
    (directory / "known.jwks").write_bytes(set_of(key))
    ended = run("key", "import-card", "-p", PLANNER, *arguments)
    assert ended.code in {2, 3}
    assert why in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_host_that_does_not_answer_is_told_as_such(run: Run, server: KeyServer, ca: Authority) -> None:
    """Nothing was judged: the exit code says to try again."""
    typed = ("key", "import-card", server.url("/a", host="127.0.0.1"), "-p", PLANNER, "--jku", "https://a.test/")
    ended = run(*typed, "--allow-private", "--ca", str(ca.path))
    assert (ended.code, ended.err.endswith("/a: answered 404\n")) == (3, True)
    ended = run(*typed)
    assert (ended.code, "private address" in ended.err, "--allow-private" in ended.err) == (3, True, True)


def test_a_card_without_a_name_is_told_as_such(run: Run, key: SigningKey, directory: Path) -> None:
    """What a card leaves out is not made up."""
    protected = base64url(b'{"alg": "EdDSA", "kid": "key-1"}')
    signature = base64url(asyncio.run(key.sign(f"{protected}.{base64url(b'{}')}".encode())))
    (directory / "card.json").write_text(json.dumps({"signatures": [{"protected": protected, "signature": signature}]}))
    (directory / "known.jwks").write_bytes(set_of(key))
    ended = run("key", "import-card", "card.json", "-p", PLANNER, "--keys", "known.jwks", "-o", "out")
    assert ended.out.endswith("signed a card without a name\n")
