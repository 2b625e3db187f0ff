"""A proxy between an HTTP client and a server; tests make it hang up, stay silent, or change requests and answers."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from tests.support.patience import PATIENCE


class Asked(NamedTuple):
    """A request: its headers have names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """A response; None in its place hangs up."""

    status: int
    body: bytes


Forward = Callable[[Asked], Answer]
Meddle = Callable[[Asked, Forward], Answer | None]


class Meddler:
    """Listens on the loopback address; ``asked`` holds all requests."""

    def __init__(self, upstream: str) -> None:
        self.asked: list[Asked] = []
        self._upstream = upstream
        self._meddle: Meddle = lambda asked, forward: forward(asked)
        meddler = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = meddler.serve(Asked(self.command, self.path, headers, body))
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST = _serve  # noqa: N815 - the base's names

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def serve(self, asked: Asked) -> Answer | None:
        """Record a request, and answer it as instructed."""
        self.asked.append(asked)
        return self._meddle(asked, self._forward)

    @contextmanager
    def meddling(self, meddle: Meddle) -> Iterator[None]:
        """Answer so for the length of a block."""
        before, self._meddle = self._meddle, meddle
        try:
            yield
        finally:
            self._meddle = before

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Take requests, and answer none before the block ends."""
        over = threading.Event()

        def wait(asked: Asked, forward: Forward) -> Answer | None:
            del asked, forward
            over.wait(PATIENCE)
            return None

        with self.meddling(wait):
            try:
                yield
            finally:
                over.set()

    def stop(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()

    def _forward(self, asked: Asked) -> Answer:
        connection = http.client.HTTPConnection(self._upstream, timeout=PATIENCE)
        try:
            kept = {name: value for name, value in asked.headers.items() if name not in {"host", "connection"}}
            connection.request(asked.method, asked.path, asked.body or None, kept)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read())
        finally:
            connection.close()


def hang_up(asked: Asked, forward: Forward) -> Answer | None:
    """Be down: take no request to its end."""
    del asked, forward
    return None
