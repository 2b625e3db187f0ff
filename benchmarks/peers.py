"""What one would use instead, on one CPU and the same 512 bytes of JSON, each as its documentation says.

Beside them stand both of Watchword's engines, and the primitives that its own format needs, which is where the limit
lies. Each engine has a process of its own, and all others one together; they take turns.

All but Watchword say only that a holder of the key wrote these bytes (Standard Webhooks: recently). No peer checks
where a message was found, who may say it, or whether it was seen before. Celery and, unless configured not to, Standard
Webhooks decode the JSON as well; the ratio is to the latter as documented, and beside it to its verification alone.
"""

from __future__ import annotations

import json
import warnings
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery import Celery
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cwt import COSE, COSEKey
from joserfc import jws
from joserfc.jwk import OKPKey
from kombu import serialization as kombu
from nacl.signing import SigningKey as NaClKey
from standardwebhooks.webhooks import Webhook

from . import cast
from .core import BATCH, SIZE, count, signing_and_verifying
from .figures import Run, on_one_core, rate, take_turns
from .primitives import NAME as PRIMITIVES
from .primitives import alone
from .stages import PYTHON, Stage, engine_in_use, engines, ready

if TYPE_CHECKING:
    from collections.abc import Callable

ALONE: Final = "Watchword, one by one"
OURS: Final = f"Watchword, batch of {BATCH}"
HMAC: Final = "Standard Webhooks"
PYNACL: Final = "PyNaCl"
REPEATS: Final = 7
_TIMES: Final = 1000
_OTHERS: Final = "others"
_RATIOS: Final = (
    (f"verify_batch{BATCH}", OURS, "verify", "hmac_peer", HMAC),
    (f"verify_batch{BATCH}", OURS, "verify", "hmac_peer_without_json", f"{HMAC}, no JSON"),
    (f"sign_batch{BATCH}", OURS, "sign", "primitives", PRIMITIVES),
    (f"verify_batch{BATCH}", OURS, "verify", "primitives", PRIMITIVES),
    ("sign_one", ALONE, "sign", "pynacl", PYNACL),
    ("verify_one", ALONE, "verify", "pynacl", PYNACL),
)
"""Rows of ours, each beside a peer: PyNaCl is the quickest that signs each message by itself."""

_ALGORITHM: Final = "Ed25519"


class Peer(NamedTuple):
    """Signs the value, and verifies what ``sign`` returned; ``how`` names algorithm and kind."""

    name: str
    how: str
    sign: Callable[[], Any]
    verify: Callable[[], Any]
    sides: tuple[str, ...] = ("sign", "verify")


def measure(*, small: bool) -> dict[str, Any]:
    """Measure, and return what goes into the report."""
    cpu, repeats, own = on_one_core(), 1 if small else REPEATS, engine_in_use()
    with ExitStack() as stack:
        stages = {engine: stack.enter_context(Stage(_ours, small, engine=engine)) for engine in engines()}
        stages[_OTHERS] = stack.enter_context(Stage(_others, 5 if small else _TIMES))
        found = take_turns(ready(stages), repeats)
    rows = [
        {"name": name if at in {own, _OTHERS} else f"{name}, Python engine", "how": how, "side": side}
        | figure.to_json()
        | ({} if at == _OTHERS else {"engine": at})
        for (at, (name, how, side)), figure in found.items()
    ]
    figures = {(at, name, side): figure for (at, (name, _, side)), figure in found.items()}
    ratios = {
        f"{row}_over_{peer}{suffix}": figures[engine, ours, side].over(figures[_OTHERS, theirs, side])
        for suffix, engine in (("", own), ("_python", PYTHON))
        for row, ours, side, peer, theirs in _RATIOS
    }
    return {"peers": {"cpu": cpu, "repeats": repeats, "value_bytes": SIZE, "figures": rows}, "ratios": ratios}


def _ours(small: bool) -> dict[tuple[str, str, str], Run]:  # noqa: FBT001 - by position
    return {
        (name, "all nine checks", case.what): run
        for batch, name in ((1, ALONE), (BATCH, OURS))
        for case, run in signing_and_verifying(batch, SIZE, count(SIZE, small=small), ("sign", "verify")).items()
    }


