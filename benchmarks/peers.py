"""What one would use instead, on one CPU and the same 512 bytes of JSON, each as its documentation says.

Beside them stand the primitives that Watchword's own format needs, which is where the limit lies.

All but Watchword say only that whoever holds a key wrote these bytes (Standard Webhooks: recently). No peer checks
where a message was found, who may say it, or whether it was seen before. Celery and, unless it is told not to, Standard
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
from .primitives import alone

if TYPE_CHECKING:
    from collections.abc import Callable

OURS: Final = f"Watchword, batch of {BATCH}"
PRIMITIVES: Final = f"primitives of a batch of {BATCH}"
HMAC: Final = "Standard Webhooks"
REPEATS: Final = 7
_TIMES: Final = 1000
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
    cpu, times = on_one_core(), 5 if small else _TIMES
    with ExitStack() as stack:
        peers = [*_raw(), _joserfc(), _cwt(), *_webhooks(), _celery(stack)]
        runs: dict[tuple[str, str], Run] = {}
        for batch, name in ((1, "Watchword, one by one"), (BATCH, OURS)):
            for case, run in signing_and_verifying(batch, SIZE, count(SIZE, small=small)).items():
                if case.what in {"sign", "verify"}:
                    runs[name, case.what] = run
        for side, run in alone(BATCH, SIZE, 1 if small else times // BATCH).items():
            runs[PRIMITIVES, side] = run
        for peer in peers:
            for side in peer.sides:
                runs[peer.name, side] = _repeated(getattr(peer, side), times)
        figures = take_turns(runs, 1 if small else REPEATS)
    how = {peer.name: peer.how for peer in peers} | {PRIMITIVES: "SHA-256, base64, Ed25519, and nothing else"}
    rows = [
        {"name": name, "how": how.get(name, "all nine checks"), "side": side} | figure.to_json()
        for (name, side), figure in figures.items()
    ]
    ours = figures[OURS, "verify"]
    ratios = {
        "verify_batch64_over_hmac_peer": ours.over(figures[HMAC, "verify"]),
        "verify_batch64_over_hmac_peer_without_json": ours.over(figures[f"{HMAC}, no JSON", "verify"]),
    }
    report = {"cpu": cpu, "repeats": 1 if small else REPEATS, "value_bytes": SIZE, "figures": rows}
    return {"peers": report, "ratios": ratios}


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
        Peer("PyNaCl", bare, lambda: other.sign(data), lambda: known.verify(data, also)),
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


def _celery(stack: ExitStack) -> Peer:
    """Set up its message signing, which takes RSA keys only."""
    directory = Path(stack.enter_context(TemporaryDirectory(prefix="watchword-bench-")))
    key, certificate = _rsa_certificate()
    (directory / "key.pem").write_bytes(key)
    (directory / "worker.pem").write_bytes(certificate)
    app = Celery("bench", set_as_current=False)
    app.conf.update(
        security_key=str(directory / "key.pem"),
        security_certificate=str(directory / "worker.pem"),
        security_cert_store=str(directory / "worker.pem"),
        security_digest="sha256",
        task_serializer="auth",
        accept_content=["auth"],
    )
    with warnings.catch_warnings():
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
