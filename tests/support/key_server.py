"""A key server on this machine, by HTTPS under a throwaway authority: it answers as instructed and notes requests."""

import datetime as dt
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

HOST = "keys.acme.test"
"""A name for which the server has a certificate, and no name server has an address."""

_DAY = dt.timedelta(days=1)


class Authority:
    """An authority that issues certificates; ``path`` is its own, in PEM."""

    def __init__(self, directory: Path, name: str = "throwaway") -> None:
        self._directory, self._key = directory, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._number = 0
        builder = _builder(self._name, self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.path = directory / f"{name}.pem"
        self.path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def server_side(self, *names: str) -> ssl.SSLContext:
        """Return what a server with a certificate for these names, or addresses, speaks."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
        builder = _builder(subject, self._name, key.public_key()).add_extension(alternatives, critical=False)
        self._number += 1
        path = self._directory / f"server-{self._number}.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(private + builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def _builder(subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=public)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(now - _DAY).not_valid_after(now + _DAY)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@dataclass
class Answer:
    """What the server says; ``instead`` does anything else with the connection."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/jwk-set+json"})
    instead: Callable[[BaseHTTPRequestHandler], None] | None = None


class KeyServer(ThreadingHTTPServer):
    """Answers each path as ``answers`` says, with 404 any other, and notes the requests in ``asked``."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.refuses = False
        self._context = context

    @property
    def port(self) -> int:
        """Return where it listens."""
        return int(self.server_address[1])

    def url(self, path: str = "/agents.jwks", *, host: str = HOST) -> str:
        """Return the address of a document."""
        return f"{'http' if self._context is None else 'https'}://{host}:{self.port}{path}"

    def count(self, path: str = "/agents.jwks") -> int:
        """Return how often a document was asked for."""
        return sum(asked == path for asked, _ in self.asked)

    def get_request(self) -> Any:
        """Take a connection; the handshake is done by the thread that answers, so that nobody can hold up others."""
        connection, address = super().get_request()
        if self._context is not None:
            connection = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Hang up on everybody while the server is down."""
        del request, client_address
        return not self.refuses

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up, or do not trust us."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: KeyServer

    def do_GET(self) -> None:
        self.server.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        answer = self.server.answers.get(self.path, Answer(status=404))
        if answer.instead is not None:
            answer.instead(self)
            return
        etag = answer.headers.get("ETag")
        same = etag is not None and self.headers.get("If-None-Match") == etag
        self.send_response(304 if same else answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if not same:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if not same:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Print nothing."""


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[KeyServer]:
    """Run a server in a thread."""
    with KeyServer(context) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def authority() -> Iterator[Authority]:
    """Make an authority whose files last as long as this."""
    with TemporaryDirectory(prefix="watchword-authority-") as directory:
        yield Authority(Path(directory))
