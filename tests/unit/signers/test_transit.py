"""What is asked of a Transit engine, and what becomes of its answers; a real one is asked in tests/integration."""

import base64
import json
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from tests.custody.meddler import Answer, Asked, Forward, Meddler, hang_up
from tests.support.key_server import Authority, serving
from watchword import Algorithm, ConfigurationError, SigningKey, Unavailable
from watchword.spi import Context
from watchword_adapters.signers import transit
from watchword_adapters.signers.held import HELD, HeldKey

TOKEN = "s.s3cret"


class Engine:
    """Answers as an engine with one key would; ``statuses`` are given first, whatever is asked."""

    def __init__(self, algorithm: Algorithm = Algorithm.ED25519) -> None:
        self.key = SigningKey.generate(algorithm)
        self.statuses: list[int] = []
        self.token = TOKEN
        self.said: dict[str, Any] = {}

    def __call__(self, asked: Asked, forward: Forward) -> Answer:
        """Answer."""
        del forward
        if self.statuses:
            return Answer(self.statuses.pop(0), b'{"errors": ["s3cret"]}')
        if asked.headers["x-vault-token"] != self.token:
            return Answer(403, b"{}")
        return Answer(
            200, json.dumps({"data": (self._sign(asked) if asked.body else self._told()) | self.said}).encode()
        )

    def _told(self) -> dict[str, Any]:
        if self.key.algorithm is Algorithm.ED25519:
            raw: Any = self.key.public
            return {"type": "ed25519", "keys": {"3": {"public_key": _base64(raw.public_bytes_raw())}}}
        pem = self.key.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return {"type": "ecdsa-p256", "keys": {"3": {"public_key": pem.decode()}}}

    def _sign(self, asked: Asked) -> dict[str, Any]:
        wanted = json.loads(asked.body)
        data = base64.b64decode(wanted["input"])
        assert wanted["key_version"] == 3
        if self.key.algorithm is Algorithm.ED25519:
            assert asked.path == "/v1/transit/sign/planner"
            return {"signature": f"vault:v3:{_base64(self.key.sign_now(data))}"}
        assert asked.path == "/v1/transit/sign/planner/sha2-256"
        assert (wanted["prehashed"], wanted["marshaling_algorithm"], len(data)) == (True, "jws", 32)
        private: Any = load_pem_private_key(self.key.to_pem(), None)
        r, s = decode_dss_signature(private.sign(data, ec.ECDSA(Prehashed(SHA256()))))
        raw = base64.urlsafe_b64encode(r.to_bytes(32) + s.to_bytes(32)).rstrip(b"=").decode()
        return {"signature": f"vault:v3:{raw}"}


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.fixture
def options(server: Meddler, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give the settings of a key at this server."""
    monkeypatch.setenv("BAO_TOKEN", TOKEN)
    return {"address": server.address, "key": "planner", "version": 3, "token_env": "BAO_TOKEN"}


def made(options: dict[str, Any], context: Context, **more: object) -> HeldKey:
    """Return the key of these settings."""
    return transit.from_options(options | more, context)


@pytest.mark.parametrize("algorithm", HELD)
async def test_the_version_that_is_named_signs(
    server: Meddler, options: dict[str, Any], context: Context, algorithm: Algorithm
) -> None:
    """Never the latest, which readers may not know yet; and of ESP256 only a digest travels."""
    engine = Engine(algorithm)
    with server.meddling(engine):
        key = made(options, context)
        assert (key.key_id, key.algorithm) == (engine.key.key_id, algorithm)
        signature = await key.sign(b"data")
    assert engine.key.verification_key("a").verifies(signature, b"data")
    body = json.loads(server.asked[-1].body)
    assert base64.b64decode(body["input"]) == (b"data" if algorithm is Algorithm.ED25519 else sha256(b"data").digest())
    assert repr(key).startswith(f"HeldKey(transit {server.address}, key transit/planner version 3, ")


async def test_namespace_and_mount_are_asked_for(server: Meddler, options: dict[str, Any], context: Context) -> None:
    """An engine may be anywhere in the server."""

    def answer(asked: Asked, forward: Forward) -> Answer:
        assert asked.headers["x-vault-namespace"] == "acme/agents"
        return engine(asked._replace(path=asked.path.replace("/keys/eu/", "/transit/")), forward)

    engine = Engine()
    with server.meddling(answer):
        await made(options, context, namespace="acme/agents", mount="keys/eu").sign(b"x")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"address": "http://bao.acme.internal:8200"}, "address: a token is not sent in the clear: write https://"),
        ({"address": "bao:8200"}, 'address: write the address of the server, as "https://'),
        ({"address": "https://root:s3cret@bao:8200"}, 'address: write the address of the server, as "https://'),
        ({"address": "https://bao:8200/v1/"}, 'address: write the address without "/v1", which is added'),
        ({"key": "../sys/raw"}, "key: "),
        ({"key": ".."}, "key: "),
        ({"mount": "../sys"}, "mount: "),
        ({"version": 0}, "version: "),
        ({"version": None}, "version: "),
        ({"token_env": None}, 'token: missing; write token_env = "VARIABLE" or token_file = "PATH"'),
        ({"token_env": "NO_SUCH_TOKEN"}, "token_env: there is no variable of this name"),
        ({"ca": "none.pem"}, "ca: none.pem: No such file"),
        ({"token": "s3cret"}, "token: "),
    ],
)
def test_a_mistake_is_one_line(options: dict[str, Any], context: Context, changes: dict[str, Any], told: str) -> None:
    """Each setting that could send the token elsewhere, or name no key, is refused before anything is sent."""
    chosen = {name: value for name, value in (options | changes).items() if value is not None}
    with pytest.raises(ConfigurationError) as caught:
        transit.from_options(chosen, context)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_file_that_holds_no_certificate_is_refused(options: dict[str, Any], context: Context, tmp_path: Path) -> None:
    """Whom to trust is said, or the start fails."""
    (tmp_path / "ca.pem").write_text("none")
    with pytest.raises(ConfigurationError, match=r"ca: ca\.pem: no certificate in PEM"):
        made(options, context, ca="ca.pem")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"type": "rsa-2048"}, "a key of type 'rsa-2048': use ed25519 or ecdsa-p256"),
        ({"keys": {"1": {}, "2": {}}}, "the key has no version 3"),
        ({"keys": None}, "the key has no version 3"),
        ({"derived": True, "keys": {"3": {"public_key": ""}}}, "the key is derived, .* make one without derived=true"),
        ({"min_encryption_version": 4}, "version 3 may not sign: min_encryption_version of the key is 4"),
    ],
)
def test_a_key_that_cannot_sign_is_refused(
    server: Meddler, options: dict[str, Any], context: Context, said: dict[str, Any], told: str
) -> None:
    """A key of another kind, or a version that was never made, is refused at the start."""
    engine = Engine()
    engine.said = said
    with server.meddling(engine), pytest.raises(ConfigurationError, match=told):
        made(options, context)


@pytest.mark.parametrize("text", [5, "no base64", None, {}, "AAAA"])
def test_nonsense_in_place_of_a_public_key_is_no_key(
    server: Meddler, options: dict[str, Any], context: Context, text: object
) -> None:
    """What answers is no engine, so nothing begins."""
    engine = Engine()
    engine.said = {"keys": {"3": {"public_key": text}}}
    with server.meddling(engine), pytest.raises(Unavailable, match="not from a Transit engine"):
        made(options, context)


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_what_only_a_person_can_mend_is_told(
    server: Meddler, options: dict[str, Any], context: Context, status: int
) -> None:
    """At the start it stops the process; later messages fail with the same words, and nothing of the answer's."""
    engine = Engine()
    engine.statuses = [status]
    with server.meddling(engine):
        with pytest.raises(ConfigurationError, match=rf"\({status} for GET keys/planner\)") as caught:
            made(options, context)
        key = made(options, context)
        engine.statuses = [status]
        with pytest.raises(Unavailable, match=rf"\({status} for POST sign/planner\)"):
            await key.sign(b"x")
        assert len(await key.sign(b"x")) == 64
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (204, ""),
        (307, ": a standby redirects, .*: name the active node"),
        (429, ": it is busy"),
        (473, ""),
        (500, ": it has failed, or this version may not sign: check min_encryption_version"),
        (503, ": it is sealed"),
    ],
)
async def test_what_may_pass_is_an_outage(
    server: Meddler, options: dict[str, Any], context: Context, status: int, hint: str
) -> None:
    """Sealed, on standby, busy; and a redirect is not followed, for the token would go there, too."""
    engine = Engine()
    with server.meddling(engine):
        key = made(options, context)
        engine.statuses = [status]
        with pytest.raises(Unavailable, match=f"the server answers {status}{hint}"):
            await key.sign(b"x")
        assert len(await key.sign(b"x")) == 64