def _others(times: int) -> dict[tuple[str, str, str], Run]:
    runs: dict[tuple[str, str, str], Run] = {
        (PRIMITIVES, "SHA-256, base64, Ed25519, and nothing else", side): run
        for side, run in alone(BATCH, SIZE, max(1, times // BATCH)).items()
    }
    for peer in (*_raw(), _joserfc(), _cwt(), *_webhooks(), _celery()):
        for side in peer.sides:
            runs[peer.name, peer.how, side] = _repeated(getattr(peer, side), times)
    return runs


def _repeated(work: Callable[[], Any], times: int) -> Run:
    def run() -> None:
        for _ in range(times):
            work()

    return lambda: rate(times, run)


def _raw() -> list[Peer]:
    data = cast.value(SIZE)
    key = Ed25519PrivateKey.generate()
    public, signature = key.public_key(), key.sign(data)
    other = NaClKey.generate()
    known, also = other.verify_key, other.sign(data).signature
    bare = "bare Ed25519"
    return [
        Peer("cryptography", bare, lambda: key.sign(data), lambda: public.verify(signature, data)),
        Peer(PYNACL, bare, lambda: other.sign(data), lambda: known.verify(data, also)),
    ]


def _joserfc() -> Peer:
    data, key = cast.value(SIZE), OKPKey.generate_key(_ALGORITHM)
    public = OKPKey.import_key(key.as_dict(private=False))

    def sign() -> str:
        token = jws.serialize_compact({"alg": _ALGORITHM}, data, key, algorithms=[_ALGORITHM])
        return jws.detach_content(token)

    token = sign()
    return Peer(
        "joserfc",
        "detached JWS",
        sign,
        lambda: jws.deserialize_compact(token, public, algorithms=[_ALGORITHM], payload=data),
    )


def _cwt() -> Peer:
    data, private = cast.value(SIZE), Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    key, known = COSEKey.from_pem(pem, kid="01"), COSEKey.from_pem(public, kid="01")
    sender, recipient = COSE.new(alg_auto_inclusion=True, kid_auto_inclusion=True), COSE.new()
    encoded = sender.encode(data, key)
    return Peer(
        "python-cwt",
        "COSE_Sign1",
        lambda: sender.encode(data, key),
        lambda: recipient.decode(encoded, known),
    )


def _webhooks() -> list[Peer]:
    """Return it as it is documented, and without its JSON parser."""
    data, webhook, now = cast.value(SIZE), Webhook(bytes(range(32))), datetime.now(tz=UTC)
    text = data.decode()
    headers = {
        "webhook-id": "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": webhook.sign("msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", now, text),
    }
    how = "HMAC-SHA-256"

    def sign() -> str:
        return webhook.sign("msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", now, text)

    return [
        Peer(HMAC, how, sign, lambda: webhook.verify(data, headers)),
        Peer(f"{HMAC}, no JSON", how, sign, lambda: webhook.verify(data, headers, json_parse=False), sides=("verify",)),
    ]


def _celery() -> Peer:
    """Set up its message signing, which takes RSA keys only, from files that it reads once."""
    app = Celery("bench", set_as_current=False)
    with TemporaryDirectory(prefix="watchword-bench-") as directory, warnings.catch_warnings():
        key, certificate = Path(directory, "key.pem"), Path(directory, "worker.pem")
        for path, content in zip((key, certificate), _rsa_certificate(), strict=True):
            path.write_bytes(content)
        app.conf.update(
            security_key=str(key),
            security_certificate=str(certificate),
            security_cert_store=str(certificate),
            security_digest="sha256",
            task_serializer="auth",
            accept_content=["auth"],
        )
        warnings.simplefilter("ignore")  # of its own making
        app.setup_security()
    task = json.loads(cast.value(SIZE))
    content_type, encoding, body = kombu.dumps(task, serializer="auth")
    return Peer(
        "Celery",
        "auth, RSA-PSS",
        lambda: kombu.dumps(task, serializer="auth"),
        lambda: kombu.loads(body, content_type, encoding, accept={content_type}),
    )


def _rsa_certificate() -> tuple[bytes, bytes]:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])
    now = datetime.now(tz=UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem, certificate
