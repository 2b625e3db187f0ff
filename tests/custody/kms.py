"""A KMS to test on: moto's for P-256; and for Ed25519, which moto lacks, a few lines that speak like it."""

import base64
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.brokers.broker import NotHereError
from tests.brokers.process import Process, free_port
from tests.custody.meddler import Answer, Asked
from watchword import SigningKey

ROOT = Path(__file__).parents[2]
ACCESS = {"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "aws-s3cret", "AWS_EC2_METADATA_DISABLED": "true"}
REGION = "eu-central-1"
ARN = f"arn:aws:kms:{REGION}:123456789012:key/"


class Kms:
    """A server; whatever SDK asks it finds its login in ``ACCESS``."""

    def __init__(self, directory: Path) -> None:
        port = free_port()
        self.upstream = f"127.0.0.1:{port}"
        self.address = f"http://{self.upstream}"
        command = [sys.executable, "-m", "tests.custody.moto_kms", "-H", "127.0.0.1", "-p", str(port)]
        self.process = Process(
            command, directory=directory, environment={"HOME": str(directory), "PYTHONPATH": str(ROOT)}
        )
        end = time.monotonic() + 90
        while not self._answers():
            if not self.process.running() or time.monotonic() > end:
                log = self.process.log()
                self.stop()
                raise NotHereError(log[-2000:])
            time.sleep(0.05)

    def make_key(self) -> str:
        """Make a P-256 key, and return its ARN."""
        told = self.ask("CreateKey", KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
        return str(told["KeyMetadata"]["Arn"])

    def ask(self, action: str, **members: object) -> dict[str, dict[str, object]]:
        """Ask for what a test needs."""
        login = f"AWS4-HMAC-SHA256 Credential=A/20260101/{REGION}/kms/aws4_request, SignedHeaders=host, Signature=0"
        headers = {
            "X-Amz-Target": f"TrentService.{action}",
            "Content-Type": "application/x-amz-json-1.1",
            "Authorization": login,
        }
        request = urllib.request.Request(self.address, json.dumps(members).encode(), headers)  # noqa: S310 - ours
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
            told: dict[str, dict[str, object]] = json.loads(answer.read() or b"{}")
        return told

    def stop(self) -> None:
        """End it."""
        self.process.stop()

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.address}/moto-api/data.json", timeout=5).close()  # noqa: S310 - ours
        except (urllib.error.URLError, OSError):
            return False
        return True


def ed25519_answer(asked: Asked, key: SigningKey) -> Answer:
    """Answer what KMS would for an Ed25519 key; what it would refuse is a 400."""
    said = json.loads(asked.body)
    who = {"KeyId": ARN + "ed25519", "KeySpec": "ECC_NIST_EDWARDS25519", "KeyUsage": "SIGN_VERIFY"}
    if asked.headers["x-amz-target"] == "TrentService.GetPublicKey":
        der = key.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return _json(200, who | {"PublicKey": _base64(der), "SigningAlgorithms": ["ED25519_SHA_512"]})
    message = base64.b64decode(said["Message"])
    if said["MessageType"] != "RAW" or said["SigningAlgorithm"] != "ED25519_SHA_512" or not 1 <= len(message) <= 4096:
        return _json(400, {"__type": "ValidationException"})
    signed = {"Signature": _base64(key.sign_now(message)), "SigningAlgorithm": "ED25519_SHA_512"}
    return _json(200, who | signed)


def _json(status: int, members: Mapping[str, object]) -> Answer:
    return Answer(status, json.dumps(members).encode())


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