@pytest.mark.parametrize(
    "signature",
    [None, 5, "", "vault:v3:", "vault:v3:%%%", "vault:v2:AAAA", "vault:v3:AAAA", "other:v3:AAAA", "vault"],
)
async def test_what_is_no_signature_is_an_outage(
    server: Meddler, options: dict[str, Any], context: Context, signature: object
) -> None:
    """Nothing that an engine, or someone before it, made up reaches a message: by version, form and key."""
    engine = Engine()
    with server.meddling(engine):
        key = made(options, context)
        engine.said = {"signature": signature}
        with pytest.raises(Unavailable):
            await key.sign(b"x")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data": 5}', b"[" * 10_000, b"x" * (transit.MAX_ANSWER + 1)])
async def test_an_answer_that_is_none_is_an_outage(
    server: Meddler, options: dict[str, Any], context: Context, body: bytes
) -> None:
    """Not JSON, not an object, or larger than any answer is."""
    with server.meddling(Engine()):
        key = made(options, context)
    with server.meddling(lambda *_: Answer(200, body)), pytest.raises(Unavailable, match="not from a Transit"):
        await key.sign(b"x")


async def test_an_answer_that_trickles_has_its_end(
    server: Meddler, options: dict[str, Any], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that sends a byte now and then holds no thread for longer than the time-out."""
    with server.meddling(Engine()):
        key = made(options, context)
        now = iter([0.0, 3600.0])
        monkeypatch.setattr(transit, "time", type("Time", (), {"monotonic": staticmethod(lambda: next(now))}))
        with pytest.raises(Unavailable, match="not from a Transit engine"):
            await key.sign(b"x")


async def test_a_token_that_is_renewed_is_read_again(
    server: Meddler, options: dict[str, Any], context: Context, tmp_path: Path
) -> None:
    """An agent beside us replaces the file; the next call that the old token is refused for reads it, once."""
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(TOKEN)
    engine, chosen = Engine(), {name: value for name, value in options.items() if name != "token_env"}
    with server.meddling(engine):
        key = made(chosen, context, token_file="token")
        engine.token = "s.another"
        with pytest.raises(Unavailable, match=r"the token is refused: .*\(403"):
            await key.sign(b"x")
        path.write_text("s.another\n")
        asked = len(server.asked)
        assert len(await key.sign(b"x")) == 64
        assert len(server.asked) == asked + 2
        path.write_text("two words")
        engine.token = "s.third"
        with pytest.raises(Unavailable, match="token: write printable characters without blanks") as caught:
            await key.sign(b"x")
    assert "two words" not in str(caught.value)


async def test_a_connection_that_ended_meanwhile_costs_no_message(
    server: Meddler, options: dict[str, Any], context: Context
) -> None:
    """A server may hang up on a connection just as it is used again; then it is asked once more, and only once."""
    engine, hung_up = Engine(), list[float]()

    def answer(asked: Asked, forward: Forward) -> Answer | None:
        if hung_up:
            return engine(asked, forward)
        hung_up.append(time.monotonic())
        return None

    with server.meddling(engine):
        key = made(options, context)
    with server.meddling(answer):
        assert len(await key.sign(b"x")) == 64
    asked = len(server.asked)
    with server.meddling(hang_up), pytest.raises(Unavailable, match="RemoteProtocolError"):
        await key.sign(b"x")
    assert len(server.asked) == asked + 2


@pytest.mark.usefixtures("options")
def test_a_server_that_is_down_is_told_from_one_without_trust_or_tls(context: Context, tmp_path: Path) -> None:
    """The log tells whether to start the server, to name its authority, or to mend the address."""
    trusted = Authority(tmp_path)
    chosen: dict[str, Any] = {"key": "planner", "version": 3, "token_env": "BAO_TOKEN"}
    with serving(trusted.server_side("127.0.0.1")) as server:
        address = {"address": f"https://127.0.0.1:{server.port}"}
        with pytest.raises(Unavailable, match=r"its certificate is not trusted \(.*\): name its authority in ca"):
            made(chosen | address, context)
        with pytest.raises(ConfigurationError, match="there is no such key or engine"):
            made(chosen | address, context, ca=trusted.path.name)
    with pytest.raises(Unavailable, match="no connection: Connection refused"):
        made(chosen | address, context)
    with serving() as plain, pytest.raises(Unavailable, match=r"TLS fails \(\w+\): check scheme and port"):
        made(chosen | {"address": f"https://127.0.0.1:{plain.port}"}, context)
