"""A trust domain, and a stand-in for the SPIFFE Workload API: gRPC over a unix socket, as an agent of SPIRE serves it.

It streams FetchX509SVID: an answer at once, and another one at each change; it refuses who lacks the header that keeps
browsers out, and who has no identity, by the codes of the standard (SPIFFE Workload API, sections 4 to 6).
"""

import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from spiffe._proto import workload_pb2, workload_pb2_grpc

Private = ec.EllipticCurvePrivateKey | mldsa.MLDSA44PrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def p256() -> ec.EllipticCurvePrivateKey:
    """Return a new key of the kind that SPIRE gives its workloads."""
    return ec.generate_private_key(ec.SECP256R1())


def usage(**chosen: bool) -> x509.KeyUsage:
    """Return a key usage."""
    return x509.KeyUsage(**{name: chosen.get(name, False) for name in _USAGES})


def name_of(text: str) -> x509.Name:
    """Return a subject."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def _digest(key: Private) -> Any:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


class Svid:
    """A workload's certificate, those above it, and its private key."""

    def __init__(self, chain: Sequence[x509.Certificate], private: Private) -> None:
        self.chain = list(chain)
        self.private = private

    @property
    def der(self) -> list[bytes]:
        """The certificates."""
        return [one.public_bytes(Encoding.DER) for one in self.chain]


class Authority:
    """A certificate authority: a root, or one that another vouches for."""

    def __init__(
        self,
        domain: str = "acme.example",
        *,
        name: str = "root",
        above: "Authority | None" = None,
        private: Private | None = None,
        path_length: int | None = None,
        now: datetime | None = None,
        life: timedelta = timedelta(days=1),
        uri: str | None = "",
        is_authority: bool = True,
        constraints: x509.NameConstraints | None = None,
        signs_certificates: bool = True,
    ) -> None:
        self.domain, self.name, self.above = domain, name, above
        self.private = private or p256()
        now = now or datetime.now(UTC)
        signer = self.private if above is None else above.private
        builder = (
            x509.CertificateBuilder()
            .subject_name(name_of(name))
            .issuer_name(name_of(name if above is None else above.name))
            .public_key(self.private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + life)
            .add_extension(x509.BasicConstraints(is_authority, path_length if is_authority else None), critical=True)
            .add_extension(usage(key_cert_sign=signs_certificates, crl_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.private.public_key()), critical=False)
        )
        if uri is not None:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri or f"spiffe://{domain}")])
            builder = builder.add_extension(names, critical=False)
        if constraints is not None:
            builder = builder.add_extension(constraints, critical=True)
        if above is not None:
            identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(above.private.public_key())
            builder = builder.add_extension(identifier, critical=False)
        self.certificate = builder.sign(signer, _digest(signer))

    @property
    def pem(self) -> bytes:
        """Its certificate, as a bundle has it."""
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        path: str = "/planner",
        *,
        private: Private | None = None,
        begin: datetime | None = None,
        life: timedelta = timedelta(hours=1),
        uris: Sequence[str] | None = None,
        names: Sequence[x509.GeneralName] = (),
        subject: str = "workload",
        critical_names: bool = False,
        is_authority: bool = False,
        usages: x509.KeyUsage | None = None,
        purposes: Sequence[x509.ObjectIdentifier] = BOTH,
        more: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> Svid:
        """Return an SVID."""
        key = private or p256()
        begin = begin or datetime.now(UTC) - timedelta(seconds=10)
        uris = [f"spiffe://{self.domain}{path}"] if uris is None else uris
        builder = (
            x509.CertificateBuilder()
            .subject_name(name_of(subject))
            .issuer_name(name_of(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + life)
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(usages or usage(digital_signature=True, key_agreement=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.private.public_key()), False)  # noqa: FBT003 - cryptography's signature
        )
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
        alternatives = [*(x509.UniformResourceIdentifier(uri) for uri in uris), *names]
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=critical_names)
        for extension, critical in more:
            builder = builder.add_extension(extension, critical=critical)
        between = [] if self.above is None else [self.certificate]
        return Svid([builder.sign(self.private, _digest(self.private)), *between], key)


class WorkloadApi(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """The agent beside a workload; ``update`` pushes to all who listen. ``denied`` while it has no identity for them.

    ``asked`` counts streams. ``socket`` is what SPIFFE_ENDPOINT_SOCKET would name.
    """

    def __init__(self, directory: Path, svids: Sequence[Svid], authorities: Sequence[Authority]) -> None:
        self.path = directory / "workload.sock"
        self.socket = f"unix://{self.path}"
        self.asked = 0
        self.denied = False
        self._answer = self._response(svids, authorities, {})
        self._listening: list[queue.Queue[Any]] = []
        self._lock = threading.Lock()
        self._server: Any = None
        self.start()

    def start(self) -> None:
        """Serve."""
        self._server = grpc.server(ThreadPoolExecutor(8))
        workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self._server.add_insecure_port(f"unix:{self.path}")
        self._server.start()

    def stop(self) -> None:
        """Hang up on everybody, and listen no more."""
        with self._lock:
            for waiting in self._listening:
                waiting.put(None)
            self._listening.clear()
        self._server.stop(0).wait()
        self.path.unlink(missing_ok=True)

    def update(
        self,
        svids: Sequence[Svid],
        authorities: Sequence[Authority],
        federated: dict[str, Sequence[Authority]] | None = None,
    ) -> None:
        """Tell all who listen of new SVIDs and bundles."""
        self.send(self._response(svids, authorities, federated or {}))

    def send(self, answer: Any) -> None:
        """Tell all who listen this."""
        with self._lock:
            self._answer = answer
            for waiting in self._listening:
                waiting.put(answer)

    def hang_up(self, code: grpc.StatusCode | None = None) -> None:
        """End all streams: as an agent that stops, or with an error."""
        with self._lock:
            for waiting in self._listening:
                waiting.put(code)
            self._listening.clear()

    @staticmethod
    def _response(
        svids: Sequence[Svid], authorities: Sequence[Authority], federated: dict[str, Sequence[Authority]]
    ) -> Any:
        def joined(some: Sequence[Authority]) -> bytes:
            return b"".join(one.certificate.public_bytes(Encoding.DER) for one in some)

        return workload_pb2.X509SVIDResponse(
            svids=[
                workload_pb2.X509SVID(
                    spiffe_id="",
                    x509_svid=b"".join(svid.der),
                    x509_svid_key=svid.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
                    bundle=joined(authorities),
                )
                for svid in svids
            ],
            federated_bundles={f"spiffe://{name}": joined(some) for name, some in federated.items()},
        )

    def FetchX509SVID(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802 - the standard's name
        """See the standard."""
        del request
        if ("workload.spiffe.io", "true") not in [(one.key, one.value) for one in context.invocation_metadata()]:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        if self.denied:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        waiting: queue.Queue[Any] = queue.Queue()
        with self._lock:
            self.asked += 1
            self._listening.append(waiting)
            answer = self._answer
        while isinstance(answer, workload_pb2.X509SVIDResponse):
            yield answer
            answer = None
            while answer is None and context.is_active():
                try:
                    answer = waiting.get(timeout=0.2)
                except queue.Empty:
                    continue
                if answer is None:
                    return
        if isinstance(answer, grpc.StatusCode):
            context.abort(answer, "stopped")
